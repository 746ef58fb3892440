# The compiled twin of snakepit_mp/store/access.py: `s["x"]` and `s["x"] = 1` as one call each.

from cpython.dict cimport PyDict_GetItemWithError

cdef enum:
    HANDLES_KEPT = 65536
    MANY = 32  # variables at once that need no memory


@cython.final
@cython.no_gc
@cython.auto_pickle(False)
cdef class Handle:
    """What a mapping remembers of a variable."""

    cdef object key
    cdef Spot spot
    cdef Validator validator


# A short value that was seen.
cdef struct Copy:
    uint64_t length
    uint64_t[L_INLINE_WORDS] words


cdef enum Found:
    FOUND
    FOUND_MOVED  # in two moments
    FOUND_RARE  # something that needs the general way
    FOUND_LONG


@cython.auto_pickle(False)
cdef class VariableAccess:
    """Reads and writes of variables by name; see ``snakepit_mp.store.access``."""

    cdef RawStore raw
    cdef object place
    cdef PlaceRef ref
    cdef object variable_key
    cdef dict handles

    cdef object __weakref__

    def _bind(self, raw, place, variable_key):
        """Work on this session from now on."""
        if type(raw) is not RawStore:
            raise TypeError("a compiled mapping needs a compiled store")
        self.raw = raw
        self.place = place
        self.variable_key = variable_key
        self.handles = {}
        place_ref(&self.ref, place)

    def __getitem__(self, name):
        cdef Copy copy
        cdef PyObject* known = known_handle(self, name)
        cdef int found
        if known is not NULL:
            found = short_looks(
                self.raw.store, self.ref.base, &(<Handle>known).spot, &copy, 1
            )
            if found == FOUND:
                return small_value(<const unsigned char*>copy.words, <Py_ssize_t>copy.length)
            if found == FOUND_LONG:
                value = long_look(self, (<Handle>known).spot)
                if value is not _again:
                    return value
        return self._read(name)

    def get_values(self, names):
        """The values of several variables by name, of one moment."""
        cdef list wanted = names if type(names) is list else list(names)
        values = self.short_values(wanted)
        return self._read_many(wanted) if values is None else values

    cdef dict short_values(self, list wanted):
        """Them, or ``None`` where one look does not suffice."""
        cdef Py_ssize_t count = len(wanted)
        cdef Copy[MANY] copies
        cdef Spot[MANY] spots
        cdef PyObject* known
        cdef Py_ssize_t number
        if self.raw is None or not 0 < count <= MANY:
            return None
        for number in range(count):
            known = known_handle(self, wanted[number])
            if known is NULL:
                return None
            spots[number] = (<Handle>known).spot
        if short_looks(self.raw.store, self.ref.base, spots, copies, count) != FOUND:
            return None
        values = {}
        for number in range(count):
            values[wanted[number]] = small_value(
                <const unsigned char*>copies[number].words, <Py_ssize_t>copies[number].length
            )
        return values

    def __setitem__(self, name, value):
        cdef uint64_t[L_INLINE_WORDS] words
        cdef Spot spot
        cdef Validator validator = validator_of(self, name, &spot)
        cdef uint64_t size
        if validator is not None:
            if validator.fits(value):
                size = short_encoding(value, <char*>words)
                if size:
                    if self.put_short(&spot, words, size):
                        return
                    self.handles.pop(name, None)  # what it takes may have changed
            elif is_array(value) and self.put_array(&spot, validator.pure(value)):
                return
        self._write(name, value)

    cdef bint put_array(self, Spot* spot, object value) except -1:
        """Encode a large array into a block, and put that into its place."""
        cdef Allocation allocation
        cdef Item item
        cdef Out out
        if not is_array(value) or type(value.base) is Allocation:
            return False
        out_begin(&out, False, True)
        write_tag(&out, VERSION)
        if not write_array(&out, value) or out_used(&out) <= L_SMALL_MOST:
            return False
        allocation = self.raw.allocate(out_used(&out))
        if allocation is None:
            return False
        out_begin(&out, False, True)
        out_aim(&out, allocation.memory.start, allocation.memory.nbytes)
        write_tag(&out, VERSION)
        write_array(&out, value)
        if out.counting:
            return False
        memset(&item, 0, sizeof(Item))
        item.record = spot.record
        item.number = spot.number
        item.facts_version = spot.facts_version
        item.size = <uint64_t>allocation.memory.nbytes
        item.block = allocation.block
        if not self.put_items(&item, 1, spot.session, spot.epoch):
            return False
        return raw_filled(self.raw, &item, allocation) == 0

    cdef bint put_short(self, Spot* spot, const uint64_t* words, uint64_t size) except -1:
        cdef Store* store = self.raw.store
        cdef Item item
        cdef int status
        self.raw.enter_stripe(self.ref.base)
        status = short_put(store, self.ref.base, spot, words, size, monotonic(store))
        stripe_leave(store, self.ref.base)
        if status != ST_EXISTS:
            return status == ST_OK
        memset(&item, 0, sizeof(Item))
        item.record = spot.record
        item.number = spot.number
        item.facts_version = spot.facts_version
        item.data = <const char*>words
        item.size = size
        return self.put_items(&item, 1, spot.session, spot.epoch)

    cdef int put_items(
        self, Item* items, uint64_t count, uint64_t session, uint64_t epoch
    ) except -1:
        """Write items in one commit: how many, or 0 where they have to be looked at again."""
        cdef Store* store = self.raw.store
        cdef Look look
        cdef int64_t now
        cdef uint64_t bad
        cdef int status = ST_CHANGED
        self.raw.enter_stripe(self.ref.base)
        now = monotonic(store)
        if peek(store, self.ref.base + L_S_EPOCH) == epoch:
            look_begin(&look, store, self.ref.base)
            if not is_over(&look, session, now):
                use(store, session, now)
                status = items_write(store, &self.ref, session, items, count, now, &bad)
        stripe_leave(store, self.ref.base)
        return <int>count if status == ST_OK else 0

    def _update(self, dict values):
        """New versions by name, in one step; ``None`` where that takes more than a moment."""
        cdef Item[MANY] items
        cdef char[MANY][L_INLINE_BYTES] small
        cdef Spot spot
        cdef Validator validator
        cdef uint64_t epoch = 0
        cdef int count = 0
        cdef list names = []
        if not 0 < len(values) <= MANY:
            return None
        for name, value in values.items():
            validator = validator_of(self, name, &spot)
            if validator is None or not validator.fits(value):
                return None
            memset(&items[count], 0, sizeof(Item))
            items[count].record = spot.record
            items[count].number = spot.number
            items[count].facts_version = spot.facts_version
            items[count].size = short_encoding(value, small[count])
            items[count].data = small[count]
            if items[count].size == 0 or count and spot.epoch != epoch:
                return None
            epoch = spot.epoch
            names.append(name)
            count += 1
        if self.put_items(items, count, spot.session, epoch) == 0:
            return None
        return {names[number]: items[number].version for number in range(count)}


cdef inline PyObject* known_handle(VariableAccess self, object name) except? NULL:
    """What is remembered of a variable, borrowed; NULL where it cannot be found quickly."""
    cdef PyObject* known
    if self.raw is None or self.raw.closed or not PyUnicode_CheckExact(name):
        return NULL
    known = PyDict_GetItemWithError(self.handles, name)
    if known is not NULL and store_peek(
        self.raw.store.words + self.ref.base + L_S_EPOCH
    ) == (<Handle>known).spot.epoch:
        return known
    return look_up(self, name, known)


cdef PyObject* look_up(VariableAccess self, object name, PyObject* known) except? NULL:
    """Find a variable and remember it."""
    cdef Handle handle
    if known is not NULL:
        handle = <Handle>known
    else:
        handle = Handle.__new__(Handle)
        handle.key = self.variable_key(name)
        if self.raw.closed:  # meanwhile, by another thread
            return NULL
    if not resolve(self, handle):
        self.handles.pop(name, None)
        return NULL
    if len(self.handles) >= HANDLES_KEPT:
        self.handles.clear()
    self.handles[name] = handle
    return <PyObject*>handle


cdef bint resolve(VariableAccess self, Handle handle) except -1:
    """Look a variable up; whether it was found, in a few looks."""
    cdef Store* store = self.raw.store
    cdef Spot* spot = &handle.spot
    cdef Look look
    cdef KeyRef key
    cdef uint64_t session, record, slot, epoch
    cdef uint64_t number = 0
    cdef uint64_t lifetime = 0
    cdef int status, tries
    key_ref(&key, handle.key)
    key.other = NULL  # what it is an id of today is another variable's name tomorrow
    for tries in range(LOOKS):
        look_begin(&look, store, self.ref.base)
        epoch = see(&look, self.ref.base + L_S_EPOCH)
        status = find_session(&look, &self.ref, monotonic(store), &session)
        if status == ST_OK:
            status = find_variable(&look, session, &key, &record, &slot)
        if status == ST_OK:
            number = see(&look, record + L_R_NUMBER)
            lifetime = see(&look, session + L_V_TTL) // 8
        if not look_holds(&look):
            continue
        if status != ST_OK or not holds(store, record, L_R_NAME):
            return False
        if not holds(store, session, L_V_NAME):
            return False
        if number != spot.number:
            handle.validator = None
        spot.session = session
        spot.record = record
        spot.number = number
        spot.epoch = epoch
        spot.quiet = STAMP_EVERY
        if 0 < lifetime < <uint64_t>STAMP_EVERY:
            spot.quiet = <int64_t>lifetime
        return True
    return False


cdef inline int short_looks(
    Store* store, uint64_t base, const Spot* spots, Copy* copies, Py_ssize_t count
) noexcept nogil:
    """Copy short values of one session and moment, if its use need not be noted."""
    cdef int found = one_look(store, base, spots, copies, count)
    cdef int tries = 0
    while found == FOUND_MOVED and tries < LOOKS:
        store_pause()
        found = one_look(store, base, spots, copies, count)
        tries += 1
    return found


cdef inline int one_look(
    Store* store, uint64_t base, const Spot* spots, Copy* copies, Py_ssize_t count
) noexcept nogil:
    cdef const uint64_t* stripe = store.words + base
    cdef const uint64_t* record
    cdef uint64_t seen = store_load(stripe + L_S_COMMIT)
    cdef uint64_t epoch, length
    cdef uint64_t long_ones = 0
    cdef uint64_t longest = 0
    cdef int64_t used
    cdef Py_ssize_t number
    if seen & 1:
        return FOUND_MOVED
    epoch = store_peek(stripe + L_S_EPOCH)
    for number in range(count):
        if spots[number].epoch != epoch:
            return FOUND_RARE
        record = store.words + spots[number].record
        long_ones |= store_peek(record + L_R_VALUE)
        copies[number].length = length = store_peek(record + L_R_VALUE_LENGTH)
        copies[number].words[0] = store_peek(record + L_R_INLINE)
        copies[number].words[1] = store_peek(record + L_R_INLINE + 1)
        if length > 16:
            copies[number].words[2] = store_peek(record + L_R_INLINE + 2)
            copies[number].words[3] = store_peek(record + L_R_INLINE + 3)
            longest = max(longest, length)
    used = <int64_t>store_peek(store.words + spots[0].session + L_V_ACCESSED)
    store_fence_acquire()
    if store_peek(stripe + L_S_COMMIT) != seen:
        return FOUND_MOVED
    if monotonic(store) - used >= spots[0].quiet:
        return FOUND_RARE
    if long_ones:
        return FOUND_LONG
    return FOUND if longest <= L_INLINE_BYTES else FOUND_RARE


cdef object long_look(VariableAccess self, Spot spot):
    """The value in a block; `_again` if one look does not suffice."""
    cdef RawStore raw = self.raw
    cdef Mapped mapped = raw.mapped
    cdef Look look
    look_begin(&look, &mapped.store, self.ref.base)
    if look.seen & 1 or peek(&mapped.store, self.ref.base + L_S_EPOCH) != spot.epoch:
        return _again
    encoded = raw_seen_encoded(raw, &look, spot.record)
    if encoded is _again or not look_holds(&look):
        return _again
    return raw_decoded(raw, encoded)


cdef inline Validator validator_of(VariableAccess self, object name, Spot* spot):
    """What a variable takes, and a copy of where it lies; ``None`` where that is not known.

    A copy, since another thread may find the variable anew while this one checks its value.
    """
    cdef PyObject* known = known_handle(self, name)
    cdef Handle handle
    if known is NULL:
        return None
    handle = <Handle>known
    if handle.validator is None:
        learn(self, handle, name)
    spot[0] = handle.spot
    return handle.validator


cdef int learn(VariableAccess self, Handle handle, object name) except -1:
    """Ask what a variable takes."""
    cdef Validator validator
    cdef uint64_t number, version
    facts = self._facts(name)
    if facts is None:
        return 0
    validator = facts.validator
    number, version = facts.identity
    # From here on no Python code runs, so no other thread finds the variable anew.
    if number == handle.spot.number:
        handle.spot.facts_version = version
        handle.validator = validator
    return 0


cdef uint64_t short_encoding(object value, char* to) except? 0:
    """What ``encode`` makes of a value if that is short; 0 if it is not."""
    cdef Out out
    if PyUnicode_CheckExact(value) and PyUnicode_GET_LENGTH(value) > L_INLINE_BYTES:
        return 0
    out_begin(&out, False, False)
    out_aim(&out, to, L_INLINE_BYTES)
    write_tag(&out, VERSION)
    if not write_plain(&out, value) or out.counting:
        return 0
    return <uint64_t>out_used(&out)
