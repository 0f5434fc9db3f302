/* kvs: checks the key-value store against what it promises, on keys of this instance alone. */
#include "pie.h"

static string key_of_instance(string suffix) {
  string instance;
  runtime_get_instance_id(&instance);
  return text_join(text_join(TEXT("kvs-check-"), instance), suffix);
}

static void put(string key, string value) {
  kvs_store_set(key.data, key.length, value.data, value.length);
}

static bool holds(string key, string value) {
  option_string found;
  kvs_store_get(key.data, key.length, &found);
  return found.some && text_equal(found.value, value);
}

static bool is_missing(string key) {
  option_string found;
  kvs_store_get(key.data, key.length, &found);
  return !found.some && !kvs_store_exists(key.data, key.length);
}

static bool is_listed(string key) {
  list_string keys;
  kvs_store_list_keys(&keys);
  for (uint32_t i = 0; i < keys.length; i++)
    if (text_equal(keys.data[i], key)) return true;
  return false;
}

/* What is wrong with the store, or a text without data. */
static string check(string key) {
  if (!is_missing(key) || is_listed(key)) return TEXT("a key is there before it was set");
  put(key, TEXT("first"));
  if (!holds(key, TEXT("first"))) return TEXT("what was set is not what is read");
  put(key, TEXT("second, with \xc3\xbcml\xc3\xa4uts"));
  if (!holds(key, TEXT("second, with \xc3\xbcml\xc3\xa4uts"))) return TEXT("a value is not replaced");
  if (!kvs_store_exists(key.data, key.length)) return TEXT("a key that was set does not exist");
  if (!is_listed(key)) return TEXT("a key that was set is not listed");
  kvs_store_delete(key.data, key.length);
  if (!is_missing(key) || is_listed(key)) return TEXT("a deleted key is still there");
  kvs_store_delete(key.data, key.length);
  put(key, TEXT(""));
  if (!holds(key, TEXT(""))) return TEXT("an empty value is not kept");
  kvs_store_delete(key.data, key.length);
  return (string){0, 0};
}

result_void_string *run(void) {
  arguments all = read_arguments();
  if (take_flag(&all, TEXT("--help"))) {
    send(TEXT("kvs: checks the key-value store; takes no arguments\n"));
    return succeed();
  }
  if (has_stray_argument(&all)) return &outcome;
  string complaint = check(key_of_instance(TEXT("-key")));
  if (complaint.data) return fail(complaint);
  send(TEXT("the key-value store keeps its promises"));
  set_return(TEXT("ok"));
  return succeed();
}
