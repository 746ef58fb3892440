# One stripe: its small blocks, its lock, its commit and its repair. What slabs.py and stripe.py in
# snakepit_mp/store specify; and the hazards of readers that hold views.

cdef enum:
    FREED_AT_ONCE = 10  # blocks in one commit, each with up to 8 pairs of the stripe's log
    ROUNDS_ASIDE = 2
    ROUNDS_OF_TIDYING = 16
    S_LOG_ENOUGH = L_S_LOG_CAPACITY - 8
    VIEWS_ASIDE = 4  # runs in limbo that an operation looks at


cdef inline uint64_t base_of(uint64_t stripe) noexcept nogil:
    return L_STRIPES + stripe * L_STRIPE_WORDS


cdef inline void stripe_open(Log* log, Store* store, uint64_t base) noexcept nogil:
    log_open(
        log, store, base + L_S_COMMIT, base + L_S_LOG, L_S_LOG_CAPACITY, AT_STRIPE_LOGGED
    )


cdef inline uint64_t base_in(Log* log) noexcept nogil:
    return log.commit - L_S_COMMIT


# Small blocks.

cdef int class_for(uint64_t words) noexcept nogil:
    cdef int number = 0
    while CLASS_SIZES[number] < words:
        number += 1
    return number


cdef int slab_take(Log* log, uint64_t length, uint64_t kind, uint64_t* block) noexcept nogil:
    """A small block, whose payload may be written at once."""
    cdef Store* store = log.store
    cdef int number = class_for(L_SMALL_HEADER + words_for(length))
    cdef uint64_t head_word = base_in(log) + L_S_PARTIAL + number
    cdef uint64_t page = get(log, head_word)
    cdef uint64_t state, head, fresh, free_ones, slot
    cdef int status
    if page == 0:
        status = slab_new(log, number, &page)
        if status != ST_OK:
            return status
    page -= 1
    state = get(log, descriptor_of(page) + L_D_STATE)
    head, fresh, free_ones = state & 0xFFFF, state >> 16 & 0xFFFF, state >> 32
    slot = head - 1 if head else fresh
    if free_ones == 0 or slot >= L_PAGE_WORDS // CLASS_SIZES[number]:
        return ST_DAMAGED
    block[0] = start_of(store, page) + slot * CLASS_SIZES[number]
    if not holds(store, block[0], CLASS_SIZES[number]):
        return ST_DAMAGED
    if head:
        head = get(log, block[0] + L_B_LINK) & 0xFFFF
    else:
        fresh += 1
    put(log, descriptor_of(page) + L_D_STATE, head | fresh << 16 | (free_ones - 1) << 32)
    put(log, block[0] + L_B_KIND, kind << L_KIND_SHIFT | length)
    if free_ones == 1:
        page_unlink(log, head_word, page)
    return ST_OK


cdef int slab_new(Log* log, int number, uint64_t* page) noexcept nogil:
    cdef uint64_t block, taken
    cdef uint64_t kind_word = <uint64_t>KIND_PAGE << L_KIND_SHIFT
    cdef int status = pages_take(
        log.store, 1, base_in(log) + L_S_PENDING, 0,
        kind_word | (L_PAGE_BYTES - 8 * L_RUN_HEADER), &block
    )
    if status != ST_OK:
        return status
    log.took = True
    taken = page_of(log.store, block)
    put(log, descriptor_of(taken), PAGE_SLAB | <uint64_t>number << 8)
    put(log, descriptor_of(taken) + L_D_STATE, (L_PAGE_WORDS // CLASS_SIZES[number]) << 32)
    page_link(log, base_in(log) + L_S_PARTIAL + number, taken)
    page[0] = taken + 1
    return ST_OK


cdef void to_garbage(Log* log, uint64_t block) noexcept nogil:
    cdef uint64_t chain = base_in(log) + L_S_GARBAGE
    put(log, block + L_B_LINK, get(log, chain))
    put(log, chain, block)


cdef int give(Log* log, uint64_t block) noexcept nogil:
    """Free a block in a log that takes no more of them."""
    cdef Store* store = log.store
    cdef uint64_t page, entry, state, head, fresh, free_ones, number, slot, start
    page = page_of(store, block)
    if page >= store.all_pages or not holds(store, block, L_RUN_HEADER):
        return ST_DAMAGED
    entry = get(log, descriptor_of(page))
    start = start_of(store, page)
    if entry & 0xFF == PAGE_RUN and block == start:
        to_garbage(log, block)
        return ST_OK
    number = entry >> 8
    if entry & 0xFF != PAGE_SLAB or number >= CLASS_COUNT:
        return ST_DAMAGED
    slot = (block - start) // CLASS_SIZES[number]
    state = get(log, descriptor_of(page) + L_D_STATE)
    head, fresh, free_ones = state & 0xFFFF, state >> 16 & 0xFFFF, (state >> 32) + 1
    if block != start + slot * CLASS_SIZES[number] or get(log, block + L_B_KIND) == 0:
        return ST_DAMAGED
    if free_ones == L_PAGE_WORDS // CLASS_SIZES[number]:
        if free_ones > 1:  # else the page was full, and in no list
            page_unlink(log, base_in(log) + L_S_PARTIAL + number, page)
        put(log, descriptor_of(page), PAGE_RUN | 1 << 8)
        put(log, descriptor_of(page) + L_D_OWNER, 0)
        put(
            log, start + L_B_KIND,
            <uint64_t>KIND_PAGE << L_KIND_SHIFT | (L_PAGE_BYTES - 8 * L_RUN_HEADER)
        )
        to_garbage(log, start)
        return ST_OK
    put(log, block + L_B_KIND, 0)
    put(log, block + L_B_LINK, head)
    put(log, descriptor_of(page) + L_D_STATE, (slot + 1) | fresh << 16 | free_ones << 32)
    if free_ones == 1:
        page_link(log, base_in(log) + L_S_PARTIAL + number, page)
    return ST_OK


cdef int block_take(Log* log, uint64_t kind, uint64_t length, uint64_t* block) noexcept nogil:
    """A block of any size, to be filled at once; reachable when a commit makes it so."""
    cdef int status
    if length <= L_SMALL_MOST:
        return slab_take(log, length, kind, block)
    status = pages_take(
        log.store, (L_RUN_HEADER + words_for(length) + L_PAGE_WORDS - 1) // L_PAGE_WORDS,
        base_in(log) + L_S_PENDING, 0, kind << L_KIND_SHIFT | length, block
    )
    if status == ST_OK:
        log.took = True
    return status


cdef int block_store(
    Log* log, uint64_t kind, const char* data, uint64_t length, uint64_t* block
) noexcept nogil:
    """A block with this content."""
    cdef int status = block_take(log, kind, length, block)
    if status == ST_OK:
        at(AT_BLOCK_FILLING)
        memcpy(log.store.words + block[0] + header_for(length), data, length)
        at(AT_BLOCK_FILLED)
    return status


# Views: a process says in its slot which runs it looks at. A run that a commit has made
# unreachable is free when nobody does. The reader stores the hazard, then looks whether the
# run is still reachable; the writer makes it unreachable, then looks for hazards; each with a
# full fence in between, so at least one of them sees the other.

cdef bint is_viewed(Store* store, uint64_t block) noexcept nogil:
    cdef uint64_t used = min(peek(store, L_PROCESSES_USED), <uint64_t>L_PROCESS_COUNT)
    cdef uint64_t number, slot, hazard, high
    store_fence()
    for number in range(used):
        slot = L_PROCESSES + number * L_PROCESS_WORDS
        high = min(peek(store, slot + L_P_HIGH), <uint64_t>L_HAZARD_COUNT)
        for hazard in range(high):
            if store_load(store.words + slot + L_P_HAZARDS + hazard) == block:
                return True
    return False


cdef int to_limbo(Store* store, uint64_t base, uint64_t block) noexcept nogil:
    """Move the first run of the garbage to where it waits for its viewers."""
    cdef Log log
    cdef int status
    stripe_open(&log, store, base)
    put(&log, base + L_S_GARBAGE, peek(store, block + L_B_LINK))
    put(&log, block + L_B_LINK, peek(store, base + L_S_LIMBO))
    put(&log, base + L_S_LIMBO, block)
    status = stripe_commit(&log)
    log_close(&log)
    return status


cdef int take_out(Store* store, uint64_t base) noexcept nogil:
    """Free the garbage that nobody looks at."""
    cdef uint64_t block = peek(store, base + L_S_GARBAGE)
    cdef int status = ST_OK
    while block and status == ST_OK:
        if is_viewed(store, block):
            status = to_limbo(store, base, block)
        else:
            status = pages_release(store, base + L_S_GARBAGE, True)
        block = peek(store, base + L_S_GARBAGE)
    return status


cdef int review_limbo(Store* store, uint64_t base, uint64_t steps) noexcept nogil:
    """Free what nobody looks at any more, among the first runs in limbo."""
    cdef Log log
    cdef uint64_t link = base + L_S_LIMBO
    cdef uint64_t block = peek(store, link)
    cdef int status
    stripe_open(&log, store, base)
    while block and steps and log.count < S_LOG_ENOUGH:
        steps -= 1
        if is_viewed(store, block):
            link = block + L_B_LINK
        else:
            put(&log, link, peek(store, block + L_B_LINK))
            to_garbage(&log, block)
        block = get(&log, link)
    status = stripe_commit(&log) if log.count else ST_OK
    log_close(&log)
    return take_out(store, base) if status == ST_OK else status


# Lock, commit, repair.

cdef int stripe_commit(Log* log) noexcept nogil:
    """Make all writes at once. Whatever fails has changed nothing."""
    cdef Store* store = log.store
    cdef uint64_t base = base_in(log)
    cdef uint64_t block = 0
    cdef uint64_t place = 0
    cdef uint64_t length, number
    cdef int status
    for number in range(log.gone_count):
        status = give(log, log.gone[number])
        if status != ST_OK:
            return status
    if log.own is not NULL or (log.took and log.count == log.room):
        length = max(16 * (log.count + 8) + 8, <uint64_t>L_SMALL_MOST + 8)
        status = block_take(log, KIND_LOG, length, &block)
        if status != ST_OK:
            return status
        to_garbage(log, block)
        place = block + L_RUN_HEADER
    if log.took:
        put(log, base + L_S_PENDING, 0)
    if log.lost:
        return ST_NO_MEMORY
    if place:
        memcpy(store.words + place + 1, log.pairs, 16 * log.count)
    return log_run(log, place)


cdef void stripe_undo(Log* log) noexcept nogil:
    """Give back what an operation took that does not commit."""
    if log.took:
        pages_release(log.store, base_in(log) + L_S_PENDING, False)


cdef int stripe_repair(Store* store, uint64_t base) noexcept nogil:
    """Bring a stripe into order, whatever its last owner died in."""
    cdef Log log
    # The allocator first: its log may still hold a change of this stripe's chains.
    cdef int status = pages_enter(store, &log)
    if status != ST_OK:
        return status
    pages_leave(store, &log)
    status = log_replay(
        store, base + L_S_COMMIT, base + L_S_LOG, L_S_LOG_CAPACITY, AT_STRIPE_LOGGED
    )
    if status == ST_OK:
        status = pages_release(store, base + L_S_PENDING, False)
    if status == ST_OK:
        status = take_out(store, base)
    if status == ST_OK:
        poke(store, base + L_S_DIRTY, 0)
        ring(store, base)  # what was committed may not have been told
    return status


cdef inline void ring(Store* store, uint64_t base) noexcept nogil:
    poke(store, base + L_S_BELL, peek(store, base + L_S_BELL) + 1)
    store_futex_wake(store.words + base + L_S_BELL)


cdef int stripe_enter(Store* store, uint64_t base, int64_t patience) noexcept nogil:
    """Lock a stripe, in order. Whatever fails holds no lock."""
    cdef void* mutex = store.words + base + L_S_MUTEX
    cdef int status = store_mutex_lock(mutex, patience)
    if status == 2:
        return ST_BUSY
    if status < 0:
        return ST_DAMAGED
    if status == 1:
        poke(store, base + L_S_DIRTY, 1)
        store_mutex_repaired(mutex)
    if (
        peek(store, base + L_S_COMMIT) & 1 or peek(store, base + L_S_PENDING)
        or peek(store, base + L_S_GARBAGE) or peek(store, base + L_S_DIRTY)
    ):
        status = stripe_repair(store, base)
        if status != ST_OK:
            store_mutex_unlock(mutex)
            return status
    at(AT_STRIPE_ENTERED)
    return ST_OK


cdef inline void stripe_leave(Store* store, uint64_t base) noexcept nogil:
    """Put away what the operation left, and unlock."""
    if peek(store, base + L_S_GARBAGE):
        take_out(store, base)
    if peek(store, base + L_S_PENDING) == 0:  # else the next one has to repair first
        if peek(store, base + L_S_LIMBO):
            review_limbo(store, base, VIEWS_ASIDE)
        if peek(store, base + L_S_GRAVES):
            free_graves(store, base, ROUNDS_ASIDE)
    at(AT_STRIPE_LEFT)
    store_mutex_unlock(store.words + base + L_S_MUTEX)


cdef bint free_graves(Store* store, uint64_t base, int rounds) noexcept nogil:
    """Free the blocks of deleted sessions, in so many commits; whether all are gone."""
    cdef Log log
    cdef int status
    while rounds and peek(store, base + L_S_GRAVES):
        stripe_open(&log, store, base)
        status = bury_some(&log)
        if status == ST_OK:
            status = stripe_commit(&log)
        log_close(&log)
        if status != ST_OK:
            return False  # the next one tries again
        if peek(store, base + L_S_GARBAGE) and take_out(store, base) != ST_OK:
            return False
        rounds -= 1
    return peek(store, base + L_S_GRAVES) == 0


cdef int bury_some(Log* log) noexcept nogil:
    """Free some blocks of what is first in the graves, and it itself with the last.

    No more than the stripe's own log holds: where the store is full there is no other.
    """
    cdef Store* store = log.store
    cdef uint64_t base = base_in(log)
    cdef uint64_t grave = peek(store, base + L_S_GRAVES)
    cdef uint64_t owner = grave + L_V_VARIABLES
    cdef uint64_t first, capacity, place, entry
    cdef uint64_t gone = 0
    cdef uint64_t budget = FREED_AT_ONCE
    cdef bint empty = True
    if peek(store, grave + L_B_KIND) >> L_KIND_SHIFT == KIND_VARIABLE:
        if bury_variable(log, grave, &budget):
            put(log, base + L_S_GRAVES, peek(store, grave + L_B_LINK))
        return ST_OK
    if not table_slots(store, peek(store, owner + L_T_BLOCK), &first, &capacity):
        return ST_DAMAGED
    # Nobody looks a variable up here any more: this word says how far the table is empty.
    place = min(peek(store, owner + L_T_USED), capacity)
    while place < capacity:
        entry = peek(store, first + place)
        if entry > 1:
            empty = bury_variable(log, entry & TABLE_RECORD, &budget)
            if not empty:
                break
            put(log, first + place, 1)
            gone += 1
        place += 1
    put(log, owner + L_T_LIVE, get(log, owner + L_T_LIVE) - gone)
    put(log, owner + L_T_USED, place)
    if place == capacity and budget >= 2:
        put(log, base + L_S_GRAVES, peek(store, grave + L_B_LINK))
        discard(log, peek(store, owner + L_T_BLOCK))
        discard(log, grave)
    return ST_OK


cdef bint bury_variable(Log* log, uint64_t record, uint64_t* budget) noexcept nogil:
    """Free a variable's old values, then it itself; whether all of it fitted the budget."""
    cdef Store* store = log.store
    cdef uint64_t ring_block = peek(store, record + L_R_HISTORY)
    cdef uint64_t entries, number, count, block
    if ring_block:
        entries = ring_block + header_for(length_of(peek(store, ring_block + L_B_KIND)))
        count = min(peek(store, entries + L_H_CAPACITY), peek(store, entries + L_H_COUNT))
        entries += L_H_ENTRIES + 2
        for number in range(min(count, <uint64_t>L_HISTORY_MOST)):
            block = peek(store, entries + L_HISTORY_ENTRY * number)
            if block == 0:
                continue
            if budget[0] == 0:
                return False
            budget[0] -= 1
            put(log, entries + L_HISTORY_ENTRY * number, 0)
            discard(log, block)
    if budget[0] < 4:
        return False
    budget[0] -= 4
    discard(log, peek(store, record + L_R_VALUE))
    discard(log, peek(store, record + L_R_FACTS))
    discard(log, ring_block)
    discard(log, record)
    return True
