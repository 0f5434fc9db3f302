/* bench-spawn: says that it runs, and ends. What starting and ending a program costs. */
#include "pie.h"

result_void_string *run(void) {
  arguments all = read_arguments();
  if (take_flag(&all, TEXT("--help")))
    send(TEXT("bench-spawn: sends one message and ends; takes no arguments\n"));
  else
    send(TEXT("running"));
  return succeed();
}
