# What the methods of `RawStore` share: errors, and items on their way into the store.

cdef object raw_decoded(RawStore self, object encoded):
    if type(encoded) is Pin:
        return pinned_value(encoded)
    if PyBytes_GET_SIZE(encoded) > L_SMALL_MOST:
        return long_value(encoded)
    return decode_bytes(encoded)


cdef object raw_found(RawStore self, object place, object key, object result):
    if result is None:
        raise _faults.variable_not_found(place, key)
    return result


cdef object raw_fill(RawStore self, Item* item, object data):
    """Aim an item at its bytes; those of a large one go into a block of their own.

    What is returned has to live as long as the item, and be given to `raw_filled` at the end.
    """
    cdef Allocation allocation = None
    if isinstance(data, Allocation):
        allocation = data
        if (
            allocation.stored or allocation.given
            or allocation.process is not raw_process_now(self)
        ):  # it is a value already, or one in this step, or of another store
            allocation = None
            data = bytes(data)
    if allocation is None:
        item.data = PyBytes_AS_STRING(data)
        item.size = <uint64_t>PyBytes_GET_SIZE(data)
        if item.size <= L_SMALL_MOST:
            return data
        allocation = self.allocate(item.size)
        if allocation is None:
            return data
        memcpy(allocation.memory.start, item.data, item.size)
    allocation.given = True
    item.size = <uint64_t>allocation.memory.nbytes
    item.block = allocation.block
    return allocation


cdef int raw_filled(RawStore self, Item* item, object owner) except -1:
    """At the end: with a commit what lies in a block became the store's."""
    if isinstance(owner, Allocation):
        (<Allocation>owner).given = False
        if item.block == 0:
            (<Allocation>owner).stored = True
            (<Allocation>owner).memory.readonly = True
    return 0


cdef object raw_written(
    RawStore self, object place, object updates, Item* items, Py_ssize_t count, list owners
):
    cdef PlaceRef ref
    cdef Look look
    cdef uint64_t session, bad = 0
    cdef uint64_t wanted = 0
    cdef int64_t now
    cdef double until = 0
    cdef Py_ssize_t number
    cdef int status
    place_ref(&ref, place)
    while True:
        self.enter_stripe(ref.base)
        now = monotonic(self.store)
        look_begin(&look, self.store, ref.base)
        status = use_session(&look, &ref, now, &session)
        if status == ST_OK:
            status = items_write(self.store, &ref, session, items, count, now, &bad)
        stripe_leave(self.store, ref.base)
        if not raw_again(self, status, &until):
            break
    if status == ST_OK:
        return [items[number].version for number in range(count)]
    if status == ST_CHANGED:
        return None
    update = updates[bad]
    if status == ST_CONFLICT:
        raise _faults.version_conflict(place, update[0], items[bad].version, update[4])
    if status == ST_FULL:
        for number in range(count):
            wanted += items[number].size
        raise raw_full(self, wanted)
    raise raw_fault(self, status, place, update[0], ALLOCATOR_BASE)


cdef int raw_note(RawStore self, object place, object worker_id) except -1:
    """Note a use of a session, and which worker it is by, if it is."""
    cdef PlaceRef ref
    cdef Look look
    cdef uint64_t session
    cdef int status
    place_ref(&ref, place)
    self.enter_stripe(ref.base)
    look_begin(&look, self.store, ref.base)
    status = use_session(&look, &ref, monotonic(self.store), &session)
    if status == ST_OK and worker_id is not None:
        poke(self.store, session + L_V_WORKER, <uint64_t>worker_id + 1)
    stripe_leave(self.store, ref.base)
    if status != ST_OK:
        raise raw_fault(self, status, place, None, ref.base)
    return 0


cdef Allocation raw_allocate(RawStore self, object size):
    """A block to fill in place, ``None`` for a size that needs none or without a slot."""
    cdef Mapped mapped = self.mapped  # as code of others may run, which may close the store
    cdef Process process
    cdef Allocation allocation
    cdef uint64_t length = size
    cdef uint64_t pages, block
    cdef double until = 0
    cdef int index, status
    if self.closed:
        raise _faults.closed()
    if length <= L_SMALL_MOST:
        return None
    process = raw_process_now(self)
    index = -1 if process is None else process.take()
    if index < 0:
        return None
    process.give_all_back()
    pages = (L_RUN_HEADER + words_for(length) + L_PAGE_WORDS - 1) // L_PAGE_WORDS
    while True:
        status = pages_take(
            &mapped.store, pages, 0, process.number + 1,
            <uint64_t>KIND_VALUE << L_KIND_SHIFT | length, &block
        )
        if not raw_again(self, status, &until):
            break
    if status != ST_OK:
        process.look_away(index)
        if status == ST_FULL:
            raise raw_full(self, length)
        raise raw_fault(self, status, None, None, ALLOCATOR_BASE)
    process.look_at(index, block)
    allocation = Allocation.__new__(Allocation)
    allocation.process = process
    allocation.index = index
    allocation.block = block
    aim(&allocation.memory, process, block, length)
    allocation.memory.readonly = False
    return allocation


cdef int raw_collect(RawStore self) except -1:
    """Take back what dead processes held; how many processes that were."""
    cdef Mapped mapped = self.mapped  # as waiting threads may close the store meanwhile
    cdef Store* store = self.store
    cdef uint64_t number, used
    cdef int gone = 0
    if self.closed:
        raise _faults.closed()
    own = self.locks.process
    if own is not None:
        (<Process>own).give_all_back()
    used = min(peek(store, L_PROCESSES_USED), <uint64_t>L_PROCESS_COUNT)
    for number in range(used):
        if own is not None and (<Process>own).number == number:
            continue
        if not peek(store, L_PROCESSES + number * L_PROCESS_WORDS + L_P_STATE):
            continue
        if not lock_process(self.locks, _OBTAIN, number):
            continue  # alive
        try:
            gone += recover_process(mapped, number)
        finally:
            lock_process(self.locks, _fcntl.LOCK_UN, number)
    return gone


cdef bint raw_again(RawStore self, int status, double* until) except -1:
    """Whether to try once more, since the allocator was held, and is not any more.

    It is waited for without the GIL: its holder may be a thread that needs that.
    """
    cdef Mapped mapped = self.mapped
    cdef Log log
    if status != ST_BUSY:
        return False
    if until[0] == 0:
        until[0] = _monotonic() + self.locks.timeout
    while status == ST_BUSY and _monotonic() < until[0]:
        with nogil:
            status = pages_enter(&mapped.store, &log)
            if status == ST_OK:
                pages_leave(&mapped.store, &log)
        PyErr_CheckSignals()
        if self.closed:
            raise _faults.closed()
    return status == ST_OK


cdef int raw_hold_allocator(RawStore self) except -1:
    cdef Log log
    cdef double until = 0
    cdef int status = pages_enter(self.store, &log)
    while raw_again(self, status, &until):
        status = pages_enter(self.store, &log)
    if status != ST_OK:
        raise raw_fault(self, status, None, None, ALLOCATOR_BASE)
    return 0


cdef int raw_let_go(Mapped mapped, int stripe) except -1:
    cdef uint64_t word = L_ALLOCATOR_MUTEX if stripe < 0 else base_of(stripe) + L_S_MUTEX
    store_mutex_unlock(mapped.store.words + word)
    return 0


cdef object raw_fault(RawStore self, int status, object place, object key, uint64_t base):
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
    if status == ST_FULL:
        return raw_full(self, L_PAGE_BYTES)
    if status == ST_NO_MEMORY:
        return MemoryError()
    return _faults.damaged("a record, a list or a log leads out of it")


cdef object raw_full(RawStore self, uint64_t wanted):
    return _faults.store_full(
        wanted, self.limits.max_bytes, peek(self.store, L_FREE_PAGES) * L_PAGE_BYTES
    )


cdef object raw_sound(object found):
    """What was seen under the lock, where it cannot be of two moments."""
    if found is _again:
        raise _faults.damaged("a record leads out of it")
    return found
