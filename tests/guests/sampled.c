/* sampled: the pieces of a sampler that flags do not reach: `TOKEN TOKEN` are banned by biases. */
#include "context.h"

result_void_string *run(void) {
  arguments all = read_arguments();
  sampler how = {.temperature = 1, .seed = {true, 7}, .min_p = {true, 0.001f}};
  for (uint32_t i = 0; i < all.length; i++)
    add_bias(&how, (uint32_t)read_decimal(all.data[i]).value, -1000);
  common_model model = open_model(TEXT(""));
  common_queue queue = common_model_create_queue(model);
  context text = open_context(model, queue, TEXT("some words"), 100, how);
  text.stops.length = 0;
  if (!generate(&text, 100)) return fail(text.trouble);
  set_return(written_text(&text, 0, text.count));
  close_context(&text);
  return succeed();
}
