/* A context: a sequence of tokens and the pages that hold it, on one queue, and the text it writes.
 *
 * The model decodes by itself; the text is taken and shown in chunks. Pages are allocated as the text
 * grows and given back by `close_context`. */
#pragma once
#include "pie.h"

#define RESERVE_PAGES 8  /* that a stream takes in advance, or as many as it has */
#define CHUNK_TOKENS 64

/* How tokens are chosen, as the WIT has it. All nought is greedy; temperature, top_k, top_p, min_p, a
 * seed, penalties and `add_bias` change that. */
typedef generate_sampler sampler;

typedef struct {
  common_queue queue;
  tokenize_tokenizer tokenizer;
  sampler how;
  uint32_t page_size, pages_held, tokens_held;
  uint32_t *pages;
  uint32_t *tokens;   /* all of them, of which the first `tokens_held` have been read */
  list_uint32 input;  /* what the next pass reads */
  list_uint32 stops;
  uint32_t *written;  /* the tokens of the text so far, behind those of the prompt */
  /* `shown` is where the shown text ends; `before` is a little earlier, because the spaces around a
   * token depend on the token before it. */
  uint32_t count, shown, before;
  string trouble; /* why it cannot go on */
} context;

/* Adds `addend` to the logit of a token, before everything is drawn. */
HELPER void add_bias(sampler *how, uint32_t token, float addend) {
  list_tuple_uint32_float *bias = &how->logit_bias;
  tuple_uint32_float *grown = ALLOCATE(tuple_uint32_float, bias->length + 1);
  for (uint32_t i = 0; i < bias->length; i++) grown[i] = bias->data[i];
  grown[bias->length++] = (tuple_uint32_float){token, addend};
  bias->data = grown;
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
  list_uint32 prompt;
  tokenize_tokenizer_tokenize(made.tokenizer, text.data, text.length, &prompt);
  made.stops = read_stop_tokens(model, made.tokenizer);
  made.pages = ALLOCATE(uint32_t, (prompt.length + tokens_max) / made.page_size + 1);
  made.tokens = ALLOCATE(uint32_t, prompt.length + tokens_max);
  for (uint32_t i = 0; i < prompt.length; i++) made.tokens[i] = prompt.data[i];
  made.input = (list_uint32){made.tokens, prompt.length};
  made.written = made.tokens + prompt.length;
  return made;
}

HELPER void close_context(context *text) {
  if (text->pages_held)
    common_deallocate_resources(text->queue, KV_PAGE, text->pages, text->pages_held);
  text->pages_held = 0;
}

/* Why a call was refused, in the host's words. */
HELPER string error_text(const errors_error *error) {
  return error->tag ? error->failed : TEXT("out of pages");
}

/* False if there is `trouble`. */
HELPER bool grow_pages(context *text, uint32_t tokens) {
  uint32_t needed = (tokens + text->page_size - 1) / text->page_size;
  if (needed <= text->pages_held) return true;
  result_list_uint32_errors_error fresh;
  pages_allocate(text->queue, needed - text->pages_held, &fresh);
  if (fresh.is_error) {
    text->trouble = error_text(&fresh.error);
    return false;
  }
  for (uint32_t i = 0; i < fresh.ok.length; i++)
    text->pages[text->pages_held++] = fresh.ok.data[i];
  return true;
}

/* Whether it matters which tokens the text has. */
HELPER bool counts_text(const sampler *how) {
  return how->repetition_penalty.some || how->frequency_penalty.some || how->presence_penalty.some;
}

/* Has the model go on by itself from the input, into some more pages. */
HELPER bool open_stream(context *text, uint32_t tokens_max, generate_token_stream *stream) {
  uint32_t total = text->tokens_held + text->input.length;
  uint32_t used = (total - 1) / text->page_size + 1;
  uint32_t most = (used + (used > RESERVE_PAGES ? used : RESERVE_PAGES)) * text->page_size;
  uint32_t wanted = total + tokens_max - 1;
  if (!grow_pages(text, wanted < most ? wanted : most)) return false;
  list_uint32 positions = {ALLOCATE(uint32_t, text->input.length), text->input.length};
  for (uint32_t i = 0; i < positions.length; i++) positions.data[i] = text->tokens_held + i;
  generate_start_arguments first = {.queue = text->queue};
  first.request.tokens = text->input;
  first.request.positions = positions;
  first.request.pages = (list_uint32){text->pages, used};
  first.request.last_page_len = (total - 1) % text->page_size + 1;
  first.request.reserve = (list_uint32){text->pages + used, text->pages_held - used};
  first.request.sampler = text->how;
  if (text->how.repetition_penalty.some)
    first.request.earlier = (list_uint32){text->tokens, text->tokens_held};
  uint32_t told = counts_text(&text->how) ? text->count : text->count > 0;
  first.request.generated = (list_uint32){text->written + text->count - told, told};
  first.request.stop_tokens = text->stops;
  first.request.max_tokens = tokens_max;
  result_generate_token_stream_errors_error started;
  generate_start(&first, &started);
  if (started.is_error) text->trouble = error_text(&started.error);
  *stream = started.ok;
  text->tokens_held = total - 1;
  return !started.is_error;
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

/* Takes and shows a chunk; false if there is nothing more to write. */
HELPER bool take_chunk(context *text, generate_token_stream stream) {
  uint32_t mark = arena_mark();
  result_list_uint32_errors_error chunk;
  wait(generate_token_stream_pollable(stream));
  generate_token_stream_read(stream, CHUNK_TOKENS, &chunk);
  if (chunk.is_error) text->trouble = error_text(&chunk.error);
  if (chunk.is_error) return false;
  bool goes_on = true;
  for (uint32_t i = 0; goes_on && i < chunk.ok.length; i++) {
    goes_on = !is_stop(text, chunk.ok.data[i]);
    if (!goes_on) break;
    text->written[text->count++] = chunk.ok.data[i];
    text->tokens_held++;
  }
  show(text, false);
  arena_release(mark);
  return goes_on;
}

/* Writes and shows until a stop token or `tokens_max`; false if there is `trouble`. */
HELPER bool generate(context *text, uint32_t tokens_max) {
  bool goes_on = true;
  while (goes_on && text->count < tokens_max) {
    generate_token_stream stream;
    option_generate_finish_reason end = {0};
    if (!open_stream(text, tokens_max - text->count, &stream)) return false;
    while (goes_on && !end.some) {
      goes_on = take_chunk(text, stream);
      generate_token_stream_finished(stream, &end);
    }
    generate_token_stream_drop(stream);
    text->input = (list_uint32){text->written + text->count - 1, 1};
  }
  show(text, true);
  return !text->trouble.length;
}
