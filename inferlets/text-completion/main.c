/* text-completion: answers one chat prompt, streaming the text as the model writes it. */
#include "context.h"

static const char USAGE[] =
    "text-completion: answers one prompt\n"
    "  --prompt TEXT      what the user asks\n"
    "  --system TEXT      the system message (default: the template's own)\n"
    "  --model NAME       which model answers (default: the first)\n"
    "  --max-tokens N     at most so many tokens (default: 256)\n"
    "  --temperature T    0 is greedy (default: 0)\n"
    "  --top-p P          sample from the most likely P of the mass (default: 1)\n"
    "  --seed N           the same text for the same number (default: by chance)\n"
    "  --repetition-penalty R   logits of tokens of the text are divided by it (default: 1)\n"
    "  --frequency-penalty F    subtracted as often as the token was written (default: 0)\n"
    "  --presence-penalty P     subtracted once if the token was written (default: 0)\n";

static result_void_string *complete(common_model model, string system, string prompt,
                                    uint32_t tokens_max, sampler how) {
  common_queue queue = common_model_create_queue(model);
  string chat = render_chat(queue, system, prompt);
  if (text_starts_with(chat, TEXT("error: "))) return fail(chat);
  context text = open_context(model, queue, chat, tokens_max, how);
  if (!text.input.length) return fail(TEXT("the prompt has no tokens"));
  if (!generate(&text, tokens_max)) return fail(text.trouble);
  close_context(&text);
  set_return(written_text(&text, 0, text.count));
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
  uint32_t seed = take_number(&all, TEXT("--seed"), UINT32_MAX);
  sampler how = {
      .temperature = take_decimal(&all, TEXT("--temperature"), 0, 1e9f).value,
      .top_p = take_decimal(&all, TEXT("--top-p"), 1e-6f, 1),
      .seed = {seed != UINT32_MAX, seed},
      .repetition_penalty = take_decimal(&all, TEXT("--repetition-penalty"), 0.01f, 100),
      .frequency_penalty = take_decimal(&all, TEXT("--frequency-penalty"), -100, 100),
      .presence_penalty = take_decimal(&all, TEXT("--presence-penalty"), -100, 100)};
  if (has_stray_argument(&all)) return &outcome;
  if (!prompt.length) return fail(TEXT("--prompt is missing, see --help"));
  if (tokens_max > 1000000) return fail(TEXT("--max-tokens is at most 1000000"));
  common_model model = open_model(name);
  if (model < 0) return fail(text_join(TEXT("there is no such model: "), name));
  return complete(model, system, prompt, tokens_max, how);
}
