// Threads that work through the stages of one call together, without leaving it in between.
//
// A stage is a number of items. Each thread starts in a share of its own, so that what it reads lies
// together and can be fetched ahead, and then helps the others. Between stages all meet: who waits
// spins for a moment and then sleeps, because on a busy machine the one waited for may need the core.
#ifndef PIE_TEAM_H
#define PIE_TEAM_H

#include <stdatomic.h>
#include <stdint.h>

enum { THREADS_MAX = 256, SPINS_MAX = 2000, LINE_BYTES = 64 };

typedef struct {
    _Alignas(LINE_BYTES) atomic_llong next;
    int64_t end;
} Share;

typedef struct {
    int dealt;  // how many shares there are; those of threads that never came are taken by others
    _Alignas(LINE_BYTES) atomic_int arrived;
    _Alignas(LINE_BYTES) atomic_int turn;  // of meetings; sleepers wait for it to change
    atomic_int sleepers;
    Share shares[THREADS_MAX];
} Team;

// One thread of a call.
typedef struct {
    Team *team;
    int number, threads;
} Member;

// How many threads OpenMP would give this call.
int team_size(void);
// Before the threads come: there are `items` to take, in as many shares.
void team_start(Team *team, int threads, int64_t items);
// Everything before it has happened for everybody after it; then there are `items` to take.
void team_meet(const Member *me, int64_t items);
// The next at most `grain` items, of the own share first. False if there are none left.
int team_take(const Member *me, int64_t grain, int64_t *first, int64_t *end);

// Where the share of a member begins when there are `items`.
static inline int64_t share_start(int64_t items, int number, int threads) {
    return items * number / threads;
}

#endif
