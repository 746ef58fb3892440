# The compiled twin of snakepit_mp/store/access.py: `s["x"]` and `s["x"] = 1` as one call each.

from cpython.dict cimport PyDict_GetItemWithError

cdef enum:
    HANDLES_KEPT = 65536
    MANY = 32  # variables at once that need no memory


# Where a variable was found; true as long as the stripe's epoch is the same.
@cython.final
@cython.auto_pickle(False)
cdef class Handle:
    cdef object key
    cdef uint64_t epoch
    cdef uint64_t session
    cdef uint64_t record
    cdef uint64_t number
    cdef uint64_t facts_version
    cdef Validator validator


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

    cdef Handle handle(self, object name):
        """What is known of a variable; ``None`` where there is nothing to know."""
        cdef PyObject* known
        cdef Handle handle
        if self.raw is None or self.raw.closed or not PyUnicode_CheckExact(name):
            return None
        known = PyDict_GetItemWithError(self.handles, name)
        if known is not NULL:
            handle = <Handle>known
            if handle.epoch == peek(self.raw.store, self.ref.base + L_S_EPOCH):
                return handle
        else:
            handle = Handle.__new__(Handle)
            handle.key = self.variable_key(name)
        return handle if self.resolve(handle, name) else None

    cdef bint resolve(self, Handle handle, object name) except -1:
        """Look a variable up; whether it was found, in a few looks."""
        cdef Store* store = self.raw.store
        cdef Look look
        cdef KeyRef key
        cdef uint64_t session, record, slot, epoch
        cdef uint64_t number = 0
        cdef int status, tries
        key_ref(&key, handle.key)
        for tries in range(LOOKS):
            look_begin(&look, store, self.ref.base)
            epoch = see(&look, self.ref.base + L_S_EPOCH)
            status = find_session(&look, &self.ref, monotonic(store), &session)
            if status == ST_OK:
                status = find_variable(&look, session, &key, &record, &slot)
            if status == ST_OK:
                number = see(&look, record + L_R_NUMBER)
            if not look_holds(&look):
                continue
            if status != ST_OK or not holds(store, record, L_R_NAME):
                self.handles.pop(name, None)
                return False
            if number != handle.number:
                handle.validator = None
            handle.session = session
            handle.record = record
            handle.number = number
            handle.epoch = epoch
            if len(self.handles) >= HANDLES_KEPT:
                self.handles.clear()
            self.handles[name] = handle
            return True
        return False

    def __getitem__(self, name):
        cdef Handle handle = self.handle(name)
        cdef uint64_t[L_INLINE_WORDS] words
        cdef uint64_t length
        if handle is None or not self.inline_value(handle, words, &length):
            return self._read(name)
        return small_value(<const unsigned char*>words, <Py_ssize_t>length)

    cdef inline bint inline_value(
        self, Handle handle, uint64_t* words, uint64_t* length
    ) except -1:
        """Copy a short value, if one look suffices and the session is surely alive."""
        cdef Store* store = self.raw.store
        cdef const uint64_t* record = store.words + handle.record
        cdef const uint64_t* session = store.words + handle.session
        cdef Look look
        cdef int64_t now
        cdef int number
        look_begin(&look, store, self.ref.base)
        if look.seen & 1 or store_peek(
            store.words + self.ref.base + L_S_EPOCH
        ) != handle.epoch:
            return False
        if store_peek(record + L_R_VALUE):
            return False
        length[0] = store_peek(record + L_R_VALUE_LENGTH)
        for number in range(L_INLINE_WORDS):
            words[number] = store_peek(record + L_R_INLINE + number)
        now = 0
        if store_peek(session + L_V_TTL):
            now = monotonic(store)
            if is_over(&look, handle.session, now):
                return False
            if stamp_is_due(&look, handle.session, now):
                if look_holds(&look):
                    self.raw.stamp(&self.ref, now)
                return False
        return look_holds(&look) and length[0] <= L_INLINE_BYTES

    def _values(self, names):
        """The values of several variables of one moment; ``None`` where that is not quick."""
        cdef list wanted = list(names)
        cdef Py_ssize_t count = len(wanted)
        cdef uint64_t[MANY][L_INLINE_WORDS] words
        cdef uint64_t[MANY] lengths
        cdef Handle handle
        cdef list handles = []
        cdef Look look
        cdef Py_ssize_t number
        cdef bint whole = self.raw is not None and 0 < count <= MANY
        if whole:
            for name in wanted:
                handle = self.handle(name)
                if handle is None:
                    whole = False
                    break
                handles.append(handle)
        if whole:
            look_begin(&look, self.raw.store, self.ref.base)
            for number in range(count):
                handle = handles[number]
                if not self.inline_value(handle, words[number], &lengths[number]):
                    whole = False
                    break
            whole = whole and look_holds(&look)
        if not whole:
            return None
        return [
            small_value(<const unsigned char*>words[number], <Py_ssize_t>lengths[number])
            for number in range(count)
        ]

    def __setitem__(self, name, value):
        cdef Item item
        cdef char[L_INLINE_BYTES] small
        cdef uint64_t session, epoch
        if not self.prepared(&item, name, value, small, &session, &epoch):
            self._write(name, value)
        elif self.put_items(&item, 1, session, epoch) == 0:
            self._write(name, value)

    cdef bint prepared(
        self, Item* item, object name, object value, char* small, uint64_t* session,
        uint64_t* epoch
    ) except -1:
        """Aim an item at a short value that surely fits its variable; else False."""
        cdef Handle handle = self.handle(name)
        if handle is None:
            return False
        if handle.validator is None:
            self.learn(handle, name)
        if handle.validator is None or not handle.validator.fits(value):
            return False
        memset(item, 0, sizeof(Item))
        item.record = handle.record
        item.number = handle.number
        item.facts_version = handle.facts_version
        item.size = short_encoding(value, small)
        item.data = small
        session[0] = handle.session
        epoch[0] = handle.epoch
        return item.size != 0

    cdef int learn(self, Handle handle, object name) except -1:
        """Ask what a variable takes."""
        facts = self._facts(name)
        if facts is not None and facts.identity[0] == handle.number:
            handle.facts_version = facts.identity[1]
            handle.validator = facts.validator
        return 0

    cdef int put_items(
        self, Item* items, uint64_t count, uint64_t session, uint64_t epoch
    ) except -1:
        """Write items in one commit: how many, or 0 where they have to be looked at again."""
        cdef Store* store = self.raw.store
        cdef Look look
        cdef int64_t now = monotonic(store)
        cdef uint64_t bad
        cdef int status = ST_CHANGED
        self.raw.enter_stripe(self.ref.base)
        if peek(store, self.ref.base + L_S_EPOCH) == epoch:
            look_begin(&look, store, self.ref.base)
            if not is_over(&look, session, now):
                status = items_write(store, &self.ref, session, items, count, now, &bad)
        stripe_leave(store, self.ref.base)
        return <int>count if status == ST_OK else 0

    def _update(self, dict values):
        """New versions by name, in one step; ``None`` where that takes more than a moment."""
        cdef Item[MANY] items
        cdef char[MANY][L_INLINE_BYTES] small
        cdef uint64_t session = 0
        cdef uint64_t epoch = 0
        cdef uint64_t first = 0
        cdef int count = 0
        if not 0 < len(values) <= MANY:
            return None
        for name, value in values.items():
            if not self.prepared(&items[count], name, value, small[count], &session, &epoch):
                return None
            if count == 0:
                first = epoch
            elif epoch != first:
                return None
            count += 1
        if self.put_items(items, count, session, epoch) == 0:
            return None
        result = {}
        count = 0
        for name in values:
            result[name] = items[count].version
            count += 1
        return result


cdef uint64_t short_encoding(object value, char* to) except? 0:
    """What ``encode`` makes of a value if that is short; 0 if it is not."""
    cdef int64_t number
    cdef double real
    cdef Py_ssize_t size
    to[0] = VERSION
    if PyFloat_CheckExact(value):
        real = PyFloat_AS_DOUBLE(value)
        to[1] = TAG_FLOAT
        memcpy(to + 2, &real, 8)
        return 10
    if PyLong_CheckExact(value):
        if not codec_short_int(<PyObject*>value, &number):
            return 0
        if SMALLEST_SHORT_INT <= number <= LARGEST_SHORT_INT:
            to[1] = <char>(SHORT_INT + number - SMALLEST_SHORT_INT)
            return 2
        to[1] = TAG_INT
        memcpy(to + 2, &number, 8)
        return 10
    if PyUnicode_CheckExact(value):
        size = PyUnicode_GET_LENGTH(value)
        if not PyUnicode_IS_COMPACT_ASCII(value) or size > min(L_INLINE_BYTES - 2, LONGEST_SHORT_STR):
            return 0
        to[1] = <char>(SHORT_STR + size)
        codec_copy_short(to + 2, PyUnicode_DATA(value), size)
        return 2 + <uint64_t>size
    if value is True or value is False:
        to[1] = TAG_TRUE if value is True else TAG_FALSE
        return 2
    return 0
