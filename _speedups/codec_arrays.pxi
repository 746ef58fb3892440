# Arrays as they mostly are: contiguous, and of a plain dtype. All others are left to the pure
# part, whose module `arrays` describes the bytes.

from cpython.buffer cimport PyBUF_STRIDES

from sys import modules as _modules

from snakepit_mp.values import dtypes as _dtypes

cdef object _ndarray = None  # NumPy's, once somebody has imported it
cdef object _dtype_named = _dtypes.dtype_named
cdef object _dtype_name_of = _dtypes.name_of

cdef enum:
    ALIGNMENT = 64
    HEAD = 6
    MOST_AXES = 16
    LONGEST_NAME = 32
    DTYPES = 32


# A plain dtype that was met lately.
cdef struct KnownDtype:
    PyObject* dtype
    PyObject* name

cdef KnownDtype[DTYPES] written_dtypes


# The same from the reader's side; such ones only whose elements may be any bytes.
cdef struct NamedDtype:
    PyObject* dtype
    uint64_t first
    uint64_t last
    Py_ssize_t size
    Py_ssize_t item_size
    Py_ssize_t alignment

cdef NamedDtype[DTYPES] read_dtypes


cdef bint is_array(object value) except -1:
    global _ndarray
    if _ndarray is None:
        _ndarray = getattr(_modules.get("numpy"), "ndarray", None)
    return _ndarray is not None and <PyObject*>Py_TYPE(value) == <PyObject*>_ndarray


cdef object plain_name(object dtype):
    """The name of a plain dtype, ``None`` for others."""
    cdef uintptr_t address = <uintptr_t><PyObject*>dtype
    cdef KnownDtype* known = &written_dtypes[((address >> 4) ^ (address >> 9)) % DTYPES]
    if known.dtype == <PyObject*>dtype:
        return <object>known.name
    name = _dtype_name_of(dtype)
    if name is None or len(name) > LONGEST_NAME or name.startswith(b"{"):
        return None  # also because the fields of a structured dtype can be renamed
    replace(&known.dtype, <PyObject*>dtype)
    replace(&known.name, <PyObject*>name)
    return name


cdef int write_array(Out* out, object value) except -1:
    """Write the array and return 1, or 0 if that is left to the pure part."""
    cdef Py_buffer view
    name = plain_name(value.dtype)
    if name is None:
        return 0
    try:
        PyObject_GetBuffer(value, &view, PyBUF_STRIDES)
    except (ValueError, BufferError):
        return 0
    try:
        if view.ndim > MOST_AXES:
            return 0
        if PyBuffer_IsContiguous(&view, b"C"):
            write_contiguous(out, &view, name, 0)
        elif PyBuffer_IsContiguous(&view, b"F"):
            write_contiguous(out, &view, name, 1)
        else:
            return 0
    finally:
        PyBuffer_Release(&view)
    return 1


cdef int write_contiguous(Out* out, Py_buffer* view, bytes name, char order) except -1:
    cdef Py_ssize_t name_size = PyBytes_GET_SIZE(name)
    cdef Py_ssize_t head = HEAD + name_size + 8 * view.ndim
    cdef Py_ssize_t padding = 0
    cdef char* at
    if view.len:
        padding = -(out_used(out) + head) & (ALIGNMENT - 1)
    at = out_take(out, head + padding)
    at[0] = TAG_ARRAY
    at[1] = order
    at[2] = <char>view.ndim
    at[3] = <char>padding
    at[4] = <char>name_size
    at[5] = 0
    memcpy(at + HEAD, PyBytes_AS_STRING(name), name_size)
    if view.ndim:
        memcpy(at + HEAD + name_size, view.shape, 8 * view.ndim)
    memset(at + head, 0, padding)
    return write_raw(out, <const char*>view.buf, view.len)


cdef NamedDtype* named_dtype(const unsigned char* name, Py_ssize_t size) except? NULL:
    """What is known of the dtype of that name; ``NULL`` if the pure part has to look at it."""
    cdef uint64_t first, last
    cdef NamedDtype* known
    if size > 16:
        return NULL
    ends_of(name, size, &first, &last)
    known = &read_dtypes[mixed(first, last, size) % DTYPES]
    if known.dtype is not NULL and known.size == size:
        if known.first == first and known.last == last:
            return known
    dtype = _dtype_named((<const char*>name)[:size])
    if dtype is None or dtype.kind not in "iufcmMS":
        return NULL
    known.first = first
    known.last = last
    known.size = size
    known.item_size = dtype.itemsize
    known.alignment = dtype.alignment
    replace(&known.dtype, <PyObject*>dtype)
    return known


cdef object read_array(In* source, Py_ssize_t start):
    """The array, a view of the bytes; ``None`` if that is left to the pure part."""
    cdef const unsigned char* at = source.start + start
    cdef Py_ssize_t room = source.end - start
    cdef Py_ssize_t axes, axis, name_size, first
    cdef uint64_t length
    cdef uint64_t count = 1
    cdef NamedDtype* known
    cdef tuple shape
    cdef object item
    if not PyBytes_CheckExact(<object>source.owner) and type(<object>source.owner) is not Pin:
        return None
    if room < HEAD or at[1] != 0 or at[2] > MOST_AXES or at[3] >= ALIGNMENT or at[5] != 0:
        return None
    axes = at[2]
    name_size = at[4]
    first = HEAD + name_size + 8 * axes + at[3]
    if first > room:
        return None
    known = named_dtype(at + HEAD, name_size)
    if known is NULL:
        return None
    shape = PyTuple_New(axes)
    for axis in range(axes):
        memcpy(&length, at + HEAD + name_size + 8 * axis, 8)
        if length == 0 or length > <uint64_t>room:
            return None  # too long, or nothing that would be worth a view
        count *= length
        if count > <uint64_t>room:
            return None
        item = <long long>length
        Py_INCREF(item)
        PyTuple_SET_ITEM(shape, axis, item)
    if count * <uint64_t>known.item_size > <uint64_t>(room - first):
        return None
    if <uintptr_t>(at + first) % <uintptr_t>known.alignment:
        return None
    source.position = start + first + <Py_ssize_t>count * known.item_size
    is_array(None)
    return _ndarray(
        shape, <object>known.dtype, <object>source.owner, source.offset + start + first
    )
