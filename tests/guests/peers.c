/* Instances that depend on each other: `listen` hears a topic and never reads it, `shout` fills it,
 * `hear` reads so many messages of it and returns them. */
#include "pie.h"

#define TOPIC TEXT("topic")

static message_subscription subscribe(void) {
  message_subscription subscription = message_subscribe(TOPIC.data, TOPIC.length);
  send(TEXT("ready"));
  return subscription;
}

static void listen(void) {
  subscribe();
  wait(message_receive_result_pollable(message_receive()));
}

static void shout(uint32_t times) {
  for (uint32_t i = 0; i < times; i++) {
    string text = text_begin();
    text_append_number(&text, i);
    message_broadcast(TOPIC.data, TOPIC.length, text.data, text.length);
  }
  set_return(TEXT("all was said"));
}

static void hear(uint32_t times) {
  message_subscription subscription = subscribe();
  string heard = TEXT("");
  for (uint32_t i = 0; i < times; i++) {
    option_string message;
    wait(message_subscription_pollable(subscription));
    message_subscription_get(subscription, &message);
    heard = text_join(heard, message.some ? message.value : TEXT("nothing"));
  }
  message_subscription_drop(subscription);
  set_return(heard);
}

result_void_string *run(void) {
  arguments all = read_arguments();
  uint32_t times = take_number(&all, TEXT("--times"), 0);
  if (take_flag(&all, TEXT("listen"))) listen();
  if (take_flag(&all, TEXT("shout"))) shout(times);
  if (take_flag(&all, TEXT("hear"))) hear(times);
  return succeed();
}
