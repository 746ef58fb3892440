# How a reader looks: as often as it takes to see one moment, at last under the lock.

cdef object raw_looked(RawStore self, object place, int what, object arguments, bint use):
    """What a look at a session finds: as often as needed, at last under the lock."""
    cdef Mapped mapped = self.mapped  # as code of others may run, which may close the store
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
        if look.count > LONG_LOG and tries == 0:
            # Every word would be looked for in all of it: its owner's death is mended sooner.
            if stripe_enter(self.store, ref.base, 0) == ST_OK:
                stripe_leave(self.store, ref.base)
            continue
        status = find_session(&look, &ref, now, &session)
        result = _again
        if status == ST_OK:
            due = use and stamp_is_due(&look, session, now)
            result = raw_seen(self, &look, session, what, arguments, &status)
        if result is not _again and look_holds(&look):
            break
        if status == ST_NO_SESSION and look_holds(&look):
            break
        if tries % LOOKS == LOOKS - 1 and raw_can_enter(self, ref.base, &until):
            collecting = raw_begin_locked(self)
            try:
                look_begin(&look, self.store, ref.base)
                status = find_session(&look, &ref, now, &session)
                result = _again
                if status == ST_OK:
                    result = raw_seen(self, &look, session, what, arguments, &status)
            finally:
                raw_end_locked(self, ref.base, collecting)
            if result is _again and status == ST_OK:
                raise _faults.damaged("a record leads out of it")
            break
    if status == ST_NO_SESSION:
        if what == SEE_EXISTS:
            return False
        raise _faults.session_not_found(place)
    if due:
        raw_stamp(self, &ref, now)
    return result


cdef object raw_seen(
    RawStore self, Look* look, uint64_t session, int what, object arguments, int* status
):
    """Objects for what was asked, `_again` if it cannot be of one moment."""
    cdef KeyRef key
    cdef uint64_t record, slot
    if what == SEE_EXISTS:
        return True
    if what == SEE_SESSION:
        return see_record(look, session)
    if what == SEE_ALL_PARTS or what == SEE_NAMES:
        return raw_seen_all(self, look, session, what)
    if what == SEE_MANY_PARTS or what == SEE_VERSIONS or what == SEE_VALUES:
        return raw_seen_many(self, look, session, what, arguments)
    key_ref(&key, arguments)
    if find_variable(look, session, &key, &record, &slot) != ST_OK:
        return False if what == SEE_CONTAINS else None
    if what == SEE_CONTAINS:
        return True
    if what == SEE_PARTS:
        return see_parts(look, record)
    if what == SEE_HISTORY:
        return see_history(look, record)
    return raw_seen_value(self, look, record)


cdef object raw_seen_all(RawStore self, Look* look, uint64_t session, int what):
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


cdef object raw_seen_many(RawStore self, Look* look, uint64_t session, int what, object keys):
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
            item = raw_seen_encoded(self, look, record)
        if item is _again:
            return _again
        found.append(item)
    return found


cdef object raw_seen_encoded(RawStore self, Look* look, uint64_t record):
    """The bytes of a value, or a view of them."""
    cdef uint64_t block = see(look, record + L_R_VALUE)
    cdef uint64_t length = see(look, record + L_R_VALUE_LENGTH)
    if block and length > L_SMALL_MOST:
        pin = raw_pinned(self, look, block, length)
        if pin is not None:
            return pin
    return see_encoded(look, record)


cdef object raw_seen_value(RawStore self, Look* look, uint64_t record):
    """The encoded value in a tuple: it is decoded when it is known to be of one moment."""
    encoded = raw_seen_encoded(self, look, record)
    return _again if encoded is _again else (encoded,)


cdef object raw_pinned(RawStore self, Look* look, uint64_t block, uint64_t length):
    """A view of a run, `_again` if it may be gone, ``None`` if there is no slot for it."""
    cdef Process process = raw_process_now(self)
    cdef int index
    if not has_memory(self.store, block, 8 * L_RUN_HEADER + length):
        return _again
    index = -1 if process is None else process.take()
    if index < 0:
        return None
    process.look_at(index, block)
    pin = pin_of(process, index, block, length)
    return pin if look_holds(look) else _again


cdef Process raw_process_now(RawStore self):
    """This process's slot, shared by all handles of the segment; ``None`` without one."""
    cdef Process process = self.process
    cdef Mapped mapped = self.mapped  # as files are read meanwhile, and others may close the store
    if process is not None and process.generation == fork_generation:
        return process
    if self.closed:
        raise _faults.closed()
    if self.locked:
        return None
    if not self.locks.claiming.acquire(False):
        return None  # another thread is at it
    try:
        process = self.locks.process
        if process is None or process.generation != fork_generation:
            process = claim_process(mapped, self.locks)
            self.locks.process = process
        if self.closed:
            raise _faults.closed()
        self.process = process
    finally:
        self.locks.claiming.release()
    return process


cdef object raw_living(RawStore self, Look* look, uint64_t base):
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


cdef int raw_begin_locked(RawStore self):
    """No collection, and so no code of others, until the stripe is left."""
    self.locked = True
    return PyGC_Disable()


cdef void raw_end_locked(RawStore self, uint64_t base, int collecting):
    stripe_leave(self.store, base)
    self.locked = False
    if collecting:
        PyGC_Enable()


cdef bint raw_can_enter(RawStore self, uint64_t base, double* until) except -1:
    """Whether the lock could be had quickly; raises `StoreBusy` after a while."""
    cdef int status
    if until[0] == 0:
        until[0] = _monotonic() + self.locks.timeout
    elif _monotonic() > until[0]:
        raise raw_fault(self, ST_BUSY, None, None, base)
    status = self.try_to_enter(base, 1_000_000)
    if status != ST_OK and status != ST_BUSY:
        raise raw_fault(self, status, None, None, base)
    if status == ST_BUSY:
        PyErr_CheckSignals()
    return status == ST_OK


cdef int raw_stamp(RawStore self, PlaceRef* ref, int64_t now) except -1:
    """Note a use, if nobody is writing: the next use comes soon."""
    cdef Look look
    cdef uint64_t session
    cdef bint entered = stripe_enter(self.store, ref.base, 0) == ST_OK
    look_begin(&look, self.store, ref.base)
    if find_session(&look, ref, now, &session) == ST_OK:
        if entered:
            poke(self.store, session + L_V_ACCESSED, <uint64_t>now)
        elif now - <int64_t>see(&look, session + L_V_ACCESSED) > <int64_t>(
            see(&look, session + L_V_TTL) // 2
        ):  # tried for long: somebody stands still in the stripe, so all of it is kept
            poke(self.store, ref.base + L_S_LATE, <uint64_t>now)
    if entered:
        stripe_leave(self.store, ref.base)
    return 0
