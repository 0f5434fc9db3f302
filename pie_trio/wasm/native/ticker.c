/* Ends the slices of busy guests: a thread that needs nothing of Python, so that it never makes the
 * guests' thread wait for Python's lock. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>

#include "border.h"

typedef struct {
  void *engine;
  struct timespec period;
  atomic_bool running, was_running, asleep, closing; /* the second: since the last tick */
  pthread_mutex_t lock;
  pthread_cond_t started;
  pthread_t thread;
} Ticker;

/* Setting `asleep` before the last look leaves no gap for `start`. */
static void sleep_until_started(Ticker *ticker) {
  pthread_mutex_lock(&ticker->lock);
  ticker->asleep = true;
  while (!ticker->running && !ticker->closing)
    pthread_cond_wait(&ticker->started, &ticker->lock);
  ticker->asleep = false;
  pthread_mutex_unlock(&ticker->lock);
}

static void wake(Ticker *ticker) {
  pthread_mutex_lock(&ticker->lock);
  pthread_cond_signal(&ticker->started);
  pthread_mutex_unlock(&ticker->lock);
}

static void *tick(void *data) {
  Ticker *ticker = data;
  for (; !ticker->closing; nanosleep(&ticker->period, NULL)) {
    bool was_running = atomic_exchange(&ticker->was_running, false);
    if (ticker->running) {
      world.epoch_increment(ticker->engine);
    } else if (!was_running) {
      sleep_until_started(ticker);
      ticker->was_running = false; /* who wakes it alone, does not keep it awake */
    }
  }
  return NULL;
}

__attribute__((visibility("default"))) Ticker *pie_ticker_open(void *engine, uint64_t nanoseconds) {
  Ticker *ticker = calloc(1, sizeof *ticker);
  if (!ticker) return NULL;
  ticker->engine = engine;
  ticker->period = (struct timespec){nanoseconds / 1000000000, nanoseconds % 1000000000};
  pthread_mutex_init(&ticker->lock, NULL);
  pthread_cond_init(&ticker->started, NULL);
  if (!pthread_create(&ticker->thread, NULL, tick, ticker)) return ticker;
  free(ticker);
  return NULL;
}

__attribute__((visibility("default"))) void pie_ticker_close(Ticker *ticker) {
  ticker->closing = true;
  wake(ticker);
  pthread_join(ticker->thread, NULL);
  free(ticker);
}

/* Lets a guest run until it ends, waits, or its slice, which begins now, is over. Called without
 * Python's lock. */
__attribute__((visibility("default"))) bool pie_poll(Ticker *ticker, void *context, void *future) {
  ticker->running = ticker->was_running = true;
  if (ticker->asleep) wake(ticker);
  world.epoch_deadline(context, 1);
  bool done = world.poll(future);
  ticker->running = false;
  return done;
}
