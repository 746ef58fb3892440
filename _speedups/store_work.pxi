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
    raise raw_fault(self, status, place, update[0], ref.base)


cdef int raw_note(RawStore self, object place, uint64_t word, int64_t number) except -1:
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
        raise raw_fault(self, status, place, None, ref.base)
    return 0


cdef int raw_hold_allocator(RawStore self) except -1:
    cdef Log log
    cdef int status
    with nogil:
        status = pages_enter(self.store, &log)
    if status != ST_OK:
        raise raw_fault(self, status, None, None, L_STRIPES + L_ALLOCATOR_LOCK * L_STRIPE_WORDS)
    return 0


cdef void raw_let_go(RawStore self, int stripe):
    cdef uint64_t word = L_ALLOCATOR_MUTEX if stripe < 0 else base_of(stripe) + L_S_MUTEX
    store_mutex_unlock(self.store.words + word)


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
    if status == ST_NO_MEMORY:
        return MemoryError()
    return _faults.damaged("a record, a list or a log leads out of it")


cdef object raw_full(RawStore self, uint64_t wanted):
    return _faults.store_full(
        wanted, self.limits.max_bytes, peek(self.store, L_FREE_PAGES) * L_PAGE_BYTES
    )
