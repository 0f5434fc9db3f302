/* bench-latency: how long a ping takes to one layer of the engine and back, as JSON. */
#include "pie.h"

#define COUNT_MAX 10000

static const char USAGE[] =
    "bench-latency: times pings\n"
    "  --layer LAYER   control (the runtime) or inference (a model's queue) (default: control)\n"
    "  --count N       so many pings, at most 10000 (default: 100)\n"
    "  --model NAME    which model's queue (default: the first)\n";

static string ping(common_queue queue) {
  common_debug_query_result pending =
      queue < 0 ? runtime_debug_query("ping", 4) : common_queue_debug_query(queue, "ping", 4);
  return await_answer(pending);
}

/* A shell sort. */
static void sort(uint32_t *items, uint32_t count) {
  for (uint32_t gap = count / 2; gap; gap /= 2)
    for (uint32_t i = gap; i < count; i++) {
      uint32_t item = items[i], place = i;
      for (; place >= gap && items[place - gap] > item; place -= gap)
        items[place] = items[place - gap];
      items[place] = item;
    }
}

static void append_field(string *json, string name, uint64_t value) {
  text_append(json, TEXT(","));
  text_append_json(json, name);
  text_append(json, TEXT(":"));
  text_append_number(json, value);
}

static string report(string layer, uint32_t *nanoseconds, uint32_t count) {
  uint64_t sum = 0;
  for (uint32_t i = 0; i < count; i++) sum += nanoseconds[i];
  sort(nanoseconds, count);

  string json = text_begin();
  text_append(&json, TEXT("{\"layer\":"));
  text_append_json(&json, layer);
  append_field(&json, TEXT("count"), count);
  append_field(&json, TEXT("mean_ns"), sum / count);
  append_field(&json, TEXT("min_ns"), nanoseconds[0]);
  append_field(&json, TEXT("median_ns"), nanoseconds[count / 2]);
  append_field(&json, TEXT("p99_ns"), nanoseconds[count * 99ull / 100]);
  append_field(&json, TEXT("max_ns"), nanoseconds[count - 1]);
  text_append(&json, TEXT("}"));
  return json;
}

result_void_string *run(void) {
  arguments all = read_arguments();
  if (take_flag(&all, TEXT("--help"))) {
    send(TEXT(USAGE));
    return succeed();
  }
  string layer = take_option(&all, TEXT("--layer"), TEXT("control"));
  string name = take_option(&all, TEXT("--model"), TEXT(""));
  uint32_t count = take_number(&all, TEXT("--count"), 100);
  if (has_stray_argument(&all)) return &outcome;
  if (count < 1 || count > COUNT_MAX) return fail(TEXT("--count is 1 to 10000"));

  common_queue queue = -1;
  if (text_equal(layer, TEXT("inference"))) {
    common_model model = open_model(name);
    if (model < 0) return fail(text_join(TEXT("there is no such model: "), name));
    queue = common_model_create_queue(model);
  } else if (!text_equal(layer, TEXT("control"))) {
    return fail(text_join(TEXT("--layer is control or inference, not "), layer));
  }
  uint32_t *nanoseconds = ALLOCATE(uint32_t, count);
  for (uint32_t i = 0; i < count; i++) {
    uint32_t mark = arena_mark();
    uint64_t start = monotonic_clock_now();
    string answer = ping(queue);
    nanoseconds[i] = monotonic_clock_now() - start;
    if (!text_equal(answer, TEXT("pong"))) return fail(text_join(TEXT("no pong but "), answer));
    arena_release(mark);
  }
  string json = report(layer, nanoseconds, count);
  send(json);
  set_return(json);
  return succeed();
}
