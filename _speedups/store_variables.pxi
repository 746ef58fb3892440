# Variables of one session: what snakepit_mp/store/variables.py specifies, under the stripe's lock.

cdef enum:
    COARSE_STEP = 20_000_000  # ns, and more than the coarse clock's steps


cdef int value_store(
    Log* log, Item* item, uint64_t record, uint64_t* block
) noexcept nogil:
    """Bring a value where it belongs: into a block, or into its record with the commit."""
    cdef uint64_t[L_INLINE_WORDS] words
    cdef uint64_t number
    if item.block:  # filled before; from now on nobody's in particular
        put(log, descriptor_of(page_of(log.store, item.block)) + L_D_OWNER, 0)
        block[0] = item.block
        return ST_OK
    if item.size > L_INLINE_BYTES:
        return block_store(log, KIND_VALUE, item.data, item.size, block)
    block[0] = 0
    memset(words, 0, sizeof(words))
    memcpy(words, item.data, item.size)
    for number in range(words_for(item.size)):
        put(log, record + L_R_INLINE + number, words[number])
    return ST_OK


cdef int variable_create(
    Log* log, uint64_t session, Item* item, const char* kind, uint64_t kind_size,
    const char* facts, uint64_t facts_size, uint64_t history, uint64_t* made
) noexcept nogil:
    cdef Store* store = log.store
    cdef KeyRef* key = &item.key
    cdef uint64_t name_words = words_for(key.size)
    cdef uint64_t length = 8 * (L_R_NAME - L_SMALL_HEADER + name_words) + kind_size
    cdef uint64_t facts_block = 0
    cdef uint64_t history_block = 0
    cdef uint64_t value_block = 0
    cdef uint64_t record, word
    cdef int status = block_take(log, KIND_VARIABLE, length, made)
    if status == ST_OK and facts_size:
        status = block_store(log, KIND_FACTS, facts, facts_size, &facts_block)
    if status == ST_OK and history:
        status = history_create(log, history, &history_block)
    if status == ST_OK and (item.block or item.size > L_INLINE_BYTES):
        status = value_store(log, item, made[0], &value_block)
    if status != ST_OK:
        return status
    record = made[0]
    at(AT_BLOCK_FILLING)
    for word in range(L_SMALL_HEADER, L_R_NAME + name_words):
        poke(store, record + word, 0)
    poke(store, record + L_HASH, key.digest)
    poke(store, record + L_R_NUMBER, next_number(log))
    poke(store, record + L_R_VERSION, 1)
    poke(store, record + L_R_CREATED, <uint64_t>store_exact_wall())
    poke(store, record + L_R_UPDATED, peek(store, record + L_R_CREATED))
    poke(store, record + L_R_FACTS, facts_block)
    poke(store, record + L_R_HISTORY, history_block)
    poke(store, record + L_R_LENGTHS, key.size | kind_size << 32)
    poke(store, record + L_R_VALUE, value_block)
    poke(store, record + L_R_VALUE_LENGTH, item.size)
    if value_block == 0:
        memcpy(store.words + record + L_R_INLINE, item.data, item.size)
    memcpy(store.words + record + L_R_NAME, key.name, key.size)
    memcpy(store.words + record + L_R_NAME + name_words, kind, kind_size)
    at(AT_BLOCK_FILLED)
    if key.name[0] == <char>0xFF:
        put(log, session + L_V_PROGRAMS, get(log, session + L_V_PROGRAMS) + 1)
    return table_insert(log, session + L_V_VARIABLES, key.digest, record)


cdef int variable_register(
    Store* store, PlaceRef* place, Item* item, const char* kind, uint64_t kind_size,
    const char* facts, uint64_t facts_size, uint64_t history, bint exist_ok
) noexcept nogil:
    cdef Log log
    cdef Look look
    cdef int64_t now = monotonic(store)
    cdef uint64_t session, slot
    cdef int status
    look_begin(&look, store, place.base)
    status = use_session(&look, place, now, &session)
    if status != ST_OK:
        return status
    if find_variable(&look, session, &item.key, &item.record, &slot) == ST_OK:
        return ST_OK if exist_ok else ST_EXISTS
    if item.key.name[0] != <char>0xFF and (
        peek(store, session + L_V_VARIABLES + L_T_LIVE) - peek(store, session + L_V_PROGRAMS)
        >= store.max_variables
    ):
        return ST_TOO_MANY_VARIABLES
    stripe_open(&log, store, place.base)
    status = variable_create(
        &log, session, item, kind, kind_size, facts, facts_size, history, &item.record
    )
    if status == ST_OK:
        status = stripe_commit(&log)
    if status == ST_OK:
        tell_watchers(store, place.base, session, now)
        item.block = 0  # it is the variable's now
    else:
        stripe_undo(&log)
    log_close(&log)
    return status


cdef int history_create(Log* log, uint64_t capacity, uint64_t* block) noexcept nogil:
    cdef uint64_t length = 8 * (L_H_ENTRIES + L_HISTORY_ENTRY * capacity)
    cdef int status = block_take(log, KIND_HISTORY, length, block)
    cdef uint64_t start
    if status != ST_OK:
        return status
    at(AT_BLOCK_FILLING)
    start = block[0] + header_for(length)
    memset(log.store.words + start, 0, length)
    poke(log.store, start + L_H_CAPACITY, capacity)
    at(AT_BLOCK_FILLED)
    return ST_OK


cdef int history_keep(Log* log, uint64_t record, uint64_t ring_block) noexcept nogil:
    """Put the old value into the ring instead of freeing it."""
    cdef Store* store = log.store
    cdef uint64_t length = length_of(peek(store, ring_block + L_B_KIND))
    cdef uint64_t start = ring_block + header_for(length)
    cdef uint64_t capacity = get(log, start + L_H_CAPACITY)
    cdef uint64_t count = get(log, start + L_H_COUNT)
    cdef uint64_t block = get(log, record + L_R_VALUE)
    cdef uint64_t size = get(log, record + L_R_VALUE_LENGTH)
    cdef uint64_t[L_INLINE_WORDS] words
    cdef uint64_t entry, number
    cdef int status = ST_OK
    if capacity == 0 or not holds(store, start, L_H_ENTRIES + L_HISTORY_ENTRY * capacity):
        return ST_DAMAGED
    entry = start + L_H_ENTRIES + L_HISTORY_ENTRY * (count % capacity)
    discard(log, get(log, entry + 2))
    if block == 0:
        for number in range(<uint64_t>L_INLINE_WORDS):
            words[number] = get(log, record + L_R_INLINE + number)
        status = block_store(
            log, KIND_VALUE, <const char*>words, min(size, <uint64_t>L_INLINE_BYTES), &block
        )
    put(log, entry, get(log, record + L_R_VERSION))
    put(log, entry + 1, get(log, record + L_R_UPDATED))
    put(log, entry + 2, block)
    put(log, entry + 3, size)
    put(log, start + L_H_COUNT, count + 1)
    return status


cdef int value_put(Log* log, Item* item, int64_t wall) noexcept nogil:
    """Replace a variable's value with the commit."""
    cdef Store* store = log.store
    cdef uint64_t record = item.record
    cdef uint64_t ring_block = peek(store, record + L_R_HISTORY)
    cdef uint64_t old = get(log, record + L_R_VALUE)
    cdef uint64_t block
    cdef int status = ST_OK
    if ring_block:
        status = history_keep(log, record, ring_block)
    else:
        discard(log, old)
    if status == ST_OK:
        status = value_store(log, item, record, &block)
    if status != ST_OK:
        return status
    item.version = get(log, record + L_R_VERSION) + 1
    put(log, record + L_R_VERSION, item.version)
    put(log, record + L_R_UPDATED, later(wall, get(log, record + L_R_UPDATED)))
    if block != old:
        put(log, record + L_R_VALUE, block)
    if peek(store, record + L_R_VALUE_LENGTH) != item.size or log_find(
        log, record + L_R_VALUE_LENGTH
    ) is not NULL:
        put(log, record + L_R_VALUE_LENGTH, item.size)
    return ST_OK


cdef int items_check(
    Store* store, PlaceRef* place, uint64_t session, Item* items, uint64_t count, uint64_t* bad
) noexcept nogil:
    """Find the variables, and whether they are what their values were checked against."""
    cdef Look look
    cdef Item* item
    cdef uint64_t number, slot
    look_begin(&look, store, place.base)
    for number in range(count):
        item = items + number
        bad[0] = number
        if item.record == 0:
            if find_variable(&look, session, &item.key, &item.record, &slot) != ST_OK:
                return ST_NO_VARIABLE
        item.version = peek(store, item.record + L_R_VERSION)
        if item.expected and item.version != item.expected:
            return ST_CONFLICT
        if peek(store, item.record + L_R_NUMBER) != item.number:
            return ST_CHANGED
        if peek(store, item.record + L_R_FACTS_VERSION) != item.facts_version:
            return ST_CHANGED
    return ST_OK


cdef int items_write(
    Store* store, PlaceRef* place, uint64_t session, Item* items, uint64_t count, int64_t now,
    uint64_t* bad
) noexcept nogil:
    """Give variables new values in one commit."""
    cdef Log log
    cdef uint64_t number
    cdef int64_t wall = store_wall()
    cdef int status = items_check(store, place, session, items, count, bad)
    if status != ST_OK:
        return status
    stripe_open(&log, store, place.base)
    for number in range(count):
        status = value_put(&log, items + number, wall)
        if status != ST_OK:
            break
    if status == ST_OK:
        status = stripe_commit(&log)
    if status == ST_OK:
        tell_watchers(store, place.base, session, now)
        for number in range(count):
            items[number].block = 0
    else:
        stripe_undo(&log)
    log_close(&log)
    return status


cdef inline uint64_t later(int64_t wall, uint64_t last) noexcept nogil:
    """The time of a write: the coarse clock may be a step behind the one of a creation."""
    return last if wall < <int64_t>last < wall + COARSE_STEP else <uint64_t>wall


# Where a variable was found; true as long as the stripe's epoch is the same.
cdef struct Spot:
    uint64_t epoch
    uint64_t session
    uint64_t record
    uint64_t number
    uint64_t facts_version
    int64_t quiet  # how long after its last use a use of the session need not be noted


cdef int short_put(
    Store* store, uint64_t base, Spot* spot, const uint64_t* words, uint64_t size, int64_t now
) noexcept nogil:
    """What `items_write` does, for one short value that replaces a short one.

    ``ST_EXISTS``: what is there is no short one, or to be kept.
    """
    cdef const uint64_t* record = store.words + spot.record
    cdef uint64_t* pair = store.words + base + L_S_LOG + 1
    cdef uint64_t number
    cdef int status
    cdef Look look
    look_begin(&look, store, base)
    if (
        peek(store, base + L_S_EPOCH) != spot.epoch or is_over(&look, spot.session, now)
        or record[L_R_NUMBER] != spot.number
        or record[L_R_FACTS_VERSION] != spot.facts_version
    ):
        return ST_CHANGED
    if record[L_R_VALUE] or record[L_R_HISTORY]:
        return ST_EXISTS
    for number in range(words_for(size)):
        pair[0] = spot.record + L_R_INLINE + number
        pair[1] = words[number]
        pair += 2
    pair[0] = spot.record + L_R_VERSION
    pair[1] = record[L_R_VERSION] + 1
    pair[2] = spot.record + L_R_UPDATED
    pair[3] = later(store_wall(), record[L_R_UPDATED])
    pair += 4
    if record[L_R_VALUE_LENGTH] != size:
        pair[0] = spot.record + L_R_VALUE_LENGTH
        pair[1] = size
        pair += 2
    number = <uint64_t>(pair - (store.words + base + L_S_LOG + 1)) // 2
    status = pairs_run(store, base + L_S_COMMIT, base + L_S_LOG, 0, number, AT_STRIPE_LOGGED)
    if status == ST_OK:
        use(store, spot.session, now)
        tell_watchers(store, base, spot.session, now)
    return status


cdef int variable_constrain(
    Store* store, PlaceRef* place, KeyRef* key, uint64_t number, uint64_t facts_version,
    uint64_t version, const char* facts, uint64_t size
) noexcept nogil:
    cdef Log log
    cdef Look look
    cdef int64_t now = monotonic(store)
    cdef uint64_t session, record, slot
    cdef uint64_t block = 0
    cdef int status
    look_begin(&look, store, place.base)
    status = use_session(&look, place, now, &session)
    if status == ST_OK:
        status = find_variable(&look, session, key, &record, &slot)
    if status != ST_OK:
        return status
    if (
        peek(store, record + L_R_NUMBER) != number or peek(store, record + L_R_VERSION) != version
        or peek(store, record + L_R_FACTS_VERSION) != facts_version
    ):
        return ST_CHANGED
    stripe_open(&log, store, place.base)
    discard(&log, peek(store, record + L_R_FACTS))
    if size:
        status = block_store(&log, KIND_FACTS, facts, size, &block)
    if status == ST_OK:
        put(&log, record + L_R_FACTS, block)
        put(&log, record + L_R_FACTS_VERSION, facts_version + 1)
        status = stripe_commit(&log)
    if status == ST_OK:
        tell_watchers(store, place.base, session, now)
    else:
        stripe_undo(&log)
    log_close(&log)
    return status


cdef int variable_delete(Store* store, PlaceRef* place, KeyRef* key) noexcept nogil:
    cdef Log log
    cdef Look look
    cdef int64_t now = monotonic(store)
    cdef uint64_t session, record, slot
    cdef int status
    look_begin(&look, store, place.base)
    status = use_session(&look, place, now, &session)
    if status == ST_OK:
        status = find_variable(&look, session, key, &record, &slot)
    if status != ST_OK:
        return status
    stripe_open(&log, store, place.base)
    table_remove(&log, session + L_V_VARIABLES, slot)
    if is_program(store, record):
        put(&log, session + L_V_PROGRAMS, get(&log, session + L_V_PROGRAMS) - 1)
    something_goes(&log)
    # One with old values may be many blocks: they are freed bit by bit, for which no log of the
    # stripe is too short.
    if peek(store, record + L_R_HISTORY):
        put(&log, record + L_B_LINK, get(&log, place.base + L_S_GRAVES))
        put(&log, place.base + L_S_GRAVES, record)
    else:
        discard(&log, peek(store, record + L_R_VALUE))
        discard(&log, peek(store, record + L_R_FACTS))
        discard(&log, record)
    status = stripe_commit(&log)
    if status == ST_OK:
        tell_watchers(store, place.base, session, now)
    else:
        stripe_undo(&log)
    log_close(&log)
    return status


cdef inline bint is_program(Store* store, uint64_t record) noexcept nogil:
    """Whether a record is that of a program."""
    cdef uint64_t first = peek(store, record + L_R_NAME)
    return (<const unsigned char*>&first)[0] == 0xFF
