/* One pass a token, greedy, each token sent to the client as text: `--prompt N --tokens N`. */
#include "pie.h"

result_void_string *run(void) {
  arguments all = read_arguments();
  uint32_t rows = take_number(&all, TEXT("--prompt"), 16);
  uint32_t tokens = take_number(&all, TEXT("--tokens"), 32);
  uint32_t held = 0, last = 0;
  common_model model = open_model(TEXT(""));
  common_queue queue = common_model_create_queue(model);
  tokenize_tokenizer tokenizer = tokenize_get_tokenizer(model);
  uint32_t page_size = common_model_get_kv_page_size(model);
  list_uint32 pages = {ALLOCATE(uint32_t, (rows + tokens) / page_size + 1), 0};
  uint32_t *input = ALLOCATE(uint32_t, rows), *positions = ALLOCATE(uint32_t, rows);
  for (uint32_t i = 0; i < rows; i++) input[i] = 100 + i % 100;
  forward_forward_pass pass = forward_create_forward_pass(queue); /* empty again when executed */

  for (uint32_t step = 0; step <= tokens; step++) {
    uint32_t mark = arena_mark();
    uint32_t total = held + rows, needed = (total + page_size - 1) / page_size;
    for (uint32_t i = 0; i < rows; i++) positions[i] = held + i;
    last = rows - 1;
    if (needed > pages.length) {
      list_uint32 fresh;
      common_allocate_resources(queue, KV_PAGE, needed - pages.length, &fresh);
      for (uint32_t i = 0; i < fresh.length; i++) pages.data[pages.length++] = fresh.data[i];
    }
    forward_kv_cache(pass, pages.data, pages.length, (total - 1) % page_size + 1);
    forward_input_tokens(pass, input, rows, positions, rows);
    forward_output_tokens(pass, &last, 1, 0);
    option_forward_forward_pass_result pending;
    forward_forward_pass_execute(pass, &pending);
    option_list_uint32 answer;
    wait(forward_forward_pass_result_pollable(pending.value));
    forward_forward_pass_result_get_tokens(pending.value, &answer);
    forward_forward_pass_result_drop(pending.value);
    if (!answer.some || answer.value.length != 1) return fail(TEXT("the pass has no token"));
    input[0] = answer.value.data[0];
    string text;
    tokenize_tokenizer_detokenize(tokenizer, input, 1, &text);
    send(text);
    held = total;
    rows = 1;
    arena_release(mark);
  }
  forward_forward_pass_drop(pass);
  return succeed();
}
