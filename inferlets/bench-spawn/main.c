/* bench-spawn: says that it runs, and ends. What starting and ending a program costs. */
#include "pie.h"

result_void_string *run(void) {
  arguments all = read_arguments();
  bool is_help = take_flag(&all, TEXT("--help"));
  if (has_stray_argument(&all)) return &outcome;
  send(is_help ? TEXT("bench-spawn: sends one message and ends; takes no arguments\n")
               : TEXT("running"));
  return succeed();
}
