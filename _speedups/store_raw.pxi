# The compiled twin of snakepit_mp/store/raw_store.py.
#
# Between `enter_stripe` and `stripe_leave` nothing touches a Python object, so a stripe is never
# held while Python code runs. Readers hold nothing: they look, and look again if they saw
# something of two moments. A stripe whose owner is dead or stopped does not change, so a look at
# it succeeds; one that changes all the time has owners that let others in, so a reader that fails
# too often takes the lock.

@cython.final
@cython.auto_pickle(False)
cdef class RawStore:
    """The sessions of one segment, under robust mutexes; see ``snakepit_mp.store.raw_store``."""

    family = L_FAMILY_ROBUST

    cdef Mapped mapped
    cdef Store* store
    cdef object locks
    cdef object limits
    cdef Process process
    cdef bint closed
    cdef bint locked  # by a reader of this thread, who holds the GIL

    def __init__(self, segment, locks, limits):
        cdef Store* store
        cdef uint64_t stripe
        cdef int status
        self.mapped = Mapped(segment.memory)
        self.locks = locks
        self.limits = limits
        self.store = store = &self.mapped.store
        store.heap = segment.heap
        store.all_pages = segment.max_pages
        store.most_pages = min(segment.max_pages, max(limits.max_bytes // L_PAGE_BYTES, 1))
        store.max_sessions = limits.max_sessions
        store.max_variables = limits.max_variables
        store.file = segment.descriptor
        store.frozen = -1
        store.patience = 1_000_000
        if not peek(store, L_LOCKS_READY):  # nobody else has the segment yet
            status = store_mutex_init(store.words + L_ALLOCATOR_MUTEX)
            for stripe in range(<uint64_t>L_STRIPE_COUNT):
                status |= store_mutex_init(store.words + base_of(stripe) + L_S_MUTEX)
            if status != 0:
                raise _faults.no_mutexes()
            poke(store, L_LOCKS_READY, 1)

    def freeze_clock(self, monotonic):
        """Let the time of TTLs stand still, or go on."""
        if self.closed:
            raise _faults.closed()
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
            raise raw_fault(self, status, None, None, base)
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
        cdef Mapped mapped = self.mapped  # also if the store is closed meanwhile
        cdef int status
        if self.closed:
            raise _faults.closed()
        with nogil:
            status = stripe_enter(&mapped.store, base, patience)
        if self.closed:
            if status == ST_OK:
                stripe_leave(&mapped.store, base)
            raise _faults.closed()
        return status

    # Sessions.

    def create_session(self, place, lifetime, bytes metadata, bint exist_ok):
        """Create a session unless it exists, and return its record."""
        cdef PlaceRef ref
        cdef Look look
        cdef uint64_t session = 0
        cdef double until = 0
        cdef int status, collecting
        cdef uint64_t life = lifetime
        place_ref(&ref, place)
        while True:
            self.enter_stripe(ref.base)
            status = session_create(
                self.store, &ref, life, PyBytes_AS_STRING(metadata),
                <uint64_t>PyBytes_GET_SIZE(metadata), exist_ok, &session
            )
            if status == ST_OK:
                collecting = raw_begin_locked(self)
                try:
                    look_begin(&look, self.store, ref.base)
                    record = see_record(&look, session)
                finally:
                    raw_end_locked(self, ref.base, collecting)
                return raw_sound(record)
            stripe_leave(self.store, ref.base)
            if not raw_again(self, status, &until):
                break
        if status == ST_EXISTS:
            raise _faults.session_exists_already(place)
        if status == ST_FULL:
            raise raw_full(self, len(metadata))
        raise raw_fault(self, status, place, None, ref.base)

    def session(self, place):
        """The session's record; a use."""
        return raw_looked(self, place, SEE_SESSION, None, True)

    def session_exists(self, place):
        """Whether it is there and alive; not a use."""
        return raw_looked(self, place, SEE_EXISTS, None, False)

    def touch(self, place):
        """A use."""
        raw_note(self, place, None)

    def note_worker(self, place, worker_id):
        """Record which worker runs the session's call; a use."""
        raw_note(self, place, worker_id)

    def sessions(self, stripe):
        """The records of all living sessions of a stripe, hidden ones included; no use."""
        cdef Mapped mapped = self.mapped
        cdef Look look
        cdef uint64_t base = base_of(stripe_number(stripe))
        cdef double until = 0
        cdef int tries, collecting
        if self.closed:
            raise _faults.closed()
        for tries in range(1 << 30):
            look_begin(&look, self.store, base)
            found = raw_living(self, &look, base)
            if found is not _again and look_holds(&look):
                return found
            if tries % LOOKS == LOOKS - 1 and raw_can_enter(self, base, &until):
                collecting = raw_begin_locked(self)
                try:
                    look_begin(&look, self.store, base)
                    found = raw_living(self, &look, base)
                finally:
                    raw_end_locked(self, base, collecting)
                if found is _again:
                    raise _faults.damaged("a session's record leads out of it")
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
            raise raw_fault(self, status, place, None, ref.base)
        return variables

    def sweep(self, stripe):
        """Remove a stripe's expired sessions; how many. Also tidies."""
        cdef uint64_t base = base_of(stripe_number(stripe))
        cdef uint64_t removed = 0
        cdef int status
        self.enter_stripe(base)
        status = stripe_sweep(self.store, base, &removed)
        stripe_leave(self.store, base)
        if status != ST_OK:
            raise raw_fault(self, status, None, None, base)
        self.tidy(stripe)
        return removed

    def tidy(self, stripe):
        """Repair a stripe and free some of what waits for it; whether there is more to do."""
        cdef uint64_t base = base_of(stripe_number(stripe))
        cdef uint64_t before, seen
        cdef bint done
        self.enter_stripe(base)
        before = peek(self.store, base + L_S_COMMIT)
        done = free_graves(self.store, base, ROUNDS_OF_TIDYING)
        for _ in range(ROUNDS_OF_TIDYING):
            seen = peek(self.store, base + L_S_COMMIT)
            review_limbo(self.store, base, self.store.all_pages)
            if peek(self.store, base + L_S_COMMIT) == seen:
                break
        # Without memory, or where something is damaged, it does not get on.
        done = done or peek(self.store, base + L_S_COMMIT) == before
        stripe_leave(self.store, base)
        return not done

    # Variables.

    def register(self, place, key, new, bint exist_ok):
        """Create a variable, or with ``exist_ok`` return the one of that name."""
        cdef Mapped mapped = self.mapped
        cdef PlaceRef ref
        cdef Item item
        cdef Look look
        cdef double until = 0
        cdef int status, collecting
        cdef bytes kind = new[0]
        cdef bytes facts = new[2]
        cdef uint64_t history = new[3]
        place_ref(&ref, place)
        memset(&item, 0, sizeof(Item))
        key_ref(&item.key, key)
        item.key.other = NULL
        owner = raw_fill(self, &item, new[1])
        try:
            while True:
                self.enter_stripe(ref.base)
                status = variable_register(
                    self.store, &ref, &item, PyBytes_AS_STRING(kind),
                    <uint64_t>PyBytes_GET_SIZE(kind), PyBytes_AS_STRING(facts),
                    <uint64_t>PyBytes_GET_SIZE(facts), history, exist_ok
                )
                if status == ST_OK:
                    collecting = raw_begin_locked(self)
                    try:
                        look_begin(&look, self.store, ref.base)
                        parts = see_parts(&look, item.record)
                    finally:
                        raw_end_locked(self, ref.base, collecting)
                    return raw_sound(parts)
                stripe_leave(self.store, ref.base)
                if not raw_again(self, status, &until):
                    break
        finally:
            raw_filled(self, &item, owner)
        if status == ST_EXISTS:
            raise _faults.variable_exists(place, key)
        if status == ST_FULL:
            raise raw_full(self, item.size + PyBytes_GET_SIZE(facts))
        raise raw_fault(self, status, place, key, ref.base)

    def variable(self, place, key):
        """Copies of all that belongs to a variable."""
        return raw_found(self, place, key, raw_looked(self, place, SEE_PARTS, key, True))

    def value(self, place, key):
        """The decoded value; arrays and long bytes are views."""
        result = raw_found(self, place, key, raw_looked(self, place, SEE_VALUE, key, True))
        return raw_decoded(self, (<tuple>result)[0])

    def values(self, place, keys):
        """Several decoded values of one moment."""
        result = raw_looked(self, place, SEE_VALUES, keys, True)
        if type(result) is not list:
            raise _faults.variable_not_found(place, result)
        return [raw_decoded(self, encoded) for encoded in result]

    def variables(self, place, keys):
        """Several of one moment; ``None`` for those that do not exist."""
        return raw_looked(self, place, SEE_MANY_PARTS, keys, True)

    def all_variables(self, place):
        """All of one moment, programs included, in no order."""
        return raw_looked(self, place, SEE_ALL_PARTS, None, True)

    def contains(self, place, key):
        """Whether there is such a variable."""
        return raw_looked(self, place, SEE_CONTAINS, key, True)

    def names(self, place):
        """Number and key of every variable and program, in no order."""
        return raw_looked(self, place, SEE_NAMES, None, True)

    def versions(self, place, keys):
        """Number and version of each, of one moment; not a use."""
        return raw_looked(self, place, SEE_VERSIONS, keys, False)

    def write(self, place, updates):
        """Give variables new values in one step; their new versions."""
        cdef Mapped mapped = self.mapped
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
                owners.append(raw_fill(self, &items[number], update[1]))
                items[number].number = update[2]
                items[number].facts_version = update[3]
                items[number].expected = update[4]
            return raw_written(self, place, updates, items, count, owners)
        finally:
            for number in range(len(owners)):
                raw_filled(self, &items[number], owners[number])
            PyMem_Free(items)

    def constrain(self, place, key, number, facts_version, version, bytes facts):
        """Replace the facts of a variable of which number and both versions are these."""
        cdef PlaceRef ref
        cdef KeyRef name
        cdef double until = 0
        cdef int status
        cdef uint64_t wanted_number = number
        cdef uint64_t wanted_facts = facts_version
        cdef uint64_t wanted_version = version
        place_ref(&ref, place)
        key_ref(&name, key)
        while True:
            self.enter_stripe(ref.base)
            status = variable_constrain(
                self.store, &ref, &name, wanted_number, wanted_facts, wanted_version,
                PyBytes_AS_STRING(facts), <uint64_t>PyBytes_GET_SIZE(facts)
            )
            stripe_leave(self.store, ref.base)
            if not raw_again(self, status, &until):
                break
        if status == ST_OK or status == ST_CHANGED:
            return status == ST_OK
        if status == ST_FULL:
            raise raw_full(self, PyBytes_GET_SIZE(facts))
        raise raw_fault(self, status, place, key, ref.base)

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
            raise raw_fault(self, status, place, key, ref.base)

    def history(self, place, key):
        """Version, time and encoded value, the present one first, of one moment."""
        return raw_found(self, place, key, raw_looked(self, place, SEE_HISTORY, key, True))

    # Waiting.

    def watch(self, place):
        """Announce a watcher for a while, and return the stripe's bell."""
        cdef PlaceRef ref
        cdef Look look
        cdef uint64_t session
        cdef uint64_t bell = 0
        cdef int64_t now
        cdef int status
        place_ref(&ref, place)
        self.enter_stripe(ref.base)
        now = monotonic(self.store)
        look_begin(&look, self.store, ref.base)
        status = find_session(&look, &ref, now, &session)
        if status == ST_OK:
            poke(self.store, session + L_V_WATCHED, <uint64_t>(now + WATCH_LEASE))
            bell = peek(self.store, ref.base + L_S_BELL)
        stripe_leave(self.store, ref.base)
        if status != ST_OK:
            raise raw_fault(self, status, place, None, ref.base)
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
        return raw_allocate(self, size)

    def collect(self):
        """Take back what dead processes held; how many processes that were."""
        return raw_collect(self)

    @_contextmanager
    def hold(self):
        """All stripes and the allocator, repaired, belong to this thread meanwhile."""
        held = []
        with self.locks.holding:  # who closes the store waits for that
            mapped = self.mapped
            try:
                for stripe in range(<uint64_t>L_STRIPE_COUNT):
                    self.enter_stripe(base_of(stripe))
                    held.append(stripe)
                raw_hold_allocator(self)
                held.append(-1)
                yield
            finally:
                for stripe in reversed(held):
                    raw_let_go(mapped, stripe)

    def after_fork(self):
        """Forget what belongs to the parent; called in the child."""
        self.process = None

    def close(self):
        """Nobody may be inside an operation."""
        self.closed = True
        self.process = None
        self.mapped = None  # views keep it, and whoever is waiting


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
