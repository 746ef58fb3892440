# The mapped segment: words, bounds, clocks, and the steps at which tests kill a process.
#
# Everything here and in the other store_*.pxi that says `nogil` touches no Python object, so it
# may run while a lock of the store is held. Offsets are word indices, as in layout.py; every one
# that comes from the segment is compared with its size before it is used.

from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memcmp, memcpy, memset

from snakepit_mp.store import crashpoints as _crashpoints

cdef extern from "store_atomics.h" nogil:
    uint64_t store_peek(const uint64_t* at) noexcept
    uint64_t store_load(const uint64_t* at) noexcept
    void store_poke(uint64_t* at, uint64_t x) noexcept
    void store_publish(uint64_t* at, uint64_t x) noexcept
    void store_raise(uint64_t* at, uint64_t x) noexcept
    void store_fence_acquire() noexcept
    void store_fence_release() noexcept
    void store_fence() noexcept
    void store_pause() noexcept
    int store_mutex_init(void* mutex) noexcept
    int store_mutex_lock(void* mutex, int64_t nanoseconds) noexcept
    int store_mutex_repaired(void* mutex) noexcept
    void store_mutex_unlock(void* mutex) noexcept
    void store_futex_wait(uint64_t* word, uint64_t seen, int64_t nanoseconds) noexcept
    void store_futex_wake(uint64_t* word) noexcept
    int64_t store_monotonic() noexcept
    int64_t store_wall() noexcept
    int64_t store_exact_wall() noexcept
    int store_reserve(int file, uint64_t start, uint64_t length) noexcept


cdef enum Status:
    ST_OK
    ST_NO_SESSION
    ST_NO_VARIABLE
    ST_EXISTS
    ST_FULL
    ST_TOO_MANY_SESSIONS
    ST_TOO_MANY_VARIABLES
    ST_CONFLICT
    ST_CHANGED  # what was checked is no longer there
    ST_BUSY
    ST_DAMAGED
    ST_NO_MEMORY  # of this process


cdef struct Store:
    uint64_t* words
    uint64_t size  # words that are mapped
    uint64_t heap  # the first page
    uint64_t all_pages  # that the segment could have
    uint64_t most_pages  # that this process lets it have
    uint64_t max_sessions
    uint64_t max_variables
    int file
    int64_t frozen  # the time of TTLs in a test, or -1
    int64_t patience  # nanoseconds that the allocator is waited for within a stripe


cdef inline uint64_t peek(Store* store, uint64_t word) noexcept nogil:
    return store_peek(store.words + word) if word < store.size else 0


cdef inline void poke(Store* store, uint64_t word, uint64_t value) noexcept nogil:
    """Change a word that no log covers: content of unreachable blocks, and stamps."""
    if word < store.size:
        store_poke(store.words + word, value)


cdef inline bint holds(Store* store, uint64_t word, uint64_t length) noexcept nogil:
    """Whether so many words lie in the segment."""
    return word < store.size and length <= store.size - word


cdef inline int64_t monotonic(Store* store) noexcept nogil:
    return store_monotonic() if store.frozen < 0 else store.frozen


cdef inline bint has_memory(Store* store, uint64_t word, uint64_t length) noexcept nogil:
    """Whether so many bytes lie in pages that have memory, so that reading them takes none."""
    cdef uint64_t pages = min(peek(store, L_PAGES), store.all_pages)
    cdef uint64_t end = start_of(store, pages)
    return word < end and words_for(length) <= end - word


cdef inline uint64_t words_for(uint64_t length) noexcept nogil:
    return (length + 7) >> 3


cdef inline uint64_t length_of(uint64_t kind_word) noexcept nogil:
    return kind_word & ((<uint64_t>1 << L_KIND_SHIFT) - 1)


cdef inline uint64_t header_for(uint64_t length) noexcept nogil:
    return L_RUN_HEADER if length > L_SMALL_MOST else L_SMALL_HEADER


cdef inline uint64_t descriptor_of(uint64_t page) noexcept nogil:
    return L_DESCRIPTORS + page * L_DESCRIPTOR_WORDS


cdef inline uint64_t start_of(Store* store, uint64_t page) noexcept nogil:
    return store.heap + page * L_PAGE_WORDS


# Steps, as in snakepit_mp/store/crashpoints.py; a test compares the labels.

cdef enum Label:
    AT_STRIPE_ENTERED
    AT_ALLOCATOR_ENTERED
    AT_SEGMENT_GROWN
    AT_ALLOCATOR_LOGGED
    AT_ALLOCATOR_COMMITTED
    AT_ALLOCATOR_APPLYING
    AT_ALLOCATOR_APPLIED
    AT_ALLOCATOR_CLEARED
    AT_BLOCK_FILLING
    AT_BLOCK_FILLED
    AT_STRIPE_LOGGED
    AT_STRIPE_COMMITTED
    AT_STRIPE_APPLYING
    AT_STRIPE_APPLIED
    AT_STRIPE_CLEARED
    AT_STRIPE_LEFT

STORE_STEPS = (
    "stripe.entered",
    "allocator.entered",
    "segment.grown",
    "allocator.logged",
    "allocator.committed",
    "allocator.applying",
    "allocator.applied",
    "allocator.cleared",
    "block.filling",
    "block.filled",
    "stripe.logged",
    "stripe.committed",
    "stripe.applying",
    "stripe.applied",
    "stripe.cleared",
    "stripe.left",
)
cdef bint stepping = False


cdef inline void at(int step) noexcept nogil:
    if stepping:
        tell(step)


cdef void tell(int step) noexcept with gil:
    _crashpoints.step(STORE_STEPS[step])


def report_steps(bint wanted):
    """Whether every step calls ``crashpoints.step``, as tests want it; costs nothing if not."""
    global stepping
    stepping = wanted
