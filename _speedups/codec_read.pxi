# Reads what snakepit_mp/values/codec.py specifies: the same values, the same errors.

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_GET_SIZE
from cpython.dict cimport PyDict_SetItem, PyDict_Size
from cpython.list cimport PyList_New, PyList_SET_ITEM
from cpython.ref cimport Py_INCREF
from cpython.tuple cimport PyTuple_New, PyTuple_SET_ITEM
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memcpy

cdef extern from "Python.h":
    bint PyObject_CheckBuffer(object data)
    object PyBytes_FromObject(object data)
    object PyUnicode_New(Py_ssize_t size, Py_UCS4 largest)

cdef object _corrupt = _wire.corrupt
cdef object _foreign_read = _foreign.read
cdef object _not_bytes = _wire.not_bytes
cdef object _truncated = _wire.truncated
cdef object _unhashable = _wire.unhashable


# Every read first asks `left`, so nothing is read or allocated beyond what the bytes can fill.
cdef struct In:
    PyObject* data
    const unsigned char* start
    Py_ssize_t position
    Py_ssize_t end
    bint allow_pickle


cdef inline Py_ssize_t left(In* source) noexcept:
    return source.end - source.position


cdef object read(In* source, int depth):
    cdef Py_ssize_t start = source.position
    cdef unsigned char tag
    if start >= source.end:
        raise _truncated(start)
    tag = source.start[start]
    source.position = start + 1
    if tag >= SHORT_INT:
        return <int>tag - SHORT_INT + SMALLEST_SHORT_INT
    if tag >= SHORT_DICT:
        return read_dict(source, tag - SHORT_DICT, start, depth)
    if tag >= SHORT_LIST:
        return read_list(source, tag - SHORT_LIST, start, depth)
    if tag >= SHORT_STR:
        return read_ascii(source, tag - SHORT_STR, start)
    if tag >= SHORT_TUPLE:
        return read_tuple(source, tag - SHORT_TUPLE, start, depth)
    return read_tagged(source, tag, start, depth)


cdef object read_tagged(In* source, unsigned char tag, Py_ssize_t start, int depth):
    if tag == TAG_FLOAT:
        return read_float(source, start)
    if tag == TAG_INT:
        return read_int(source, start)
    if tag == TAG_NONE:
        return None
    if tag == TAG_TRUE:
        return True
    if tag == TAG_FALSE:
        return False
    if tag == TAG_ASCII:
        return read_ascii(source, read_count(source, start, 1), start)
    if tag == TAG_UTF8:
        return read_utf8(source, start)
    if tag == TAG_BYTES:
        return read_bytes(source, start)
    if tag == TAG_LIST:
        return read_list(source, read_count(source, start, 1), start, depth)
    if tag == TAG_DICT:
        return read_dict(source, read_count(source, start, 2), start, depth)
    if tag == TAG_TUPLE:
        return read_tuple(source, read_count(source, start, 1), start, depth)
    if tag == TAG_BIG_INT:
        return int.from_bytes(read_bytes(source, start), "little", signed=True)
    if tag == TAG_ARRAY or tag == TAG_SCALAR or tag == TAG_PICKLE:
        return read_foreign(source, start)
    raise _corrupt(f"tag 0x{tag:02x} is unknown", start)


cdef Py_ssize_t read_count(In* source, Py_ssize_t start, int size) except -1:
    """A count whose parts, of at least ``size`` bytes each, fit into what is left."""
    cdef uint32_t short_number
    cdef uint64_t number
    if left(source) < 4:
        raise _truncated(start)
    memcpy(&short_number, source.start + source.position, 4)
    source.position += 4
    number = short_number
    if short_number == LONG_COUNT:
        if left(source) < 8:
            raise _truncated(start)
        memcpy(&number, source.start + source.position, 8)
        source.position += 8
    if number > <uint64_t>left(source) // size:
        raise _truncated(start)
    return <Py_ssize_t>number


cdef inline const unsigned char* take(In* source, Py_ssize_t size, Py_ssize_t start) except NULL:
    cdef const unsigned char* at = source.start + source.position
    if left(source) < size:
        raise _truncated(start)
    source.position += size
    return at


cdef inline object read_float(In* source, Py_ssize_t start):
    cdef double number
    memcpy(&number, take(source, 8, start), 8)
    return number


cdef inline object read_int(In* source, Py_ssize_t start):
    cdef int64_t number
    memcpy(&number, take(source, 8, start), 8)
    return <long long>number


cdef object read_bytes(In* source, Py_ssize_t start):
    cdef Py_ssize_t size = read_count(source, start, 1)
    cdef const char* at = <const char*>take(source, size, start)
    return at[:size]


cdef inline bint all_ascii(const unsigned char* at, Py_ssize_t size) noexcept:
    cdef uint64_t word
    cdef uint64_t seen = 0
    cdef unsigned char last = 0
    while size >= 8:
        memcpy(&word, at, 8)
        seen |= word
        at += 8
        size -= 8
    while size > 0:
        last |= at[0]
        at += 1
        size -= 1
    return not (seen & 0x8080808080808080ULL) and not (last & 0x80)


cdef object read_ascii(In* source, Py_ssize_t size, Py_ssize_t start):
    cdef const unsigned char* at = take(source, size, start)
    if not all_ascii(at, size):
        raise _corrupt("a str is not ASCII", start)
    text = PyUnicode_New(size, 127)
    memcpy(PyUnicode_DATA(text), at, size)
    return text


cdef object read_utf8(In* source, Py_ssize_t start):
    cdef Py_ssize_t size = read_count(source, start, 1)
    cdef const char* at = <const char*>take(source, size, start)
    try:
        return PyUnicode_DecodeUTF8(at, size, "surrogatepass")
    except UnicodeDecodeError:
        raise _corrupt("a str is not UTF-8", start) from None


cdef inline int check_depth(Py_ssize_t start, int depth) except -1:
    if depth == MAX_DEPTH:
        raise _corrupt(f"it is nested more than {MAX_DEPTH} levels deep", start)
    return 0


cdef object read_list(In* source, Py_ssize_t size, Py_ssize_t start, int depth):
    cdef Py_ssize_t index
    check_depth(start, depth)
    result = PyList_New(size)
    for index in range(size):
        item = read(source, depth + 1)
        Py_INCREF(item)
        PyList_SET_ITEM(result, index, item)
    return result


cdef object read_tuple(In* source, Py_ssize_t size, Py_ssize_t start, int depth):
    cdef Py_ssize_t index
    check_depth(start, depth)
    result = PyTuple_New(size)
    for index in range(size):
        item = read(source, depth + 1)
        Py_INCREF(item)
        PyTuple_SET_ITEM(result, index, item)
    return result


cdef object read_dict(In* source, Py_ssize_t size, Py_ssize_t start, int depth):
    cdef Py_ssize_t index
    cdef Py_ssize_t key_at
    check_depth(start, depth)
    result = {}
    for index in range(size):
        key_at = source.position
        key = read(source, depth + 1)
        value = read(source, depth + 1)
        try:
            PyDict_SetItem(result, key, value)
        except Exception as error:  # an unpickled key may raise anything
            raise _unhashable(key, key_at) from error
    if PyDict_Size(result) != size:
        raise _corrupt("a dict has a key twice", start)
    return result


cdef object read_foreign(In* source, Py_ssize_t start):
    value, end = _foreign_read(<object>source.data, start, source.allow_pickle)
    source.position = end
    return value


def decode(data, *, bint allow_pickle=False):
    """Decode what ``encode`` wrote; see ``snakepit_mp.values.codec``."""
    cdef In source
    if not PyBytes_CheckExact(data):
        if not PyObject_CheckBuffer(data):
            raise _not_bytes(data)
        data = PyBytes_FromObject(data)
    source.data = <PyObject*>data
    source.start = <const unsigned char*>PyBytes_AS_STRING(data)
    source.position = 1
    source.end = PyBytes_GET_SIZE(data)
    source.allow_pickle = allow_pickle
    if source.end == 0:
        raise _truncated(0)
    if source.start[0] != VERSION:
        raise _corrupt(f"version {source.start[0]} is unknown", 0)
    value = read(&source, 0)
    if source.position != source.end:
        raise _corrupt("the value has ended, but not the bytes", source.position)
    return value
