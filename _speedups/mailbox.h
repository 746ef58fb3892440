/* The words of a mailbox, and what waits on them: see snakepit_mp/lanes/mailbox.py. */

#ifndef SNAKEPIT_MP_MAILBOX_H
#define SNAKEPIT_MP_MAILBOX_H

#include "store_atomics.h"

#define MAILBOX_SLOT (1 << 16)

/* Each in a cache line of its own, or the two sides would wait for each other's writes. */
typedef struct {
    _Alignas(64) unsigned char owner[64]; /* a robust mutex, the worker's for life */
    _Alignas(64) uint64_t owner_at;       /* which word of it has the owner's number, from 1 */
    _Alignas(64) uint64_t bell;           /* rung for the worker; a futex, as is the next */
    _Alignas(64) uint64_t reply_bell;     /* rung for the caller */
    _Alignas(64) uint64_t worker_sleeps;
    _Alignas(64) uint64_t caller_sleeps;
    _Alignas(64) uint64_t worker_cpu;     /* from 1 */
    _Alignas(64) uint64_t caller_cpu;
    _Alignas(64) uint64_t news;           /* how often something was sent over the socket */
    _Alignas(64) uint64_t buried;         /* the application takes the worker for dead */
    _Alignas(64) uint64_t request;        /* 0, or that a frame is in the slot */
    uint64_t request_size;
    _Alignas(64) uint64_t reply;          /* the request's number, once its reply is there */
    uint64_t reply_size;                  /* or MAILBOX_ELSEWHERE */
    _Alignas(64) uint64_t batch;          /* of its items: how many may be claimed, are, are done */
    _Alignas(4096) unsigned char request_frame[MAILBOX_SLOT];
    unsigned char reply_frame[MAILBOX_SLOT];
} mailbox_t;

#define MAILBOX_ELSEWHERE (~(uint64_t)0)
#define MAILBOX_SIZE sizeof(mailbox_t)

/* In the word of a batch, from the lowest bit. One word, so that an item is either claimed by the
   worker or taken back by the application. */
#define MAILBOX_COUNT_BITS 20
#define MAILBOX_COUNT ((1 << MAILBOX_COUNT_BITS) - 1)

#if STORE_IS_BUILT
#include <sched.h>

static inline void mailbox_set(uint64_t *at, uint64_t x) { __atomic_store_n(at, x, __ATOMIC_SEQ_CST); }
static inline uint64_t mailbox_get(const uint64_t *at) { return __atomic_load_n(at, __ATOMIC_SEQ_CST); }
static inline int mailbox_swap(uint64_t *at, uint64_t seen, uint64_t x)
{
    return __atomic_compare_exchange_n(at, &seen, x, 0, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED);
}

static inline void mailbox_count(uint64_t *at) { __atomic_add_fetch(at, 1, __ATOMIC_SEQ_CST); }

/* The one who sleeps says so before the kernel compares the bell, the one who rings asks after it
   has changed the bell: so one of them sees the other. */
static inline void mailbox_ring(uint64_t *bell, const uint64_t *sleeps)
{
    mailbox_count(bell);
    if (mailbox_get(sleeps))
        store_futex_wake(bell);
}

static inline uint64_t mailbox_cpu(void) { return (uint64_t)(sched_getcpu() + 1); }
static inline int64_t mailbox_clock(void) { return store_clock(CLOCK_MONOTONIC); }

/* Lock it for as long as the calling thread lives: 0, or the error. The kernel wakes a waiter only
   where the word says that there is one; which word it is, is the C library's own affair. */
static inline int mailbox_own(mailbox_t *box)
{
    uint32_t *words = (uint32_t *)box->owner;
    uint32_t me = (uint32_t)syscall(SYS_gettid);
    int status = store_mutex_init(box->owner);
    if (status == 0)
        status = store_mutex_lock(box->owner, 0) == 0 ? 0 : EBUSY;
    if (status != 0)
        return status;
    for (uint64_t at = 0; at < sizeof(box->owner) / sizeof(*words); at++) {
        if ((words[at] & FUTEX_TID_MASK) != me)
            continue;
        __atomic_or_fetch(&words[at], FUTEX_WAITERS, __ATOMIC_SEQ_CST);
        mailbox_set(&box->owner_at, at + 1);
        break;
    }
    return 0;
}

static inline uint32_t *mailbox_owner(mailbox_t *box)
{
    uint64_t at = store_load(&box->owner_at);
    return at == 0 || at > sizeof(box->owner) / 4 ? NULL : (uint32_t *)box->owner + (at - 1);
}

static inline int mailbox_owner_died(mailbox_t *box)
{
    uint32_t *word = mailbox_owner(box);
    return word != NULL && (__atomic_load_n(word, __ATOMIC_SEQ_CST) & FUTEX_TID_MASK) == 0;
}

/* Older headers have neither the number nor the structure. */
#define MAILBOX_WAITV 449
struct mailbox_wait {
    uint64_t value, address;
    uint32_t flags, reserved;
};

static int mailbox_waitv_works = 1;

/* Until the bell is no more what was seen, the worker has died, or the time is over; for a negative
   time there is no limit. May end early. */
static inline void mailbox_sleep(uint64_t *bell, uint64_t seen, uint32_t *owner, int64_t nanoseconds)
{
    struct timespec time = {nanoseconds / 1000000000, nanoseconds % 1000000000};
    if (owner != NULL && mailbox_waitv_works) {
        uint32_t value = __atomic_load_n(owner, __ATOMIC_SEQ_CST);
        if ((value & FUTEX_TID_MASK) == 0)
            return;
        struct mailbox_wait waits[2] = {
            {(uint32_t)seen, (uint64_t)(uintptr_t)store_low_half(bell), 2, 0},
            {value, (uint64_t)(uintptr_t)owner, 2, 0},
        };
        if (nanoseconds >= 0) {
            int64_t until = mailbox_clock() + nanoseconds;
            time.tv_sec = until / 1000000000;
            time.tv_nsec = until % 1000000000;
        }
        if (syscall(MAILBOX_WAITV, waits, 2, 0, nanoseconds < 0 ? NULL : &time, CLOCK_MONOTONIC) >= 0
            || (errno != ENOSYS && errno != EPERM && errno != EINVAL))
            return;
        mailbox_waitv_works = 0; /* an older kernel, or a sandbox: then the watcher wakes */
        return;
    }
    syscall(SYS_futex, store_low_half(bell), FUTEX_WAIT, (uint32_t)seen,
            nanoseconds < 0 ? NULL : &time, NULL, 0);
}

#else

static inline void mailbox_set(uint64_t *at, uint64_t x) { *at = x; }
static inline uint64_t mailbox_get(const uint64_t *at) { return *at; }
static inline int mailbox_swap(uint64_t *at, uint64_t seen, uint64_t x) { return 0; }
static inline void mailbox_count(uint64_t *at) {}
static inline void mailbox_ring(uint64_t *bell, const uint64_t *sleeps) {}
static inline uint64_t mailbox_cpu(void) { return 0; }
static inline int64_t mailbox_clock(void) { return 0; }
static inline int mailbox_own(mailbox_t *box) { return ENOTSUP; }
static inline uint32_t *mailbox_owner(mailbox_t *box) { return NULL; }
static inline int mailbox_owner_died(mailbox_t *box) { return 0; }
static inline void mailbox_sleep(uint64_t *bell, uint64_t seen, uint32_t *owner, int64_t nanoseconds) {}

#endif
#endif
