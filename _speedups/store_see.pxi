# What a look at a stripe finds, as Python objects: copies of records and values, and views.

from contextlib import contextmanager as _contextmanager
from time import monotonic as _monotonic

from cpython.exc cimport PyErr_CheckSignals
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from cpython.tuple cimport PyTuple_Check

from snakepit_mp.store import faults as _faults
from snakepit_mp.store import places as _places

cdef object _VariableParts = _places.VariableParts
cdef object _new_tuple = tuple.__new__  # no bytecode: a stripe may be held
cdef object _again = object()  # what was seen is of two moments

cdef extern from "Python.h":
    int PyGC_Disable()
    int PyGC_Enable()

cdef enum:
    LOOKS = 16  # before a reader takes the lock
    BIG_COPY = 1 << 16
    LONG_LOG = 128  # pairs
    ALLOCATOR_BASE = L_STRIPES + L_ALLOCATOR_LOCK * L_STRIPE_WORDS  # as if it were a stripe
    SLICE = 50_000_000  # ns between two looks at signals

cdef enum What:
    SEE_SESSION
    SEE_EXISTS
    SEE_PARTS
    SEE_MANY_PARTS
    SEE_ALL_PARTS
    SEE_CONTAINS
    SEE_NAMES
    SEE_VERSIONS
    SEE_VALUE
    SEE_VALUES
    SEE_HISTORY


cdef inline int place_ref(PlaceRef* ref, object place) except -1:
    """Aim at a place, which has to live as long."""
    if not PyTuple_Check(place):
        raise TypeError(f"not a place: {place!r}")
    name = <bytes?>(<tuple>place)[1]
    ref.name = PyBytes_AS_STRING(name)
    ref.size = <uint64_t>PyBytes_GET_SIZE(name)
    ref.digest = (<tuple>place)[2]
    ref.base = base_of((<tuple>place)[3])
    if ref.base >= L_PROCESSES:
        raise ValueError("there is no such stripe")
    return 0


cdef inline int key_ref(KeyRef* ref, object key) except -1:
    """Aim at a key, which has to live as long."""
    if not PyTuple_Check(key):
        raise TypeError(f"not a key: {key!r}")
    name = <bytes?>(<tuple>key)[1]
    other = (<tuple>key)[4]
    ref.name = PyBytes_AS_STRING(name)
    ref.size = <uint64_t>PyBytes_GET_SIZE(name)
    ref.digest = (<tuple>key)[2]
    ref.number = (<tuple>key)[3]
    ref.other = NULL
    if other is not None:
        name = <bytes?>other[1]
        ref.other = PyBytes_AS_STRING(name)
        ref.other_size = <uint64_t>PyBytes_GET_SIZE(name)
        ref.other_digest = other[2]
        ref.other_number = other[3]
    return 0


# What a look finds, as Python objects; `_again` where it is not worth going on.

cdef object see_bytes(Look* look, uint64_t word, uint64_t length):
    """A copy of words, with what a log changes."""
    cdef Store* store = look.store
    cdef uint64_t number, offset
    if not holds(store, word, words_for(length)):
        return _again
    if length > BIG_COPY and not (has_memory(store, word, length) and look_holds(look)):
        return _again
    copy = (<const char*>(store.words + word))[:length]
    for number in range(look.count):
        offset = look.pairs[2 * number] - word
        if offset < words_for(length):
            memcpy(
                PyBytes_AS_STRING(copy) + 8 * offset, look.pairs + 2 * number + 1,
                min(<uint64_t>8, length - 8 * offset)
            )
    return copy


cdef object see_record(Look* look, uint64_t record):
    return see_bytes(
        look, record, 8 * L_SMALL_HEADER + length_of(see(look, record + L_B_KIND))
    )


cdef object see_content(Look* look, uint64_t block, uint64_t length):
    """A copy of what is in a block."""
    return see_bytes(look, block + header_for(length), length)


cdef object see_block(Look* look, uint64_t block):
    return see_content(look, block, length_of(see(look, block + L_B_KIND))) if block else b""


cdef object see_encoded(Look* look, uint64_t record):
    """A copy of a variable's encoded value."""
    cdef uint64_t block = see(look, record + L_R_VALUE)
    cdef uint64_t length = see(look, record + L_R_VALUE_LENGTH)
    if block:
        return see_content(look, block, length)
    return see_bytes(look, record + L_R_INLINE, min(length, <uint64_t>L_INLINE_BYTES))


cdef object see_parts(Look* look, uint64_t record):
    copy = see_record(look, record)
    facts = see_block(look, see(look, record + L_R_FACTS))
    value = see_encoded(look, record)
    if copy is _again or facts is _again or value is _again:
        return _again
    return _new_tuple(_VariableParts, (copy, facts, value))


cdef object see_entries(Look* look, uint64_t owner):
    """The records of a table, as a list of integers."""
    cdef Store* store = look.store
    cdef uint64_t block = see(look, owner + L_T_BLOCK)
    cdef uint64_t length = length_of(see(look, block + L_B_KIND)) if block else 0
    cdef uint64_t first = block + header_for(length)
    cdef uint64_t place, entry
    cdef list found = []
    if block and not has_memory(store, first, length) or not look_holds(look):
        return _again
    for place in range(length >> 3):
        entry = see(look, first + place)
        if entry > 1:
            found.append(entry & TABLE_RECORD)
    return found


cdef object see_history(Look* look, uint64_t record):
    cdef uint64_t ring_block = see(look, record + L_R_HISTORY)
    cdef uint64_t length, start, capacity, count, number, entry
    value = see_encoded(look, record)
    cdef list found = [
        (see(look, record + L_R_VERSION), see(look, record + L_R_UPDATED), value)
    ]
    if ring_block and value is not _again:
        length = length_of(see(look, ring_block + L_B_KIND))
        start = ring_block + header_for(length)
        capacity = see(look, start + L_H_CAPACITY)
        count = see(look, start + L_H_COUNT)
        if capacity == 0 or capacity > L_HISTORY_MOST:
            return _again
        for number in range(min(capacity, count)):
            entry = start + L_H_ENTRIES + L_HISTORY_ENTRY * ((count - 1 - number) % capacity)
            value = see_content(look, see(look, entry + 2), see(look, entry + 3))
            if value is _again:
                break
            found.append((see(look, entry), see(look, entry + 1), value))
    return _again if value is _again else found


cdef object small_value(const unsigned char* at, Py_ssize_t size):
    """The value of a few bytes that are ours."""
    cdef double real
    cdef int64_t number
    if size == 10 and at[0] == VERSION:
        if at[1] == TAG_FLOAT:
            memcpy(&real, at + 2, 8)
            return real
        if at[1] == TAG_INT:
            memcpy(&number, at + 2, 8)
            return <long long>number
    return decode_bytes((<const char*>at)[:size])


cdef object decode_bytes(bytes data):
    cdef In source
    source.start = <const unsigned char*>PyBytes_AS_STRING(data)
    source.end = PyBytes_GET_SIZE(data)
    source.offset = 0
    source.owner = <PyObject*>data
    source.allow_pickle = False
    return read_message(&source)


cdef object long_value(bytes data):
    """The value of a long copy, of the same type as a view would have."""
    value = decode_bytes(data)
    if PyBytes_CheckExact(value) and (<const unsigned char*>data)[1] == TAG_BYTES:
        return memoryview(value)
    return value


cdef object pinned_value(Pin pin):
    """The value in a run: arrays and long bytes are views of it."""
    cdef In source
    source.start = <const unsigned char*>pin.memory.start
    source.end = pin.memory.nbytes
    source.offset = 0
    source.owner = <PyObject*>pin
    source.position = 2
    source.allow_pickle = False
    if source.start[0] == VERSION and source.start[1] == TAG_ARRAY:
        value = read_array(&source, 1)
        if value is not None and source.position == source.end:
            return value
    view = memoryview(pin)
    if source.start[0] == VERSION and source.start[1] == TAG_BYTES:
        if read_count(&source, 1, 1) == source.end - source.position:
            return view[source.position:]
    return decode(view, copy=False)
