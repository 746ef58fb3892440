# Sessions and variables of one stripe: what sessions.py and variables.py in snakepit_mp/store
# specify. All of it runs under the stripe's lock, save what takes a Look.

# Where a session is looked for.
cdef struct PlaceRef:
    const char* name
    uint64_t size
    uint64_t digest
    uint64_t base


# A variable's name; `number` 0 is any.
cdef struct KeyRef:
    const char* name
    uint64_t size
    uint64_t digest
    uint64_t number
    # The same for what the name may be the id of; NULL if it looks like none.
    const char* other
    uint64_t other_size
    uint64_t other_digest
    uint64_t other_number


# A new value. `block`: it lies there already, filled by this process.
cdef struct Item:
    KeyRef key
    const char* data
    uint64_t size
    uint64_t block
    uint64_t number
    uint64_t facts_version
    uint64_t expected
    uint64_t record
    uint64_t version


cdef inline bint is_over(Look* look, uint64_t session, int64_t now) noexcept nogil:
    cdef uint64_t lifetime = see(look, session + L_V_TTL)
    cdef int64_t used
    if lifetime == 0:
        return False
    used = <int64_t>see(look, session + L_V_ACCESSED)
    if now - used < <int64_t>lifetime:
        return False
    # Perhaps readers used it while a stopped process kept them from saying so.
    used = <int64_t>peek(look.store, look.commit - L_S_COMMIT + L_S_LATE)
    return now - used >= <int64_t>lifetime


cdef inline bint stamp_is_due(Look* look, uint64_t session, int64_t now) noexcept nogil:
    cdef int64_t every = <int64_t>(see(look, session + L_V_TTL) // 8)
    if every == 0 or every > STAMP_EVERY:
        every = STAMP_EVERY
    return now - <int64_t>see(look, session + L_V_ACCESSED) >= every


cdef uint64_t session_slot(Look* look, PlaceRef* place, uint64_t* slot) noexcept nogil:
    """The record of a session, expired ones included, or 0."""
    return table_find(
        look, place.base + L_S_INDEX, place.digest, place.name, place.size,
        L_V_LENGTHS, L_V_NAME, slot
    )


cdef int find_session(
    Look* look, PlaceRef* place, int64_t now, uint64_t* session
) noexcept nogil:
    cdef uint64_t slot
    session[0] = session_slot(look, place, &slot)
    if session[0] == 0 or is_over(look, session[0], now):
        return ST_NO_SESSION
    return ST_OK


cdef int find_variable(
    Look* look, uint64_t session, KeyRef* key, uint64_t* record, uint64_t* slot
) noexcept nogil:
    record[0] = table_find(
        look, session + L_V_VARIABLES, key.digest, key.name, key.size,
        L_R_LENGTHS, L_R_NAME, slot
    )
    if record[0] and key.number and see(look, record[0] + L_R_NUMBER) != key.number:
        record[0] = 0
    if record[0] == 0 and key.other is not NULL:
        record[0] = table_find(
            look, session + L_V_VARIABLES, key.other_digest, key.other, key.other_size,
            L_R_LENGTHS, L_R_NAME, slot
        )
        if record[0] and see(look, record[0] + L_R_NUMBER) != key.other_number:
            record[0] = 0
    return ST_OK if record[0] else ST_NO_VARIABLE


cdef inline void use(Store* store, uint64_t session, int64_t now) noexcept nogil:
    """Note a use, under the lock."""
    poke(store, session + L_V_ACCESSED, <uint64_t>now)


cdef int use_session(
    Look* look, PlaceRef* place, int64_t now, uint64_t* session
) noexcept nogil:
    """Find a session under the lock, and note its use, whatever comes of it."""
    cdef int status = find_session(look, place, now, session)
    if status == ST_OK:
        use(look.store, session[0], now)
    return status


cdef inline void tell_watchers(
    Store* store, uint64_t base, uint64_t session, int64_t now
) noexcept nogil:
    """Wake those who watch a session, after a commit."""
    if <int64_t>peek(store, session + L_V_WATCHED) > now:
        ring(store, base)


cdef uint64_t next_number(Log* log) noexcept nogil:
    cdef uint64_t number = get(log, base_in(log) + L_S_NUMBERS) + 1
    put(log, base_in(log) + L_S_NUMBERS, number)
    return number


cdef inline void something_goes(Log* log) noexcept nogil:
    """Whoever remembers a record of this stripe has to look again."""
    put(log, base_in(log) + L_S_EPOCH, get(log, base_in(log) + L_S_EPOCH) + 1)


cdef uint64_t sessions_in(Store* store) noexcept nogil:
    """How many sessions there are, hidden ones not counted; somebody may be adding one."""
    cdef uint64_t total = 0
    cdef uint64_t stripe
    for stripe in range(<uint64_t>L_STRIPE_COUNT):
        total += peek(store, base_of(stripe) + L_S_INDEX + L_T_LIVE)
    return total - 1 if total else 0


# Sessions

cdef void bury(Log* log, uint64_t slot, uint64_t session) noexcept nogil:
    """Delete a session: unreachable with the commit, freed later."""
    cdef uint64_t base = base_in(log)
    table_remove(log, base + L_S_INDEX, slot)
    put(log, session + L_B_LINK, get(log, base + L_S_GRAVES))
    put(log, base + L_S_GRAVES, session)
    put(log, session + L_V_VARIABLES + L_T_USED, 0)  # from here on: how far it is emptied
    something_goes(log)


cdef int session_store(
    Log* log, PlaceRef* place, uint64_t lifetime, const char* metadata, uint64_t metadata_size,
    int64_t now, uint64_t* session
) noexcept nogil:
    cdef Store* store = log.store
    cdef uint64_t name_words = words_for(place.size)
    cdef uint64_t length = 8 * (L_V_NAME - L_SMALL_HEADER + name_words) + metadata_size
    cdef uint64_t record, word
    cdef int status = block_take(log, KIND_SESSION, length, session)
    if status != ST_OK:
        return status
    record = session[0]
    at(AT_BLOCK_FILLING)
    for word in range(L_SMALL_HEADER, L_V_NAME + name_words):
        poke(store, record + word, 0)
    poke(store, record + L_HASH, place.digest)
    poke(store, record + L_V_TTL, lifetime)
    poke(store, record + L_V_ACCESSED, <uint64_t>now)
    poke(store, record + L_V_CREATED, <uint64_t>store_exact_wall())
    poke(store, record + L_V_LENGTHS, place.size | metadata_size << 32)
    poke(store, record + L_V_NUMBER, next_number(log))
    memcpy(store.words + record + L_V_NAME, place.name, place.size)
    memcpy(store.words + record + L_V_NAME + name_words, metadata, metadata_size)
    at(AT_BLOCK_FILLED)
    return table_insert(log, place.base + L_S_INDEX, place.digest, record)


cdef int session_create(
    Store* store, PlaceRef* place, uint64_t lifetime, const char* metadata,
    uint64_t metadata_size, bint exist_ok, uint64_t* session
) noexcept nogil:
    cdef Log log
    cdef Look look
    cdef int64_t now = monotonic(store)
    cdef uint64_t slot
    cdef int status = ST_OK
    look_begin(&look, store, place.base)
    session[0] = session_slot(&look, place, &slot)
    if session[0] and not is_over(&look, session[0], now):
        if not exist_ok:
            return ST_EXISTS
        use(store, session[0], now)
        return ST_OK
    stripe_open(&log, store, place.base)
    if session[0]:
        bury(&log, slot, session[0])
    elif sessions_in(store) >= store.max_sessions and place.name[0] != <char>0xFF:
        return ST_TOO_MANY_SESSIONS
    status = session_store(&log, place, lifetime, metadata, metadata_size, now, session)
    if status == ST_OK:
        status = stripe_commit(&log)
    if status != ST_OK:
        stripe_undo(&log)
    log_close(&log)
    return status


cdef int session_delete(
    Store* store, PlaceRef* place, bint only_expired, uint64_t* variables
) noexcept nogil:
    cdef Log log
    cdef Look look
    cdef int64_t now = monotonic(store)
    cdef uint64_t slot, session
    cdef bint over
    cdef int status
    look_begin(&look, store, place.base)
    session = session_slot(&look, place, &slot)
    over = session != 0 and is_over(&look, session, now)
    if session == 0 or over != only_expired:
        return ST_NO_SESSION
    variables[0] = (
        peek(store, session + L_V_VARIABLES + L_T_LIVE) - peek(store, session + L_V_PROGRAMS)
    )
    stripe_open(&log, store, place.base)
    bury(&log, slot, session)
    status = stripe_commit(&log)
    if status == ST_OK:
        tell_watchers(store, place.base, session, now)
    log_close(&log)
    return status
