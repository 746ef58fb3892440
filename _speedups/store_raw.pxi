# The compiled twin of snakepit_mp/store/raw_store.py.
#
# Between `enter_stripe` and `stripe_leave` nothing touches a Python object, so a stripe is never
# held while Python code runs. Readers hold nothing: they look, and look again if they saw
# something of two moments. A stripe whose owner is dead or stopped does not change, so a look at
# it succeeds; one that changes all the time has owners that let others in, so a reader that fails
# too often takes the lock.

from contextlib import contextmanager as _contextmanager
from time import monotonic as _monotonic

from cpython.exc cimport PyErr_CheckSignals
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from cpython.tuple cimport PyTuple_Check

from snakepit_mp.store import faults as _faults
from snakepit_mp.store import places as _places

cdef object _VariableParts = _places.VariableParts
cdef object _new_tuple = tuple.__new__  # no bytecode: a stripe may be held
cdef object _again = object()  # what was seen is of two moments

cdef extern from "Python.h":
    int PyGC_Disable()
    int PyGC_Enable()

cdef enum:
    LOOKS = 16  # before a reader takes the lock
    BIG_COPY = 1 << 16
    SLICE = 50_000_000  # ns between two looks at signals

cdef enum What:
    SEE_SESSION
    SEE_EXISTS
    SEE_PARTS
    SEE_MANY_PARTS
    SEE_ALL_PARTS
    SEE_CONTAINS
    SEE_NAMES
    SEE_VERSIONS
    SEE_VALUE
    SEE_VALUES
    SEE_HISTORY


cdef inline int place_ref(PlaceRef* ref, object place) except -1:
    """Aim at a place, which has to live as long."""
    if not PyTuple_Check(place):
        raise TypeError(f"not a place: {place!r}")
    name = <bytes?>(<tuple>place)[1]
    ref.name = PyBytes_AS_STRING(name)
    ref.size = <uint64_t>PyBytes_GET_SIZE(name)
    ref.digest = (<tuple>place)[2]
    ref.base = base_of((<tuple>place)[3])
    if ref.base >= L_PROCESSES:
        raise ValueError("there is no such stripe")
    return 0


cdef inline int key_ref(KeyRef* ref, object key) except -1:
    """Aim at a key, which has to live as long."""
    if not PyTuple_Check(key):
        raise TypeError(f"not a key: {key!r}")
    name = <bytes?>(<tuple>key)[1]
    other = (<tuple>key)[4]
    ref.name = PyBytes_AS_STRING(name)
    ref.size = <uint64_t>PyBytes_GET_SIZE(name)
    ref.digest = (<tuple>key)[2]
    ref.number = (<tuple>key)[3]
    ref.other = NULL
    if other is not None:
        name = <bytes?>other[1]
        ref.other = PyBytes_AS_STRING(name)
        ref.other_size = <uint64_t>PyBytes_GET_SIZE(name)
        ref.other_digest = other[2]
        ref.other_number = other[3]
    return 0


# What a look finds, as Python objects; `_again` where it is not worth going on.

cdef object see_bytes(Look* look, uint64_t word, uint64_t length):
    """A copy of words, with what a log changes."""
    cdef Store* store = look.store
    cdef uint64_t number, offset
    if not holds(store, word, words_for(length)):
        return _again
    if length > BIG_COPY and not (has_memory(store, word, length) and look_holds(look)):
        return _again
    copy = (<const char*>(store.words + word))[:length]
    for number in range(look.count):
        offset = look.pairs[2 * number] - word
        if offset < words_for(length):
            memcpy(
                PyBytes_AS_STRING(copy) + 8 * offset, look.pairs + 2 * number + 1,
                min(<uint64_t>8, length - 8 * offset)
            )
    return copy


cdef inline bint has_memory(Store* store, uint64_t word, uint64_t length) noexcept:
    cdef uint64_t pages = min(peek(store, L_PAGES), store.most_pages)
    return word + words_for(length) <= start_of(store, pages)


cdef object see_record(Look* look, uint64_t record):
    return see_bytes(
        look, record, 8 * L_SMALL_HEADER + length_of(see(look, record + L_B_KIND))
    )


cdef object see_content(Look* look, uint64_t block, uint64_t length):
    """A copy of what is in a block."""
    return see_bytes(look, block + header_for(length), length)


cdef object see_block(Look* look, uint64_t block):
    return see_content(look, block, length_of(see(look, block + L_B_KIND))) if block else b""


cdef object see_encoded(Look* look, uint64_t record):
    """A copy of a variable's encoded value."""
    cdef uint64_t block = see(look, record + L_R_VALUE)
    cdef uint64_t length = see(look, record + L_R_VALUE_LENGTH)
    if block:
        return see_content(look, block, length)
    return see_bytes(look, record + L_R_INLINE, min(length, <uint64_t>L_INLINE_BYTES))


cdef object see_parts(Look* look, uint64_t record):
    copy = see_record(look, record)
    facts = see_block(look, see(look, record + L_R_FACTS))
    value = see_encoded(look, record)
    if copy is _again or facts is _again or value is _again:
        return _again
    return _new_tuple(_VariableParts, (copy, facts, value))


cdef object see_entries(Look* look, uint64_t owner):
    """The records of a table, as a list of integers."""
    cdef Store* store = look.store
    cdef uint64_t block = see(look, owner + L_T_BLOCK)
    cdef uint64_t length = length_of(see(look, block + L_B_KIND)) if block else 0
    cdef uint64_t first = block + header_for(length)
    cdef uint64_t place, entry
    cdef list found = []
    if block and not holds(store, first, length >> 3) or not look_holds(look):
        return _again
    for place in range(length >> 3):
        entry = see(look, first + place)
        if entry > 1:
            found.append(entry & TABLE_RECORD)
    return found


cdef object see_history(Look* look, uint64_t record):
    cdef uint64_t ring_block = see(look, record + L_R_HISTORY)
    cdef uint64_t length, start, capacity, count, number, entry
    value = see_encoded(look, record)
    cdef list found = [
        (see(look, record + L_R_VERSION), see(look, record + L_R_UPDATED), value)
    ]
    if ring_block and value is not _again:
        length = length_of(see(look, ring_block + L_B_KIND))
        start = ring_block + header_for(length)
        capacity = see(look, start + L_H_CAPACITY)
        count = see(look, start + L_H_COUNT)
        if capacity == 0 or capacity > L_HISTORY_MOST:
            return _again
        for number in range(min(capacity, count)):
            entry = start + L_H_ENTRIES + L_HISTORY_ENTRY * ((count - 1 - number) % capacity)
            value = see_content(look, see(look, entry + 2), see(look, entry + 3))
            if value is _again:
                break
            found.append((see(look, entry), see(look, entry + 1), value))
    return _again if value is _again else found


cdef object small_value(const unsigned char* at, Py_ssize_t size):
    """The value of a few bytes that are ours."""
    cdef double real
    cdef int64_t number
    if size == 10 and at[0] == VERSION:
        if at[1] == TAG_FLOAT:
            memcpy(&real, at + 2, 8)
            return real
        if at[1] == TAG_INT:
            memcpy(&number, at + 2, 8)
            return <long long>number
    return decode_bytes((<const char*>at)[:size])


cdef object decode_bytes(bytes data):
    cdef In source
    source.start = <const unsigned char*>PyBytes_AS_STRING(data)
    source.end = PyBytes_GET_SIZE(data)
    source.offset = 0
    source.owner = <PyObject*>data
    source.position = 1
    source.allow_pickle = False
    if source.end == 0:
        raise _truncated(0)
    if source.start[0] != VERSION:
        raise _corrupt(f"version {source.start[0]} is unknown", 0)
    value = read(&source, 0)
    if source.position != source.end:
        raise _corrupt("the value has ended, but not the bytes", source.position)
    return value


cdef object long_value(bytes data):
    """The value of a long copy, of the same type as a view would have."""
    value = decode_bytes(data)
    if PyBytes_CheckExact(value) and (<const unsigned char*>data)[1] == TAG_BYTES:
        return memoryview(value)
    return value


cdef object pinned_value(Pin pin):
    """The value in a run: arrays and long bytes are views of it."""
    cdef In source
    source.start = <const unsigned char*>pin.memory.start
    source.end = pin.memory.nbytes
    source.offset = 0
    source.owner = <PyObject*>pin
    source.position = 2
    source.allow_pickle = False
    if source.start[0] == VERSION and source.start[1] == TAG_ARRAY:
        value = read_array(&source, 1)
        if value is not None and source.position == source.end:
            return value
    view = memoryview(pin)
    if source.start[0] == VERSION and source.start[1] == TAG_BYTES:
        if read_count(&source, 1, 1) == source.end - source.position:
            return view[source.position:]
    return decode(view, copy=False)


@cython.final
@cython.auto_pickle(False)
cdef class RawStore:
    """The sessions of one segment, under robust mutexes; see ``snakepit_mp.store.raw_store``."""

    family = L_FAMILY_ROBUST

    cdef Mapped mapped
    cdef Store* store
    cdef object segment
    cdef object locks
    cdef object limits
    cdef Process process
    cdef bint closed
    cdef bint locked  # by a reader of this thread, who holds the GIL
    cdef int inside  # threads that wait without the GIL

    def __init__(self, segment, locks, limits):
        cdef Store* store
        cdef uint64_t stripe
        self.mapped = Mapped(segment.memory)
        self.segment = segment
        self.locks = locks
        self.limits = limits
        self.store = store = &self.mapped.store
        store.heap = segment.heap
        store.most_pages = min(segment.max_pages, max(limits.max_bytes // L_PAGE_BYTES, 1))
        store.max_sessions = limits.max_sessions
        store.max_variables = limits.max_variables
        store.file = segment.descriptor
        store.frozen = -1
        store.patience = 1_000_000_000
        if not peek(store, L_LOCKS_READY):  # nobody else has the segment yet
            store_mutex_init(store.words + L_ALLOCATOR_MUTEX)
            for stripe in range(<uint64_t>L_STRIPE_COUNT):
                store_mutex_init(store.words + base_of(stripe) + L_S_MUTEX)
            poke(store, L_LOCKS_READY, 1)

    def freeze_clock(self, monotonic):
        """Let the time of TTLs stand still, or go on."""
        self.store.frozen = -1 if monotonic is None else monotonic

    # Locks and errors.

    cdef int enter_stripe(self, uint64_t base) except -1:
        """Lock a stripe. Raises `StoreBusy` and what a signal handler raises."""
        cdef int status
        if self.closed:
            raise _faults.closed()
        status = stripe_enter(self.store, base, 0)
        if status == ST_BUSY:
            status = self.wait_for_stripe(base)
        if status != ST_OK:
            raise self.fault(status, None, None, base)
        return 0

    cdef int wait_for_stripe(self, uint64_t base) except -1:
        cdef double until = _monotonic() + self.locks.timeout
        cdef int status = ST_BUSY
        while status == ST_BUSY and _monotonic() < until:
            status = self.try_to_enter(base, SLICE)
            if status != ST_OK:
                PyErr_CheckSignals()
        return status

    cdef int try_to_enter(self, uint64_t base, int64_t patience) except -1:
        """Wait for a stripe without the GIL."""
        cdef Store* store = self.store
        cdef int status
        if self.closed:
            raise _faults.closed()
        self.inside += 1
        with nogil:
            status = stripe_enter(store, base, patience)
        self.inside -= 1
        return status

    cdef object fault(self, int status, object place, object key, uint64_t base):
        """The error for what went wrong."""
        if status == ST_NO_SESSION:
            return _faults.session_not_found(place)
        if status == ST_NO_VARIABLE:
            return _faults.variable_not_found(place, key)
        if status == ST_TOO_MANY_SESSIONS:
            return _faults.session_limit(self.limits.max_sessions)
        if status == ST_TOO_MANY_VARIABLES:
            return _faults.variable_limit(self.limits.max_variables)
        if status == ST_BUSY:
            return _faults.busy((base - L_STRIPES) // L_STRIPE_WORDS, self.locks.timeout)
        if status == ST_NO_MEMORY:
            return MemoryError()
        return _faults.damaged("a record, a list or a log leads out of it")

    cdef object full(self, uint64_t wanted):
        return _faults.store_full(
            wanted, self.limits.max_bytes, peek(self.store, L_FREE_PAGES) * L_PAGE_BYTES
        )

    # Looking.

    cdef object looked(self, object place, int what, object arguments, bint use):
        """What a look at a session finds: as often as needed, at last under the lock."""
        cdef PlaceRef ref
        cdef Look look
        cdef uint64_t session = 0
        cdef bint due = False
        cdef int status, tries
        cdef int64_t now
        cdef double until = 0
        cdef int collecting
        if self.closed:
            raise _faults.closed()
        place_ref(&ref, place)
        for tries in range(1 << 30):
            now = monotonic(self.store)
            look_begin(&look, self.store, ref.base)
            status = find_session(&look, &ref, now, &session)
            result = _again
            if status == ST_OK:
                due = use and stamp_is_due(&look, session, now)
                result = self.seen(&look, session, what, arguments, &status)
            if result is not _again and look_holds(&look):
                break
            if status == ST_NO_SESSION and look_holds(&look):
                break
            if tries % LOOKS == LOOKS - 1 and self.can_enter(ref.base, &until):
                collecting = self.begin_locked()
                try:
                    look_begin(&look, self.store, ref.base)
                    status = find_session(&look, &ref, now, &session)
                    result = _again
                    if status == ST_OK:
                        result = self.seen(&look, session, what, arguments, &status)
                finally:
                    self.end_locked(ref.base, collecting)
                if result is _again and status == ST_OK:
                    raise _faults.damaged("a record leads out of it")
                break
        if status == ST_NO_SESSION:
            if what == SEE_EXISTS:
                return False
            raise _faults.session_not_found(place)
        if due:
            self.stamp(&ref, now)
        return result

    cdef int begin_locked(self):
        """No collection, and so no code of others, until the stripe is left."""
        self.locked = True
        return PyGC_Disable()

    cdef void end_locked(self, uint64_t base, int collecting):
        stripe_leave(self.store, base)
        self.locked = False
        if collecting:
            PyGC_Enable()

    cdef bint can_enter(self, uint64_t base, double* until) except -1:
        """Whether the lock could be had quickly; raises `StoreBusy` after a while."""
        cdef int status
        if until[0] == 0:
            until[0] = _monotonic() + self.locks.timeout
        elif _monotonic() > until[0]:
            raise self.fault(ST_BUSY, None, None, base)
        status = self.try_to_enter(base, 1_000_000)
        if status != ST_OK and status != ST_BUSY:
            raise self.fault(status, None, None, base)
        if status == ST_BUSY:
            PyErr_CheckSignals()
        return status == ST_OK

    cdef int stamp(self, PlaceRef* ref, int64_t now) except -1:
        """Note a use, if nobody is writing: the next use comes soon."""
        cdef Look look
        cdef uint64_t session
        if stripe_enter(self.store, ref.base, 0) == ST_OK:
            look_begin(&look, self.store, ref.base)
            if find_session(&look, ref, now, &session) == ST_OK:
                poke(self.store, session + L_V_ACCESSED, <uint64_t>now)
            stripe_leave(self.store, ref.base)
        return 0

    cdef object seen(
        self, Look* look, uint64_t session, int what, object arguments, int* status
    ):
        """Objects for what was asked, `_again` if it cannot be of one moment."""
        cdef KeyRef key
        cdef uint64_t record, slot
        if what == SEE_EXISTS:
            return True
        if what == SEE_SESSION:
            return see_record(look, session)
        if what == SEE_ALL_PARTS or what == SEE_NAMES:
            return self.seen_all(look, session, what)
        if what == SEE_MANY_PARTS or what == SEE_VERSIONS or what == SEE_VALUES:
            return self.seen_many(look, session, what, arguments)
        key_ref(&key, arguments)
        if find_variable(look, session, &key, &record, &slot) != ST_OK:
            return False if what == SEE_CONTAINS else None
        if what == SEE_CONTAINS:
            return True
        if what == SEE_PARTS:
            return see_parts(look, record)
        if what == SEE_HISTORY:
            return see_history(look, record)
        return self.seen_value(look, record)

    cdef object seen_all(self, Look* look, uint64_t session, int what):
        cdef list found = []
        cdef uint64_t record
        entries = see_entries(look, session + L_V_VARIABLES)
        if entries is _again:
            return _again
        for number in entries:
            record = number
            if what == SEE_ALL_PARTS:
                item = see_parts(look, record)
            else:
                name = see_bytes(
                    look, record + L_R_NAME, see(look, record + L_R_LENGTHS) & LOW_HALF
                )
                item = _again if name is _again else (see(look, record + L_R_NUMBER), name)
            if item is _again:
                return _again
            found.append(item)
        return found

    cdef object seen_many(self, Look* look, uint64_t session, int what, object keys):
        cdef KeyRef key
        cdef uint64_t record, slot
        cdef list found = []
        for wanted in keys:
            key_ref(&key, wanted)
            if find_variable(look, session, &key, &record, &slot) != ST_OK:
                item = (0, 0) if what == SEE_VERSIONS else None
                if what == SEE_VALUES:
                    return wanted  # the one that is missing
            elif what == SEE_VERSIONS:
                item = (see(look, record + L_R_NUMBER), see(look, record + L_R_VERSION))
            elif what == SEE_MANY_PARTS:
                item = see_parts(look, record)
            else:
                item = self.seen_encoded(look, record)
            if item is _again:
                return _again
            found.append(item)
        return found

    cdef object seen_encoded(self, Look* look, uint64_t record):
        """The bytes of a value, or a view of them."""
        cdef uint64_t block = see(look, record + L_R_VALUE)
        cdef uint64_t length = see(look, record + L_R_VALUE_LENGTH)
        if block and length > L_SMALL_MOST:
            pin = self.pinned(look, block, length)
            if pin is not None:
                return pin
        return see_encoded(look, record)

    cdef object seen_value(self, Look* look, uint64_t record):
        """The encoded value in a tuple: it is decoded when it is known to be of one moment."""
        encoded = self.seen_encoded(look, record)
        return _again if encoded is _again else (encoded,)

    cdef object pinned(self, Look* look, uint64_t block, uint64_t length):
        """A view of a run, `_again` if it may be gone, ``None`` if there is no slot for it."""
        cdef Process process = self.process_now()
        cdef int index
        if not holds(self.store, block, L_RUN_HEADER + words_for(length)):
            return _again
        index = -1 if process is None else process.take()
        if index < 0:
            return None
        process.look_at(index, block)
        pin = pin_of(process, index, block, length)
        return pin if look_holds(look) else _again

    cdef Process process_now(self):
        """This process's slot, shared by all handles of the segment; ``None`` without one."""
        cdef Process process = self.process
        if process is not None and process.generation == fork_generation:
            return process
        if self.locked:
            return None
        process = self.locks.process
        if process is None or process.generation != fork_generation:
            process = claim_process(self.mapped, self.locks)
            self.locks.process = process
        self.process = process
        return process

    # Sessions.

    def create_session(self, place, lifetime, bytes metadata, bint exist_ok):
        """Create a session unless it exists, and return its record."""
        cdef PlaceRef ref
        cdef Look look
        cdef uint64_t session = 0
        cdef int status, collecting
        cdef uint64_t life = lifetime
        place_ref(&ref, place)
        self.enter_stripe(ref.base)
        status = session_create(
            self.store, &ref, life, PyBytes_AS_STRING(metadata),
            <uint64_t>PyBytes_GET_SIZE(metadata), exist_ok, &session
        )
        if status == ST_OK:
            collecting = self.begin_locked()
            try:
                look_begin(&look, self.store, ref.base)
                return see_record(&look, session)
            finally:
                self.end_locked(ref.base, collecting)
        stripe_leave(self.store, ref.base)
        if status == ST_EXISTS:
            raise _faults.session_exists_already(place)
        if status == ST_FULL:
            raise self.full(len(metadata))
        raise self.fault(status, place, None, ref.base)

    def session(self, place):
        """The session's record; a use."""
        return self.looked(place, SEE_SESSION, None, True)

    def session_exists(self, place):
        """Whether it is there and alive; not a use."""
        return self.looked(place, SEE_EXISTS, None, False)

    def touch(self, place):
        """A use."""
        self.note(place, L_V_ACCESSED, -1)

    def note_worker(self, place, worker_id):
        """Record which worker runs the session's call; a use."""
        self.note(place, L_V_WORKER, worker_id)

    cdef int note(self, object place, uint64_t word, int64_t number) except -1:
        cdef PlaceRef ref
        cdef Look look
        cdef uint64_t session
        cdef int64_t now = monotonic(self.store)
        cdef int status
        place_ref(&ref, place)
        self.enter_stripe(ref.base)
        look_begin(&look, self.store, ref.base)
        status = find_session(&look, &ref, now, &session)
        if status == ST_OK:
            poke(self.store, session + L_V_ACCESSED, <uint64_t>now)
            if number >= 0:
                poke(self.store, session + word, <uint64_t>number + 1)
        stripe_leave(self.store, ref.base)
        if status != ST_OK:
            raise self.fault(status, place, None, ref.base)
        return 0

    def sessions(self, stripe):
        """The records of all living sessions of a stripe, hidden ones included; no use."""
        cdef Look look
        cdef uint64_t base = base_of(stripe_number(stripe))
        cdef double until = 0
        cdef int tries, collecting
        if self.closed:
            raise _faults.closed()
        for tries in range(1 << 30):
            look_begin(&look, self.store, base)
            found = self.living(&look, base)
            if found is not _again and look_holds(&look):
                return found
            if tries % LOOKS == LOOKS - 1 and self.can_enter(base, &until):
                collecting = self.begin_locked()
                try:
                    look_begin(&look, self.store, base)
                    found = self.living(&look, base)
                finally:
                    self.end_locked(base, collecting)
                if found is _again:
                    raise _faults.damaged("a session's record leads out of it")
                return found

    cdef object living(self, Look* look, uint64_t base):
        cdef list found = []
        cdef int64_t now = monotonic(self.store)
        entries = see_entries(look, base + L_S_INDEX)
        if entries is _again:
            return _again
        for number in entries:
            if not is_over(look, number, now):
                record = see_record(look, number)
                if record is _again:
                    return _again
                found.append(record)
        return found

    def delete_session(self, place):
        """Delete a session in one step; how many variables went with it."""
        cdef PlaceRef ref
        cdef uint64_t variables = 0
        cdef int status
        place_ref(&ref, place)
        self.enter_stripe(ref.base)
        status = session_delete(self.store, &ref, False, &variables)
        stripe_leave(self.store, ref.base)
        if status != ST_OK:
            raise self.fault(status, place, None, ref.base)
        return variables

    def sweep(self, stripe):
        """Remove a stripe's expired sessions; how many. Also tidies."""
        cdef uint64_t base = base_of(stripe_number(stripe))
        cdef uint64_t removed = 0
        cdef int status
        self.enter_stripe(base)
        with nogil:
            status = stripe_sweep(self.store, base, &removed)
        stripe_leave(self.store, base)
        if status != ST_OK:
            raise self.fault(status, None, None, base)
        self.tidy(stripe)
        return removed

    def tidy(self, stripe):
        """Repair a stripe and free some of what waits for it; whether there is more to do."""
        cdef uint64_t base = base_of(stripe_number(stripe))
        cdef uint64_t before
        cdef bint done
        self.enter_stripe(base)
        before = peek(self.store, base + L_S_COMMIT)
        with nogil:
            done = free_graves(self.store, base, ROUNDS_OF_TIDYING)
        # Without memory, or where something is damaged, it does not get on.
        done = done or peek(self.store, base + L_S_COMMIT) == before
        stripe_leave(self.store, base)
        return not done

    # Variables.

    def register(self, place, key, new, bint exist_ok):
        """Create a variable, or with ``exist_ok`` return the one of that name."""
        cdef PlaceRef ref
        cdef Item item
        cdef Look look
        cdef int status, collecting
        cdef bytes kind = new[0]
        cdef bytes facts = new[2]
        cdef uint64_t history = new[3]
        place_ref(&ref, place)
        memset(&item, 0, sizeof(Item))
        key_ref(&item.key, key)
        item.key.other = NULL
        owner = self.fill(&item, new[1])
        self.enter_stripe(ref.base)
        status = variable_register(
            self.store, &ref, &item, PyBytes_AS_STRING(kind), <uint64_t>PyBytes_GET_SIZE(kind),
            PyBytes_AS_STRING(facts), <uint64_t>PyBytes_GET_SIZE(facts), history, exist_ok
        )
        if status == ST_OK:
            collecting = self.begin_locked()
            try:
                self.filled(&item, owner)
                look_begin(&look, self.store, ref.base)
                return see_parts(&look, item.record)
            finally:
                self.end_locked(ref.base, collecting)
        stripe_leave(self.store, ref.base)
        if status == ST_EXISTS:
            raise _faults.variable_exists(place, key)
        if status == ST_FULL:
            raise self.full(item.size + PyBytes_GET_SIZE(facts))
        raise self.fault(status, place, key, ref.base)

    cdef object fill(self, Item* item, object data):
        """Aim an item at its bytes; those of a large one go into a block of their own.

        What is returned has to live as long as the item.
        """
        cdef Allocation allocation
        if isinstance(data, Allocation):
            allocation = data
            if allocation.stored:
                raise ValueError("this allocation is stored already: make a new one")
        else:
            item.data = PyBytes_AS_STRING(data)
            item.size = <uint64_t>PyBytes_GET_SIZE(data)
            if item.size <= L_SMALL_MOST:
                return data
            allocation = self.allocate(item.size)
            if allocation is None:
                return data
            memcpy(allocation.memory.start, item.data, item.size)
        item.size = <uint64_t>allocation.memory.nbytes
        item.block = allocation.block
        return allocation

    cdef int filled(self, Item* item, object owner) except -1:
        """After the commit: what lies in a block is the store's now."""
        if isinstance(owner, Allocation) and item.block == 0:
            (<Allocation>owner).stored = True
            (<Allocation>owner).memory.readonly = True
        return 0

    def variable(self, place, key):
        """Copies of all that belongs to a variable."""
        return self.found(place, key, self.looked(place, SEE_PARTS, key, True))

    cdef object found(self, object place, object key, object result):
        if result is None:
            raise _faults.variable_not_found(place, key)
        return result

    def value(self, place, key):
        """The decoded value; arrays and long bytes are views."""
        return self.decoded(
            (<tuple>self.found(place, key, self.looked(place, SEE_VALUE, key, True)))[0]
        )

    cdef object decoded(self, object encoded):
        if type(encoded) is Pin:
            return pinned_value(encoded)
        if PyBytes_GET_SIZE(encoded) > L_SMALL_MOST:
            return long_value(encoded)
        return decode_bytes(encoded)

    def values(self, place, keys):
        """Several decoded values of one moment."""
        result = self.looked(place, SEE_VALUES, keys, True)
        if type(result) is not list:
            raise _faults.variable_not_found(place, result)
        return [self.decoded(encoded) for encoded in result]

    def variables(self, place, keys):
        """Several of one moment; ``None`` for those that do not exist."""
        return self.looked(place, SEE_MANY_PARTS, keys, True)

    def all_variables(self, place):
        """All of one moment, programs included, in no order."""
        return self.looked(place, SEE_ALL_PARTS, None, True)

    def contains(self, place, key):
        """Whether there is such a variable."""
        return self.looked(place, SEE_CONTAINS, key, True)

    def names(self, place):
        """Number and key of every variable and program, in no order."""
        return self.looked(place, SEE_NAMES, None, True)

    def versions(self, place, keys):
        """Number and version of each, of one moment; not a use."""
        return self.looked(place, SEE_VERSIONS, keys, False)

    def write(self, place, updates):
        """Give variables new values in one step; their new versions."""
        cdef Py_ssize_t count = len(updates)
        cdef Item* items
        cdef Py_ssize_t number
        cdef list owners = []
        if count == 0:
            self.touch(place)
            return []
        items = <Item*>PyMem_Malloc(count * sizeof(Item))
        if items is NULL:
            raise MemoryError
        try:
            memset(items, 0, count * sizeof(Item))
            for number, update in enumerate(updates):
                key_ref(&items[number].key, update[0])
                owners.append(self.fill(&items[number], update[1]))
                items[number].number = update[2]
                items[number].facts_version = update[3]
                items[number].expected = update[4]
            return self.written(place, updates, items, count, owners)
        finally:
            PyMem_Free(items)

    cdef object written(
        self, object place, object updates, Item* items, Py_ssize_t count, list owners
    ):
        cdef PlaceRef ref
        cdef Look look
        cdef uint64_t session, bad = 0
        cdef uint64_t wanted = 0
        cdef int64_t now = monotonic(self.store)
        cdef Py_ssize_t number
        cdef int status
        place_ref(&ref, place)
        self.enter_stripe(ref.base)
        look_begin(&look, self.store, ref.base)
        status = find_session(&look, &ref, now, &session)
        if status == ST_OK:
            status = items_write(self.store, &ref, session, items, count, now, &bad)
        stripe_leave(self.store, ref.base)
        if status == ST_OK:
            for number in range(count):
                self.filled(&items[number], owners[number])
            return [items[number].version for number in range(count)]
        if status == ST_CHANGED:
            return None
        update = updates[bad]
        if status == ST_CONFLICT:
            raise _faults.version_conflict(place, update[0], items[bad].version, update[4])
        if status == ST_FULL:
            for number in range(count):
                wanted += items[number].size
            raise self.full(wanted)
        raise self.fault(status, place, update[0], ref.base)

    def constrain(self, place, key, number, facts_version, version, bytes facts):
        """Replace the facts of a variable of which number and both versions are these."""
        cdef PlaceRef ref
        cdef KeyRef name
        cdef int status
        cdef uint64_t wanted_number = number
        cdef uint64_t wanted_facts = facts_version
        cdef uint64_t wanted_version = version
        place_ref(&ref, place)
        key_ref(&name, key)
        self.enter_stripe(ref.base)
        status = variable_constrain(
            self.store, &ref, &name, wanted_number, wanted_facts, wanted_version,
            PyBytes_AS_STRING(facts), <uint64_t>PyBytes_GET_SIZE(facts)
        )
        stripe_leave(self.store, ref.base)
        if status == ST_OK or status == ST_CHANGED:
            return status == ST_OK
        if status == ST_FULL:
            raise self.full(PyBytes_GET_SIZE(facts))
        raise self.fault(status, place, key, ref.base)

    def delete_variable(self, place, key):
        """Delete a variable."""
        cdef PlaceRef ref
        cdef KeyRef name
        cdef int status
        place_ref(&ref, place)
        key_ref(&name, key)
        self.enter_stripe(ref.base)
        status = variable_delete(self.store, &ref, &name)
        stripe_leave(self.store, ref.base)
        if status != ST_OK:
            raise self.fault(status, place, key, ref.base)

    def history(self, place, key):
        """Version, time and encoded value, the present one first, of one moment."""
        return self.found(place, key, self.looked(place, SEE_HISTORY, key, True))

    # Waiting.

    def watch(self, place):
        """Announce a watcher for a while, and return the stripe's bell."""
        cdef PlaceRef ref
        cdef Look look
        cdef uint64_t session
        cdef uint64_t bell = 0
        cdef int64_t now = monotonic(self.store)
        cdef int status
        place_ref(&ref, place)
        self.enter_stripe(ref.base)
        look_begin(&look, self.store, ref.base)
        status = find_session(&look, &ref, now, &session)
        if status == ST_OK:
            poke(self.store, session + L_V_WATCHED, <uint64_t>(now + WATCH_LEASE))
            bell = peek(self.store, ref.base + L_S_BELL)
        stripe_leave(self.store, ref.base)
        if status != ST_OK:
            raise self.fault(status, place, None, ref.base)
        return bell

    def wait(self, place, uint64_t bell, double timeout):
        """Return when the bell is another one, or after ``timeout`` seconds at most."""
        cdef uint64_t* word
        cdef Mapped mapped = self.mapped  # also if the store is closed meanwhile
        cdef int64_t nanoseconds = <int64_t>(max(timeout, 0.0) * 1e9)
        if self.closed:
            raise _faults.closed()
        word = self.store.words + base_of((<tuple>place)[3]) + L_S_BELL
        with nogil:
            while nanoseconds > 0 and store_peek(word) == bell:
                store_futex_wait(word, bell, min(nanoseconds, <int64_t>SLICE))
                nanoseconds -= SLICE
                if store_peek(word) == bell:
                    with gil:
                        PyErr_CheckSignals()

    # Memory and processes.

    def allocate(self, size):
        """A block to fill in place, ``None`` for a size that needs none or without a slot."""
        cdef Process process
        cdef Allocation allocation
        cdef uint64_t length = size
        cdef uint64_t pages, block
        cdef int index, status
        if self.closed:
            raise _faults.closed()
        if length <= L_SMALL_MOST:
            return None
        process = self.process_now()
        index = -1 if process is None else process.take()
        if index < 0:
            return None
        pages = (L_RUN_HEADER + words_for(length) + L_PAGE_WORDS - 1) // L_PAGE_WORDS
        status = pages_take(
            self.store, pages, 0, process.number + 1,
            <uint64_t>KIND_VALUE << L_KIND_SHIFT | length, &block
        )
        if status != ST_OK:
            process.look_away(index)
            raise self.full(length) if status == ST_FULL else self.fault(status, None, None, 0)
        process.look_at(index, block)
        allocation = Allocation.__new__(Allocation)
        allocation.process = process
        allocation.index = index
        allocation.block = block
        aim(&allocation.memory, process, block, length)
        allocation.memory.readonly = False
        return allocation

    def collect(self):
        """Take back what dead processes held; how many processes that were."""
        cdef uint64_t number
        cdef uint64_t used = min(peek(self.store, L_PROCESSES_USED), <uint64_t>L_PROCESS_COUNT)
        cdef int gone = 0
        if self.closed:
            raise _faults.closed()
        own = self.locks.process
        for number in range(used):
            if own is not None and (<Process>own).number == number:
                continue
            if not peek(self.store, L_PROCESSES + number * L_PROCESS_WORDS + L_P_STATE):
                continue
            try:
                _fcntl.lockf(
                    self.locks.descriptor, _fcntl.LOCK_EX | _fcntl.LOCK_NB, 1,
                    L_PROCESS_LOCKS + number
                )
            except OSError:
                continue  # alive
            try:
                gone += recover_process(self.mapped, number)
            finally:
                _fcntl.lockf(
                    self.locks.descriptor, _fcntl.LOCK_UN, 1, L_PROCESS_LOCKS + number
                )
        return gone

    @_contextmanager
    def hold(self):
        """All stripes and the allocator, repaired, belong to this thread meanwhile."""
        held = []
        try:
            for stripe in range(<uint64_t>L_STRIPE_COUNT):
                self.enter_stripe(base_of(stripe))
                held.append(stripe)
            self.hold_allocator()
            held.append(-1)
            yield
        finally:
            for stripe in reversed(held):
                self.let_go(stripe)

    cdef int hold_allocator(self) except -1:
        cdef Log log
        cdef int status
        with nogil:
            status = pages_enter(self.store, &log)
        if status != ST_OK:
            raise self.fault(status, None, None, L_STRIPES + L_ALLOCATOR_LOCK * L_STRIPE_WORDS)
        return 0

    cdef void let_go(self, int stripe):
        cdef uint64_t word = L_ALLOCATOR_MUTEX if stripe < 0 else base_of(stripe) + L_S_MUTEX
        store_mutex_unlock(self.store.words + word)

    def after_fork(self):
        """Forget what belongs to the parent; called in the child."""
        self.process = None

    def close(self):
        """Nobody may be inside an operation."""
        self.closed = True
        self.process = None
        if self.inside == 0:
            self.mapped = None  # views keep it


cdef uint64_t stripe_number(object stripe) except? 0:
    cdef uint64_t number = stripe
    if number >= L_STRIPE_COUNT:
        raise ValueError("there is no such stripe")
    return number


cdef int stripe_sweep(Store* store, uint64_t base, uint64_t* removed) noexcept nogil:
    """Bury every expired session of a stripe, one commit each."""
    cdef uint64_t owner = base + L_S_INDEX
    cdef uint64_t first, capacity, place, entry, record, variables
    cdef int64_t now = monotonic(store)
    cdef PlaceRef ref
    cdef Look look
    cdef int status = ST_OK
    look_begin(&look, store, base)
    if not table_slots(store, peek(store, owner + L_T_BLOCK), &first, &capacity):
        return ST_DAMAGED
    for place in range(capacity):
        entry = peek(store, first + place)
        record = entry & TABLE_RECORD
        if entry <= 1 or not is_over(&look, record, now):
            continue
        ref.base = base
        ref.digest = peek(store, record + L_HASH)
        ref.size = peek(store, record + L_V_LENGTHS) & LOW_HALF
        ref.name = <const char*>(store.words + record + L_V_NAME)
        if not holds(store, record + L_V_NAME, words_for(ref.size)):
            return ST_DAMAGED
        status = session_delete(store, &ref, True, &variables)
        if status != ST_OK:
            return ST_DAMAGED if status == ST_NO_SESSION else status
        removed[0] += 1
    return ST_OK
