# Where encoded bytes go, and the way to the value that is being written.

cdef extern from "Python.h":
    PyObject* PyBytes_FromStringAndSize(const char* text, Py_ssize_t size) except NULL
    const Py_ssize_t PY_SSIZE_T_MAX
    int _PyBytes_Resize(PyObject** text, Py_ssize_t size) except -1
    char* heap_start "PyBytes_AS_STRING"(PyObject* text)

cdef enum:
    ROOM_IN_OUT = 256
    LARGE = 4096

    STEP_INDEX = 0  # to the item at `index`
    STEP_ITEM = 1   # to the value of the key that is `thing`
    STEP_KEY = 2    # to the key at `index` itself
    STEP_KEYED = 3  # to the value of the key at `index` of the tuple that is `thing`
    STEP_PART = 4   # the step at `index` of the tuple that is `thing`


cdef struct Step:
    int kind
    Py_ssize_t index
    PyObject* thing  # owned, or NULL


# The bytes written so far: in `small` while they fit, then in a bytes object that grows; or in
# the caller's `target`. Where they are only counted, `small` takes what nobody will read.
cdef struct Out:
    char* start
    char* cursor
    char* limit
    Py_ssize_t before  # bytes that came before `start`
    PyObject* heap
    char* target
    Py_ssize_t target_room
    bint counting
    bint allow_pickle
    bint within_object
    int level  # how many of `steps` count
    Step[MAX_DEPTH] steps
    char[ROOM_IN_OUT] small


cdef inline void out_begin(Out* out, bint allow_pickle, bint counting) noexcept:
    out.start = out.cursor = out.small
    out.limit = out.small + ROOM_IN_OUT
    out.before = 0
    out.heap = NULL
    out.target = NULL
    out.target_room = 0
    out.counting = counting
    out.allow_pickle = allow_pickle
    out.within_object = False
    out.level = 0


cdef inline void out_aim(Out* out, char* target, Py_ssize_t room) noexcept:
    """Write to ``target`` what fits into ``room``."""
    out.target = out.start = out.cursor = target
    out.target_room = room
    out.limit = target + room
    out.before = 0
    out.counting = False


cdef inline Py_ssize_t out_used(Out* out) noexcept:
    return out.before + (out.cursor - out.start)


cdef int out_more(Out* out, Py_ssize_t more) except -1:
    """Room for ``more`` bytes; where that cannot be, count from here on."""
    cdef Py_ssize_t used = out.cursor - out.start
    cdef Py_ssize_t room
    if out.counting or out.target is not NULL:
        out.before += used
        out.counting = True
        out.start = out.cursor = out.small
        out.limit = out.small + ROOM_IN_OUT
        return 0
    if more > PY_SSIZE_T_MAX // 4 - used:
        raise MemoryError
    room = 2 * used + more + ROOM_IN_OUT
    if out.heap is NULL and more > LARGE:
        room = used + more  # probably the end: what is exact need not shrink
    if out.heap is NULL:
        out.heap = PyBytes_FromStringAndSize(NULL, room)
        memcpy(heap_start(out.heap), out.small, used)
    else:
        _PyBytes_Resize(&out.heap, room)
    out.start = heap_start(out.heap)
    out.cursor = out.start + used
    out.limit = out.start + room
    return 0


cdef inline char* out_take(Out* out, Py_ssize_t size) except NULL:
    """Room for ``size`` bytes, at most ``ROOM_IN_OUT``, which count as written."""
    cdef char* at
    if out.limit - out.cursor < size:
        out_more(out, size)
    at = out.cursor
    out.cursor += size
    return at


cdef inline char* out_payload(Out* out, Py_ssize_t size) except? NULL:
    """The same for any size; ``NULL`` if they are only counted."""
    cdef char* at
    if out.limit - out.cursor < size:
        out_more(out, size)
    if out.counting:
        out.before += size
        return NULL
    at = out.cursor
    out.cursor += size
    return at


cdef void out_rewind(Out* out, Py_ssize_t used) noexcept:
    """Forget what was written after the first ``used`` bytes."""
    if out.counting and out.target is not NULL and used <= out.target_room:
        out_aim(out, out.target, out.target_room)
    if out.counting:
        out.before = used
        out.cursor = out.start
    else:
        out.cursor = out.start + used


cdef bytes out_finish(Out* out):
    cdef Py_ssize_t used = out.cursor - out.start
    if out.heap is NULL:
        return out.small[:used]
    _PyBytes_Resize(&out.heap, used)
    result = <bytes>out.heap
    Py_DECREF(result)  # now it is ours alone
    out.heap = NULL
    return result


cdef void out_forget_steps(Out* out, int level) noexcept:
    while out.level > level:
        out.level -= 1
        Py_XDECREF(out.steps[out.level].thing)


cdef object step_text(Step* step):
    if step.kind == STEP_ITEM:
        return _item_step(<object>step.thing)
    if step.kind == STEP_KEYED:
        return _item_step((<tuple>step.thing)[step.index])
    if step.kind == STEP_KEY:
        return _key_step(step.index)
    if step.kind == STEP_PART:
        return (<tuple>step.thing)[step.index]
    return f"[{step.index}]"


cdef object out_error(Out* out, object refusal, object root):
    """The error for the caller, who learns the way to the value that was refused."""
    cdef int level
    for level in range(out.level - 1, -1, -1):
        refusal.steps.append(step_text(&out.steps[level]))
    return refusal.as_error(root)


cdef inline Step* enter(Out* out, int depth, int kind, PyObject* thing) except NULL:
    """One level down; the step to where that leads."""
    cdef Step* step
    if depth == MAX_DEPTH:
        raise _too_deep()
    step = &out.steps[depth]
    step.kind = kind
    step.index = 0
    step.thing = thing
    Py_XINCREF(thing)
    out.level = depth + 1
    return step


cdef inline void leave(Out* out, Step* step, int depth) noexcept:
    out.level = depth
    Py_XDECREF(step.thing)
