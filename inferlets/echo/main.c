/* echo: sends its text, or whatever it receives, back to the client. */
#include "pie.h"

static const char USAGE[] =
    "echo: sends text back\n"
    "  -t, --text TEXT    send this and end (default: send what is received)\n"
    "  -d, --delay MS     wait so long before each answer (default: 0)\n"
    "  -n, --count N      end after so many received messages (default: 1)\n";

/* The next message of the client; without data if none can come any more. */
static string receive(void) {
  option_string message;
  message_receive_result pending = message_receive();
  wait(message_receive_result_pollable(pending));
  message_receive_result_get(pending, &message);
  message_receive_result_drop(pending);
  return message.some ? message.value : (string){0, 0};
}

static void answer(string text, uint32_t delay_ms) {
  if (delay_ms) wait(monotonic_clock_subscribe_duration(delay_ms * 1000000ull));
  send(text);
}

result_void_string *run(void) {
  arguments all = read_arguments();
  if (take_flag(&all, TEXT("--help"))) {
    send(TEXT(USAGE));
    return succeed();
  }
  string text = take_option(&all, TEXT("--text"), take_option(&all, TEXT("-t"), (string){0, 0}));
  uint32_t delay = take_number(&all, TEXT("--delay"), take_number(&all, TEXT("-d"), 0));
  uint32_t count = take_number(&all, TEXT("--count"), take_number(&all, TEXT("-n"), 1));
  if (has_stray_argument(&all)) return &outcome;

  if (text.data) {
    answer(text, delay);
    set_return(text);
    return succeed();
  }
  for (uint32_t i = 0; i < count; i++) {
    uint32_t mark = arena_mark();
    string message = receive();
    if (!message.data) return fail(TEXT("nobody sends messages any more"));
    answer(message, delay);
    arena_release(mark);
  }
  return succeed();
}
