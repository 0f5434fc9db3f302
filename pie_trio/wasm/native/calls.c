/* What wasmtime calls when a guest calls its host, and what puts an answer where the guest finds it.
 *
 * It runs on the guest's own stack, with Python's lock taken for as long as it lasts. An exception
 * never crosses into wasmtime: it is kept for the guest's task, and the guest traps. */
#include <string.h>

#include "border.h"

#define PARAMETERS_MAX 16
#define CONTINUATION_WORDS 3

typedef struct {
  const Type *parameters, *result; /* no result: none */
  uint64_t count;                  /* of the parameters */
  PyObject *function, *borders, *suspend;
} Function;

typedef struct { uint64_t is_ready, flag, finalizer; } Continuation;

World world;
#define DEFINE(name) PyObject *name_##name;
NAMES(DEFINE)
#undef DEFINE

__attribute__((visibility("default"))) uint64_t pie_open(const World *given, uint64_t parameters) {
  world = *given;
#define MAKE(name) name_##name = PyUnicode_InternFromString(#name);
  NAMES(MAKE)
#undef MAKE
  return parameters == PARAMETERS_MAX ? sizeof(Function) : 0;
}

/* The border of the guest that lives in this store; borrowed, as it outlives the call. */
static PyObject *border_of(PyObject *borders, void *context) {
  PyObject *address = PyLong_FromVoidPtr(context);
  PyObject *border = PyDict_GetItemWithError(borders, address);
  Py_DecRef(address);
  if (!border) __builtin_trap(); /* a guest without a border would run unguarded */
  return border;
}

static void *keep_exception(PyObject *border) {
  PyObject *kind, *error, *trace;
  PyErr_Fetch(&kind, &error, &trace);
  PyErr_NormalizeException(&kind, &error, &trace);
  if (trace) PyException_SetTraceback(error, trace);
  PyObject_SetAttr(border, name_raised, error);
  Py_DecRef(kind);
  Py_DecRef(error);
  if (trace) Py_DecRef(trace);
  return world.error_new("the host refused");
}

static bool begin(Call *call, PyObject *border, void *context) {
  *call = (Call){context, PyObject_GetAttr(border, name_handles), -1};
  return call->handles;
}

static void end(Call *call) { Py_DecRef(call->handles); }

/* Calls the host's function with the values of the guest. */
static PyObject *ask_host(Function *function, Call *call, PyObject *border, const Value *values) {
  PyObject *arguments[PARAMETERS_MAX + 1], *answer = NULL;
  const Type *type = function->parameters;
  uint64_t held = 0;
  arguments[0] = PyObject_GetAttr(border, name_host);
  if (!arguments[0]) return NULL;
  for (held = 1; held <= function->count; held++, type += type->nodes) {
    arguments[held] = lift(call, type, values + held - 1);
    if (!arguments[held]) break;
  }
  if (held > function->count)
    answer = PyObject_Vectorcall(function->function, arguments, held, NULL);
  while (held--) Py_DecRef(arguments[held]);
  return answer;
}

/* The answer has an allowance of its own. Takes it over. */
static bool give(const Type *type, Call *call, PyObject *answer, Value *result) {
  call->allowance = -1;
  bool done = !type || lower(call, type, answer, result);
  Py_DecRef(answer);
  return done;
}

/* A function that answers at once. */
__attribute__((visibility("default"))) void *pie_call(void *data, void *context, void *kind,
                                                      const Value *values, size_t count,
                                                      Value *results, size_t wanted) {
  (void)kind, (void)count, (void)wanted;
  int lock = PyGILState_Ensure();
  Function *function = data;
  PyObject *border = border_of(function->borders, context);
  Call call;
  bool done = begin(&call, border, context);
  if (done) {
    PyObject *answer = ask_host(function, &call, border, values);
    done = answer && give(function->result, &call, answer, results);
    end(&call);
  }
  void *error = done ? NULL : keep_exception(border);
  PyGILState_Release(lock);
  return error;
}

static bool may_go_on(PyObject *border) {
  PyObject *question = PyObject_GetAttr(border, name_may_go_on);
  PyObject *answer = question ? PyObject_Vectorcall(question, NULL, 0, NULL) : NULL;
  bool yes = answer && PyObject_IsTrue(answer) == 1;
  if (question) Py_DecRef(question);
  if (answer) Py_DecRef(answer);
  return yes;
}

/* Has the guest's task do the rest. `coroutine` is none when it has ended with `value`. */
static bool suspend(Function *function, PyObject *border, PyObject *coroutine, PyObject *value,
                    Value *results) {
  PyObject *place = PyLong_FromVoidPtr(results);
  PyObject *arguments[] = {border, coroutine, value, place};
  PyObject *noted = PyObject_Vectorcall(function->suspend, arguments, 4, NULL);
  Py_DecRef(place);
  Py_DecRef(value);
  if (!noted) return false;
  Py_DecRef(noted);
  return true;
}

/* Takes the first step of a coroutine: most need no other. */
static bool take_step(Function *function, Call *call, PyObject *border, PyObject *coroutine,
                      Value *results, char *is_ready) {
  PyObject *value = NULL;
  int moved = PyIter_Send(coroutine, &_Py_NoneStruct, &value);
  if (moved < 0) return false;
  if (!moved && may_go_on(border)) {
    *is_ready = 1;
    return give(function->result, call, value, results);
  }
  if (PyErr_Occurred()) {
    Py_DecRef(value);
    return false;
  }
  *is_ready = 0;
  return suspend(function, border, moved ? coroutine : &_Py_NoneStruct, value, results);
}

/* A function that may wait. */
__attribute__((visibility("default"))) void pie_call_async(
    void *data, void *context, void *kind, const Value *values, size_t count, Value *results,
    size_t wanted, void **error, Continuation *continuation) {
  (void)kind, (void)count, (void)wanted;
  int lock = PyGILState_Ensure();
  Function *function = data;
  PyObject *border = border_of(function->borders, context);
  /* A callback that ends without a continuation aborts the process: it comes first. */
  PyObject *prepared = PyObject_GetAttr(border, name_continuation);
  char *bytes;
  Py_ssize_t size;
  if (!prepared || PyBytes_AsStringAndSize(prepared, &bytes, &size) < 0) __builtin_trap();
  memcpy(continuation, bytes, sizeof *continuation);
  Py_DecRef(prepared);
  Call call;
  bool done = begin(&call, border, context);
  if (done) {
    /* The values die when this returns; the room for the result does not. */
    PyObject *coroutine = ask_host(function, &call, border, values);
    done = coroutine && take_step(function, &call, border, coroutine, results,
                                  (char *)continuation->flag);
    if (coroutine) Py_DecRef(coroutine);
    end(&call);
  }
  if (!done) *error = keep_exception(border);
  PyGILState_Release(lock);
}

/* The guest dropped a resource. */
__attribute__((visibility("default"))) void *pie_drop(void *data, void *context, uint32_t number) {
  int lock = PyGILState_Ensure();
  void *error = NULL;
  PyObject *border = border_of(data, context), *handles = PyObject_GetAttr(border, name_handles);
  PyObject *arguments[] = {handles, PyLong_FromLongLong(number)};
  PyObject *dropped = handles ? PyObject_VectorcallMethod(name_drop, arguments, 2, NULL) : NULL;
  if (!dropped) error = keep_exception(border);
  if (dropped) Py_DecRef(dropped);
  Py_DecRef(arguments[1]);
  if (handles) Py_DecRef(handles);
  PyGILState_Release(lock);
  return error;
}

/* Called by Python, which holds its lock: false, and an exception, if the answer is a wrong one. */
__attribute__((visibility("default"))) int pie_answer(const Type *type, PyObject *border,
                                                      void *context, Value *results,
                                                      PyObject *answer) {
  Call call;
  if (!begin(&call, border, context)) return 0;
  Py_IncRef(answer);
  bool done = give(type, &call, answer, results);
  end(&call);
  return done;
}
