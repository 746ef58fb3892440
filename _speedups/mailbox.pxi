# The two sides of a mailbox; the theory is in snakepit_mp/lanes/mailbox.py.
#
# What says `nogil` touches no Python object. The other side may write anything at any time: sizes
# are read once and compared with the slot's before they are used.

from cpython.exc cimport PyErr_CheckSignals, PyErr_SetFromErrno
from posix.mman cimport MAP_FAILED, MAP_SHARED, PROT_READ, PROT_WRITE, mmap, munmap

cdef extern from "mailbox.h" nogil:
    const int MAILBOX_SLOT
    const uint64_t MAILBOX_ELSEWHERE
    const size_t MAILBOX_SIZE
    const int MAILBOX_COUNT_BITS
    const uint64_t MAILBOX_COUNT

    ctypedef struct mailbox_t:
        uint64_t bell
        uint64_t reply_bell
        uint64_t worker_sleeps
        uint64_t caller_sleeps
        uint64_t worker_cpu
        uint64_t caller_cpu
        uint64_t news
        uint64_t buried
        uint64_t request
        uint64_t request_size
        uint64_t reply
        uint64_t reply_size
        uint64_t batch
        unsigned char request_frame[1]
        unsigned char reply_frame[1]

    void mailbox_set(uint64_t* at, uint64_t x) noexcept
    uint64_t mailbox_get(const uint64_t* at) noexcept
    bint mailbox_swap(uint64_t* at, uint64_t seen, uint64_t x) noexcept
    void mailbox_count(uint64_t* at) noexcept
    void mailbox_ring(uint64_t* bell, const uint64_t* sleeps) noexcept
    uint64_t mailbox_cpu() noexcept
    int64_t mailbox_clock() noexcept
    int mailbox_own(mailbox_t* box) noexcept
    uint32_t* mailbox_owner(mailbox_t* box) noexcept
    bint mailbox_owner_died(mailbox_t* box) noexcept
    void mailbox_sleep(
        uint64_t* bell, uint64_t seen, uint32_t* owner, int64_t nanoseconds
    ) noexcept

cdef enum:
    #: Looks between two questions where the other side is, and what time it is.
    MB_LOOKS = 16
    #: Nanoseconds that the main thread sleeps at most before it looks for signals.
    MB_SLICE = 50_000_000
    #: Bytes of a frame's header, and where in it the request's number is, as in lanes/envelope.py.
    MB_HEADER = 24
    MB_NUMBER_AT = 8
    #: In the word of a request: nobody waits at the mailbox for its reply.
    MB_APART = 1

    #: Bytes before a result in the journal: its size, and whether it is an error.
    MB_RECORD = 8

cdef enum Outcome:
    MB_LOOK_AGAIN
    MB_REPLIED
    MB_ELSEWHERE
    MB_DEAD
    MB_LATE
    MB_NONSENSE


cdef bint mailbox_apart(const uint64_t* other) noexcept nogil:
    """Whether the other side was last seen on another CPU, so that it runs while this one spins."""
    cdef uint64_t there = store_peek(other)
    return there != 0 and there != mailbox_cpu()


cdef Outcome mailbox_look(mailbox_t* box, uint64_t number) noexcept nogil:
    """The reply comes first: it may have been the last thing that the worker did."""
    if store_load(&box.reply) == number:
        return MB_ELSEWHERE if box.reply_size == MAILBOX_ELSEWHERE else MB_REPLIED
    if mailbox_get(&box.buried) or mailbox_owner_died(box):
        # It may have come between the two looks.
        if store_load(&box.reply) == number:
            return MB_ELSEWHERE if box.reply_size == MAILBOX_ELSEWHERE else MB_REPLIED
        return MB_DEAD
    return MB_LOOK_AGAIN


cdef void mailbox_put(
    mailbox_t* box, const char* frame, size_t size, uint64_t word
) noexcept nogil:
    mailbox_set(&box.request, 0)  # a worker that copies an older one sees that it changed
    store_fence_release()  # and sees it before the first byte of this one
    memcpy(box.request_frame, frame, size)
    box.request_size = size
    store_publish(&box.request, word)
    mailbox_ring(&box.bell, &box.worker_sleeps)


cdef Outcome mailbox_spin(mailbox_t* box, uint64_t number, int64_t spin) noexcept nogil:
    cdef int64_t until
    cdef int look
    store_poke(&box.caller_cpu, mailbox_cpu())
    if spin == 0 or not mailbox_apart(&box.worker_cpu):
        return MB_LOOK_AGAIN
    until = mailbox_clock() + spin
    while True:
        for look in range(MB_LOOKS):
            if store_load(&box.reply) == number:
                return mailbox_look(box, number)
            store_pause()
        if not mailbox_apart(&box.worker_cpu) or mailbox_clock() > until:
            return MB_LOOK_AGAIN


cdef Outcome mailbox_await(
    mailbox_t* box, uint64_t number, int64_t deadline, bint sliced
) noexcept nogil:
    """Sleep once: until the reply, the worker's death, the deadline, or for a slice."""
    cdef uint64_t seen
    cdef int64_t left = -1
    cdef Outcome outcome
    mailbox_set(&box.caller_sleeps, 1)
    seen = mailbox_get(&box.reply_bell)
    outcome = mailbox_look(box, number)
    if outcome == MB_LOOK_AGAIN:
        if deadline >= 0:
            left = deadline - mailbox_clock()
            if left <= 0:
                outcome = MB_LATE
        if outcome == MB_LOOK_AGAIN:
            if sliced and (left < 0 or left > MB_SLICE):
                left = MB_SLICE
            mailbox_sleep(&box.reply_bell, seen, mailbox_owner(box), left)
            outcome = mailbox_look(box, number)
    mailbox_set(&box.caller_sleeps, 0)
    store_poke(&box.caller_cpu, mailbox_cpu())
    return outcome


cdef inline uint64_t batch_claimed(uint64_t word) noexcept nogil:
    return word >> MAILBOX_COUNT_BITS & MAILBOX_COUNT


cdef inline uint64_t batch_done(uint64_t word) noexcept nogil:
    return word >> 2 * MAILBOX_COUNT_BITS & MAILBOX_COUNT


cdef bint mailbox_called(mailbox_t* box, uint64_t seen_bell, uint64_t seen_news) noexcept nogil:
    return (
        store_load(&box.request) != 0
        or mailbox_get(&box.bell) != seen_bell
        or mailbox_get(&box.news) != seen_news
    )


cdef void mailbox_rest(
    mailbox_t* box, uint64_t seen_bell, uint64_t seen_news, int64_t spin
) noexcept nogil:
    """As the worker: until there is a request or the bell is rung. May end early."""
    cdef int64_t until
    cdef int look
    store_poke(&box.worker_cpu, mailbox_cpu())
    if spin != 0 and mailbox_apart(&box.caller_cpu):
        until = mailbox_clock() + spin
        while True:
            for look in range(MB_LOOKS):
                if mailbox_called(box, seen_bell, seen_news):
                    return
                store_pause()
            if not mailbox_apart(&box.caller_cpu) or mailbox_clock() > until:
                break
    mailbox_set(&box.worker_sleeps, 1)
    if not mailbox_called(box, seen_bell, seen_news):
        mailbox_sleep(&box.bell, seen_bell, NULL, -1)
    mailbox_set(&box.worker_sleeps, 0)
    store_poke(&box.worker_cpu, mailbox_cpu())


@cython.final
@cython.auto_pickle(False)
cdef class Mailbox:
    """One side of the mailbox at ``offset`` of the file ``fd``, which stays the caller's.

    ``spin``: nanoseconds that this side looks before it sleeps, while the other is on another
    CPU. The application may use `call` in one thread at a time, and all else in any.
    """

    cdef char* file
    cdef mailbox_t* box
    cdef size_t mapped
    cdef int64_t spin
    cdef uint64_t posted  # frames, by the application
    cdef uint64_t heard  # the news that the worker has looked for
    cdef bint apart  # what the worker took last is to be answered over the socket
    cdef uint64_t journal_at  # where the worker writes the next result of a batch

    def __cinit__(self, int fd, uint64_t offset, int64_t spin):
        cdef size_t size = offset + MAILBOX_SIZE
        # From the file's start, since the first word of all is the worker's note.
        cdef void* at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0)
        if at == MAP_FAILED:
            PyErr_SetFromErrno(OSError)
        self.file, self.mapped = <char*>at, size
        self.box = <mailbox_t*>(self.file + offset)
        self.spin = spin

    def __dealloc__(self):
        if self.file != NULL:
            munmap(self.file, self.mapped)

    # -- the application ---------------------------------------------------------------

    def call(self, bytes frame not None, deadline: float | None, bint main) -> bytes | int:
        """Put the frame into the slot, and wait for the reply, or for what there is instead:
        ``MAILBOX_OUTCOMES`` has the numbers. ``deadline``: on ``time.monotonic()``. ``main``: in
        the main thread, which looks for signals. ``ValueError`` for a frame without a header,
        or larger than the slot."""
        cdef mailbox_t* box = self.box
        cdef size_t size = len(frame)
        cdef const char* data = frame
        cdef int64_t until = -1
        cdef uint64_t number
        cdef Outcome outcome
        if size < MB_HEADER or size > <size_t>MAILBOX_SLOT:
            raise ValueError("the frame has no header, or is larger than the slot")
        memcpy(&number, data + MB_NUMBER_AT, sizeof(number))
        if deadline is not None:
            # What is further away is as good as never.
            until = <int64_t>(min(max(<double>deadline, 0.0), 9e9) * 1e9)
        self.posted += 2
        with nogil:
            store_poke(&box.reply, 0)
            mailbox_put(box, data, size, self.posted)
            outcome = mailbox_spin(box, number, self.spin)
            if outcome == MB_LOOK_AGAIN:
                outcome = mailbox_look(box, number)
        while outcome == MB_LOOK_AGAIN:
            if main:
                PyErr_CheckSignals()
            with nogil:
                outcome = mailbox_await(box, number, until, main)
        if outcome == MB_REPLIED:
            reply = self.copy_reply(number)
            if reply is not None:
                return reply
            outcome = MB_NONSENSE
        return <int>outcome

    def post(self, bytes frame not None) -> None:
        """Put the frame into the slot; the reply is to come over the socket."""
        cdef size_t size = len(frame)
        if size > <size_t>MAILBOX_SLOT:
            raise ValueError("the frame is larger than the slot")
        self.posted += 2
        mailbox_put(self.box, <const char*>frame, size, self.posted | MB_APART)

    cdef bytes copy_reply(self, uint64_t number):
        """``None`` for what is no reply to that call."""
        cdef uint64_t size = store_peek(&self.box.reply_size)
        cdef uint64_t found
        cdef const char* data
        if size < MB_HEADER or size > <uint64_t>MAILBOX_SLOT:
            return None
        reply = (<char*>self.box.reply_frame)[:size]
        data = reply
        memcpy(&found, data + MB_NUMBER_AT, sizeof(found))
        return reply if found == number else None

    def tell(self) -> None:
        """Something was sent over the socket: the worker looks."""
        mailbox_count(&self.box.news)
        mailbox_ring(&self.box.bell, &self.box.worker_sleeps)

    def bury(self) -> None:
        """No reply will be waited for any more, now or later."""
        mailbox_set(&self.box.buried, 1)
        mailbox_ring(&self.box.reply_bell, &self.box.caller_sleeps)

    # -- the application: batches --------------------------------------------------------

    def post_batch(self, bytes frame not None, uint64_t items) -> None:
        """As `post`, of a frame with so many items, of which the worker may claim all."""
        if not 0 < items < MAILBOX_COUNT:
            raise ValueError("a batch has at least one item, and fewer than a million")
        mailbox_set(&self.box.batch, items)
        self.post(frame)

    def close_journal(self) -> None:
        """The batch has ended: until the next one is posted no item is claimed."""
        mailbox_set(&self.box.batch, 0)

    def take_back(self) -> tuple[int, int]:
        """From here on the worker claims no further item, but for the first one of all. How many
        it has claimed, and how many of these are done."""
        cdef uint64_t seen = mailbox_get(&self.box.batch)
        while not mailbox_swap(
            &self.box.batch, seen, seen & ~MAILBOX_COUNT | max(batch_claimed(seen), <uint64_t>1)
        ):
            seen = mailbox_get(&self.box.batch)
        return batch_claimed(seen), batch_done(seen)

    def standing(self) -> tuple[int, int]:
        """The same, and nothing is taken back."""
        cdef uint64_t seen = mailbox_get(&self.box.batch)
        return batch_claimed(seen), batch_done(seen)

    def journal(self, uint64_t count) -> list[tuple[bytes, bool]]:
        """The first results of a batch, which is done with so many, and whether each is an error.
        ``ValueError`` if they are not there."""
        cdef uint64_t at = 0
        cdef uint64_t head
        cdef uint64_t size
        found = []
        for _ in range(count):
            if at + MB_RECORD > <uint64_t>MAILBOX_SLOT:
                raise ValueError("the journal ends too early")
            memcpy(&head, self.box.reply_frame + at, MB_RECORD)
            size, at = head >> 1, at + MB_RECORD
            if size > <uint64_t>MAILBOX_SLOT - at:
                raise ValueError("a result in the journal is longer than it can be")
            found.append(((<char*>self.box.reply_frame)[at : at + size], (head & 1) != 0))
            at += size
        return found

    # -- the worker: batches -------------------------------------------------------------

    def open_journal(self) -> None:
        """Before the first `claim` of a batch that was taken."""
        mailbox_set(&self.box.reply, 0)  # no call waits for what lies there
        self.journal_at = 0

    def claim(self, uint64_t note) -> bool:
        """Have the next item for oneself; ``False`` if there is none, or it was taken back.

        First the note is put on the status page, as by `enter`: what was just claimed must not
        look as if it were entered."""
        cdef uint64_t seen
        self.enter(note)
        seen = mailbox_get(&self.box.batch)
        while batch_claimed(seen) < (seen & MAILBOX_COUNT):
            if mailbox_swap(&self.box.batch, seen, seen + (<uint64_t>1 << MAILBOX_COUNT_BITS)):
                return True
            seen = mailbox_get(&self.box.batch)
        return False

    cpdef enter(self, uint64_t note):
        """Put the note, a word of `StatusPage.words_of`, on the status page."""
        mailbox_set(<uint64_t*>self.file, note)

    def record(self, bytes result not None, bint failed) -> bool:
        """Write the result of the item in hand, which is done by that, where it outlives this
        process; ``False`` if there is no room."""
        cdef uint64_t size = len(result)
        cdef uint64_t at = self.journal_at
        cdef uint64_t head = size << 1 | failed
        cdef uint64_t seen
        if at + MB_RECORD + size > <uint64_t>MAILBOX_SLOT:
            return False
        memcpy(self.box.reply_frame + at, &head, MB_RECORD)
        memcpy(self.box.reply_frame + at + MB_RECORD, <const char*>result, size)
        self.journal_at = at + MB_RECORD + size
        seen = mailbox_get(&self.box.batch)
        while not mailbox_swap(
            &self.box.batch, seen, seen + (<uint64_t>1 << 2 * MAILBOX_COUNT_BITS)
        ):
            seen = mailbox_get(&self.box.batch)
        return True

    # -- the worker --------------------------------------------------------------------

    def own(self) -> None:
        """From here on the end of the calling thread ends `call`. ``OSError`` if it cannot."""
        cdef int status = mailbox_own(self.box)
        if status != 0:
            raise OSError(status, "a robust mutex cannot be had")

    def bell(self) -> int:
        """What `rest` compares: read it before looking at what others may have put somewhere."""
        return mailbox_get(&self.box.bell)

    def ring(self) -> None:
        """End `rest`, in whichever thread it is."""
        mailbox_ring(&self.box.bell, &self.box.worker_sleeps)

    def take(self) -> bytes | None:
        """The frame in the slot, if there is one."""
        cdef mailbox_t* box = self.box
        cdef uint64_t seen = store_load(&box.request)
        cdef uint64_t size
        while seen != 0:
            size = min(store_peek(&box.request_size), <uint64_t>MAILBOX_SLOT)
            frame = (<char*>box.request_frame)[:size]
            if mailbox_swap(&box.request, seen, 0):
                self.apart = (seen & MB_APART) != 0
                return frame
            seen = store_load(&box.request)
        return None

    def answered_apart(self) -> bool:
        """Whether the frame that was taken last is to be answered over the socket."""
        return self.apart

    def news(self) -> bool:
        """Whether something was sent over the socket since this was asked last."""
        cdef uint64_t news = mailbox_get(&self.box.news)
        if news == self.heard:
            return False
        self.heard = news
        return True

    def rest(self, uint64_t bell) -> None:
        """Wait for a request, or until the bell is rung. Runs the handlers of signals."""
        with nogil:
            mailbox_rest(self.box, bell, self.heard, self.spin)
        PyErr_CheckSignals()

    def reply(self, uint64_t number, bytes frame: bytes | None) -> bool:
        """Answer the request; ``False`` if there is no frame, or one that is too long, and the
        caller told that it comes over the socket."""
        cdef mailbox_t* box = self.box
        cdef size_t size = 0 if frame is None else len(frame)
        cdef bint fits = frame is not None and size <= <size_t>MAILBOX_SLOT
        mailbox_set(&box.reply, 0)
        store_fence_release()
        if fits:
            memcpy(box.reply_frame, <const char*>frame, size)
        box.reply_size = size if fits else MAILBOX_ELSEWHERE
        store_publish(&box.reply, number)
        mailbox_ring(&box.reply_bell, &box.caller_sleeps)
        return fits


#: What `Mailbox.call` returns instead of a reply.
MAILBOX_OUTCOMES = {
    "elsewhere": MB_ELSEWHERE, "dead": MB_DEAD, "late": MB_LATE, "nonsense": MB_NONSENSE
}
MAILBOX_HEADER = (MB_HEADER, MB_NUMBER_AT)
MAILBOX_BYTES = MAILBOX_SIZE
MAILBOX_FRAME = MAILBOX_SLOT

if not STORE_IS_BUILT:  # the lane looks for the name
    globals().pop("Mailbox")
