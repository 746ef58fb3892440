# Writes what snakepit_mp/values/codec.py specifies: the same bytes, the same errors.

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_GET_SIZE
from cpython.dict cimport PyDict_CheckExact, PyDict_Next, PyDict_Size
from cpython.float cimport PyFloat_AS_DOUBLE, PyFloat_CheckExact
from cpython.list cimport PyList_CheckExact, PyList_GET_ITEM, PyList_GET_SIZE
from cpython.long cimport PyLong_CheckExact
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF
from cpython.tuple cimport PyTuple_CheckExact, PyTuple_GET_ITEM, PyTuple_GET_SIZE
from cpython.unicode cimport PyUnicode_AsEncodedString, PyUnicode_CheckExact
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memcpy

from snakepit_mp.values import foreign as _foreign
from snakepit_mp.values import wire as _wire

cdef extern from "Python.h":
    PyObject* PyBytes_FromStringAndSize(const char* text, Py_ssize_t size) except NULL
    const Py_ssize_t PY_SSIZE_T_MAX
    int _PyBytes_Resize(PyObject** text, Py_ssize_t size) except -1
    char* heap_start "PyBytes_AS_STRING"(PyObject* text)
    long long PyLong_AsLongLongAndOverflow(object number, int* overflow) except? -1
    bint PyUnicode_IS_COMPACT_ASCII(object text)
    void* PyUnicode_DATA(object text)
    Py_ssize_t PyUnicode_GET_LENGTH(object text)

include "codec_tags.pxi"

cdef object _Refusal = _wire.Refusal
cdef object _changed = _wire.changed
cdef object _item_step = _wire.item_step
cdef object _key_step = _wire.key_step
cdef object _parts = _foreign.parts
cdef object _too_deep = _wire.too_deep


# The bytes written so far: in `small` while they fit, then in a bytes object that grows.
cdef struct Out:
    PyObject* heap
    char* start
    Py_ssize_t used
    Py_ssize_t room
    bint allow_pickle
    char[256] small


cdef int out_grow(Out* out, Py_ssize_t more) except -1:
    cdef Py_ssize_t room
    if more > PY_SSIZE_T_MAX - out.used - 64:
        raise MemoryError
    room = out.used + more
    if room <= PY_SSIZE_T_MAX // 2:
        room += room >> 1
    if out.heap is NULL:
        out.heap = PyBytes_FromStringAndSize(NULL, room)
        memcpy(heap_start(out.heap), out.small, out.used)
    else:
        _PyBytes_Resize(&out.heap, room)
    out.start = heap_start(out.heap)
    out.room = room
    return 0


cdef inline char* out_take(Out* out, Py_ssize_t size) except NULL:
    """Room for ``size`` bytes, which count as written."""
    cdef char* at
    if out.room - out.used < size:
        out_grow(out, size)
    at = out.start + out.used
    out.used += size
    return at


cdef bytes out_finish(Out* out):
    if out.heap is NULL:
        return out.small[:out.used]
    _PyBytes_Resize(&out.heap, out.used)
    return <bytes>out.heap


cdef inline int write_tag(Out* out, unsigned char tag) except -1:
    cdef char* at = out_take(out, 1)
    at[0] = <char>tag
    return 0


cdef int write_count(Out* out, unsigned char tag, Py_ssize_t number) except -1:
    cdef char* at
    cdef uint32_t short_number = LONG_COUNT
    cdef uint64_t long_number = <uint64_t>number
    if long_number < LONG_COUNT:
        short_number = <uint32_t>number
        at = out_take(out, 5)
    else:
        at = out_take(out, 13)
        memcpy(at + 5, &long_number, 8)
    at[0] = <char>tag
    memcpy(at + 1, &short_number, 4)
    return 0


cdef inline int write_raw(Out* out, const char* payload, Py_ssize_t size) except -1:
    cdef char* at = out_take(out, size)
    memcpy(at, payload, size)
    return 0


cdef int write_sized(Out* out, unsigned char tag, object payload) except -1:
    """``payload`` is exactly bytes."""
    cdef Py_ssize_t size = PyBytes_GET_SIZE(payload)
    write_count(out, tag, size)
    return write_raw(out, PyBytes_AS_STRING(payload), size)


cdef int write(Out* out, object value, int depth) except -1:
    if PyUnicode_CheckExact(value):
        return write_str(out, value)
    if PyLong_CheckExact(value):
        return write_int(out, value)
    if PyFloat_CheckExact(value):
        return write_float(out, value)
    if value is None:
        return write_tag(out, TAG_NONE)
    if value is True:
        return write_tag(out, TAG_TRUE)
    if value is False:
        return write_tag(out, TAG_FALSE)
    if PyDict_CheckExact(value):
        return write_dict(out, value, depth)
    if PyList_CheckExact(value):
        return write_list(out, value, depth)
    if PyTuple_CheckExact(value):
        return write_tuple(out, value, depth)
    if PyBytes_CheckExact(value):
        return write_sized(out, TAG_BYTES, value)
    return write_foreign(out, value)


cdef inline int write_int(Out* out, object value) except -1:
    cdef int overflow = 0
    cdef char* at
    cdef int64_t number = PyLong_AsLongLongAndOverflow(value, &overflow)
    if overflow:
        return write_sized(out, TAG_BIG_INT, big_int_bytes(value))
    if SMALLEST_SHORT_INT <= number <= LARGEST_SHORT_INT:
        return write_tag(out, <unsigned char>(SHORT_INT + number - SMALLEST_SHORT_INT))
    at = out_take(out, 9)
    at[0] = TAG_INT
    memcpy(at + 1, &number, 8)
    return 0


cdef bytes big_int_bytes(object value):
    # One bit more than the magnitude, for the sign.
    return value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)


cdef inline int write_float(Out* out, object value) except -1:
    cdef double number = PyFloat_AS_DOUBLE(value)
    cdef char* at = out_take(out, 9)
    at[0] = TAG_FLOAT
    memcpy(at + 1, &number, 8)
    return 0


cdef inline int write_str(Out* out, object value) except -1:
    cdef Py_ssize_t size
    cdef char* at
    if not PyUnicode_IS_COMPACT_ASCII(value):
        return write_other_str(out, value)
    size = PyUnicode_GET_LENGTH(value)
    if size <= LONGEST_SHORT_STR:
        at = out_take(out, 1 + size)
        at[0] = <char>(SHORT_STR + size)
        memcpy(at + 1, PyUnicode_DATA(value), size)
        return 0
    write_count(out, TAG_ASCII, size)
    return write_raw(out, <const char*>PyUnicode_DATA(value), size)


cdef int write_other_str(Out* out, object value) except -1:
    payload = PyUnicode_AsEncodedString(value, "utf-8", "surrogatepass")
    return write_sized(out, TAG_UTF8, payload)


cdef inline int write_size(
    Out* out, Py_ssize_t size, int depth, unsigned char short_tag, unsigned char tag
) except -1:
    if depth == MAX_DEPTH:
        raise _too_deep()
    if size <= LONGEST_SHORT:
        return write_tag(out, <unsigned char>(short_tag + size))
    return write_count(out, tag, size)


cdef int write_list(Out* out, object value, int depth) except -1:
    cdef Py_ssize_t index = 0
    cdef Py_ssize_t size = PyList_GET_SIZE(value)
    write_size(out, size, depth, SHORT_LIST, TAG_LIST)
    try:
        # Pickling an item may run code that shortens the list.
        while index < size and index < PyList_GET_SIZE(value):
            item = <object>PyList_GET_ITEM(value, index)
            write(out, item, depth + 1)
            index += 1
    except _Refusal as refusal:
        refusal.steps.append(f"[{index}]")
        raise
    if PyList_GET_SIZE(value) != size:
        raise _changed()
    return 0


cdef int write_tuple(Out* out, object value, int depth) except -1:
    cdef Py_ssize_t index = 0
    cdef Py_ssize_t size = PyTuple_GET_SIZE(value)
    write_size(out, size, depth, SHORT_TUPLE, TAG_TUPLE)
    try:
        while index < size:
            write(out, <object>PyTuple_GET_ITEM(value, index), depth + 1)
            index += 1
    except _Refusal as refusal:
        refusal.steps.append(f"[{index}]")
        raise
    return 0


cdef int write_dict(Out* out, object value, int depth) except -1:
    cdef Py_ssize_t position = 0
    cdef Py_ssize_t index = 0
    cdef Py_ssize_t size = PyDict_Size(value)
    cdef PyObject* borrowed_key
    cdef PyObject* borrowed_item
    cdef bint key_written = False
    cdef object key = None
    cdef object item
    write_size(out, size, depth, SHORT_DICT, TAG_DICT)
    try:
        while index < size and PyDict_Next(value, &position, &borrowed_key, &borrowed_item):
            key = <object>borrowed_key
            item = <object>borrowed_item
            key_written = False
            write(out, key, depth + 1)
            key_written = True
            write(out, item, depth + 1)
            index += 1
    except _Refusal as refusal:
        refusal.steps.append(_item_step(key) if key_written else _key_step(index))
        raise
    if index != size or PyDict_Size(value) != size:
        raise _changed()
    return 0


cdef int write_foreign(Out* out, object value) except -1:
    cdef Py_buffer view
    head, payload = _parts(value, out.allow_pickle, out.used)
    write_raw(out, PyBytes_AS_STRING(head), PyBytes_GET_SIZE(head))
    PyObject_GetBuffer(payload, &view, PyBUF_SIMPLE)
    try:
        write_raw(out, <const char*>view.buf, view.len)
    finally:
        PyBuffer_Release(&view)
    return 0


def encode(value, *, bint allow_pickle=False, root="value"):
    """Encode ``value`` losslessly; see ``snakepit_mp.values.codec``."""
    cdef Out out
    out.heap = NULL
    out.start = out.small
    out.small[0] = VERSION
    out.used = 1
    out.room = sizeof(out.small)
    out.allow_pickle = allow_pickle
    try:
        write(&out, value, 0)
        return out_finish(&out)
    except _Refusal as refusal:
        raise refusal.as_error(root) from refusal.cause
    finally:
        if out.heap is not NULL:
            Py_DECREF(<object>out.heap)
