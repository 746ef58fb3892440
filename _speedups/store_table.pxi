# Tables of records by name: what snakepit_mp/store/table.py specifies.

cdef enum:
    MOST_PROBES = 1 << 16

cdef uint64_t LOW_HALF = (<uint64_t>1 << 32) - 1
cdef uint64_t TABLE_RECORD = (<uint64_t>1 << L_TAG_SHIFT) - 1


cdef bint table_slots(
    Store* store, uint64_t block, uint64_t* first, uint64_t* capacity
) noexcept nogil:
    """Where the slots of a table begin, and how many; False where that cannot be true."""
    cdef uint64_t length
    first[0] = capacity[0] = 0
    if block == 0:
        return True
    length = length_of(peek(store, block + L_B_KIND))
    first[0] = block + header_for(length)
    capacity[0] = length >> 3
    return has_memory(store, first[0], 8 * capacity[0]) and capacity[0] & (capacity[0] - 1) == 0


cdef bint same_name(
    Store* store, uint64_t record, uint64_t lengths, uint64_t at_word, const char* name,
    uint64_t size
) noexcept nogil:
    if peek(store, record + lengths) & LOW_HALF != size:
        return False
    if not holds(store, record + at_word, words_for(size)):
        return False
    return memcmp(store.words + record + at_word, name, size) == 0


cdef uint64_t table_find(
    Look* look, uint64_t owner, uint64_t digest, const char* name, uint64_t size,
    uint64_t lengths, uint64_t at_word, uint64_t* slot
) noexcept nogil:
    """The record of a name, and its slot; 0 if there is none."""
    cdef Store* store = look.store
    cdef uint64_t block = see(look, owner + L_T_BLOCK)
    cdef uint64_t first, capacity, place, entry, record
    cdef uint64_t length = length_of(see(look, block + L_B_KIND))
    cdef int probes
    slot[0] = 0
    first = block + header_for(length)
    capacity = length >> 3
    if block == 0 or capacity == 0 or not has_memory(store, first, length):
        return 0
    if capacity & (capacity - 1):
        return 0
    place = digest >> L_INDEX_SHIFT & (capacity - 1)
    for probes in range(MOST_PROBES):
        entry = see(look, first + place)
        if entry == 0:
            return 0
        if entry >> L_TAG_SHIFT == digest >> L_TAG_SHIFT and entry != 1:
            record = entry & TABLE_RECORD
            if see(look, record + L_HASH) == digest:
                if same_name(store, record, lengths, at_word, name, size):
                    slot[0] = first + place
                    return record
        place = (place + 1) & (capacity - 1)
    return 0


cdef int table_rebuild(Log* log, uint64_t owner) noexcept nogil:
    """Take a roomier table if one more entry would crowd this one."""
    cdef Store* store = log.store
    cdef uint64_t old = get(log, owner + L_T_BLOCK)
    cdef uint64_t live = get(log, owner + L_T_LIVE)
    cdef uint64_t capacity = L_LEAST_CAPACITY
    cdef uint64_t first, slots, block, number, entry, place, target
    cdef uint64_t moved = 0
    cdef int status
    if not table_slots(store, old, &first, &slots) or live > store.size:
        return ST_DAMAGED
    if old and 3 * (get(log, owner + L_T_USED) + 1) <= 2 * slots:
        return ST_OK
    while capacity < 2 * (live + 1):
        capacity *= 2
    status = block_take(log, KIND_TABLE, 8 * capacity, &block)
    if status != ST_OK:
        return status
    at(AT_BLOCK_FILLING)
    target = block + header_for(8 * capacity)
    memset(store.words + target, 0, 8 * capacity)
    for number in range(slots):
        entry = get(log, first + number)
        if entry > 1:
            moved += 1
            if moved > live:
                return ST_DAMAGED
            place = peek(store, (entry & TABLE_RECORD) + L_HASH) >> L_INDEX_SHIFT
            place &= capacity - 1
            while store.words[target + place]:
                place = (place + 1) & (capacity - 1)
            store.words[target + place] = entry
    at(AT_BLOCK_FILLED)
    put(log, owner + L_T_BLOCK, block)
    put(log, owner + L_T_USED, live)
    discard(log, old)
    return ST_OK


cdef int table_insert(Log* log, uint64_t owner, uint64_t digest, uint64_t record) noexcept nogil:
    """Enter a record that is not there."""
    cdef Store* store = log.store
    cdef uint64_t first, capacity, place, entry
    cdef int status = table_rebuild(log, owner)
    cdef int probes
    if status != ST_OK:
        return status
    first = get(log, owner + L_T_BLOCK)
    entry = length_of(get(log, first + L_B_KIND))
    capacity = entry >> 3
    first += header_for(entry)
    place = digest >> L_INDEX_SHIFT & (capacity - 1)
    for probes in range(MOST_PROBES):
        entry = get(log, first + place)
        if entry <= 1:
            if entry == 0:
                put(log, owner + L_T_USED, get(log, owner + L_T_USED) + 1)
            put(log, owner + L_T_LIVE, get(log, owner + L_T_LIVE) + 1)
            put(log, first + place, digest >> L_TAG_SHIFT << L_TAG_SHIFT | record)
            return ST_OK
        place = (place + 1) & (capacity - 1)
    return ST_DAMAGED


cdef void table_remove(Log* log, uint64_t owner, uint64_t slot) noexcept nogil:
    put(log, slot, 1)
    put(log, owner + L_T_LIVE, get(log, owner + L_T_LIVE) - 1)
