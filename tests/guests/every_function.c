/* Calls every function of the inferlet interfaces once and checks what comes back.
 *
 * With an argument that names a function that is not served yet, it calls that one instead. */
#include "pie.h"

#define NAME(text) (text).data, (text).length
#define SAME(value, literal) text_equal(value, TEXT(literal))
#define COUNT(array) (sizeof(array) / sizeof *(array))
#define CHECK(sentence, holds) \
  if (!(holds)) return TEXT(sentence)

static const string FINE = {0, 0};

static string check_blobs(void) {
  uint8_t bytes[] = {1, 2, 3, 4};
  list_uint8 read;
  common_blob blob = common_blob_new(bytes, sizeof bytes);
  CHECK("a blob has another size", common_blob_size(blob) == 4);
  common_blob_read(blob, 1, 99, &read);
  CHECK("a blob reads as other bytes", read.length == 3 && read.data[0] == 2 && read.data[2] == 4);
  message_send_blob(blob);
  return FINE;
}

static string check_model(common_model model) {
  string text;
  list_string texts;
  common_model_get_name(model, &text);
  CHECK("the model has another name", SAME(text, "pretend"));
  common_model_get_traits(model, &texts);
  CHECK("the model has no traits", texts.length);
  common_model_get_description(model, &text);
  CHECK("the model has no description", text.length);
  common_model_get_prompt_template(model, &text);
  CHECK("the model has no template", text.length);
  common_model_get_stop_tokens(model, &texts);
  CHECK("the model has no stop tokens", texts.length);
  CHECK("the model has another service", common_model_get_service_id(model) == 0);
  CHECK("the model has other pages", common_model_get_kv_page_size(model) == 16);
  return FINE;
}

static string check_runtime(void) {
  string text, trait = TEXT("nonsense");
  list_string texts;
  option_common_model model;
  runtime_get_version(&text);
  CHECK("there is no version", text.length);
  runtime_get_instance_id(&text);
  CHECK("the instance has no id", text.length == 36);
  runtime_get_all_models(&texts);
  CHECK("there are other models", texts.length == 1 && SAME(texts.data[0], "pretend"));
  runtime_get_all_models_with_traits(&trait, 1, &texts);
  CHECK("traits do not filter", texts.length == 0);
  runtime_get_model(NAME(TEXT("nobody")), &model);
  CHECK("nobody is a model", !model.some);
  text = await_answer(runtime_debug_query(NAME(TEXT("ping"))));
  CHECK("the runtime does not answer", SAME(text, "pong"));
  return FINE;
}

static string check_tokenizer(common_model model) {
  list_uint32 tokens;
  tuple_list_uint32_list_list_uint8 vocabulary;
  string text;
  tokenize_tokenizer tokenizer = tokenize_get_tokenizer(model);
  tokenize_tokenizer_tokenize(tokenizer, NAME(TEXT("Grüße")), &tokens);
  CHECK("a text has no tokens", tokens.length);
  tokenize_tokenizer_detokenize(tokenizer, tokens.data, tokens.length, &text);
  CHECK("tokens spell another text", SAME(text, "Grüße"));
  tokenize_tokenizer_get_vocabs(tokenizer, &vocabulary);
  CHECK("the vocabulary is torn",
        vocabulary.f0.length > 255 && vocabulary.f0.length == vocabulary.f1.length);
  for (uint32_t i = 1; i < vocabulary.f0.length; i++)
    CHECK("the vocabulary is not in order", vocabulary.f0.data[i - 1] < vocabulary.f0.data[i]);
  tokenize_tokenizer_drop(tokenizer);
  return FINE;
}

static string check_keys(void) {
  option_string value;
  list_string keys;
  kvs_store_set(NAME(TEXT("key")), NAME(TEXT("value")));
  kvs_store_get(NAME(TEXT("key")), &value);
  CHECK("a key has another value", value.some && SAME(value.value, "value"));
  kvs_store_list_keys(&keys);
  CHECK("there are other keys", keys.length == 1 && SAME(keys.data[0], "key"));
  CHECK("a key does not exist", kvs_store_exists(NAME(TEXT("key"))));
  kvs_store_delete(NAME(TEXT("key")));
  kvs_store_get(NAME(TEXT("key")), &value);
  CHECK("a deleted key has a value", !value.some);
  return FINE;
}

static string check_topics(void) {
  option_string message;
  message_subscription late, early = message_subscribe(NAME(TEXT("topic")));
  message_broadcast(NAME(TEXT("topic")), NAME(TEXT("first")));
  late = message_subscribe(NAME(TEXT("topic")));
  message_broadcast(NAME(TEXT("topic")), NAME(TEXT("second")));
  wait(message_subscription_pollable(early));
  message_subscription_get(early, &message);
  CHECK("the first message is another", message.some && SAME(message.value, "first"));
  message_subscription_get(early, &message);
  CHECK("the second message is another", message.some && SAME(message.value, "second"));
  message_subscription_get(late, &message);
  CHECK("a late reader hears another", message.some && SAME(message.value, "second"));
  message_subscription_get(early, &message);
  CHECK("a message came twice", !message.some);
  message_subscription_unsubscribe(early);
  message_subscription_drop(early);
  message_subscription_drop(late);
  return FINE;
}

/* Sends one message, then waits for one and a blob of the client. */
static string check_client(void) {
  option_string text;
  option_common_blob blob;
  message_receive_result received = message_receive();
  common_blob_result received_blob = message_receive_blob();
  message_receive_result_get(received, &text);
  CHECK("a message came before it was sent", !text.some);
  send(TEXT("ready"));
  wait(message_receive_result_pollable(received));
  message_receive_result_get(received, &text);
  CHECK("the client's message is another", text.some && SAME(text.value, "from the client"));
  wait(common_blob_result_pollable(received_blob));
  common_blob_result_get(received_blob, &blob);
  CHECK("the client's blob is another", blob.some && common_blob_size(blob.value) == 3);
  common_blob_drop(blob.value);
  common_blob_result_drop(received_blob);
  message_receive_result_drop(received);
  return FINE;
}

static string check_queue(common_queue queue) {
  option_bool passed;
  string answer;
  common_queue_set_priority(queue, COMMON_PRIORITY_HIGH);
  CHECK("the queue has another service", common_queue_get_service_id(queue) == 0);
  answer = await_answer(common_queue_debug_query(queue, NAME(TEXT("ping"))));
  CHECK("the worker does not answer", SAME(answer, "pong"));
  common_synchronization_result barrier = common_queue_synchronize(queue);
  wait(common_synchronization_result_pollable(barrier));
  common_synchronization_result_get(barrier, &passed);
  CHECK("the barrier failed", passed.some && passed.value);
  common_synchronization_result_drop(barrier);
  return FINE;
}

static string check_exports(common_queue queue) {
  list_uint32 pages, imported;
  list_tuple_string_uint32 exports;
  common_allocate_resources(queue, KV_PAGE, 2, &pages);
  CHECK("other pages were granted", pages.length == 2);
  common_export_resources(queue, KV_PAGE, pages.data, 2, NAME(TEXT("shared")));
  common_get_all_exported_resources(queue, KV_PAGE, &exports);
  CHECK("the export is not listed", exports.length == 1 && exports.data[0].f1 == 2 &&
                                        SAME(exports.data[0].f0, "shared"));
  common_import_resources(queue, KV_PAGE, NAME(TEXT("shared")), &imported);
  CHECK("other pages were imported", imported.length == 2);
  common_release_exported_resources(queue, KV_PAGE, NAME(TEXT("shared")));
  common_get_all_exported_resources(queue, KV_PAGE, &exports);
  CHECK("a released export is listed", exports.length == 0);
  common_deallocate_resources(queue, KV_PAGE, imported.data, 2);
  return FINE;
}

/* One pass with every input, every output and a mask; `page` and `embedding` are the guest's. */
static void describe(forward_forward_pass pass, const uint32_t *page, const uint32_t *embedding) {
  uint32_t tokens[] = {72, 105}, positions[] = {0, 1, 2}, last[] = {2}, first[] = {0};
  uint32_t row_runs[3][3] = {{1}, {1, 0, 1}, {1, 1, 1}};
  list_uint32 mask[] = {{row_runs[0], 1}, {row_runs[1], 3}, {row_runs[2], 3}};
  forward_kv_cache(pass, page, 1, 3);
  forward_input_tokens(pass, tokens, 2, positions, 2);
  forward_input_embeddings(pass, embedding, 1, positions + 2, 1);
  forward_attention_mask(pass, mask, COUNT(mask));
  forward_output_distributions(pass, last, 1, 1.0f, true, 4);
  forward_output_distributions(pass, first, 1, 1.0f, false, 0);
  forward_output_tokens(pass, last, 1, 0.0f);
  forward_output_tokens_top_k(pass, last, 1, 0.0f, 5);
  forward_output_tokens_top_p(pass, last, 1, 0.0f, 0.5f);
  forward_output_tokens_min_p(pass, last, 1, 0.0f, 0.1f);
  forward_output_tokens_top_k_top_p(pass, last, 1, 0.0f, 5, 0.5f);
}

/* Writes the embedding; nothing is asked for, so there is no result. */
static bool write_embedding(common_queue queue, const uint32_t *page, const uint32_t *embedding) {
  uint32_t token[] = {65}, nought[] = {0};
  option_forward_forward_pass_result none;
  forward_forward_pass pass = forward_create_forward_pass(queue);
  forward_kv_cache(pass, page, 1, 1);
  forward_input_tokens(pass, token, 1, nought, 1);
  forward_output_embeddings(pass, embedding, 1, nought, 1);
  forward_forward_pass_execute(pass, &none);
  forward_forward_pass_drop(pass);
  return !none.some;
}

static string check_forward(common_queue queue) {
  list_uint32 page, embedding;
  option_forward_forward_pass_result result;
  option_list_tuple_list_uint32_list_float heads;
  option_list_uint32 tokens;
  common_allocate_resources(queue, KV_PAGE, 1, &page);
  common_allocate_resources(queue, 1, 1, &embedding);
  CHECK("a pass without outputs has a result",
        write_embedding(queue, page.data, embedding.data));
  forward_forward_pass pass = forward_create_forward_pass(queue);
  describe(pass, page.data, embedding.data);
  forward_forward_pass_execute(pass, &result);
  CHECK("a pass has no result", result.some);
  wait(forward_forward_pass_result_pollable(result.value));
  forward_forward_pass_result_get_distributions(result.value, &heads);
  CHECK("there are other distributions", heads.some && heads.value.length == 2);
  tuple_list_uint32_list_float head = heads.value.data[0];
  CHECK("a distribution has another size", head.f0.length == 4 && head.f1.length == 4);
  CHECK("a distribution does not fall", head.f1.data[0] >= head.f1.data[3]);
  CHECK("the usual distribution is not of 32", heads.value.data[1].f0.length == 32);
  forward_forward_pass_result_get_tokens(result.value, &tokens);
  CHECK("there are other tokens", tokens.some && tokens.value.length == 5);
  for (uint32_t i = 1; i < 5; i++)
    CHECK("greedy samplers differ", tokens.value.data[i] == tokens.value.data[0]);
  forward_forward_pass_result_get_tokens(result.value, &tokens);
  CHECK("tokens came twice", tokens.some && tokens.value.length == 0);
  forward_forward_pass_result_drop(result.value);
  forward_forward_pass_drop(pass);
  return FINE;
}

static void call_unserved(string function, common_queue queue) {
  uint32_t pointer = 0;
  int64_t seed = 1;
  float score = 0.5f;
  uint8_t byte = 7;
  forward_forward_pass pass = forward_create_forward_pass(queue);
  if (SAME(function, "set-adapter")) adapter_common_set_adapter(pass, 0);
  if (SAME(function, "download-adapter")) adapter_common_download_adapter(queue, 0, "a", 1);
  if (SAME(function, "upload-adapter"))
    adapter_common_upload_adapter(queue, 0, "a", 1, common_blob_new(&byte, 1));
  if (SAME(function, "embed-image")) image_embed_image(queue, &pointer, 1, &byte, 1, 0);
  if (SAME(function, "calculate-embed-size")) image_calculate_embed_size(queue, 1, 1);
  if (SAME(function, "set-adapter-seed")) evolve_set_adapter_seed(pass, seed);
  if (SAME(function, "initialize-adapter"))
    evolve_initialize_adapter(queue, 0, 8, 16.0f, 4, 0.5f, 0.1f);
  if (SAME(function, "update-adapter"))
    evolve_update_adapter(queue, 0, &score, 1, &seed, 1, 0.1f);
}

static string check_everything(common_model model, common_queue queue) {
  string wrong = check_blobs();
  if (!wrong.length) wrong = check_model(model);
  if (!wrong.length) wrong = check_runtime();
  if (!wrong.length) wrong = check_tokenizer(model);
  if (!wrong.length) wrong = check_keys();
  if (!wrong.length) wrong = check_topics();
  if (!wrong.length) wrong = check_queue(queue);
  if (!wrong.length) wrong = check_exports(queue);
  if (!wrong.length) wrong = check_forward(queue);
  if (!wrong.length) wrong = check_client();
  return wrong;
}

result_void_string *run(void) {
  arguments all = read_arguments();
  common_model model = open_model(FINE);
  common_queue queue = common_model_create_queue(model);
  if (all.length) {
    call_unserved(all.data[0], queue);
    return fail(TEXT("it was served"));
  }
  string wrong = check_everything(model, queue);
  if (wrong.length) return fail(wrong);
  set_return(TEXT("all is well"));
  return succeed();
}
