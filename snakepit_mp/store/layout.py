"""Where is what in the segment? Every offset, size and number that both twins must agree on.

All offsets are indices of 8-byte words, from the segment's start or from that of a record.
``_speedups/store_layout.pxi`` repeats the numbers; a test compares the two.
``docs/memory-layout.md`` draws the picture.
"""

from __future__ import annotations

from enum import IntEnum

__all__ = ["CLASSES", "Kind", "PageKind"]

WORD = 8
LAYOUT_VERSION = 2

#: Who may share a segment: processes that lock by byte ranges, or by robust mutexes.
FAMILY_LOCKED, FAMILY_ROBUST = 1, 2

PAGE_WORDS = 2048
PAGE_BYTES = PAGE_WORDS * WORD

# The header, at word 0.
MAGIC, VERSION, FAMILY, SIZE, IDENTITY, SEED, READY, NAMESPACE = 0, 1, 2, 3, 4, 5, 7, 8
LOCKS_READY = 9  # the mutexes are initialised; only the robust family
MAGIC_VALUE = int.from_bytes(b"SNAKEPIT", "big")
READY_VALUE = 1

# The page allocator, one for all.
ALLOCATOR = 512
ALLOCATOR_MUTEX = ALLOCATOR  # eight words
ALLOCATOR_COMMIT = ALLOCATOR + 8
ALLOCATOR_LOG_AT = ALLOCATOR + 9
PAGES = ALLOCATOR + 10  # pages that have memory
FREE_PAGES = ALLOCATOR + 11
PROCESSES_USED = ALLOCATOR + 12  # slots of processes that were ever used; not logged
BINS = ALLOCATOR + 16  # per power of two: the first free run, plus one
BIN_COUNT = 32
ALLOCATOR_LOG = ALLOCATOR + 64
ALLOCATOR_LOG_CAPACITY = 400  # pairs

# The stripes.
STRIPES = 4096
STRIPE_COUNT = 256
STRIPE_WORDS = 256
# Words of a stripe, from its start.
S_MUTEX = 0  # eight words; only the robust family
S_COMMIT = 8  # 2 * sequence, plus 1 while a committed log waits to be applied
S_LOG_AT = 9  # where the log is: 0 for the stripe's own, or a block
S_PENDING = 10  # chain of runs that are allocated and not reachable yet
S_GARBAGE = 11  # chain of runs that are not reachable any more
S_LIMBO = 12  # the same, but somebody still looks at them
S_GRAVES = 13  # chain of deleted sessions whose blocks are still to be freed
S_INDEX = 14  # table of its sessions: block, slots that are not empty, live entries
S_NUMBERS = 17  # the last number given to a session or variable; never given again
S_EPOCH = 18  # changes with every record that goes, so that whoever remembers one looks again
S_BELL = 19  # counts changes that somebody watches; not logged
S_DIRTY = 20  # its owner died, and nobody has repaired it yet; only the robust family
S_LATE = 21  # when a reader last used a session whose use it could not note; not logged
S_PARTIAL = 24  # per class: the first slab with a free block, plus one
S_LOG = 48  # count, then pairs of word and value
S_LOG_CAPACITY = (STRIPE_WORDS - S_LOG - 1) // 2

# Processes that hold views or private blocks; only the robust family.
PROCESSES = STRIPES + STRIPE_COUNT * STRIPE_WORDS
PROCESS_COUNT = 1024
PROCESS_WORDS = 1024
P_STATE, P_PID, P_STARTED, P_HIGH = 0, 1, 2, 3  # HIGH: hazards that were ever used
P_HAZARDS = 16
HAZARD_COUNT = PROCESS_WORDS - P_HAZARDS
PROCESS_FREE, PROCESS_LIVE = 0, 1

# Descriptors of pages; the pages begin where these end, on a page boundary.
DESCRIPTORS = PROCESSES + PROCESS_COUNT * PROCESS_WORDS
DESCRIPTOR_WORDS = 4
D_KIND, D_PREVIOUS, D_NEXT, D_STATE = 0, 1, 2, 3
#: Of a run in use: the process that is filling it, its slot plus one, or 0.
D_OWNER = 1


class PageKind(IntEnum):
    """What a page is, in the low byte of `D_KIND`; the rest is a size."""

    INSIDE = 0  # within a run in use, or not the first or last page of a free one
    FREE = 1  # the first page of a free run; pages
    TAIL = 2  # the last page of a free run of two or more; pages
    RUN = 3  # the first page of a run in use: one large block; pages
    SLAB = 4  # a page of small blocks; class


class Kind(IntEnum):
    """What a block holds, in the upper byte of its second word; 0: it is free."""

    SESSION = 1
    VARIABLE = 2
    VALUE = 3
    FACTS = 4
    TABLE = 5
    LOG = 6
    HISTORY = 7
    PAGE = 8  # a run of one page that becomes a slab, or was one


#: Sizes of small blocks in words, header included.
CLASSES = (8, 12, 16, 20, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 682, 1024)

# A block begins with a link (of its chain, or to the next free block of its slab) and a word of
# kind and length in bytes. A small block's payload follows; that of a run is 64-byte aligned.
B_LINK, B_KIND = 0, 1
KIND_SHIFT = 56
SMALL_HEADER, RUN_HEADER = 2, 8
#: Longest payload of a small block, in bytes.
SMALL_MOST = (CLASSES[-1] - SMALL_HEADER) * WORD

# A table is a block of slots: 0 empty, 1 removed, or the hash's upper 16 bits over the record.
# The slot of a hash is found from its bits 8 and up: the lowest 8 choose the stripe.
TAG_SHIFT = 48
INDEX_SHIFT = 8
LEAST_CAPACITY = 8
#: The word of every record that holds its hash.
HASH = 2
# The words of a table's owner.
T_BLOCK, T_USED, T_LIVE = 0, 1, 2

# A session's record.
V_TTL, V_ACCESSED, V_CREATED, V_VARIABLES = 3, 4, 5, 6  # VARIABLES: a table's three words
V_WORKER, V_LENGTHS, V_PROGRAMS, V_WATCHED, V_NUMBER, V_NAME = 9, 10, 11, 12, 13, 14

# A variable's record.
R_NUMBER, R_VERSION, R_CREATED, R_UPDATED, R_FACTS, R_FACTS_VERSION = 3, 4, 5, 6, 7, 8
R_LENGTHS, R_VALUE, R_VALUE_LENGTH, R_INLINE, R_HISTORY, R_NAME = 9, 10, 11, 12, 16, 17
INLINE_WORDS = 4
#: Longest encoded value that lives in the record itself.
INLINE_BYTES = INLINE_WORDS * WORD

# The ring of old values, a block's payload: capacity, values ever put in, then the entries.
H_CAPACITY, H_COUNT, H_ENTRIES = 0, 1, 2
# An entry: version, time, block of the value, its length.
HISTORY_ENTRY = 4
HISTORY_MOST = 10_000

#: A name never has this byte in UTF-8, so keys that begin with it collide with none: programs
#: among a session's variables, and the session of the programs that belong to none.
HIDDEN = b"\xff"

# Bytes of the file of locks.
ALLOCATOR_LOCK = STRIPE_COUNT
JANITOR_LOCK = STRIPE_COUNT + 1
PROCESS_LOCKS = 512
LOCK_COUNT = PROCESS_LOCKS + PROCESS_COUNT

# The clock of sessions counts nanoseconds; a use is noted at most so often, or eight times a TTL.
STAMP_EVERY = 1_000_000_000
#: A watcher that has not said so again for this long is gone.
WATCH_LEASE = 2_000_000_000
