/* Many calls of one kind, and nothing else: `--kind sync|ready|pending --count N`. */
#include "pie.h"

result_void_string *run(void) {
  arguments all = read_arguments();
  string kind = take_option(&all, TEXT("--kind"), TEXT("sync"));
  uint32_t count = take_number(&all, TEXT("--count"), 1000);
  poll_pollable past = monotonic_clock_subscribe_instant(0);

  if (text_equal(kind, TEXT("sync"))) {
    for (uint32_t i = 0; i < count; i++) monotonic_clock_now(); /* answered inline */
  } else if (text_equal(kind, TEXT("ready"))) {
    for (uint32_t i = 0; i < count; i++) poll_pollable_block(past); /* a coroutine that ends at once */
  } else if (text_equal(kind, TEXT("pending"))) {
    for (uint32_t i = 0; i < count; i++) message_send("x", 1); /* one turn of Trio's loop */
  } else {
    return fail(text_join(TEXT("--kind is sync, ready or pending, not "), kind));
  }
  poll_pollable_drop(past);
  return succeed();
}
