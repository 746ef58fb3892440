# Reads what snakepit_mp/values/reader.py specifies: the same values, the same errors.

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_GET_SIZE
from cpython.complex cimport PyComplex_FromDoubles
from cpython.dict cimport PyDict_Copy, PyDict_SetItem
from cpython.buffer cimport PyBUF_FULL_RO, PyBuffer_IsContiguous
from cpython.list cimport PyList_New, PyList_SET_ITEM
from cpython.ref cimport Py_INCREF
from cpython.set cimport PySet_Add, PySet_Size
from cpython.tuple cimport PyTuple_New, PyTuple_SET_ITEM
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy

from snakepit_mp.values import reader as _reader

cdef extern from "Python.h":
    object PyByteArray_FromStringAndSize(const char* text, Py_ssize_t size)
    object PyUnicode_New(Py_ssize_t size, Py_UCS4 largest)
    Py_buffer* PyMemoryView_GET_BUFFER(object view)
    PyObject* PyMemoryView_GET_BASE(object view)
    bint PyMemoryView_Check(object view)

cdef object _build = _foreign.build
cdef object _corrupt = _wire.corrupt
cdef object _damaged = _wire.damaged
cdef object _foreign_read = _foreign.read
cdef object _no_part = _wire.no_part
cdef object _readable = _reader.readable
cdef object _truncated = _wire.truncated
cdef object _unhashable = _wire.unhashable


# Every read first asks `left`, so nothing is read or allocated beyond what the bytes can fill.
# `owner`, bytes or a memoryview that is ours, keeps them there; `offset` is where they start.
cdef struct In:
    PyObject* owner
    Py_ssize_t offset
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
        return <long>(<int>tag - SHORT_INT + SMALLEST_SHORT_INT)
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
    elif tag == TAG_INT:
        return read_int(source, start)
    elif tag == TAG_NONE:
        return None
    elif tag == TAG_TRUE:
        return True
    elif tag == TAG_FALSE:
        return False
    elif tag == TAG_ASCII:
        return read_ascii(source, read_count(source, start, 1), start)
    elif tag == TAG_KEYED_DICT:
        return read_keyed_dict(source, start, depth)
    elif tag == TAG_PACKED_LIST:
        return read_packed_list(source, start, depth)
    elif tag == TAG_BYTES:
        return read_bytes(source, start)
    elif tag == TAG_UTF8:
        return read_utf8(source, start)
    elif tag == TAG_LIST:
        return read_list(source, read_count(source, start, 1), start, depth)
    elif tag == TAG_DICT:
        return read_dict(source, read_count(source, start, 2), start, depth)
    elif tag == TAG_TUPLE:
        return read_tuple(source, read_count(source, start, 1), start, depth)
    return read_rare(source, tag, start, depth)


cdef object read_rare(In* source, unsigned char tag, Py_ssize_t start, int depth):
    if FIRST_TAG_WITH_PARTS <= tag <= LAST_TAG_WITH_PARTS:
        return read_parts(source, tag, start, depth)
    elif tag == TAG_PACKED_TUPLE:
        return read_packed_tuple(source, start, depth)
    elif tag == TAG_SET:
        return read_set(source, start, depth)
    elif tag == TAG_FROZENSET:
        return frozenset(read_set(source, start, depth))
    elif tag == TAG_BIG_INT:
        return int.from_bytes(read_bytes(source, start), "little", signed=True)
    elif tag == TAG_COMPLEX:
        return read_complex(source, start)
    elif tag == TAG_BYTEARRAY:
        return read_bytearray(source, start)
    elif tag == TAG_ARRAY or tag == TAG_SCALAR or tag == TAG_PICKLE:
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


cdef object read_complex(In* source, Py_ssize_t start):
    cdef double[2] parts
    memcpy(parts, take(source, 16, start), 16)
    return PyComplex_FromDoubles(parts[0], parts[1])


cdef object read_bytes(In* source, Py_ssize_t start):
    cdef Py_ssize_t size = read_count(source, start, 1)
    cdef const char* at = <const char*>take(source, size, start)
    return at[:size]


cdef object read_bytearray(In* source, Py_ssize_t start):
    cdef Py_ssize_t size = read_count(source, start, 1)
    return PyByteArray_FromStringAndSize(<const char*>take(source, size, start), size)


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
    if size <= LONGEST_SHORT_STR:
        codec_copy_short(PyUnicode_DATA(text), at, size)
    else:
        memcpy(PyUnicode_DATA(text), at, size)
    return text


cdef object read_utf8(In* source, Py_ssize_t start):
    cdef Py_ssize_t size = read_count(source, start, 1)
    cdef const char* at = <const char*>take(source, size, start)
    try:
        return PyUnicode_DecodeUTF8(at, size, "surrogatepass")
    except UnicodeDecodeError:
        raise _corrupt("a str is not UTF-8", start) from None


# Containers

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


cdef char read_format(In* source, Py_ssize_t start, int depth) except -1:
    cdef char code
    check_depth(start, depth)
    code = <char>take(source, 1, start)[0]
    if width_of(code) == 0:
        raise _corrupt("numbers of an unknown format", start)
    return code


cdef object read_packed_list(In* source, Py_ssize_t start, int depth):
    cdef char code = read_format(source, start, depth)
    cdef Py_ssize_t width = width_of(code)
    cdef Py_ssize_t size = read_count(source, start, <int>width)
    cdef const unsigned char* at = take(source, size * width, start)
    cdef Py_ssize_t index
    result = PyList_New(size)
    for index in range(size):
        item = element(at + index * width, code)
        Py_INCREF(item)
        PyList_SET_ITEM(result, index, item)
    return result


cdef object read_packed_tuple(In* source, Py_ssize_t start, int depth):
    return tuple(read_packed_list(source, start, depth))


cdef object read_set(In* source, Py_ssize_t start, int depth):
    cdef Py_ssize_t size = read_count(source, start, 1)
    cdef Py_ssize_t index
    cdef Py_ssize_t item_at
    check_depth(start, depth)
    result = set()
    for index in range(size):
        item_at = source.position
        item = read(source, depth + 1)
        try:
            PySet_Add(result, item)
        except Exception as error:  # an unpickled item may raise anything
            raise _unhashable(item, item_at) from error
    if PySet_Size(result) != size:
        raise _corrupt("a set has an item twice", start)
    return result


cdef object read_dict(In* source, Py_ssize_t size, Py_ssize_t start, int depth):
    cdef Py_ssize_t index
    cdef Py_ssize_t key_at
    check_depth(start, depth)
    result = {}
    for index in range(size):
        key_at = source.position
        key = read_key(source, depth + 1)
        value = read(source, depth + 1)
        if PyUnicode_CheckExact(key):
            PyDict_SetItem(result, key, value)
        else:
            set_item(result, key, value, key_at)
    if PyDict_GET_SIZE(result) != size:
        raise _corrupt("a dict has a key twice", start)
    return result


cdef int set_item(dict result, object key, object value, Py_ssize_t key_at) except -1:
    try:
        PyDict_SetItem(result, key, value)
    except Exception as error:  # an unpickled key may raise anything
        raise _unhashable(key, key_at) from error
    return 0


cdef inline void ends_of(
    const unsigned char* at, Py_ssize_t size, uint64_t* first, uint64_t* last
) noexcept:
    """The first and the last eight bytes, or all of fewer."""
    cdef uint32_t half
    if size >= 8:
        memcpy(first, at, 8)
        memcpy(last, at + size - 8, 8)
    elif size >= 4:
        memcpy(&half, at, 4)
        first[0] = half
        memcpy(&half, at + size - 4, 4)
        last[0] = half
    elif size > 0:
        first[0] = at[0]
        last[0] = (<uint64_t>at[size - 1] << 8) | at[size // 2]
    else:
        first[0] = last[0] = 0


cdef inline uint64_t mixed(uint64_t first, uint64_t last, Py_ssize_t size) noexcept:
    """A place for these bytes; the last ones are what differs most."""
    last = (last << 29) | (last >> 35)
    return ((first ^ last ^ <uint64_t>size) * 0x9E3779B97F4A7C15ULL) >> 40


cdef object read_key(In* source, int depth):
    """A key, which for a short str is likely to be one that was read before."""
    cdef Py_ssize_t start = source.position
    cdef Py_ssize_t size
    cdef const unsigned char* at
    cdef uint64_t first, last
    cdef ShortKey* known
    if start >= source.end:
        raise _truncated(start)
    size = <Py_ssize_t>source.start[start] - SHORT_STR
    if size < 0 or size > LONGEST_SHORT_STR:
        return read(source, depth)
    source.position = start + 1
    at = take(source, size, start)
    ends_of(at, size, &first, &last)
    known = &short_keys[mixed(first, last, size) % SHORT_KEYS]
    if known.key is not NULL and known.size == size:
        if known.first == first and known.last == last:
            if size <= 16 or memcmp(PyUnicode_DATA(<object>known.key), at, size) == 0:
                return <object>known.key
    source.position = start + 1
    key = read_ascii(source, size, start)
    known.size = size
    known.first = first
    known.last = last
    replace(&known.key, <PyObject*>key)
    return key


cdef object read_keyed_dict(In* source, Py_ssize_t start, int depth):
    cdef Py_ssize_t size
    cdef Py_ssize_t block_size
    cdef Py_ssize_t index
    cdef const unsigned char* at
    cdef ReadKeys* known
    cdef uint64_t first, last
    cdef tuple keys
    check_depth(start, depth)
    size = read_count(source, start, 1)
    block_size = read_count(source, start, 1)
    at = take(source, block_size, start)
    if size > left(source):
        raise _truncated(start)
    ends_of(at, block_size, &first, &last)
    known = &read_blocks[mixed(first, last, block_size) % READ]
    if (
        known.block is not NULL
        and PyBytes_GET_SIZE(<object>known.block) == block_size
        and memcmp(PyBytes_AS_STRING(<object>known.block), at, block_size) == 0
        and PyTuple_GET_SIZE(<object>known.keys) == size
    ):
        keys = <tuple>known.keys
        result = PyDict_Copy(<object>known.template)
    else:
        source.position -= block_size
        keys = read_keys(source, size, source.position + block_size, start)
        result = dict.fromkeys(keys)
        if PyDict_GET_SIZE(result) != size:
            raise _corrupt("a dict has a key twice", start)
        if block_size <= LONGEST_BLOCK:
            remember(known, (<const char*>at)[:block_size], keys, PyDict_Copy(result))
    for index in range(size):
        value = read(source, depth + 1)
        PyDict_SetItem(result, <object>PyTuple_GET_ITEM(keys, index), value)
    return result


cdef int remember(ReadKeys* known, bytes block, tuple keys, dict template) except -1:
    replace(&known.block, <PyObject*>block)
    replace(&known.keys, <PyObject*>keys)
    replace(&known.template, <PyObject*>template)
    return 0


cdef tuple read_keys(In* source, Py_ssize_t size, Py_ssize_t end, Py_ssize_t start):
    """``size`` keys that fill the bytes until ``end``."""
    cdef list keys = []
    cdef unsigned char tag
    while source.position < end and PyList_GET_SIZE(keys) < size:
        tag = source.start[source.position]
        if tag != TAG_ASCII and tag != TAG_UTF8 and not SHORT_STR <= tag < SHORT_LIST:
            raise _corrupt("a key is no str", start)
        keys.append(read_key(source, MAX_DEPTH))
    if source.position != end or PyList_GET_SIZE(keys) != size:
        raise _corrupt("its keys are damaged", start)
    return tuple(keys)


# What is left to the pure part

cdef object whole(In* source):
    """All the bytes, as an object."""
    owner = <object>source.owner
    if not PyBytes_CheckExact(owner) or source.end == PyBytes_GET_SIZE(owner):
        return owner
    return memoryview(owner)[source.offset:source.offset + source.end]


include "codec_arrays.pxi"


cdef object read_foreign(In* source, Py_ssize_t start):
    if source.start[start] == TAG_ARRAY:
        array = read_array(source, start)
        if array is not None:
            return array
    value, end = _foreign_read(whole(source), start, source.allow_pickle)
    source.position = end
    return value


cdef object read_parts(In* source, unsigned char tag, Py_ssize_t start, int depth):
    """A tuple of parts, in its ordinary form, and what they are parts of."""
    cdef unsigned char next_tag = TAG_TUPLE
    if left(source) > 0:
        next_tag = source.start[source.position]
    if next_tag != TAG_TUPLE and not SHORT_TUPLE <= next_tag < SHORT_STR:
        raise _damaged(start)
    return _build(tag, read(source, depth), start, source.allow_pickle)
