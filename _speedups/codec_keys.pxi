# Dicts that have their keys first, and what both directions remember of keys.

# The keys of a dict that was written lately, and the bytes they became.
cdef struct WrittenKeys:
    PyObject* keys
    PyObject* block


# Keys that were read lately, the bytes they were read from, and a dict that has them.
cdef struct ReadKeys:
    PyObject* block
    PyObject* keys
    PyObject* template


cdef enum:
    WRITTEN = 64
    READ = 64
    SHORT_KEYS = 1024
    LONGEST_BLOCK = 4096
    VALUES_ON_STACK = 64

cdef WrittenKeys[WRITTEN] written_keys
cdef ReadKeys[READ] read_blocks
cdef (PyObject*)[SHORT_KEYS] short_keys


cdef inline void replace(PyObject** place, PyObject* thing) noexcept:
    cdef PyObject* before = place[0]
    Py_XINCREF(thing)
    place[0] = thing
    Py_XDECREF(before)


cdef int write_keyed(Out* out, object value, Py_ssize_t size, int depth) except -1:
    """Write the dict and return 1 if all keys are str; else 0."""
    cdef (PyObject*)[VALUES_ON_STACK] few
    cdef PyObject** values = few
    cdef Py_ssize_t index
    if size > VALUES_ON_STACK:
        values = <PyObject**>PyMem_Malloc(size * sizeof(PyObject*))
        if values is NULL:
            raise MemoryError
    try:
        remembered = keys_and_values(value, size, values)
        if remembered is None:
            return 0
        for index in range(size):
            Py_INCREF(<object>values[index])
        try:
            write_keys_first(out, remembered, values, size, depth)
        finally:
            for index in range(size):
                Py_DECREF(<object>values[index])
    finally:
        if values is not few:
            PyMem_Free(values)
    if PyDict_Size(value) != size:
        raise _changed()
    return 1


cdef object keys_and_values(object value, Py_ssize_t size, PyObject** values):
    """The keys and the bytes they become, and the values; ``None`` if a key is no str."""
    cdef Py_ssize_t position = 0
    cdef Py_ssize_t index = 0
    cdef PyObject* key = NULL
    cdef WrittenKeys* known
    cdef uintptr_t first
    PyDict_Next(value, &position, &key, &values[0])
    if not PyUnicode_CheckExact_(key):
        return None
    first = <uintptr_t>key
    known = &written_keys[((first >> 4) ^ (first >> 11) ^ <uintptr_t>size) % WRITTEN]
    if known.keys is not NULL and PyTuple_GET_SIZE(<object>known.keys) == size:
        position = 0
        while PyDict_Next(value, &position, &key, &values[index]):
            if key != PyTuple_GET_ITEM(<object>known.keys, index):
                break
            index += 1
        if index == size:
            return <object>known.keys, <object>known.block
    return new_keys(value, size, values, known)


cdef object new_keys(object value, Py_ssize_t size, PyObject** values, WrittenKeys* known):
    cdef Py_ssize_t position = 0
    cdef Py_ssize_t index = 0
    cdef PyObject* key
    cdef PyObject* item
    cdef tuple keys
    cdef bytes block
    while PyDict_Next(value, &position, &key, &item):
        if not PyUnicode_CheckExact_(key):
            return None
        values[index] = item
        index += 1
    keys = tuple(value)
    block = block_of(keys)
    if PyBytes_GET_SIZE(block) <= LONGEST_BLOCK:
        replace(&known.keys, <PyObject*>keys)
        replace(&known.block, <PyObject*>block)
    return keys, block


cdef bytes block_of(tuple keys):
    cdef Out out
    out_begin(&out, False, False)
    try:
        for key in keys:
            write_str(&out, key)
        return out_finish(&out)
    finally:
        Py_XDECREF(out.heap)


cdef int write_keys_first(
    Out* out, tuple remembered, PyObject** values, Py_ssize_t size, int depth
) except -1:
    cdef object keys = remembered[0]
    cdef bytes block = <bytes>remembered[1]
    cdef Step* step = enter(out, depth, STEP_KEYED, <PyObject*>keys)
    write_count(out, TAG_KEYED_DICT, size)
    write_number(out, PyBytes_GET_SIZE(block))
    write_raw(out, PyBytes_AS_STRING(block), PyBytes_GET_SIZE(block))
    while step.index < size:
        write(out, <object>values[step.index], depth + 1)
        step.index += 1
    leave(out, step, depth)
    return 0
