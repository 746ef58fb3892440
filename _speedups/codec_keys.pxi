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


# A short str that was read lately as a key. `first` and `last` are eight bytes each, of which
# those beyond the str are zero; up to 16 characters they are all there is.
cdef struct ShortKey:
    PyObject* key
    uint64_t first
    uint64_t last
    Py_ssize_t size


cdef enum:
    WRITTEN = 64
    READ = 64
    SHORT_KEYS = 1024
    LONGEST_BLOCK = 4096
    VALUES_ON_STACK = 64

cdef WrittenKeys[WRITTEN] written_keys
cdef ReadKeys[READ] read_blocks
cdef ShortKey[SHORT_KEYS] short_keys


cdef inline void replace(PyObject** place, PyObject* thing) noexcept:
    cdef PyObject* before = place[0]
    Py_XINCREF(thing)
    place[0] = thing
    Py_XDECREF(before)


cdef int write_keyed(Out* out, object value, Py_ssize_t size, int depth) except -1:
    """Write the dict and return 1 if all keys are str; else 0."""
    cdef (PyObject*)[VALUES_ON_STACK] few
    cdef PyObject** values
    if size <= VALUES_ON_STACK:
        return write_keys_first(out, value, few, size, depth)
    values = <PyObject**>PyMem_Malloc(size * sizeof(PyObject*))
    if values is NULL:
        raise MemoryError
    try:
        return write_keys_first(out, value, values, size, depth)
    finally:
        PyMem_Free(values)


cdef int write_keys_first(
    Out* out, object value, PyObject** values, Py_ssize_t size, int depth
) except -1:
    """``values`` has room for those of the dict."""
    cdef WrittenKeys* known = written_place(value, size)
    cdef WrittenKeys fresh
    cdef Step* step
    if known is NULL:
        return 0
    if not same_keys(known, value, size, values):
        fresh.keys = fresh.block = NULL
        try:
            if not new_keys(&fresh, value, size, values):
                return 0
            if PyBytes_GET_SIZE(<object>fresh.block) <= LONGEST_BLOCK:
                replace(&known.keys, fresh.keys)
                replace(&known.block, fresh.block)
            step = write_block(out, &fresh, size, depth)
        finally:
            Py_XDECREF(fresh.keys)
            Py_XDECREF(fresh.block)
    else:
        step = write_block(out, known, size, depth)
    # What is plain runs nobody's code, so that nothing can go away meanwhile.
    while step.index < size and write_plain(out, <object>values[step.index]):
        step.index += 1
    if step.index < size:
        write_rest(out, step, values, size, depth)
    leave(out, step, depth)
    if PyDict_GET_SIZE(value) != size:
        raise _changed()
    return 1


cdef inline WrittenKeys* written_place(object value, Py_ssize_t size) noexcept:
    """Where to look for the keys of this dict; ``NULL`` if the first one is no str."""
    cdef Py_ssize_t position = 0
    cdef PyObject* key = NULL
    cdef uintptr_t place
    PyDict_Next(value, &position, &key, NULL)
    if not PyUnicode_CheckExact_(key):
        return NULL
    place = (<uintptr_t>key >> 4) ^ (<uintptr_t>key >> 11) ^ <uintptr_t>size
    return &written_keys[place % WRITTEN]


cdef inline bint same_keys(
    WrittenKeys* known, object value, Py_ssize_t size, PyObject** values
) noexcept:
    """Whether these very keys are known, in this order; if so ``values`` are filled."""
    cdef Py_ssize_t position = 0
    cdef Py_ssize_t index = 0
    cdef PyObject* key
    if known.keys is NULL or PyTuple_GET_SIZE(<object>known.keys) != size:
        return False
    while PyDict_Next(value, &position, &key, &values[index]):
        if key != PyTuple_GET_ITEM(<object>known.keys, index):
            return False
        index += 1
        if index == size:
            return True
    return False


cdef int new_keys(
    WrittenKeys* fresh, object value, Py_ssize_t size, PyObject** values
) except -1:
    """Fill ``fresh`` and ``values`` and return 1 if all keys are str; else 0."""
    cdef Py_ssize_t position = 0
    cdef Py_ssize_t index = 0
    cdef PyObject* key
    cdef PyObject* item
    while PyDict_Next(value, &position, &key, &item):
        if not PyUnicode_CheckExact_(key):
            return 0
        values[index] = item
        index += 1
    keys = tuple(value)
    block = block_of(keys)
    replace(&fresh.keys, <PyObject*>keys)
    replace(&fresh.block, <PyObject*>block)
    return 1


cdef bytes block_of(tuple keys):
    cdef Out out
    out_begin(&out, False, False)
    try:
        for key in keys:
            write_str(&out, key)
        return out_finish(&out)
    finally:
        Py_XDECREF(out.heap)


cdef Step* write_block(Out* out, WrittenKeys* keys, Py_ssize_t size, int depth) except NULL:
    cdef Step* step = enter(out, depth, STEP_KEYED, keys.keys)
    cdef Py_ssize_t length = PyBytes_GET_SIZE(<object>keys.block)
    write_count(out, TAG_KEYED_DICT, size)
    write_number(out, length)
    write_raw(out, PyBytes_AS_STRING(<object>keys.block), length)
    return step


cdef int write_rest(
    Out* out, Step* step, PyObject** values, Py_ssize_t size, int depth
) except -1:
    """Write the values from ``step`` on, and keep them meanwhile, whatever runs."""
    cdef Py_ssize_t first = step.index
    cdef Py_ssize_t index
    for index in range(first, size):
        Py_INCREF(<object>values[index])
    try:
        while step.index < size:
            write(out, <object>values[step.index], depth + 1)
            step.index += 1
    finally:
        for index in range(first, size):
            Py_DECREF(<object>values[index])
    return 0
