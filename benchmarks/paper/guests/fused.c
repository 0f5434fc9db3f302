/* fused: the model decodes by itself, what comes together is shown so: `--prompt TEXT --tokens N`. */
#include "context.h"

result_void_string *run(void) {
  arguments all = read_arguments();
  string prompt = take_option(&all, TEXT("--prompt"), TEXT("Once upon a time"));
  uint32_t tokens = take_number(&all, TEXT("--tokens"), 32);
  sampler greedy = {0};
  common_model model = open_model(TEXT(""));
  common_queue queue = common_model_create_queue(model);
  context text = open_context(model, queue, prompt, tokens, greedy);
  text.stops.length = 0;
  if (!generate(&text, tokens)) return fail(text.trouble);
  close_context(&text);
  return succeed();
}
