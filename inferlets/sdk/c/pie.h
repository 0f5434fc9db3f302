/* What every C inferlet needs and the WIT does not give: memory, text, arguments, waiting.
 *
 * There is no libc. Memory is an arena that only grows; `arena_mark` and `arena_release` give back
 * what one step used. Whatever the host returns is allocated in the arena too. */
#pragma once
#include "inferlet.h"

#define KV_PAGE 0
#define HELPER static __attribute__((unused, noinline))

/* ---- memory ---- */

extern unsigned char __heap_base;
static uint32_t arena_top;

HELPER uint32_t arena_mark(void) {
  if (!arena_top) arena_top = (uint32_t)&__heap_base;
  return arena_top;
}

HELPER void arena_release(uint32_t mark) { arena_top = mark; }

HELPER void *arena_allocate(uint32_t bytes, uint32_t alignment) {
  uint32_t start = (arena_mark() + alignment - 1) & -alignment;
  uint32_t have = __builtin_wasm_memory_size(0) << 16;
  if (bytes > UINT32_MAX - 65535 - start) __builtin_trap();
  if (start + bytes > have) {
    uint32_t missing = (start + bytes - have + 65535) >> 16;
    if (__builtin_wasm_memory_grow(0, missing) == (uint32_t)-1) __builtin_trap();
  }
  arena_top = start + bytes;
  return (void *)start;
}

EXPORT("cabi_realloc")
void *cabi_realloc(void *old, uint32_t old_bytes, uint32_t alignment, uint32_t bytes) {
  void *fresh = arena_allocate(bytes, alignment);
  if (old_bytes) __builtin_memcpy(fresh, old, old_bytes < bytes ? old_bytes : bytes);
  return fresh;
}

#define ALLOCATE(type, count) ((type *)arena_allocate((count) * sizeof(type), _Alignof(type)))

/* ---- text ---- */

#define TEXT(literal) ((string){(char *)(literal), sizeof(literal) - 1})

HELPER bool text_equal(string left, string right) {
  if (left.length != right.length) return false;
  for (uint32_t i = 0; i < left.length; i++)
    if (left.data[i] != right.data[i]) return false;
  return true;
}

HELPER bool text_starts_with(string whole, string start) {
  return whole.length >= start.length && text_equal((string){whole.data, start.length}, start);
}

/* A text under construction, at the end of the arena: nothing else may be allocated meanwhile. */
HELPER string text_begin(void) { return (string){arena_allocate(0, 1), 0}; }

HELPER void text_append(string *text, string more) {
  char *end = arena_allocate(more.length, 1);
  __builtin_memcpy(end, more.data, more.length);
  text->length += more.length;
}

HELPER void text_append_character(string *text, char character) {
  text_append(text, (string){&character, 1});
}

HELPER void text_append_number(string *text, uint64_t number) {
  char digits[20];
  uint32_t start = sizeof digits;
  do digits[--start] = '0' + number % 10;
  while (number /= 10);
  text_append(text, (string){digits + start, sizeof digits - start});
}

/* Appends `value` as a JSON string, quotes included. */
HELPER void text_append_json(string *text, string value) {
  static const char HEX[] = "0123456789abcdef";
  text_append_character(text, '"');
  for (uint32_t i = 0; i < value.length; i++) {
    unsigned char c = value.data[i];
    if (c == '"' || c == '\\') text_append_character(text, '\\');
    if (c >= 0x20) {
      text_append_character(text, c);
    } else {
      char escape[] = {'\\', 'u', '0', '0', HEX[c >> 4], HEX[c & 15]};
      text_append(text, (string){escape, sizeof escape});
    }
  }
  text_append_character(text, '"');
}

/* A decimal, if the text is one: an optional sign, digits, at most one point among them. */
HELPER option_float read_decimal(string text) {
  bool is_negative = text.length && text.data[0] == '-';
  float value = 0, scale = 0;
  uint32_t digits = 0;
  for (uint32_t i = is_negative; i < text.length; i++) {
    char c = text.data[i];
    if (c == '.' && scale == 0) {
      scale = 1;
    } else if (c >= '0' && c <= '9') {
      value = value * 10 + (c - '0');
      scale *= 10;
      digits++;
    } else {
      return (option_float){0};
    }
  }
  if (scale) value /= scale;
  return (option_float){digits > 0, is_negative ? -value : value};
}

HELPER string text_join(string left, string right) {
  string text = text_begin();
  text_append(&text, left);
  text_append(&text, right);
  return text;
}

/* ---- the end of the program ---- */

static result_void_string outcome;

HELPER result_void_string *succeed(void) { return &outcome; }

HELPER result_void_string *fail(string reason) {
  outcome.is_error = true;
  outcome.error = reason;
  return &outcome;
}

/* ---- arguments ---- */

/* The arguments that nobody has taken yet: a taken one has no data. */
typedef list_string arguments;

HELPER arguments read_arguments(void) {
  arguments all;
  runtime_get_arguments(&all);
  return all;
}

HELPER bool take_flag(arguments *all, string name) {
  for (uint32_t i = 0; i < all->length; i++)
    if (all->data[i].data && text_equal(all->data[i], name)) {
      all->data[i].data = 0;
      return true;
    }
  return false;
}

/* The argument after `name`, or `otherwise`. A name without a value stays and is reported. */
HELPER string take_option(arguments *all, string name, string otherwise) {
  for (uint32_t i = 0; i + 1 < all->length; i++)
    if (all->data[i].data && text_equal(all->data[i], name)) {
      string value = all->data[i + 1];
      all->data[i].data = all->data[i + 1].data = 0;
      return value;
    }
  return otherwise;
}

/* A whole number, at most 999 999 999; anything else is left over and is a stray argument. */
HELPER uint32_t take_number(arguments *all, string name, uint32_t otherwise) {
  for (uint32_t i = 0; i + 1 < all->length; i++)
    if (all->data[i].data && text_equal(all->data[i], name)) {
      string digits = all->data[i + 1];
      uint32_t number = 0;
      if (digits.length < 1 || digits.length > 9) return otherwise;
      for (uint32_t k = 0; k < digits.length; k++) {
        if (digits.data[k] < '0' || digits.data[k] > '9') return otherwise;
        number = number * 10 + digits.data[k] - '0';
      }
      all->data[i].data = all->data[i + 1].data = 0;
      return number;
    }
  return otherwise;
}

/* A decimal such as -0.7 within these bounds, if it is given; anything else is left over as well. */
HELPER option_float take_decimal(arguments *all, string name, float least, float most) {
  for (uint32_t i = 0; i + 1 < all->length; i++)
    if (all->data[i].data && text_equal(all->data[i], name)) {
      option_float number = read_decimal(all->data[i + 1]);
      number.some = number.some && number.value >= least && number.value <= most;
      if (number.some) all->data[i].data = all->data[i + 1].data = 0;
      return number;
    }
  return (option_float){0};
}

/* Whether there is an argument that nobody took, unknown or with a bad value: the outcome names it. */
HELPER bool has_stray_argument(const arguments *all) {
  for (uint32_t i = 0; i < all->length; i++)
    if (all->data[i].data) {
      fail(text_join(TEXT("bad argument, see --help: "), all->data[i]));
      return true;
    }
  return false;
}

/* ---- talking ---- */

HELPER void send(string text) { message_send(text.data, text.length); }

HELPER void set_return(string text) { runtime_set_return(text.data, text.length); }

HELPER void wait(poll_pollable pollable) {
  poll_pollable_block(pollable);
  poll_pollable_drop(pollable);
}

/* The answer to a debug query; no answer is an empty text. */
HELPER string await_answer(common_debug_query_result pending) {
  option_string answer;
  wait(common_debug_query_result_pollable(pending));
  common_debug_query_result_get(pending, &answer);
  common_debug_query_result_drop(pending);
  return answer.some ? answer.value : (string){0, 0};
}

/* The model of that name, or the first one when `name` is empty; -1 if there is none. */
HELPER common_model open_model(string name) {
  option_common_model found;
  if (!name.length) {
    list_string names;
    runtime_get_all_models(&names);
    if (!names.length) return -1;
    name = names.data[0];
  }
  runtime_get_model(name.data, name.length, &found);
  return found.some ? found.value : -1;
}
