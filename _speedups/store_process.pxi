# Processes that look at runs, or fill them: their slots in the segment, and views of memory.

import fcntl as _fcntl
import os as _os

cdef extern from *:
    """
    #define store_first_zero(x) __builtin_ctzll(~(x))
    """
    int store_first_zero(uint64_t x) noexcept nogil

cdef enum:
    HAZARD_WORDS = (L_HAZARD_COUNT + 63) // 64

_OBTAIN = _fcntl.LOCK_EX | _fcntl.LOCK_NB

cdef uint64_t fork_generation = 0


def _note_fork():
    global fork_generation
    fork_generation += 1


_os.register_at_fork(after_in_child=_note_fork)


@cython.final
@cython.auto_pickle(False)
cdef class Mapped:
    """The mapping of a segment, which lives as long as anybody looks into it."""

    cdef Py_buffer buffer
    cdef Store store
    cdef bint open

    def __cinit__(self, memory):
        PyObject_GetBuffer(memory, &self.buffer, PyBUF_WRITABLE)
        self.open = True
        self.store.words = <uint64_t*>self.buffer.buf
        self.store.size = <uint64_t>self.buffer.len // 8

    def __dealloc__(self):
        if self.open:
            PyBuffer_Release(&self.buffer)


@cython.final
@cython.auto_pickle(False)
cdef class Process:
    """This process's slot in one segment. Its byte lock, which the kernel gives up for the dead,
    says that it is alive."""

    cdef Mapped mapped
    cdef uint64_t generation
    cdef uint64_t base
    cdef uint64_t number
    cdef uint64_t[HAZARD_WORDS] taken
    cdef uint64_t high
    cdef list unwanted  # blocks that could not be given back yet

    cdef void give_back(self, uint64_t block):
        """Free a block that this process was filling, now or with the next one."""
        self.unwanted.append(block)
        self.give_all_back()

    cdef void give_all_back(self):
        cdef uint64_t block
        while self.unwanted:
            block = self.unwanted[len(self.unwanted) - 1]  # wraparound is off: no -1
            if pages_give_back(&self.mapped.store, block, self.number + 1) == ST_BUSY:
                return
            self.unwanted.pop()

    cdef int take(self) noexcept:
        """The index of a free hazard, the lowest, or -1."""
        cdef int word
        cdef int index
        for word in range(HAZARD_WORDS):
            if ~self.taken[word]:
                index = 64 * word + store_first_zero(self.taken[word])
                if index >= L_HAZARD_COUNT:
                    return -1
                self.taken[word] |= <uint64_t>1 << (index & 63)
                return index
        return -1

    cdef void look_at(self, int index, uint64_t block) noexcept:
        """Keep a run; the caller then makes sure that it is still reachable."""
        cdef uint64_t* words = self.mapped.store.words + self.base
        store_poke(words + L_P_HAZARDS + index, block)
        if <uint64_t>index >= self.high:
            self.high = index + 1
            store_poke(words + L_P_HIGH, self.high)
        store_fence()

    cdef void look_away(self, int index) noexcept:
        cdef uint64_t* words = self.mapped.store.words + self.base
        if self.generation != fork_generation:
            return  # the parent's, who still looks
        store_publish(words + L_P_HAZARDS + index, 0)
        self.taken[index >> 6] &= ~(<uint64_t>1 << (index & 63))
        if self.high == <uint64_t>index + 1:
            while self.high and not store_peek(words + L_P_HAZARDS + self.high - 1):
                self.high -= 1
            store_publish(words + L_P_HIGH, self.high)

    def __dealloc__(self):
        # No view is left, since each keeps this; what is being filled keeps it, too.
        if self.mapped is not None and self.generation == fork_generation:
            store_publish(self.mapped.store.words + self.base + L_P_STATE, L_PROCESS_FREE)


# Of a run that stays as it is.
cdef struct Memory:
    char* start
    Py_ssize_t nbytes
    bint readonly


@cython.final
@cython.no_gc
@cython.freelist(64)
@cython.auto_pickle(False)
cdef class Pin:
    """Memory of the segment that stays as it is while this lives."""

    cdef Process process
    cdef int index
    cdef Memory memory

    def __getbuffer__(self, Py_buffer* view, int flags):
        raise NotImplementedError  # see below

    def __len__(self):
        return self.memory.nbytes

    def __dealloc__(self):
        if self.process is not None:
            self.process.look_away(self.index)


cdef inline void aim(Memory* memory, Process process, uint64_t block, uint64_t length) noexcept:
    memory.start = <char*>(process.mapped.store.words + block + header_for(length))
    memory.nbytes = <Py_ssize_t>length
    memory.readonly = True


cdef inline Pin pin_of(Process process, int index, uint64_t block, uint64_t length):
    cdef Pin pin = Pin.__new__(Pin)
    pin.process = process
    pin.index = index
    aim(&pin.memory, process, block, length)
    return pin


@cython.final
@cython.no_gc
@cython.auto_pickle(False)
cdef class Allocation:
    """Memory that its maker fills before it becomes a value, through the buffer protocol.

    It is writable until it is ``stored``, and stays as it is from then on; what never becomes
    a value is given back.
    """

    cdef Process process
    cdef int index
    cdef Memory memory
    cdef uint64_t block
    cdef readonly bint stored
    cdef bint given  # to a step that may store it

    def __getbuffer__(self, Py_buffer* view, int flags):
        raise NotImplementedError  # see below

    @property
    def nbytes(self):
        """Bytes."""
        return self.memory.nbytes

    def __len__(self):
        return self.memory.nbytes

    def __dealloc__(self):
        if self.process is None:
            return
        if not self.stored and self.process.generation == fork_generation:
            self.process.give_back(self.block)
        self.process.look_away(self.index)


# NumPy first asks every buffer to be writable. A refusal must not cost a traceback, which it
# would if it came from a Python method: so the two slots are filled by hand.

cdef extern from "Python.h":
    ctypedef int (*getbufferproc)(PyObject*, Py_buffer*, int)
    ctypedef struct PyBufferProcs:
        getbufferproc bf_getbuffer
    ctypedef struct BufferType "PyTypeObject":
        PyBufferProcs* tp_as_buffer
    int PyBuffer_FillInfo(
        Py_buffer* view, PyObject* owner, void* start, Py_ssize_t size, int readonly, int flags
    )


cdef int show_bytes(PyObject* owner, Memory* memory, Py_buffer* view, int flags) noexcept:
    return PyBuffer_FillInfo(view, owner, memory.start, memory.nbytes, memory.readonly, flags)


cdef int show_pin(PyObject* pin, Py_buffer* view, int flags) noexcept:
    return show_bytes(pin, &(<Pin>pin).memory, view, flags)


cdef int show_allocation(PyObject* allocation, Py_buffer* view, int flags) noexcept:
    return show_bytes(allocation, &(<Allocation>allocation).memory, view, flags)


(<BufferType*>Pin).tp_as_buffer.bf_getbuffer = show_pin
(<BufferType*>Allocation).tp_as_buffer.bf_getbuffer = show_allocation


def _started(pid):
    """When a process began, in clock ticks; 0 if it is gone, or a zombie."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
            return 0 if fields[0] in b"ZX" else int(fields[19])
    except (FileNotFoundError, ProcessLookupError):
        return 0


cdef bint lock_process(object locks, int operation, uint64_t number) except -1:
    """Try to lock a slot's byte, or let it go; whether that was done. `StoreClosed` if the store
    was closed meanwhile."""
    cdef int descriptor = locks.descriptor
    if descriptor < 0:
        raise _faults.closed()
    try:
        _fcntl.lockf(descriptor, operation, 1, L_PROCESS_LOCKS + number)
    except OSError:
        return False
    return True


cdef Process claim_process(Mapped mapped, object locks):
    """A slot for this process, after whoever died in it; ``None`` if all are taken."""
    cdef Store* store = &mapped.store
    cdef Process process
    cdef uint64_t number, base
    cdef uint64_t pid = _os.getpid()
    cdef uint64_t started = _started(pid)
    for number in range(<uint64_t>L_PROCESS_COUNT):
        base = L_PROCESSES + number * L_PROCESS_WORDS
        if not lock_process(locks, _OBTAIN, number):
            continue
        if peek(store, base + L_P_STATE) and not recover_process(mapped, number):
            lock_process(locks, _fcntl.LOCK_UN, number)
            continue
        if store_reserve(store.file, 8 * base, 8 * L_PROCESS_WORDS) != 0:
            lock_process(locks, _fcntl.LOCK_UN, number)
            return None
        poke(store, base + L_P_PID, pid)
        poke(store, base + L_P_STARTED, started)
        store_publish(store.words + base + L_P_STATE, L_PROCESS_LIVE)
        store_raise(store.words + L_PROCESSES_USED, number + 1)
        process = Process.__new__(Process)
        process.mapped = mapped
        process.generation = fork_generation
        process.base = base
        process.number = number
        process.unwanted = []
        return process
    return None


cdef bint recover_process(Mapped mapped, uint64_t number) except -1:
    """Take back what a dead process held, whose byte lock is ours; False if it is not dead, or
    if something that it began may still be finished."""
    cdef Store* store = &mapped.store
    cdef uint64_t base = L_PROCESSES + number * L_PROCESS_WORDS
    cdef uint64_t pid = peek(store, base + L_P_PID)
    cdef uint64_t started = peek(store, base + L_P_STARTED)
    cdef uint64_t hazard
    if peek(store, base + L_P_STATE) == L_PROCESS_FREE:
        return True
    if pid and started and _started(pid) == started:
        return False  # alive; only its locks are gone, as by closing all descriptors
    if not all_applied(store):
        return False
    for hazard in range(min(peek(store, base + L_P_HIGH), <uint64_t>L_HAZARD_COUNT)):
        poke(store, base + L_P_HAZARDS + hazard, 0)
    poke(store, base + L_P_HIGH, 0)
    if free_private(store, number + 1) != ST_OK:
        return False
    store_publish(store.words + base + L_P_STATE, L_PROCESS_FREE)
    return True


cdef bint all_applied(Store* store) noexcept nogil:
    """Finish every committed log: one may make a block public that its dead owner filled."""
    cdef uint64_t stripe, base
    for stripe in range(<uint64_t>L_STRIPE_COUNT):
        base = base_of(stripe)
        if peek(store, base + L_S_COMMIT) & 1:
            if stripe_enter(store, base, store.patience) != ST_OK:
                return False
            stripe_leave(store, base)
    return True


cdef int free_private(Store* store, uint64_t owner) noexcept nogil:
    """Free every run that ``owner`` was filling."""
    cdef Log log
    cdef uint64_t page = 0
    cdef uint64_t entry
    cdef int status = pages_enter(store, &log)
    if status != ST_OK:
        return status
    while status == ST_OK and page < min(get(&log, L_PAGES), store.all_pages):
        entry = get(&log, descriptor_of(page))
        if entry & 0xFF == PAGE_RUN and get(&log, descriptor_of(page) + L_D_OWNER) == owner:
            if not give_run(&log, start_of(store, page), owner):
                status = ST_DAMAGED
                break
            if log.count >= LOG_ENOUGH:
                status = pages_go_on(&log)
        page += max(entry >> 8, <uint64_t>1) if entry & 0xFF != PAGE_SLAB else 1
    if status == ST_OK:
        status = pages_commit(&log)
    pages_leave(store, &log)
    return status
