# Writes what snakepit_mp/values/writer.py specifies: the same bytes, the same errors.

from cpython.buffer cimport (
    PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
)
from cpython.bytearray cimport (
    PyByteArray_AS_STRING, PyByteArray_CheckExact, PyByteArray_GET_SIZE
)
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_GET_SIZE
from cpython.complex cimport (
    PyComplex_CheckExact, PyComplex_ImagAsDouble, PyComplex_RealAsDouble
)
from cpython.dict cimport PyDict_CheckExact, PyDict_Next
from cpython.float cimport PyFloat_AS_DOUBLE, PyFloat_CheckExact
from cpython.list cimport PyList_CheckExact, PyList_GET_ITEM, PyList_GET_SIZE
from cpython.long cimport PyLong_CheckExact
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from cpython.object cimport Py_TYPE, PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF, Py_XDECREF, Py_XINCREF
from cpython.set cimport PySet_Size
from cpython.tuple cimport (
    PyTuple_CheckExact, PyTuple_GET_ITEM, PyTuple_GET_SIZE, PyTuple_New, PyTuple_SET_ITEM
)
from cpython.unicode cimport PyUnicode_AsEncodedString, PyUnicode_CheckExact
from libc.stdint cimport (
    int8_t, int16_t, int32_t, int64_t, uint32_t, uint64_t, uintptr_t
)
from libc.string cimport memcpy, memset

from snakepit_mp.values import foreign as _foreign
from snakepit_mp.values import wire as _wire

include "codec_tags.pxi"

cdef extern from *:
    """
    /* The value of an int that takes few digits; anything else is left to the general way. */
    static inline int codec_short_int(PyObject *number, int64_t *value)
    {
    #if PY_VERSION_HEX >= 0x030C0000
        if (!PyUnstable_Long_IsCompact((PyLongObject *)number))
            return 0;
        *value = PyUnstable_Long_CompactValue((PyLongObject *)number);
    #else
        const digit *digits = ((PyLongObject *)number)->ob_digit;
        switch (Py_SIZE(number)) {
        case 0: *value = 0; break;
        case 1: *value = digits[0]; break;
        case -1: *value = -(int64_t)digits[0]; break;
        case 2: *value = digits[0] | (int64_t)digits[1] << PyLong_SHIFT; break;
        case -2: *value = -(digits[0] | (int64_t)digits[1] << PyLong_SHIFT); break;
        default: return 0;
        }
    #endif
        return 1;
    }

    /* At most 32 bytes, without a call. */
    static inline void codec_copy_short(void *target, const void *source, Py_ssize_t size)
    {
        char *to = (char *)target;
        const char *at = (const char *)source;
        if (size >= 16) {
            memcpy(to, at, 16);
            memcpy(to + size - 16, at + size - 16, 16);
        } else if (size >= 8) {
            memcpy(to, at, 8);
            memcpy(to + size - 8, at + size - 8, 8);
        } else if (size >= 4) {
            memcpy(to, at, 4);
            memcpy(to + size - 4, at + size - 4, 4);
        } else if (size > 0) {
            to[0] = at[0];
            to[size / 2] = at[size / 2];
            to[size - 1] = at[size - 1];
        }
    }
    """
    bint codec_short_int(PyObject* number, int64_t* value) noexcept
    void codec_copy_short(void* to, const void* at, Py_ssize_t size) noexcept

cdef extern from "Python.h":
    Py_ssize_t PyDict_GET_SIZE(object value)
    bint PyFrozenSet_CheckExact(object value)
    bint PyFloat_CheckExact_ "PyFloat_CheckExact"(PyObject* value)
    bint PyLong_CheckExact_ "PyLong_CheckExact"(PyObject* value)
    bint PyUnicode_CheckExact_ "PyUnicode_CheckExact"(PyObject* value)
    double PyFloat_AS_DOUBLE_ "PyFloat_AS_DOUBLE"(PyObject* value)
    bint PySet_CheckExact(object value)
    long long PyLong_AsLongLongAndOverflow(object number, int* overflow) except? -1
    long long codec_long_long "PyLong_AsLongLongAndOverflow"(
        PyObject* number, int* overflow
    ) noexcept
    bint PyUnicode_IS_COMPACT_ASCII(object text)
    void* PyUnicode_DATA(object text)
    Py_ssize_t PyUnicode_GET_LENGTH(object text)

cdef object _Refusal = _wire.Refusal
cdef object _changed = _wire.changed
cdef object _item_step = _wire.item_step
cdef object _key_step = _wire.key_step
cdef object _no_room = _wire.no_room
cdef object _not_writable = _wire.not_writable
cdef object _parts = _foreign.parts
cdef object _pickled = _foreign.pickled
cdef object _too_deep = _wire.too_deep

include "codec_out.pxi"


cdef inline int write_tag(Out* out, unsigned char tag) except -1:
    cdef char* at = out_take(out, 1)
    at[0] = <char>tag
    return 0


cdef int write_number(Out* out, Py_ssize_t number) except -1:
    """A count without a tag."""
    cdef char* at
    cdef uint32_t short_number = LONG_COUNT
    cdef uint64_t long_number = <uint64_t>number
    if long_number < LONG_COUNT:
        short_number = <uint32_t>number
        at = out_take(out, 4)
    else:
        at = out_take(out, 12)
        memcpy(at + 4, &long_number, 8)
    memcpy(at, &short_number, 4)
    return 0


cdef inline int write_count(Out* out, unsigned char tag, Py_ssize_t number) except -1:
    write_tag(out, tag)
    return write_number(out, number)


cdef inline int write_raw(Out* out, const char* payload, Py_ssize_t size) except -1:
    cdef char* at = out_payload(out, size)
    if at is not NULL:
        memcpy(at, payload, size)
    return 0


cdef int write_sized(Out* out, unsigned char tag, const char* payload, Py_ssize_t size) except -1:
    write_count(out, tag, size)
    return write_raw(out, payload, size)


cdef inline int write_plain(Out* out, object value) except -1:
    """Write what runs nobody's code, and return 1; 0 for anything else."""
    if PyUnicode_CheckExact(value):
        write_str(out, value)
    elif PyLong_CheckExact(value):
        write_int(out, value)
    elif PyFloat_CheckExact(value):
        write_float(out, value)
    elif value is None:
        write_tag(out, TAG_NONE)
    elif value is True:
        write_tag(out, TAG_TRUE)
    elif value is False:
        write_tag(out, TAG_FALSE)
    else:
        return 0
    return 1


cdef int write(Out* out, object value, int depth) except -1:
    if write_plain(out, value):
        return 0
    return write_other(out, value, depth)


cdef int write_other(Out* out, object value, int depth) except -1:
    if PyDict_CheckExact(value):
        return write_dict(out, value, depth)
    if PyList_CheckExact(value):
        return write_list(out, value, depth)
    if PyTuple_CheckExact(value):
        return write_tuple(out, value, depth)
    if PyBytes_CheckExact(value):
        return write_sized(out, TAG_BYTES, PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value))
    if PySet_CheckExact(value):
        return write_set(out, value, TAG_SET, depth)
    if PyFrozenSet_CheckExact(value):
        return write_set(out, value, TAG_FROZENSET, depth)
    if PyByteArray_CheckExact(value):
        return write_sized(
            out, TAG_BYTEARRAY, PyByteArray_AS_STRING(value), PyByteArray_GET_SIZE(value)
        )
    if PyComplex_CheckExact(value):
        return write_complex(out, value)
    return write_foreign(out, value, depth)


cdef inline int write_int(Out* out, object value) except -1:
    cdef int overflow = 0
    cdef char* at
    cdef int64_t number
    if not codec_short_int(<PyObject*>value, &number):
        number = PyLong_AsLongLongAndOverflow(value, &overflow)
        if overflow:
            return write_big_int(out, value)
    if SMALLEST_SHORT_INT <= number <= LARGEST_SHORT_INT:
        return write_tag(out, <unsigned char>(SHORT_INT + number - SMALLEST_SHORT_INT))
    at = out_take(out, 9)
    at[0] = TAG_INT
    memcpy(at + 1, &number, 8)
    return 0


cdef int write_big_int(Out* out, object value) except -1:
    # One bit more than the magnitude, for the sign.
    cdef bytes payload = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return write_sized(out, TAG_BIG_INT, PyBytes_AS_STRING(payload), PyBytes_GET_SIZE(payload))


cdef inline int write_float(Out* out, object value) except -1:
    cdef double number = PyFloat_AS_DOUBLE(value)
    cdef char* at = out_take(out, 9)
    at[0] = TAG_FLOAT
    memcpy(at + 1, &number, 8)
    return 0


cdef int write_complex(Out* out, object value) except -1:
    cdef double real = PyComplex_RealAsDouble(value)
    cdef double imaginary = PyComplex_ImagAsDouble(value)
    cdef char* at = out_take(out, 17)
    at[0] = TAG_COMPLEX
    memcpy(at + 1, &real, 8)
    memcpy(at + 9, &imaginary, 8)
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
        codec_copy_short(at + 1, PyUnicode_DATA(value), size)
        return 0
    return write_sized(out, TAG_ASCII, <const char*>PyUnicode_DATA(value), size)


cdef int write_other_str(Out* out, object value) except -1:
    payload = PyUnicode_AsEncodedString(value, "utf-8", "surrogatepass")
    return write_sized(out, TAG_UTF8, PyBytes_AS_STRING(payload), PyBytes_GET_SIZE(payload))


cdef inline int write_size(
    Out* out, Py_ssize_t size, unsigned char short_tag, unsigned char tag
) except -1:
    if size <= LONGEST_SHORT:
        return write_tag(out, <unsigned char>(short_tag + size))
    return write_count(out, tag, size)


# Containers

cdef int write_list(Out* out, object value, int depth) except -1:
    cdef Py_ssize_t size = PyList_GET_SIZE(value)
    cdef Step* step = enter(out, depth, STEP_INDEX, NULL)
    cdef PyObject* item
    if size > LONGEST_SHORT:
        if write_packed(out, TAG_PACKED_LIST, codec_list_items(value), size):
            leave(out, step, depth)
            return 0
    write_size(out, size, SHORT_LIST, TAG_LIST)
    # Pickling an item may run code that shortens the list.
    while step.index < size and step.index < PyList_GET_SIZE(value):
        item = PyList_GET_ITEM(value, step.index)
        if not write_plain(out, <object>item):
            write_kept(out, item, depth + 1)
        step.index += 1
    leave(out, step, depth)
    if PyList_GET_SIZE(value) != size:
        raise _changed()
    return 0


cdef int write_kept(Out* out, PyObject* borrowed, int depth) except -1:
    value = <object>borrowed  # whatever runs meanwhile, it stays
    return write_other(out, value, depth)


cdef int write_tuple(Out* out, object value, int depth) except -1:
    cdef Py_ssize_t size = PyTuple_GET_SIZE(value)
    cdef Step* step = enter(out, depth, STEP_INDEX, NULL)
    if size > LONGEST_SHORT:
        if write_packed(out, TAG_PACKED_TUPLE, codec_tuple_items(value), size):
            leave(out, step, depth)
            return 0
    write_size(out, size, SHORT_TUPLE, TAG_TUPLE)
    while step.index < size:
        write(out, <object>PyTuple_GET_ITEM(value, step.index), depth + 1)
        step.index += 1
    leave(out, step, depth)
    return 0


cdef int write_set(Out* out, object value, unsigned char tag, int depth) except -1:
    cdef tuple items = tuple(value)
    cdef Py_ssize_t size = PyTuple_GET_SIZE(items)
    cdef Step* step = enter(out, depth, STEP_INDEX, NULL)
    write_count(out, tag, size)
    while step.index < size:
        write(out, <object>PyTuple_GET_ITEM(items, step.index), depth + 1)
        step.index += 1
    leave(out, step, depth)
    if PySet_Size(value) != size:
        raise _changed()
    return 0


cdef int write_dict(Out* out, object value, int depth) except -1:
    cdef Py_ssize_t position = 0
    cdef Py_ssize_t size = PyDict_GET_SIZE(value)
    cdef PyObject* key
    cdef PyObject* item
    cdef Step* step
    if size >= KEYED_FROM and depth != MAX_DEPTH:
        if write_keyed(out, value, size, depth):
            return 0
    step = enter(out, depth, STEP_KEY, NULL)
    write_size(out, size, SHORT_DICT, TAG_DICT)
    while step.index < size and PyDict_Next(value, &position, &key, &item):
        if write_plain(out, <object>key) and write_plain(out, <object>item):
            step.index += 1
            continue
        write_pair(out, step, key, item, depth)
        step.index += 1
    if step.index != size or PyDict_GET_SIZE(value) != size:
        leave(out, step, depth)
        raise _changed()
    leave(out, step, depth)
    return 0


cdef int write_pair(
    Out* out, Step* step, PyObject* borrowed_key, PyObject* borrowed_item, int depth
) except -1:
    """A pair of which not both are plain; what is plain, and comes first, is written."""
    key = <object>borrowed_key
    item = <object>borrowed_item
    if not is_plain(key):
        write_other(out, key, depth + 1)
        if is_plain(item):
            write(out, item, depth + 1)
            return 0
    step.kind = STEP_ITEM
    step.thing = <PyObject*>key
    Py_INCREF(key)
    write_other(out, item, depth + 1)
    step.kind = STEP_KEY
    step.thing = NULL
    Py_DECREF(key)
    return 0


cdef inline bint is_plain(object value) noexcept:
    return (
        PyUnicode_CheckExact(value) or PyLong_CheckExact(value) or PyFloat_CheckExact(value)
        or value is None or value is True or value is False
    )


cdef int write_foreign(Out* out, object value, int depth) except -1:
    cdef Py_ssize_t before = out_used(out)
    if is_array(value) and write_array(out, value):
        return 0
    head, payload, steps, or_pickled = _parts(value, out.allow_pickle, before)
    if steps is None:
        return write_bytes_of(out, head, payload)
    if not or_pickled or out.within_object:
        return write_parts(out, head, payload, steps, depth)
    out.within_object = True
    try:
        write_parts(out, head, payload, steps, depth)
    except _Refusal:
        out_forget_steps(out, depth)
        out_rewind(out, before)
        head, payload, steps, or_pickled = _pickled(value)
        write_bytes_of(out, head, payload)
    finally:
        out.within_object = False
    return 0


cdef int write_bytes_of(Out* out, bytes head, object payload) except -1:
    cdef Py_buffer view
    write_raw(out, PyBytes_AS_STRING(head), PyBytes_GET_SIZE(head))
    PyObject_GetBuffer(payload, &view, PyBUF_SIMPLE)
    try:
        write_raw(out, <const char*>view.buf, view.len)
    finally:
        PyBuffer_Release(&view)
    return 0


cdef int write_parts(Out* out, bytes head, tuple parts, tuple steps, int depth) except -1:
    cdef Py_ssize_t size = PyTuple_GET_SIZE(parts)
    cdef Step* step
    write_raw(out, PyBytes_AS_STRING(head), PyBytes_GET_SIZE(head))
    step = enter(out, depth, STEP_PART, <PyObject*>steps)
    write_size(out, size, SHORT_TUPLE, TAG_TUPLE)
    while step.index < size:
        write(out, <object>PyTuple_GET_ITEM(parts, step.index), depth + 1)
        step.index += 1
    leave(out, step, depth)
    return 0


include "codec_packed.pxi"
include "codec_keys.pxi"
