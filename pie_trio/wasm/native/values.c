/* Lifts what wasmtime owns into Python's objects, and lowers those into what wasmtime will own.
 *
 * Nothing is copied before its size is known to be allowed. A failure leaves a Python exception. */
#include <float.h>
#include <math.h>
#include <string.h>

#include "border.h"

#define OFFSET (1ul << (8 * sizeof(size_t) - 1)) /* lets a method use the place of its object */

static PyObject *ask(PyObject *object, PyObject *method, PyObject *argument) {
  PyObject *arguments[] = {object, argument};
  return PyObject_VectorcallMethod(method, arguments, 2 | OFFSET, NULL);
}

static bool spend(Call *call, uint64_t size) {
  if (call->allowance < 0) {
    PyObject *most = PyObject_GetAttr(call->handles, name_call_bytes);
    if (!most) return false;
    call->allowance = PyLong_AsLongLong(most);
    Py_DecRef(most);
    if (call->allowance < 0) return false;
  }
  if (size <= (uint64_t)call->allowance) {
    call->allowance -= size;
    return true;
  }
  /* The refusal is worded in one place. */
  PyObject *none = PyLong_FromLongLong(0), *wanted = PyLong_FromUnsignedLongLong(size);
  PyObject_SetAttr(call->handles, name_allowance, none);
  PyObject *refused = ask(call->handles, name_spend, wanted);
  Py_DecRef(none);
  Py_DecRef(wanted);
  if (refused) Py_DecRef(refused);
  return false;
}

static bool check(void *error) {
  if (!error) return true;
  PyObject *address = PyLong_FromVoidPtr(error);
  PyObject *raised = PyObject_Vectorcall(world.check, &address, 1, NULL);
  Py_DecRef(address);
  if (raised) Py_DecRef(raised);
  return false;
}

/* ---- lift ---- */

static PyObject *lift_number(uint32_t kind, const Value *value) {
  switch (kind) {
    case BOOL: return PyBool_FromLong(value->truth);
    case S8: return PyLong_FromLongLong(value->s8);
    case U8: return PyLong_FromLongLong(value->u8);
    case S16: return PyLong_FromLongLong(value->s16);
    case U16: return PyLong_FromLongLong(value->u16);
    case S32: return PyLong_FromLongLong(value->s32);
    case U32: return PyLong_FromLongLong(value->u32);
    case S64: return PyLong_FromLongLong(value->s64);
    case U64: return PyLong_FromUnsignedLongLong(value->u64);
    case F32: return PyFloat_FromDouble(value->f32);
    default: return PyFloat_FromDouble(value->f64);
  }
}

static PyObject *lift_bytes(const Value *items, uint64_t count) {
  PyObject *lifted = PyBytes_FromStringAndSize(NULL, count);
  char *bytes;
  Py_ssize_t size;
  if (!lifted || PyBytes_AsStringAndSize(lifted, &bytes, &size) < 0) return NULL;
  for (uint64_t i = 0; i < count; i++) bytes[i] = items[i].u8;
  return lifted;
}

static PyObject *lift_list(Call *call, const Type *type, const Value *value) {
  uint64_t count = value->many.count;
  const Value *items = value->many.items;
  if (!spend(call, count * sizeof(Value))) return NULL;
  if (type[1].kind == U8) return lift_bytes(items, count);
  PyObject *lifted = PyList_New(count);
  for (uint64_t i = 0; lifted && i < count; i++) {
    PyObject *item = lift(call, type + 1, items + i);
    if (!item) {
      Py_DecRef(lifted);
      return NULL;
    }
    PyList_SetItem(lifted, i, item);
  }
  return lifted;
}

static PyObject *lift_tuple(Call *call, const Type *type, const Value *value) {
  const Value *items = value->many.items;
  PyObject *lifted = PyTuple_New(type->number);
  const Type *part = type + 1;
  for (uint32_t i = 0; lifted && i < type->number; i++, part += part->nodes) {
    PyObject *item = lift(call, part, items + i);
    if (!item) {
      Py_DecRef(lifted);
      return NULL;
    }
    PyTuple_SetItem(lifted, i, item);
  }
  return lifted;
}

/* What `HandleTable.look_up` does. */
static PyObject *look_up(Call *call, PyObject *number) {
  PyObject *objects = PyObject_GetAttr(call->handles, name__objects);
  PyObject *found = objects ? PyDict_GetItemWithError(objects, number) : NULL;
  if (found) Py_IncRef(found);
  else if (objects && !PyErr_Occurred()) PyErr_SetString(PyExc_KeyError, "no such resource");
  if (objects) Py_DecRef(objects);
  return found;
}

static PyObject *lift_resource(Call *call, const Type *type, const Value *value) {
  void *host;
  if (!check(world.any_to_host(call->context, value->box, &host))) return NULL;
  PyObject *number = PyLong_FromLongLong(world.host_number(host));
  world.host_delete(host);
  PyObject *found = type->kind == BORROW ? look_up(call, number)
                                         : ask(call->handles, name_take, number);
  Py_DecRef(number);
  return found;
}

static PyObject *lift_box(Call *call, const Type *type, const void *box) {
  if (box) return lift(call, type, box);
  Py_IncRef(&_Py_NoneStruct);
  return &_Py_NoneStruct;
}

static PyObject *lift_result(Call *call, const Type *type, const Value *value) {
  bool is_ok = value->result.is_ok;
  const Type *part = is_ok ? type + 1 : type + 1 + type[1].nodes;
  PyObject *payload = lift_box(call, part, part->kind == NOTHING ? NULL : value->result.box);
  if (is_ok || !payload) return payload;
  PyObject *error = PyObject_Vectorcall(world.error_arm, &payload, 1, NULL);
  Py_DecRef(payload);
  return error;
}

PyObject *lift(Call *call, const Type *type, const Value *value) {
  switch (type->kind) {
    case STRING:
    case ENUM:
      if (!spend(call, value->many.count)) return NULL;
      return PyUnicode_DecodeUTF8(value->many.items, value->many.count, NULL);
    case LIST: return lift_list(call, type, value);
    case TUPLE: return lift_tuple(call, type, value);
    case OPTION: return lift_box(call, type + 1, value->box);
    case RESULT: return lift_result(call, type, value);
    case RESOURCE:
    case BORROW: return lift_resource(call, type, value);
    default: return lift_number(type->kind, value);
  }
}

/* ---- lower ---- */

static bool out_of_range(void) {
  PyErr_SetString(PyExc_OverflowError, "a number does not fit its type");
  return false;
}

static bool lower_signed(PyObject *value, long long least, Value *result) {
  long long number = PyLong_AsLongLong(value);
  if (number == -1 && PyErr_Occurred()) return false;
  if (number < least || number > -(least + 1)) return out_of_range();
  result->s64 = number;
  return true;
}

static bool lower_unsigned(PyObject *value, unsigned long long most, Value *result) {
  unsigned long long number = PyLong_AsUnsignedLongLong(value);
  if (number == (unsigned long long)-1 && PyErr_Occurred()) return false;
  if (number > most) return out_of_range();
  result->u64 = number;
  return true;
}

static bool lower_number(uint32_t kind, PyObject *value, Value *result) {
  double number;
  switch (kind) {
    case BOOL: {
      int truth = PyObject_IsTrue(value);
      result->truth = truth > 0;
      return truth >= 0;
    }
    case S8: return lower_signed(value, INT8_MIN, result);
    case U8: return lower_unsigned(value, UINT8_MAX, result);
    case S16: return lower_signed(value, INT16_MIN, result);
    case U16: return lower_unsigned(value, UINT16_MAX, result);
    case S32: return lower_signed(value, INT32_MIN, result);
    case U32: return lower_unsigned(value, UINT32_MAX, result);
    case S64: return lower_signed(value, INT64_MIN, result);
    case U64: return lower_unsigned(value, UINT64_MAX, result);
  }
  number = PyFloat_AsDouble(value);
  if (number == -1 && PyErr_Occurred()) return false;
  if (kind == F64) {
    result->f64 = number;
    return true;
  }
  result->f32 = (float)number;
  return isfinite(result->f32) || !isfinite(number) || out_of_range();
}

static bool lower_text(Call *call, PyObject *value, Value *result) {
  Py_ssize_t size;
  const char *text = PyUnicode_AsUTF8AndSize(value, &size);
  if (!text || !spend(call, size)) return false;
  world.bytes_new(&result->many, size, text);
  return true;
}

/* Room for values that may be deleted at any time: false, until there is something else. */
static Value *new_values(uint64_t count, Value *result) {
  world.list_new(&result->many, count);
  if (count) memset(result->many.items, 0, count * sizeof(Value));
  return result->many.items;
}

static bool lower_bytes(Call *call, PyObject *value, Value *result) {
  char *bytes;
  Py_ssize_t count;
  PyObject *held = PyBytes_FromObject(value);
  bool done = held && !PyBytes_AsStringAndSize(held, &bytes, &count) &&
              spend(call, count * sizeof(Value));
  Value *items = done ? new_values(count, result) : NULL;
  for (Py_ssize_t i = 0; done && i < count; i++) items[i] = (Value){.kind = U8, .u8 = bytes[i]};
  if (held) Py_DecRef(held);
  return done;
}

static bool lower_list(Call *call, const Type *type, PyObject *value, Value *result) {
  if (type[1].kind == U8) return lower_bytes(call, value, result);
  PyObject *held = PySequence_List(value);
  Py_ssize_t count = held ? PyList_Size(held) : 0;
  bool done = held && spend(call, count * sizeof(Value));
  Value *items = done ? new_values(count, result) : NULL;
  for (Py_ssize_t i = 0; done && i < count; i++)
    done = lower(call, type + 1, PyList_GetItem(held, i), items + i);
  if (held) Py_DecRef(held);
  if (!done && items) world.value_delete(result);
  return done;
}

static bool lower_tuple(Call *call, const Type *type, PyObject *value, Value *result) {
  PyObject *held = PySequence_List(value);
  bool done = held && PyList_Size(held) == type->number;
  if (held && !done) PyErr_SetString(PyExc_ValueError, "a tuple has another number of parts");
  Value *items = done ? new_values(type->number, result) : NULL;
  const Type *part = type + 1;
  for (uint32_t i = 0; done && i < type->number; i++, part += part->nodes)
    done = lower(call, part, PyList_GetItem(held, i), items + i);
  if (held) Py_DecRef(held);
  if (!done && items) world.value_delete(result);
  return done;
}

static bool lower_box(Call *call, const Type *type, PyObject *value, void **box) {
  Value inner;
  if (!lower(call, type, value, &inner)) return false;
  *box = world.value_new(&inner);
  return true;
}

static bool lower_result(Call *call, const Type *type, PyObject *value, Value *result) {
  int is_error = PyObject_IsInstance(value, world.error_arm);
  if (is_error < 0) return false;
  const Type *part = is_error ? type + 1 + type[1].nodes : type + 1;
  result->result.is_ok = !is_error;
  result->result.box = NULL;
  if (part->kind == NOTHING) return true;
  if (!is_error) return lower_box(call, part, value, &result->result.box);
  PyObject *payload = PyObject_GetAttr(value, name_payload);
  bool done = payload && lower_box(call, part, payload, &result->result.box);
  if (payload) Py_DecRef(payload);
  return done;
}

static bool lower_own(Call *call, const Type *type, PyObject *value, Value *result) {
  PyObject *number = ask(call->handles, name_put, value);
  if (!number) return false;
  void *host = world.host_new(true, PyLong_AsUnsignedLongLong(number), type->number);
  Py_DecRef(number);
  void *error = world.host_to_any(call->context, host, &result->box);
  world.host_delete(host);
  return check(error);
}

bool lower(Call *call, const Type *type, PyObject *value, Value *result) {
  memset(result, 0, sizeof *result);
  result->kind = type->kind;
  bool done;
  switch (type->kind) {
    case STRING:
    case ENUM: done = lower_text(call, value, result); break;
    case LIST: done = lower_list(call, type, value, result); break;
    case TUPLE: done = lower_tuple(call, type, value, result); break;
    case OPTION:
      done = value == &_Py_NoneStruct || lower_box(call, type + 1, value, &result->box);
      break;
    case RESULT: done = lower_result(call, type, value, result); break;
    case RESOURCE: done = lower_own(call, type, value, result); break;
    default: done = lower_number(type->kind, value, result);
  }
  if (!done) memset(result, 0, sizeof *result);
  return done;
}
