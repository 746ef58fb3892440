# Lists and tuples of numbers of one kind.

cdef extern from *:
    """
    #define codec_list_items(list) (((PyListObject *)(list))->ob_item)
    #define codec_tuple_items(tuple) (((PyTupleObject *)(tuple))->ob_item)
    """
    PyObject** codec_list_items(object value) noexcept
    PyObject** codec_tuple_items(object value) noexcept


cdef int write_packed(
    Out* out, unsigned char tag, PyObject** items, Py_ssize_t size
) except -1:
    """Write the items and return 1 if all are floats, or all ints of 64 bits; else 0."""
    cdef char code
    if PyFloat_CheckExact_(items[0]):
        code = b"d" if all_floats(items, size) else 0
    elif PyLong_CheckExact_(items[0]):
        code = int_format(items, size)
    else:
        return 0
    if code == 0:
        return 0
    write_tag(out, tag)
    write_tag(out, <unsigned char>code)
    write_number(out, size)
    write_elements(out_payload(out, size * width_of(code)), code, items, size)
    return 1


cdef inline Py_ssize_t width_of(char code) noexcept:
    """Bytes of an element; 0 for no format."""
    if code == b"b":
        return 1
    if code == b"h":
        return 2
    if code == b"i":
        return 4
    if code == b"q" or code == b"d":
        return 8
    return 0


cdef bint all_floats(PyObject** items, Py_ssize_t size) noexcept:
    cdef Py_ssize_t index
    for index in range(size):
        if not PyFloat_CheckExact_(items[index]):
            return False
    return True


cdef inline bint int_at(PyObject* item, int64_t* number) noexcept:
    """Whether it is an int of 64 bits."""
    cdef int overflow = 0
    if codec_short_int(item, number):
        return True
    number[0] = codec_long_long(item, &overflow)
    return overflow == 0


cdef char int_format(PyObject** items, Py_ssize_t size) noexcept:
    """The narrowest format for these ints, 0 if there is none."""
    cdef Py_ssize_t index
    cdef int64_t number = 0
    cdef int64_t bits = 0
    for index in range(size):
        if not PyLong_CheckExact_(items[index]) or not int_at(items[index], &number):
            return 0
        bits |= number ^ (number >> 63)
    if bits < 1 << 7:
        return b"b"
    if bits < 1 << 15:
        return b"h"
    if bits < <int64_t>1 << 31:
        return b"i"
    return b"q"


cdef void write_elements(char* at, char code, PyObject** items, Py_ssize_t size) noexcept:
    cdef Py_ssize_t index
    cdef int64_t number = 0
    cdef double real
    cdef int16_t two
    cdef int32_t four
    if at is NULL:
        return
    if code == b"d":
        for index in range(size):
            real = PyFloat_AS_DOUBLE_(items[index])
            memcpy(at + 8 * index, &real, 8)
    elif code == b"b":
        for index in range(size):
            int_at(items[index], &number)
            at[index] = <char>number
    elif code == b"h":
        for index in range(size):
            int_at(items[index], &number)
            two = <int16_t>number
            memcpy(at + 2 * index, &two, 2)
    elif code == b"i":
        for index in range(size):
            int_at(items[index], &number)
            four = <int32_t>number
            memcpy(at + 4 * index, &four, 4)
    else:
        for index in range(size):
            int_at(items[index], &number)
            memcpy(at + 8 * index, &number, 8)


cdef inline object element(const unsigned char* at, char code):
    cdef int64_t eight
    cdef double real
    cdef int16_t two
    cdef int32_t four
    if code == b"d":
        memcpy(&real, at, 8)
        return real
    if code == b"b":
        return <long>(<const int8_t*>at)[0]
    if code == b"h":
        memcpy(&two, at, 2)
        return <long>two
    if code == b"i":
        memcpy(&four, at, 4)
        return <long>four
    memcpy(&eight, at, 8)
    return <long long>eight
