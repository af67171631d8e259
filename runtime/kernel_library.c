/* What lets Python call kernels that were compiled ahead of time; see runtime/ahead_of_time.py.

   Compiled once, on the machine that builds the library, together with a generated table of the
   kernels. Each becomes a builtin function: it checks its arguments as strictly as numba checks
   them against a signature, hands the kernel bare pointers and lengths, and lets the interpreter
   go meanwhile. Only the stable interface of CPython 3.11 and later is used (PEP 384, PEP 688's
   buffer half), declared here by hand so that no Python headers are needed. */
#include <stddef.h>
#include <stdint.h>

#define ARGUMENTS_MAX 64
#define WORDS_MAX (3 * ARGUMENTS_MAX)
#define EXPORTED __attribute__((visibility("default")))

typedef struct _object PyObject;
typedef intptr_t Py_ssize_t;
typedef struct {
    void *buf;
    PyObject *obj;
    Py_ssize_t len, itemsize;
    int readonly, ndim;
    char *format;
    Py_ssize_t *shape, *strides, *suboffsets;
    void *internal;
} Py_buffer;
typedef struct {
    const char *name;
    PyObject *(*call)(PyObject *, PyObject *const *, Py_ssize_t);
    int flags;
    const char *doc;
} PyMethodDef;
#define METH_FASTCALL 0x80
#define PyBUF_WRITABLE 0x1
#define PyBUF_FORMAT 0x4
#define PyBUF_C_CONTIGUOUS 0x38 /* with shape and strides */

extern PyObject *PyExc_TypeError, *PyExc_RuntimeError;
extern int PyObject_GetBuffer(PyObject *, Py_buffer *, int);
extern void PyBuffer_Release(Py_buffer *);
extern PyObject *PyNumber_Index(PyObject *);
extern long long PyLong_AsLongLong(PyObject *);
extern unsigned long long PyLong_AsUnsignedLongLong(PyObject *);
extern PyObject *PyLong_FromLongLong(long long), *PyLong_FromVoidPtr(void *);
extern void *PyLong_AsVoidPtr(PyObject *);
extern double PyFloat_AsDouble(PyObject *);
extern PyObject *PyErr_Occurred(void), *PyErr_Format(PyObject *, const char *, ...);
extern void PyErr_Clear(void), Py_DecRef(PyObject *);
extern void *PyEval_SaveThread(void);
extern void PyEval_RestoreThread(void *);
extern int PyGILState_Ensure(void);
extern void PyGILState_Release(int);
extern PyObject *PyCFunction_NewEx(PyMethodDef *, PyObject *, PyObject *);

typedef struct {
    const char *name, *type; /* as the signature has it: "const u1[::1]" */
    char kind;               /* i, u, f: what its bits mean */
    unsigned char bytes, dimensions, writable;
} Parameter;
typedef struct {
    const char *name;
    const Parameter *parameters;
    int count;
    int64_t (*run)(uint64_t *);
} Kernel;

#include "kernel_table.h"

/* Kernels raise nothing, but a division keeps numba's path for a zero divisor. It comes through
   here first, and becomes one RuntimeError instead of an exception built from pickled parts. */
static _Thread_local int raised;
void numba_gil_ensure(int *state) { raised = 1; *state = PyGILState_Ensure(); }
void numba_gil_release(int *state) { PyGILState_Release(*state); }
void PyErr_WriteUnraisable(PyObject *where) { (void)where; PyErr_Clear(); }
void *numba_unpickle(const char *data, int size, const char *hash)
{ (void)data, (void)size, (void)hash; return NULL; }
void *numba_runtime_build_excinfo_struct(void *a, void *b) { (void)a, (void)b; return NULL; }
void numba_do_raise(void *exception) { (void)exception; }
/* Never called: a kernel allocates nothing, and its arrays own no memory. */
void NRT_Free(void *place) { (void)place; __builtin_trap(); }
void NRT_MemInfo_call_dtor(void *place) { (void)place; __builtin_trap(); }

static int wrong(const Kernel *kernel, int i, const char *why)
{
    const Parameter *wanted = &kernel->parameters[i];
    PyErr_Clear();
    PyErr_Format(PyExc_TypeError, "%s: argument %d, %s, must be %s: %s", kernel->name, i + 1,
                 wanted->name, wanted->type, why);
    return 0;
}

static int array(const Kernel *kernel, int i, PyObject *given, Py_buffer *view, uint64_t **word)
{
    const Parameter *wanted = &kernel->parameters[i];
    int flags = PyBUF_FORMAT | PyBUF_C_CONTIGUOUS | (wanted->writable ? PyBUF_WRITABLE : 0);
    if (PyObject_GetBuffer(given, view, flags) != 0) {
        view->obj = NULL;
        return wrong(kernel, i, "got no array, one that is not contiguous, or a read-only one");
    }
    const char *format = view->format ? view->format : "B";
    int c = format[1] == '\0' ? format[0] : 0; /* a byte order before it: not as this machine has it */
    char kind = c == 'b' || c == 'h' || c == 'i' || c == 'l' || c == 'q'   ? 'i'
                : c == 'B' || c == 'H' || c == 'I' || c == 'L' || c == 'Q' ? 'u'
                : c == 'f' || c == 'd'                                     ? 'f'
                                                                           : '?';
    if (kind != wanted->kind || view->itemsize != wanted->bytes)
        return wrong(kernel, i, "got another dtype");
    if (view->ndim != wanted->dimensions)
        return wrong(kernel, i, "got another number of dimensions");
    if ((uintptr_t)view->buf % wanted->bytes)
        return wrong(kernel, i, "got an array that is not aligned");
    *(*word)++ = (uint64_t)(uintptr_t)view->buf;
    for (int d = 0; d < view->ndim; d++) *(*word)++ = (uint64_t)view->shape[d];
    return 1;
}

static int number(const Kernel *kernel, int i, PyObject *given, uint64_t **word)
{
    const Parameter *wanted = &kernel->parameters[i];
    if (wanted->kind == 'f') {
        union { double value; uint64_t bits; } as = {PyFloat_AsDouble(given)};
        *(*word)++ = as.bits;
        return as.value != -1.0 || !PyErr_Occurred() || wrong(kernel, i, "got no number");
    }
    PyObject *whole = PyNumber_Index(given);
    if (whole == NULL) return wrong(kernel, i, "got no whole number");
    long long value = wanted->kind == 'u' ? (long long)PyLong_AsUnsignedLongLong(whole)
                                          : PyLong_AsLongLong(whole);
    Py_DecRef(whole);
    if (value == -1 && PyErr_Occurred()) return wrong(kernel, i, "got a number out of range");
    int bits = 8 * wanted->bytes;
    if (bits < 64 && (wanted->kind == 'u' ? value >> bits != 0
                                          : value >> (bits - 1) != 0 && value >> (bits - 1) != -1))
        return wrong(kernel, i, "got a number out of range");
    *(*word)++ = (uint64_t)value;
    return 1;
}

static PyObject *call(PyObject *self, PyObject *const *given, Py_ssize_t count)
{
    const Kernel *kernel = PyLong_AsVoidPtr(self);
    Py_buffer views[ARGUMENTS_MAX];
    uint64_t words[WORDS_MAX], *word = words;
    int i = 0, fine = count == kernel->count;
    if (!fine)
        PyErr_Format(PyExc_TypeError, "%s takes %d arguments, got %zd", kernel->name, kernel->count,
                     count);
    for (; fine && i < kernel->count; i++) {
        views[i].obj = NULL;
        fine = kernel->parameters[i].dimensions ? array(kernel, i, given[i], &views[i], &word)
                                                : number(kernel, i, given[i], &word);
    }
    int64_t answer = 0;
    if (fine) {
        raised = 0;
        void *thread = PyEval_SaveThread();
        answer = kernel->run(words);
        PyEval_RestoreThread(thread);
    }
    while (i-- > 0)
        if (views[i].obj) PyBuffer_Release(&views[i]);
    if (fine && raised) {
        PyErr_Format(PyExc_RuntimeError, "%s divided by zero", kernel->name);
        fine = 0;
    }
    return fine ? PyLong_FromLongLong(answer) : NULL;
}

/* Return what this library is, as JSON. */
EXPORTED const char *tocsin_description(void) { return DESCRIPTION; }

/* Return the kernel of that place in the table as a builtin function. */
EXPORTED PyObject *tocsin_function(int index)
{
    static PyMethodDef methods[KERNELS];
    if (index < 0 || index >= KERNELS)
        return PyErr_Format(PyExc_RuntimeError, "there is no kernel %d in this library", index);
    methods[index] = (PyMethodDef){KERNEL[index].name, call, METH_FASTCALL, NULL};
    PyObject *self = PyLong_FromVoidPtr((void *)&KERNEL[index]);
    PyObject *made = self ? PyCFunction_NewEx(&methods[index], self, NULL) : NULL;
    if (self) Py_DecRef(self);
    return made;
}
