/* A context: a sequence of tokens and the pages that hold it, on one queue, and the text it writes.
 *
 * The straight use of the interface: one pass reads what was filled in, then one pass a token. Pages
 * are allocated as the text grows and given back by `close_context`. */
#pragma once
#include "pie.h"

typedef struct { float temperature, top_p; } sampler;

typedef struct {
  common_queue queue;
  tokenize_tokenizer tokenizer;
  sampler how;
  uint32_t page_size, pages_held, tokens_held;
  uint32_t *pages;
  list_uint32 input;  /* what the next pass reads */
  list_uint32 stops;
  uint32_t *written;  /* the tokens of the text so far */
  /* `shown` is where the shown text ends; `before` is a little earlier, because the spaces around a
   * token depend on the token before it. */
  uint32_t count, shown, before;
} context;

/* A decimal such as 0.7; negative if the text is not one. */
HELPER float parse_decimal(string text) {
  float value = 0, scale = 0;
  for (uint32_t i = 0; i < text.length; i++) {
    char c = text.data[i];
    if (c == '.' && scale == 0) {
      scale = 1;
    } else if (c >= '0' && c <= '9') {
      value = value * 10 + (c - '0');
      scale *= 10;
    } else {
      return -1;
    }
  }
  return text.length == 0 ? -1 : scale ? value / scale : value;
}

/* The model's stop tokens that are one token each. */
HELPER list_uint32 read_stop_tokens(common_model model, tokenize_tokenizer tokenizer) {
  list_string texts;
  common_model_get_stop_tokens(model, &texts);
  list_uint32 stops = {ALLOCATE(uint32_t, texts.length), 0};
  for (uint32_t i = 0; i < texts.length; i++) {
    list_uint32 tokens;
    tokenize_tokenizer_tokenize(tokenizer, texts.data[i].data, texts.data[i].length, &tokens);
    if (tokens.length == 1) stops.data[stops.length++] = tokens.data[0];
  }
  return stops;
}

/* The conversation in the form of the model's template, or a text that begins with "error: ". */
HELPER string render_chat(common_queue queue, string system, string prompt) {
  string query = text_begin();
  text_append(&query, TEXT("render-chat {\"messages\":["));
  if (system.length) {
    text_append(&query, TEXT("{\"role\":\"system\",\"content\":"));
    text_append_json(&query, system);
    text_append(&query, TEXT("},"));
  }
  text_append(&query, TEXT("{\"role\":\"user\",\"content\":"));
  text_append_json(&query, prompt);
  text_append(&query, TEXT("}],\"add_generation_prompt\":true}"));
  return await_answer(common_queue_debug_query(queue, query.data, query.length));
}

/* A context that is to read `text` and write at most `tokens_max` tokens. */
HELPER context open_context(common_model model, common_queue queue, string text,
                            uint32_t tokens_max, sampler how) {
  context made = {.queue = queue, .how = how};
  made.tokenizer = tokenize_get_tokenizer(model);
  made.page_size = common_model_get_kv_page_size(model);
  tokenize_tokenizer_tokenize(made.tokenizer, text.data, text.length, &made.input);
  made.stops = read_stop_tokens(model, made.tokenizer);
  made.pages = ALLOCATE(uint32_t, (made.input.length + tokens_max) / made.page_size + 1);
  made.written = ALLOCATE(uint32_t, tokens_max);
  return made;
}

HELPER void close_context(context *text) {
  if (text->pages_held)
    common_deallocate_resources(text->queue, KV_PAGE, text->pages, text->pages_held);
  text->pages_held = 0;
}

HELPER void grow_pages(context *text, uint32_t tokens) {
  uint32_t needed = (tokens + text->page_size - 1) / text->page_size;
  if (needed <= text->pages_held) return;
  list_uint32 fresh;
  common_allocate_resources(text->queue, KV_PAGE, needed - text->pages_held, &fresh);
  for (uint32_t i = 0; i < fresh.length; i++) text->pages[text->pages_held++] = fresh.data[i];
}

/* Reads the input into the pages; the token that the model would write next goes to `next`. */
HELPER bool read_input(context *text, uint32_t *next) {
  uint32_t mark = arena_mark();
  const list_uint32 *tokens = &text->input;
  uint32_t total = text->tokens_held + tokens->length, last = tokens->length - 1;
  uint32_t *positions = ALLOCATE(uint32_t, tokens->length);
  for (uint32_t i = 0; i < tokens->length; i++) positions[i] = text->tokens_held + i;
  grow_pages(text, total);

  forward_forward_pass pass = forward_create_forward_pass(text->queue);
  uint32_t last_page_length = (total - 1) % text->page_size + 1;
  forward_kv_cache(pass, text->pages, text->pages_held, last_page_length);
  forward_input_tokens(pass, tokens->data, tokens->length, positions, tokens->length);
  if (text->how.top_p < 1)
    forward_output_tokens_top_p(pass, &last, 1, text->how.temperature, text->how.top_p);
  else
    forward_output_tokens(pass, &last, 1, text->how.temperature);

  option_forward_forward_pass_result pending;
  forward_forward_pass_execute(pass, &pending);
  option_list_uint32 answer;
  wait(forward_forward_pass_result_pollable(pending.value));
  forward_forward_pass_result_get_tokens(pending.value, &answer);
  forward_forward_pass_result_drop(pending.value);
  forward_forward_pass_drop(pass);

  bool answered = answer.some && answer.value.length == 1;
  if (answered) *next = answer.value.data[0];
  text->tokens_held = total;
  arena_release(mark);
  return answered;
}

HELPER bool is_stop(const context *text, uint32_t token) {
  for (uint32_t i = 0; i < text->stops.length; i++)
    if (text->stops.data[i] == token) return true;
  return false;
}

HELPER bool ends_inside_character(string text) {
  string tail = {text.data + text.length - 3, 3};
  return text.length >= 3 && text_equal(tail, TEXT("\xef\xbf\xbd"));
}

HELPER string written_text(const context *text, uint32_t start, uint32_t end) {
  string result;
  const uint32_t *tokens = text->written + start;
  tokenize_tokenizer_detokenize(text->tokenizer, tokens, end - start, &result);
  return result;
}

/* Sends what is new, but never a part of a character unless the text ends here. */
HELPER void show(context *text, bool at_end) {
  uint32_t mark = arena_mark();
  string old = written_text(text, text->before, text->shown);
  string all = written_text(text, text->before, text->count);
  if (all.length > old.length && (at_end || !ends_inside_character(all))) {
    send((string){all.data + old.length, all.length - old.length});
    text->before = text->shown;
    text->shown = text->count;
  }
  arena_release(mark);
}

/* Writes and shows until a stop token or `tokens_max`; false if a pass has no answer. */
HELPER bool generate(context *text, uint32_t tokens_max) {
  static uint32_t next;
  while (text->count < tokens_max) {
    if (!read_input(text, &next)) return false;
    if (is_stop(text, next)) break;
    text->written[text->count++] = next;
    show(text, false);
    text->input = (list_uint32){&next, 1};
  }
  show(text, true);
  return true;
}
