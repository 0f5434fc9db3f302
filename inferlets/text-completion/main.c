/* text-completion: answers one chat prompt, streaming the text as the model writes it.
 *
 * The straight use of the interface: render the chat, tokenize, prefill in one pass, then one pass
 * for each token. Pages are allocated as the text grows and given back at the end. */
#include "pie.h"

static const char USAGE[] =
    "text-completion: answers one prompt\n"
    "  --prompt TEXT      what the user asks\n"
    "  --system TEXT      the system message (default: the template's own)\n"
    "  --model NAME       which model answers (default: the first)\n"
    "  --max-tokens N     at most so many tokens (default: 256)\n"
    "  --temperature T    0 is greedy (default: 0)\n"
    "  --top-p P          sample from the most likely P of the mass (default: 1)\n";

/* One sequence on one queue: its pages and how many tokens they hold. */
typedef struct {
  common_queue queue;
  uint32_t page_size;
  uint32_t *pages;
  uint32_t pages_held;
  uint32_t tokens_held;
} sequence;

typedef struct { float temperature, top_p; } sampler;

/* The text so far, in tokens. `shown` is where the shown text ends; `context` is a little earlier,
 * because the spaces around a token depend on the token before it. */
typedef struct {
  tokenize_tokenizer tokenizer;
  uint32_t *tokens;
  uint32_t count, shown, context;
} transcript;

/* A decimal such as 0.7; negative if the text is not one. */
static float parse_decimal(string text) {
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

static string render_chat(common_queue queue, string system, string prompt) {
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

/* The model's stop tokens that are one token each. */
static list_uint32 read_stop_tokens(common_model model, tokenize_tokenizer tokenizer) {
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

static void grow_pages(sequence *text, uint32_t tokens) {
  uint32_t needed = (tokens + text->page_size - 1) / text->page_size;
  if (needed <= text->pages_held) return;
  list_uint32 fresh;
  common_allocate_resources(text->queue, KV_PAGE, needed - text->pages_held, &fresh);
  for (uint32_t i = 0; i < fresh.length; i++) text->pages[text->pages_held++] = fresh.data[i];
}

/* Reads `tokens` into the pages; the token that the model would write next goes to `next`. */
static bool read_tokens(sequence *text, const list_uint32 *tokens, sampler how, uint32_t *next) {
  uint32_t mark = arena_mark();
  uint32_t total = text->tokens_held + tokens->length, last = tokens->length - 1;
  uint32_t *positions = ALLOCATE(uint32_t, tokens->length);
  for (uint32_t i = 0; i < tokens->length; i++) positions[i] = text->tokens_held + i;
  grow_pages(text, total);

  forward_forward_pass pass = forward_create_forward_pass(text->queue);
  uint32_t last_page_length = (total - 1) % text->page_size + 1;
  forward_kv_cache(pass, text->pages, text->pages_held, last_page_length);
  forward_input_tokens(pass, tokens->data, tokens->length, positions, tokens->length);
  if (how.top_p < 1)
    forward_output_tokens_top_p(pass, &last, 1, how.temperature, how.top_p);
  else
    forward_output_tokens(pass, &last, 1, how.temperature);

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

static bool ends_inside_character(string text) {
  return text.length >= 3 && text_equal((string){text.data + text.length - 3, 3}, TEXT("\xef\xbf\xbd"));
}

static string detokenize(const transcript *text, uint32_t start, uint32_t end) {
  string result;
  tokenize_tokenizer_detokenize(text->tokenizer, text->tokens + start, end - start, &result);
  return result;
}

/* Sends what is new, but never a part of a character unless the text ends here. */
static void show(transcript *text, bool at_end) {
  uint32_t mark = arena_mark();
  string old = detokenize(text, text->context, text->shown);
  string all = detokenize(text, text->context, text->count);
  if (all.length > old.length && (at_end || !ends_inside_character(all))) {
    send((string){all.data + old.length, all.length - old.length});
    text->context = text->shown;
    text->shown = text->count;
  }
  arena_release(mark);
}

static bool contains(const list_uint32 *list, uint32_t item) {
  for (uint32_t i = 0; i < list->length; i++)
    if (list->data[i] == item) return true;
  return false;
}

static result_void_string *complete(common_model model, string system, string prompt,
                                    uint32_t tokens_max, sampler how) {
  common_queue queue = common_model_create_queue(model);
  tokenize_tokenizer tokenizer = tokenize_get_tokenizer(model);
  string chat = render_chat(queue, system, prompt);
  if (text_starts_with(chat, TEXT("error: "))) return fail(chat);

  list_uint32 input;
  tokenize_tokenizer_tokenize(tokenizer, chat.data, chat.length, &input);
  if (!input.length) return fail(TEXT("the prompt has no tokens"));
  list_uint32 stops = read_stop_tokens(model, tokenizer);
  uint32_t page_size = common_model_get_kv_page_size(model);
  uint32_t pages_max = (input.length + tokens_max) / page_size + 1;
  sequence text = {queue, page_size, ALLOCATE(uint32_t, pages_max), 0, 0};
  transcript written = {tokenizer, ALLOCATE(uint32_t, tokens_max), 0, 0, 0};

  uint32_t next;
  while (written.count < tokens_max) {
    if (!read_tokens(&text, &input, how, &next)) return fail(TEXT("the pass has no answer"));
    if (contains(&stops, next)) break;
    written.tokens[written.count++] = next;
    show(&written, false);
    input = (list_uint32){&next, 1};
  }
  show(&written, true);
  if (text.pages_held) common_deallocate_resources(queue, KV_PAGE, text.pages, text.pages_held);
  set_return(detokenize(&written, 0, written.count));
  return succeed();
}

result_void_string *run(void) {
  arguments all = read_arguments();
  if (take_flag(&all, TEXT("--help"))) {
    send(TEXT(USAGE));
    return succeed();
  }
  string prompt = take_option(&all, TEXT("--prompt"), TEXT(""));
  string system = take_option(&all, TEXT("--system"), TEXT(""));
  string name = take_option(&all, TEXT("--model"), TEXT(""));
  uint32_t tokens_max = take_number(&all, TEXT("--max-tokens"), 256);
  sampler how = {parse_decimal(take_option(&all, TEXT("--temperature"), TEXT("0"))),
                 parse_decimal(take_option(&all, TEXT("--top-p"), TEXT("1")))};

  string stray = untaken_argument(&all);
  if (stray.data) return fail(text_join(TEXT("bad argument, see --help: "), stray));
  if (!prompt.length) return fail(TEXT("--prompt is missing, see --help"));
  if (how.temperature < 0) return fail(TEXT("--temperature needs a number of 0 or more"));
  if (how.top_p <= 0 || how.top_p > 1) return fail(TEXT("--top-p needs a number in 0..1"));
  if (tokens_max > 1000000) return fail(TEXT("--max-tokens is at most 1000000"));
  common_model model = open_model(name);
  if (model < 0) return fail(text_join(TEXT("there is no such model: "), name));
  return complete(model, system, prompt, tokens_max, how);
}
