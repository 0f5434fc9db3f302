/* helloworld: says where it runs. */
#include "pie.h"

result_void_string *run(void) {
  arguments all = read_arguments();
  if (take_flag(&all, TEXT("--help"))) {
    send(TEXT("helloworld: says which engine and instance it runs in; takes no arguments\n"));
    return succeed();
  }
  if (has_stray_argument(&all)) return &outcome;
  string version, instance;
  runtime_get_version(&version);
  runtime_get_instance_id(&instance);

  string greeting = text_begin();
  text_append(&greeting, TEXT("Hello, world! This is instance "));
  text_append(&greeting, instance);
  text_append(&greeting, TEXT(" of pie-trio "));
  text_append(&greeting, version);
  send(greeting);
  set_return(TEXT("Hello, world!"));
  return succeed();
}
