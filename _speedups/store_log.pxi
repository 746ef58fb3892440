# Redo logs: what snakepit_mp/store/redo.py specifies. The commit word is also what readers look
# at: 2 * sequence, plus 1 while a committed log waits to be applied.

cdef enum:
    PAIRS_SEARCHED = 24  # a longer log has an index
    GONE_AT_HAND = 16


# Writes to be made together. They are put into the log's place at once; only when they do not
# fit there, into memory of this process, and with the commit into a block.
cdef struct Log:
    Store* store
    uint64_t commit  # the word; the next one says where the log is
    uint64_t area
    uint64_t capacity
    int first_step
    uint64_t count
    uint64_t room
    uint64_t* pairs
    uint64_t* own
    uint32_t* index
    uint64_t index_mask
    uint64_t* gone  # blocks to be freed with the commit
    uint64_t gone_count
    uint64_t gone_room
    uint64_t[GONE_AT_HAND] gone_at_hand
    bint took  # the stripe has pending blocks
    bint lost  # memory of this process ran out: nothing may be committed


cdef inline void log_open(
    Log* log, Store* store, uint64_t commit, uint64_t area, uint64_t capacity, int first_step
) noexcept nogil:
    log.store = store
    log.commit = commit
    log.area = area
    log.capacity = capacity
    log.first_step = first_step
    log.count = 0
    log.room = capacity
    log.pairs = store.words + area + 1
    log.own = NULL
    log.index = NULL
    log.index_mask = 0
    log.gone = log.gone_at_hand
    log.gone_count = 0
    log.gone_room = GONE_AT_HAND
    log.took = False
    log.lost = False


cdef inline void log_close(Log* log) noexcept nogil:
    if log.own is not NULL:
        free(log.own)
    if log.index is not NULL:
        free(log.index)
    if log.gone != log.gone_at_hand:
        free(log.gone)


cdef inline uint64_t scatter(uint64_t word) noexcept nogil:
    return (word * 0x9E3779B97F4A7C15ULL) >> 20


cdef uint64_t* log_indexed(Log* log, uint64_t word) noexcept nogil:
    cdef uint64_t place = scatter(word) & log.index_mask
    while log.index[place]:
        if log.pairs[2 * (log.index[place] - 1)] == word:
            return log.pairs + 2 * (log.index[place] - 1) + 1
        place = (place + 1) & log.index_mask
    return NULL


cdef inline uint64_t* log_find(Log* log, uint64_t word) noexcept nogil:
    """Where the log has the new value of a word; NULL if it does not change."""
    cdef uint64_t number
    if log.index is not NULL:
        return log_indexed(log, word)
    for number in range(log.count):
        if log.pairs[2 * number] == word:
            return log.pairs + 2 * number + 1
    return NULL


cdef inline uint64_t get(Log* log, uint64_t word) noexcept nogil:
    """A word as it will be."""
    cdef uint64_t* value = log_find(log, word)
    return value[0] if value is not NULL else peek(log.store, word)


cdef void log_enter(Log* log, uint64_t number) noexcept nogil:
    cdef uint64_t place = scatter(log.pairs[2 * number]) & log.index_mask
    while log.index[place]:
        place = (place + 1) & log.index_mask
    log.index[place] = <uint32_t>number + 1


cdef bint log_make_index(Log* log, uint64_t size) noexcept nogil:
    cdef uint32_t* index = <uint32_t*>calloc(size, sizeof(uint32_t))
    cdef uint64_t number
    if index is NULL:
        log.lost = True
        return False
    free(log.index)
    log.index = index
    log.index_mask = size - 1
    for number in range(log.count):
        log_enter(log, number)
    return True


cdef bint log_move_out(Log* log) noexcept nogil:
    """Go on in memory of this process."""
    cdef uint64_t room = 4 * log.room
    cdef uint64_t* own = <uint64_t*>realloc(log.own, 16 * room)
    if own is NULL:
        log.lost = True
        return False
    if log.own is NULL:
        memcpy(own, log.pairs, 16 * log.count)
    log.own = log.pairs = own
    log.room = room
    return True


cdef inline void put(Log* log, uint64_t word, uint64_t value) noexcept nogil:
    """Change a word with the commit."""
    cdef uint64_t* known = log_find(log, word)
    if known is not NULL:
        known[0] = value
        return
    if log.lost or (log.count == log.room and not log_move_out(log)):
        return
    log.pairs[2 * log.count] = word
    log.pairs[2 * log.count + 1] = value
    log.count += 1
    if log.index is NULL:
        if log.count > PAIRS_SEARCHED:
            log_make_index(log, 4 * PAIRS_SEARCHED + 32)
    elif 2 * log.count > log.index_mask:
        log_make_index(log, 2 * (log.index_mask + 1))
    else:
        log_enter(log, log.count - 1)


cdef bint gone_more(Log* log) noexcept nogil:
    cdef bint at_hand = log.gone == log.gone_at_hand
    cdef uint64_t* more = <uint64_t*>realloc(
        NULL if at_hand else log.gone, 16 * log.gone_room
    )
    if more is NULL:
        log.lost = True
        return False
    if at_hand:
        memcpy(more, log.gone_at_hand, 8 * log.gone_count)
    log.gone = more
    log.gone_room *= 2
    return True


cdef inline void discard(Log* log, uint64_t block) noexcept nogil:
    """Free a block with the commit, which makes it unreachable; 0 is none.

    Not before: what is taken in between would be filled while this one is still read.
    """
    if block == 0 or log.gone_count == log.gone_room and not gone_more(log):
        return
    log.gone[log.gone_count] = block
    log.gone_count += 1


cdef bint log_apply(Store* store, const uint64_t* pairs, uint64_t count, int step) noexcept nogil:
    cdef uint64_t number
    cdef bint sound = True
    for number in range(count):
        if number == count // 2:
            at(step)
        if pairs[2 * number] < store.size:
            store_poke(store.words + pairs[2 * number], pairs[2 * number + 1])
        else:
            sound = False
    return sound


cdef inline int log_run(Log* log, uint64_t place) noexcept nogil:
    """Make all writes of a log that lies at ``place``, or in its own area where that is 0."""
    return pairs_run(log.store, log.commit, log.area, place, log.count, log.first_step)


cdef inline int pairs_run(
    Store* store, uint64_t commit_word, uint64_t area, uint64_t place, uint64_t count,
    int first_step
) noexcept nogil:
    cdef uint64_t* commit = store.words + commit_word
    cdef uint64_t sequence = store_peek(commit)
    cdef uint64_t* log = store.words + (area if place == 0 else place)
    cdef bint sound
    store_poke(log, count)
    if store_peek(commit + 1) != place:
        store_poke(commit + 1, place)
    at(first_step)
    store_publish(commit, sequence + 1)  # the commit
    store_fence_release()  # nobody sees a word of it before that
    at(first_step + 1)
    sound = log_apply(store, log + 1, count, first_step + 2)
    at(first_step + 3)
    store_publish(commit, sequence + 2)
    store_fence_release()  # nobody sees the next log in this one's place
    at(first_step + 4)
    return ST_OK if sound else ST_DAMAGED


cdef bint log_in(
    Store* store, uint64_t* place, uint64_t area, uint64_t capacity, uint64_t* count
) noexcept nogil:
    """Where a log lies, and how many pairs it has; False if that cannot be true."""
    cdef uint64_t room = capacity
    if place[0] == 0:
        place[0] = area
    elif place[0] < L_RUN_HEADER:
        return False
    else:  # its block's length, less the count, in pairs
        room = (length_of(peek(store, place[0] - L_RUN_HEADER + L_B_KIND)) - 8) // 16
    count[0] = peek(store, place[0])
    if count[0] > room or count[0] > store.size or not holds(store, place[0] + 1, 2 * count[0]):
        return False
    return place[0] == area or has_memory(store, place[0] + 1, 16 * count[0])


cdef int log_replay(
    Store* store, uint64_t commit, uint64_t area, uint64_t capacity, int first_step
) noexcept nogil:
    """Finish what a dead process had committed, if anything."""
    cdef uint64_t sequence = peek(store, commit)
    cdef uint64_t place = peek(store, commit + 1)
    cdef uint64_t count
    if not sequence & 1:
        return ST_OK
    if not log_in(store, &place, area, capacity, &count):
        return ST_DAMAGED
    store_fence_release()
    if not log_apply(store, store.words + place + 1, count, first_step + 2):
        return ST_DAMAGED
    at(first_step + 3)
    store_publish(store.words + commit, sequence + 1)
    store_fence_release()
    at(first_step + 4)
    return ST_OK


# A reader's look at one stripe at one moment. Where a log is committed and not applied, which
# a stopped or dead writer may leave for ever, the log is read over the words.
cdef struct Look:
    Store* store
    uint64_t commit
    uint64_t seen
    const uint64_t* pairs
    uint64_t count


cdef inline void look_begin(Look* look, Store* store, uint64_t base) noexcept nogil:
    look.store = store
    look.commit = base + L_S_COMMIT
    look.seen = store_load(store.words + look.commit)
    look.pairs = NULL
    look.count = 0
    if look.seen & 1:
        look_over_log(look, base)


cdef void look_over_log(Look* look, uint64_t base) noexcept nogil:
    cdef Store* store = look.store
    cdef uint64_t place = peek(store, look.commit + 1)
    if not log_in(store, &place, base + L_S_LOG, L_S_LOG_CAPACITY, &look.count):
        look.count = 0  # no log any more: the look is over
    look.pairs = store.words + place + 1


cdef inline uint64_t see(Look* look, uint64_t word) noexcept nogil:
    cdef uint64_t number
    for number in range(look.count):
        if store_peek(look.pairs + 2 * number) == word:
            return store_peek(look.pairs + 2 * number + 1)
    return peek(look.store, word)


cdef inline bint look_holds(Look* look) noexcept nogil:
    """Whether all that was seen is of one moment."""
    store_fence_acquire()
    return store_peek(look.store.words + look.commit) == look.seen
