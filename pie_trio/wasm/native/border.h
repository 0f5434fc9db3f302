/* Values between wasmtime and Python: what both halves of the border know.
 *
 * Python's own headers are not needed to build this: the few functions of its stable interface that
 * are used are declared here, and found in the process that loads the library. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* ---- Python ---- */

typedef struct _object PyObject;
typedef ssize_t Py_ssize_t;

extern PyObject _Py_NoneStruct;
extern PyObject *PyExc_OverflowError, *PyExc_ValueError, *PyExc_KeyError;
int PyGILState_Ensure(void);
void PyGILState_Release(int);
void Py_IncRef(PyObject *);
void Py_DecRef(PyObject *);
void PyErr_Fetch(PyObject **, PyObject **, PyObject **);
void PyErr_NormalizeException(PyObject **, PyObject **, PyObject **);
int PyException_SetTraceback(PyObject *, PyObject *);
PyObject *PyErr_Occurred(void);
void PyErr_SetString(PyObject *, const char *);
PyObject *PyObject_GetAttr(PyObject *, PyObject *);
int PyObject_SetAttr(PyObject *, PyObject *, PyObject *);
int PyObject_IsTrue(PyObject *);
int PyObject_IsInstance(PyObject *, PyObject *);
PyObject *PyObject_Vectorcall(PyObject *, PyObject *const *, size_t, PyObject *);
PyObject *PyObject_VectorcallMethod(PyObject *, PyObject *const *, size_t, PyObject *);
int PyIter_Send(PyObject *, PyObject *, PyObject **);
PyObject *PyDict_GetItemWithError(PyObject *, PyObject *);
PyObject *PyUnicode_InternFromString(const char *);
PyObject *PyUnicode_DecodeUTF8(const char *, Py_ssize_t, const char *);
const char *PyUnicode_AsUTF8AndSize(PyObject *, Py_ssize_t *);
PyObject *PyBytes_FromStringAndSize(const char *, Py_ssize_t);
PyObject *PyBytes_FromObject(PyObject *);
int PyBytes_AsStringAndSize(PyObject *, char **, Py_ssize_t *);
PyObject *PyBool_FromLong(long);
PyObject *PyLong_FromVoidPtr(void *);
PyObject *PyLong_FromLongLong(long long);
PyObject *PyLong_FromUnsignedLongLong(unsigned long long);
long long PyLong_AsLongLong(PyObject *);
unsigned long long PyLong_AsUnsignedLongLong(PyObject *);
PyObject *PyFloat_FromDouble(double);
double PyFloat_AsDouble(PyObject *);
PyObject *PyTuple_New(Py_ssize_t);
int PyTuple_SetItem(PyObject *, Py_ssize_t, PyObject *);
PyObject *PyList_New(Py_ssize_t);
int PyList_SetItem(PyObject *, Py_ssize_t, PyObject *);
PyObject *PyList_GetItem(PyObject *, Py_ssize_t);
Py_ssize_t PyList_Size(PyObject *);
PyObject *PySequence_List(PyObject *);

/* ---- wasmtime ---- */

/* One value as it crosses: a kind, then up to three words. */
typedef struct {
  uint8_t kind;
  union {
    uint8_t truth;
    int8_t s8; uint8_t u8; int16_t s16; uint16_t u16; int32_t s32; uint32_t u32;
    int64_t s64; uint64_t u64; float f32; double f64;
    struct { uint64_t count; void *items; } many; /* a string, a list, a tuple */
    struct { uint8_t is_ok; void *box; } result;
    void *box; /* of an option; a resource */
    uint64_t words[3];
  };
} Value;

enum {
  BOOL, S8, U8, S16, U16, S32, U32, S64, U64, F32, F64, CHAR,
  STRING, LIST, RECORD, TUPLE, VARIANT, ENUM, OPTION, RESULT, FLAGS, RESOURCE,
  BORROW, NOTHING /* ours: a resource that is lent; no value */
};

/* What Python hands over when it loads the library, in this order. */
typedef struct {
  void (*bytes_new)(void *vector, size_t size, const char *data);
  void (*list_new)(void *vector, size_t count);
  void *(*value_new)(const Value *value);
  void (*value_delete)(Value *value);
  void *(*any_to_host)(void *context, void *any, void **host);
  void *(*host_to_any)(void *context, void *host, void **any);
  void *(*host_new)(bool owned, uint32_t number, uint32_t type);
  uint32_t (*host_number)(void *host);
  void (*host_delete)(void *host);
  void *(*error_new)(const char *message);
  bool (*poll)(void *future);
  void (*epoch_increment)(void *engine);
  void (*epoch_deadline)(void *context, uint64_t ticks);
  PyObject *check;     /* raises what wasmtime reported */
  PyObject *error_arm; /* the class of the error arm of a result */
} World;

extern World world;

/* A type and those in it, one after the other: `nodes` counts all of them. */
typedef struct { uint32_t kind, number, nodes; } Type;

/* One host call. */
typedef struct {
  void *context;
  PyObject *handles;
  long long allowance; /* bytes that it may still carry; negative: not asked for yet */
} Call;

PyObject *lift(Call *call, const Type *type, const Value *value);
bool lower(Call *call, const Type *type, PyObject *value, Value *result);

/* The names of attributes, made once. */
#define NAMES(X)                                                                           \
  X(host) X(handles) X(continuation) X(may_go_on) X(_objects) X(take) X(put) X(drop) X(spend) \
  X(allowance) X(call_bytes) X(payload) X(raised)
#define DECLARE(name) extern PyObject *name_##name;
NAMES(DECLARE)
#undef DECLARE
