# Runs of pages, for all stripes: what snakepit_mp/store/pages.py specifies, under one mutex.

cdef extern from *:
    """
    #define store_log2(x) (63 - __builtin_clzll(x))
    """
    int store_log2(uint64_t x) noexcept nogil

cdef enum:
    GROWTH_LEAST = 64  # pages
    GROWTH_MOST = 4096
    TRIES_IN_BIN = 16
    LOG_ENOUGH = L_ALLOCATOR_LOG_CAPACITY - 64


cdef int pages_enter(Store* store, Log* log) noexcept nogil:
    """Lock the allocator and finish what a dead process began; then ``log`` is open."""
    cdef void* mutex = store.words + L_ALLOCATOR_MUTEX
    cdef int status = store_mutex_lock(mutex, store.patience)
    if status == 2:
        return ST_BUSY
    if status < 0:
        return ST_DAMAGED
    if status == 1:
        store_mutex_repaired(mutex)
    status = log_replay(
        store, L_ALLOCATOR_COMMIT, L_ALLOCATOR_LOG, L_ALLOCATOR_LOG_CAPACITY, AT_ALLOCATOR_LOGGED
    )
    if status != ST_OK:
        store_mutex_unlock(mutex)
        return status
    at(AT_ALLOCATOR_ENTERED)
    log_open(
        log, store, L_ALLOCATOR_COMMIT, L_ALLOCATOR_LOG, L_ALLOCATOR_LOG_CAPACITY,
        AT_ALLOCATOR_LOGGED
    )
    return ST_OK


cdef inline int pages_commit(Log* log) noexcept nogil:
    """Make all writes at once; they must fit the allocator's own log."""
    return ST_NO_MEMORY if log.lost or log.own is not NULL else log_run(log, 0)


cdef inline int pages_go_on(Log* log) noexcept nogil:
    """Commit what there is, and begin anew."""
    cdef Store* store = log.store
    cdef int status = pages_commit(log)
    log_close(log)
    log_open(
        log, store, L_ALLOCATOR_COMMIT, L_ALLOCATOR_LOG, L_ALLOCATOR_LOG_CAPACITY,
        AT_ALLOCATOR_LOGGED
    )
    return status


cdef inline void pages_leave(Store* store, Log* log) noexcept nogil:
    log_close(log)
    store_mutex_unlock(store.words + L_ALLOCATOR_MUTEX)


cdef inline uint64_t bin_of(uint64_t count) noexcept nogil:
    cdef int number = store_log2(count) if count else 0
    return L_BINS + <uint64_t>min(number, L_BIN_COUNT - 1)


# Doubly linked lists of pages; 0 ends them, so links are page numbers plus one.

cdef void page_link(Log* log, uint64_t head, uint64_t page) noexcept nogil:
    cdef uint64_t own = descriptor_of(page)
    cdef uint64_t first = get(log, head)
    put(log, own + L_D_PREVIOUS, 0)
    put(log, own + L_D_NEXT, first)
    if first:
        put(log, descriptor_of(first - 1) + L_D_PREVIOUS, page + 1)
    put(log, head, page + 1)


cdef void page_unlink(Log* log, uint64_t head, uint64_t page) noexcept nogil:
    cdef uint64_t own = descriptor_of(page)
    cdef uint64_t before = get(log, own + L_D_PREVIOUS)
    cdef uint64_t after = get(log, own + L_D_NEXT)
    put(log, descriptor_of(before - 1) + L_D_NEXT if before else head, after)
    if after:
        put(log, descriptor_of(after - 1) + L_D_PREVIOUS, before)


cdef void put_run(Log* log, uint64_t page, uint64_t count) noexcept nogil:
    put(log, descriptor_of(page + count - 1), PAGE_TAIL | count << 8)
    put(log, descriptor_of(page), PAGE_FREE | count << 8)
    page_link(log, bin_of(count), page)


cdef uint64_t fitting(Log* log, uint64_t count, int tries) noexcept nogil:
    """A free run of at least ``count`` pages, plus one; 0 if there is none.

    ``tries``: how many of its own bin to look at, -1 for all.
    """
    cdef uint64_t first = bin_of(count)
    cdef uint64_t page = get(log, first)
    cdef uint64_t steps = log.store.all_pages
    cdef uint64_t larger
    while page and tries != 0 and steps:
        if get(log, descriptor_of(page - 1)) >> 8 >= count:
            return page
        page = get(log, descriptor_of(page - 1) + L_D_NEXT)
        tries -= 1
        steps -= 1
    for larger in range(first + 1, <uint64_t>(L_BINS + L_BIN_COUNT)):
        page = get(log, larger)
        if page:
            return page
    return 0


cdef uint64_t carve(Log* log, uint64_t page, uint64_t count) noexcept nogil:
    """Cut ``count`` pages from the front of a free run."""
    cdef uint64_t size = get(log, descriptor_of(page)) >> 8
    page_unlink(log, bin_of(size), page)
    put(log, L_FREE_PAGES, get(log, L_FREE_PAGES) - count)
    if size > count:
        put_run(log, page + count, size - count)
    put(log, descriptor_of(page + count - 1), PAGE_INSIDE)
    put(log, descriptor_of(page), PAGE_RUN | count << 8)
    return page


cdef void give_pages(Log* log, uint64_t page, uint64_t count) noexcept nogil:
    """Make pages free, joined with the free runs before and after them."""
    cdef uint64_t after = page + count
    cdef uint64_t size
    put(log, L_FREE_PAGES, get(log, L_FREE_PAGES) + count)
    if after < get(log, L_PAGES):
        size = get(log, descriptor_of(after))
        if size & 0xFF == PAGE_FREE:
            page_unlink(log, bin_of(size >> 8), after)
            count += size >> 8
    if page > 0:
        size = get(log, descriptor_of(page - 1))
        if size & 0xFF == PAGE_FREE or size & 0xFF == PAGE_TAIL:
            page -= size >> 8
            count += size >> 8
            page_unlink(log, bin_of(size >> 8), page)
    put_run(log, page, count)


cdef int own_memory(Store* store, uint64_t page, uint64_t count) noexcept nogil:
    """Make the file own the memory of pages and of their descriptors: 0, or the error."""
    cdef int error = store_reserve(
        store.file, 8 * descriptor_of(page), 8 * count * L_DESCRIPTOR_WORDS
    )
    if error == 0:
        error = store_reserve(store.file, 8 * start_of(store, page), count * L_PAGE_BYTES)
    if error == 0:
        at(AT_SEGMENT_GROWN)
    return error


cdef bint grow(Log* log, uint64_t count) noexcept nogil:
    """Own more of the file, so that ``count`` pages lie together at its end; whether it did."""
    cdef Store* store = log.store
    cdef uint64_t pages = get(log, L_PAGES)
    cdef uint64_t last = get(log, descriptor_of(pages - 1)) if pages else 0
    cdef uint64_t need = count
    cdef uint64_t room = store.most_pages - pages if pages < store.most_pages else 0
    cdef uint64_t comfort
    if last & 0xFF == PAGE_FREE or last & 0xFF == PAGE_TAIL:
        need = count - min(last >> 8, count)
    if need == 0 or need > room:
        return False
    comfort = max(need, <uint64_t>GROWTH_LEAST)
    comfort = min(max(comfort, min(pages // 8, <uint64_t>GROWTH_MOST)), room)
    if own_memory(store, pages, comfort) != 0:
        comfort = need
        if own_memory(store, pages, comfort) != 0:
            return False
    put(log, L_PAGES, pages + comfort)
    give_pages(log, pages, comfort)
    return True


cdef int pages_take(
    Store* store, uint64_t count, uint64_t chain, uint64_t owner, uint64_t kind_word,
    uint64_t* block
) noexcept nogil:
    """A run of pages, which is in ``chain`` (0 is none) or ``owner``'s from its first instant."""
    cdef Log log
    cdef uint64_t page
    cdef int status = pages_enter(store, &log)
    if status != ST_OK:
        return status
    page = fitting(&log, count, TRIES_IN_BIN)
    if page == 0 and grow(&log, count):
        page = fitting(&log, count, -1)
    if page == 0:
        page = fitting(&log, count, -1)
    if page == 0 or not holds(store, start_of(store, page - 1), count * L_PAGE_WORDS):
        status = ST_FULL
    else:
        page = carve(&log, page - 1, count)
        block[0] = start_of(store, page)
        put(&log, descriptor_of(page) + L_D_OWNER, owner)
        put(&log, block[0] + L_B_KIND, kind_word)
        if chain:
            put(&log, block[0] + L_B_LINK, get(&log, chain))
            put(&log, chain, block[0])
        status = pages_commit(&log)
    pages_leave(store, &log)
    return status


cdef inline uint64_t page_of(Store* store, uint64_t block) noexcept nogil:
    """The page in which a block lies, or one that is none."""
    return (block - store.heap) // L_PAGE_WORDS if block >= store.heap else ~<uint64_t>0


cdef bint give_run(Log* log, uint64_t block, uint64_t owner) noexcept nogil:
    """Free a run; False if it is none, or not ``owner``'s (0: the store's)."""
    cdef uint64_t page = page_of(log.store, block)
    cdef uint64_t entry
    if page >= get(log, L_PAGES):
        return False
    entry = get(log, descriptor_of(page))
    if entry & 0xFF != PAGE_RUN or block != start_of(log.store, page):
        return False
    if get(log, descriptor_of(page) + L_D_OWNER) != owner:
        return False
    put(log, block + L_B_KIND, 0)
    give_pages(log, page, entry >> 8)
    return True


cdef int pages_release(Store* store, uint64_t chain, bint with_viewers) noexcept nogil:
    """Free the runs of a chain, in as many commits as that takes.

    Where there may be viewers, only those before the first that somebody looks at.
    """
    cdef Log log
    cdef uint64_t block
    cdef int status = ST_OK
    if peek(store, chain) == 0:
        return ST_OK
    status = pages_enter(store, &log)
    if status != ST_OK:
        return status
    while status == ST_OK:
        block = get(&log, chain)
        if block and with_viewers and is_viewed(store, block):
            block = 0
        if block:
            put(&log, chain, get(&log, block + L_B_LINK))
            if not give_run(&log, block, 0):
                status = ST_DAMAGED
                break
            if log.count < LOG_ENOUGH:
                continue
        status = pages_go_on(&log)
        if not block:
            break
    pages_leave(store, &log)
    return status


cdef int pages_give_back(Store* store, uint64_t block, uint64_t owner) noexcept nogil:
    """Free a run that ``owner`` was filling."""
    cdef Log log
    cdef int status = pages_enter(store, &log)
    if status != ST_OK:
        return status
    if not give_run(&log, block, owner):
        status = ST_DAMAGED
    else:
        status = pages_commit(&log)
    pages_leave(store, &log)
    return status
