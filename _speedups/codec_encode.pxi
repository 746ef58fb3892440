# The three ways to encode, as snakepit_mp/values/codec.py describes them.

# To call `write` without the cost of a `try`, which is paid by every value that has no fault.
ctypedef int (*unchecked)(Out*, object, int) noexcept


cdef int run(Out* out, object value, object root) except -1:
    if (<unchecked>write)(out, value, 0) != 0:
        return fail(out, root)
    return 0


cdef int fail(Out* out, object root) except -1:
    """Turn the exception that is set into the caller's."""
    try:
        failed()
    except _Refusal as refusal:
        raise out_error(out, refusal, root) from refusal.cause
    finally:
        out_forget_steps(out, 0)
    return 0


cdef int failed() except -1:
    return -1


cdef bytes plain_bytes(object value):
    """What is written most often, in as many bytes as it takes; ``None`` if it is not that."""
    cdef int64_t number
    cdef Py_ssize_t size
    cdef double real
    cdef PyObject* result
    cdef char* at
    if PyFloat_CheckExact(value):
        real = PyFloat_AS_DOUBLE(value)
        result = PyBytes_FromStringAndSize(NULL, 10)
        at = heap_start(result)
        at[1] = TAG_FLOAT
        memcpy(at + 2, &real, 8)
    elif PyUnicode_CheckExact(value):
        if not PyUnicode_IS_COMPACT_ASCII(value):
            return None
        size = PyUnicode_GET_LENGTH(value)
        if size > LONGEST_SHORT_STR:
            return sized_bytes(TAG_ASCII, <const char*>PyUnicode_DATA(value), size)
        result = PyBytes_FromStringAndSize(NULL, 2 + size)
        at = heap_start(result)
        at[1] = <char>(SHORT_STR + size)
        codec_copy_short(at + 2, PyUnicode_DATA(value), size)
    elif PyBytes_CheckExact(value):
        return sized_bytes(TAG_BYTES, PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value))
    elif not PyLong_CheckExact(value) or not codec_short_int(<PyObject*>value, &number):
        return None
    elif SMALLEST_SHORT_INT <= number <= LARGEST_SHORT_INT:
        result = PyBytes_FromStringAndSize(NULL, 2)
        at = heap_start(result)
        at[1] = <char>(SHORT_INT + number - SMALLEST_SHORT_INT)
    else:
        result = PyBytes_FromStringAndSize(NULL, 10)
        at = heap_start(result)
        at[1] = TAG_INT
        memcpy(at + 2, &number, 8)
    at[0] = VERSION
    return owned(result)


cdef bytes sized_bytes(unsigned char tag, const char* payload, Py_ssize_t size):
    cdef uint32_t count = <uint32_t>size
    cdef PyObject* result
    cdef char* at
    if <uint64_t>size >= LONG_COUNT:
        return None
    result = PyBytes_FromStringAndSize(NULL, 6 + size)
    at = heap_start(result)
    at[0] = VERSION
    at[1] = <char>tag
    memcpy(at + 2, &count, 4)
    memcpy(at + 6, payload, size)
    return owned(result)


cdef inline bytes owned(PyObject* result):
    value = <bytes>result
    Py_DECREF(value)  # the variable counts now
    return value


cdef bytes encoded(object value, bint allow_pickle, object root):
    cdef Out out
    out_begin(&out, allow_pickle, False)
    write_tag(&out, VERSION)
    if write_plain(&out, value):
        return out_finish(&out)
    try:
        run(&out, value, root)
        return out_finish(&out)
    finally:
        Py_XDECREF(out.heap)


def encode(value, *, bint allow_pickle=False, root="value"):
    """Encode ``value`` losslessly; see ``snakepit_mp.values.codec``."""
    cdef bytes plain = plain_bytes(value)
    return encoded(value, allow_pickle, root) if plain is None else plain


def encode_size(value, *, bint allow_pickle=False, root="value"):
    """How many bytes ``encode`` would make; see ``snakepit_mp.values.codec``."""
    cdef Out out
    out_begin(&out, allow_pickle, True)
    write_tag(&out, VERSION)
    run(&out, value, root)
    return out_used(&out)


def encode_into(value, buffer, Py_ssize_t offset=0, *, bint allow_pickle=False, root="value"):
    """Encode ``value`` into a buffer; see ``snakepit_mp.values.codec``."""
    cdef Out out
    cdef Py_buffer view
    try:
        PyObject_GetBuffer(buffer, &view, PyBUF_WRITABLE)
    except (TypeError, BufferError):
        raise _not_writable(buffer) from None
    try:
        out_begin(&out, allow_pickle, True)
        if 0 <= offset <= view.len:
            out_aim(&out, <char*>view.buf + offset, view.len - offset)
        write_tag(&out, VERSION)
        run(&out, value, root)
        if out.counting:
            raise _no_room(out_used(&out), offset, view.len)
        return out_used(&out)
    finally:
        PyBuffer_Release(&view)
