/* What Cython cannot say: atomics, fences, robust mutexes, futexes and clocks. */

#ifndef SNAKEPIT_MP_STORE_ATOMICS_H
#define SNAKEPIT_MP_STORE_ATOMICS_H

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdint.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#if defined(__linux__)
#include <linux/futex.h>
#include <sys/syscall.h>
#define STORE_IS_BUILT 1
#else
#define STORE_IS_BUILT 0
#endif

#if STORE_IS_BUILT

_Static_assert(sizeof(pthread_mutex_t) <= 64, "a mutex has eight words");
_Static_assert(__atomic_always_lock_free(8, 0), "words must be atomic without a lock");

static inline uint64_t store_peek(const uint64_t *at) { return __atomic_load_n(at, __ATOMIC_RELAXED); }
static inline uint64_t store_load(const uint64_t *at) { return __atomic_load_n(at, __ATOMIC_ACQUIRE); }
static inline void store_poke(uint64_t *at, uint64_t x) { __atomic_store_n(at, x, __ATOMIC_RELAXED); }
static inline void store_publish(uint64_t *at, uint64_t x) { __atomic_store_n(at, x, __ATOMIC_RELEASE); }
static inline void store_raise(uint64_t *at, uint64_t x)
{
    uint64_t seen = __atomic_load_n(at, __ATOMIC_RELAXED);
    while (seen < x
           && !__atomic_compare_exchange_n(at, &seen, x, 0, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED))
        ;
}
static inline void store_fence_acquire(void) { __atomic_thread_fence(__ATOMIC_ACQUIRE); }
static inline void store_fence_release(void) { __atomic_thread_fence(__ATOMIC_RELEASE); }
static inline void store_fence(void) { __atomic_thread_fence(__ATOMIC_SEQ_CST); }

static inline void store_pause(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static inline int store_mutex_init(void *mutex)
{
    pthread_mutexattr_t how;
    int status = pthread_mutexattr_init(&how);
    if (status == 0)
        status = pthread_mutexattr_setpshared(&how, PTHREAD_PROCESS_SHARED);
    if (status == 0)
        status = pthread_mutexattr_setrobust(&how, PTHREAD_MUTEX_ROBUST);
    if (status == 0)
        status = pthread_mutex_init((pthread_mutex_t *)mutex, &how);
    return status;
}

/* 0: locked; 1: locked, and its last owner died with it; 2: not within `nanoseconds`; -1: never. */
static inline int store_mutex_lock(void *at, int64_t nanoseconds)
{
    pthread_mutex_t *mutex = (pthread_mutex_t *)at;
    int status = pthread_mutex_trylock(mutex);
    if (status == EBUSY) {
        for (int spins = 0; spins < 50 && status == EBUSY; spins++) {
            store_pause();
            status = pthread_mutex_trylock(mutex);
        }
    }
    if (status == EBUSY && nanoseconds > 0) {
        struct timespec until;
        clock_gettime(CLOCK_REALTIME, &until);
        nanoseconds += until.tv_nsec;
        until.tv_sec += nanoseconds / 1000000000;
        until.tv_nsec = nanoseconds % 1000000000;
        status = pthread_mutex_timedlock(mutex, &until);
    }
    if (status == 0)
        return 0;
    if (status == EOWNERDEAD)
        return 1;
    return status == EBUSY || status == ETIMEDOUT ? 2 : -1;
}

static inline int store_mutex_repaired(void *mutex)
{
    return pthread_mutex_consistent((pthread_mutex_t *)mutex);
}

static inline void store_mutex_unlock(void *mutex) { pthread_mutex_unlock((pthread_mutex_t *)mutex); }

/* The half of a word in which its low bits are. */
static inline uint32_t *store_low_half(uint64_t *word)
{
    return (uint32_t *)word + (__BYTE_ORDER__ == __ORDER_BIG_ENDIAN__);
}

static inline void store_futex_wait(uint64_t *word, uint64_t seen, int64_t nanoseconds)
{
    struct timespec time = {nanoseconds / 1000000000, nanoseconds % 1000000000};
    syscall(SYS_futex, store_low_half(word), FUTEX_WAIT, (uint32_t)seen, &time, NULL, 0);
}

static inline void store_futex_wake(uint64_t *word)
{
    syscall(SYS_futex, store_low_half(word), FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

static inline int64_t store_clock(clockid_t clock)
{
    struct timespec time;
    clock_gettime(clock, &time);
    return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

/* Coarse: they step every few milliseconds, and cost a quarter of the exact ones. */
static inline int64_t store_monotonic(void) { return store_clock(CLOCK_MONOTONIC_COARSE); }
static inline int64_t store_wall(void) { return store_clock(CLOCK_REALTIME_COARSE); }
static inline int64_t store_exact_wall(void) { return store_clock(CLOCK_REALTIME); }

/* 0, or the error. In pieces, so that signals, which break it off, do not keep it from ending. */
static inline int store_reserve(int file, uint64_t start, uint64_t length)
{
    const uint64_t most = 4 << 20;
    while (length > 0) {
        uint64_t piece = length < most ? length : most;
        int error = posix_fallocate(file, (off_t)start, (off_t)piece);
        if (error == EINTR)
            continue;
        if (error != 0)
            return error;
        start += piece;
        length -= piece;
    }
    return 0;
}

#else /* Without robust mutexes there is no store here: this only lets the rest compile. */

static inline uint64_t store_peek(const uint64_t *at) { return *at; }
static inline uint64_t store_load(const uint64_t *at) { return *at; }
static inline void store_poke(uint64_t *at, uint64_t x) { *at = x; }
static inline void store_publish(uint64_t *at, uint64_t x) { *at = x; }
static inline void store_raise(uint64_t *at, uint64_t x) {}
static inline void store_fence_acquire(void) {}
static inline void store_fence_release(void) {}
static inline void store_fence(void) {}
static inline void store_pause(void) {}
static inline int store_mutex_init(void *mutex) { return ENOTSUP; }
static inline int store_mutex_lock(void *mutex, int64_t nanoseconds) { return -1; }
static inline int store_mutex_repaired(void *mutex) { return ENOTSUP; }
static inline void store_mutex_unlock(void *mutex) {}
static inline void store_futex_wait(uint64_t *word, uint64_t seen, int64_t nanoseconds) {}
static inline void store_futex_wake(uint64_t *word) {}
static inline int64_t store_monotonic(void) { return 0; }
static inline int64_t store_wall(void) { return 0; }
static inline int64_t store_exact_wall(void) { return 0; }
static inline int store_reserve(int file, uint64_t start, uint64_t length) { return ENOTSUP; }

#endif
#endif
