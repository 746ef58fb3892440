# How bytes are found in what `decode` is given, as snakepit_mp/values/codec.py describes it.

cdef object open_bytes(In* source, object data, Py_ssize_t offset, object size):
    """Look at that part of what lies in bytes; what keeps it there, ``None`` if nothing does."""
    cdef Py_buffer view
    cdef Py_ssize_t length
    if not PyBytes_CheckExact(data):
        if not PyMemoryView_Check(data):
            return None
        PyObject_GetBuffer(data, &view, PyBUF_FULL_RO)  # fails if it was released
        try:
            if not PyBuffer_IsContiguous(&view, b"C") or not view_of_bytes(data):
                return None
            owner = <object>PyMemoryView_GET_BUFFER(data).obj
            source.start = <const unsigned char*>view.buf
            length = view.len
        finally:
            PyBuffer_Release(&view)
        data = owner
    else:
        source.start = <const unsigned char*>PyBytes_AS_STRING(data)
        length = PyBytes_GET_SIZE(data)
    set_part(source, length, offset, size)
    source.offset = source.start - <const unsigned char*>PyBytes_AS_STRING(data)
    return data


cdef inline bint view_of_bytes(object data) noexcept:
    cdef PyObject* base = <PyObject*>PyMemoryView_GET_BUFFER(data).obj
    return base is not NULL and PyBytes_CheckExact(<object>base)


cdef int set_part(In* source, Py_ssize_t length, Py_ssize_t offset, object size) except -1:
    cdef Py_ssize_t end = length if size is None else min(offset + <Py_ssize_t>size, length + 1)
    if not 0 <= offset <= end <= length:
        raise _no_part(offset, size, length)
    source.start += offset
    source.end = end - offset
    return 0


cdef object open_any(In* source, object data, bint copy, Py_ssize_t offset, object size):
    data = _readable(data, copy, offset, size)
    if PyBytes_CheckExact(data):
        return open_bytes(source, data, 0, None)
    source.start = <const unsigned char*>PyMemoryView_GET_BUFFER(data).buf
    source.end = PyMemoryView_GET_BUFFER(data).len
    source.offset = 0
    return data


def decode(data, *, bint allow_pickle=False, bint copy=True, Py_ssize_t offset=0, size=None):
    """Decode what ``encode`` wrote; see ``snakepit_mp.values.codec``."""
    cdef In source
    owner = open_bytes(&source, data, offset, size)
    if owner is None:
        owner = open_any(&source, data, copy, offset, size)
    source.owner = <PyObject*>owner
    source.allow_pickle = allow_pickle
    return read_message(&source)


cdef object read_message(In* source):
    """The one value that the bytes are."""
    source.position = 1
    if source.end == 0:
        raise _truncated(0)
    if source.start[0] != VERSION:
        raise _corrupt(f"version {source.start[0]} is unknown", 0)
    value = read(source, 0)
    if source.position != source.end:
        raise _corrupt("the value has ended, but not the bytes", source.position)
    return value
