// Meetings of threads, and who takes which item. See team.h.

#define _GNU_SOURCE
#include "team.h"

#include <omp.h>
#include <sched.h>
#ifdef __linux__
#include <limits.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

static void rest(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static void sleep_while(atomic_int *word, int value) {
#ifdef __linux__
    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, 0, 0, 0);
#else
    if (atomic_load(word) == value) sched_yield();
#endif
}

static void wake_all(atomic_int *word) {
#ifdef __linux__
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, INT_MAX, 0, 0, 0);
#else
    (void)word;
#endif
}

static void deal(Team *team, int threads, int64_t items) {
    team->dealt = threads;
    for (int i = 0; i < threads; i++) {
        team->shares[i].end = share_start(items, i + 1, threads);
        int64_t first = share_start(items, i, threads);
        atomic_store_explicit(&team->shares[i].next, first, memory_order_relaxed);
    }
}

int team_size(void) {
    int threads = omp_get_max_threads();
    return threads < THREADS_MAX ? threads : THREADS_MAX;
}

void team_start(Team *team, int threads, int64_t items) {
    atomic_store(&team->arrived, 0);
    atomic_store(&team->turn, 0);
    atomic_store(&team->sleepers, 0);
    deal(team, threads, items);
}

void team_meet(const Member *me, int64_t items) {
    Team *team = me->team;
    int turn = atomic_load(&team->turn);
    if (atomic_fetch_add(&team->arrived, 1) + 1 == me->threads) {
        // Only the last one to arrive is here: the others wait for the turn.
        deal(team, me->threads, items);
        atomic_store(&team->arrived, 0);
        atomic_store(&team->turn, turn + 1);
        if (atomic_load(&team->sleepers)) wake_all(&team->turn);
        return;
    }
    for (int spins = 0; spins < SPINS_MAX; spins++) {
        if (atomic_load_explicit(&team->turn, memory_order_acquire) != turn) return;
        rest();
    }
    atomic_fetch_add(&team->sleepers, 1);
    while (atomic_load(&team->turn) == turn) sleep_while(&team->turn, turn);
    atomic_fetch_sub(&team->sleepers, 1);
}

int team_take(const Member *me, int64_t grain, int64_t *first, int64_t *end) {
    Team *team = me->team;
    for (int i = 0; i < team->dealt; i++) {
        Share *share = &team->shares[(me->number + i) % team->dealt];
        if (atomic_load_explicit(&share->next, memory_order_relaxed) >= share->end) continue;
        int64_t taken = atomic_fetch_add_explicit(&share->next, grain, memory_order_relaxed);
        if (taken >= share->end) continue;
        *first = taken;
        *end = taken + grain < share->end ? taken + grain : share->end;
        return 1;
    }
    return 0;
}
