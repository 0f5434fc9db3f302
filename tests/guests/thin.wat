;; Calls one host function that answers at once and one that waits; answers ok when both are right.
(component
  (import "test:host/calls" (instance $calls
    (export "add" (func (param "a" u32) (param "b" u32) (result u32)))
    (export "later" (func (param "a" u32) (result u32)))))
  (core func $add (canon lower (func $calls "add")))
  (core func $later (canon lower (func $calls "later")))
  (core module $m
    (import "h" "add" (func $add (param i32 i32) (result i32)))
    (import "h" "later" (func $later (param i32) (result i32)))
    (memory (export "memory") 1)
    (data (i32.const 64) "wrong sum")
    (func (export "run") (result i32)
      (if (i32.ne (call $later (call $add (i32.const 2) (i32.const 3))) (i32.const 50))
        (then
          (i32.store (i32.const 16) (i32.const 1))
          (i32.store (i32.const 20) (i32.const 64))
          (i32.store (i32.const 24) (i32.const 9))))
      (i32.const 16)))
  (core instance $i (instantiate $m (with "h" (instance
    (export "add" (func $add)) (export "later" (func $later))))))
  (alias core export $i "memory" (core memory $memory))
  (func $run (result (result (error string)))
    (canon lift (core func $i "run") (memory $memory)))
  (instance $run_interface (export "run" (func $run)))
  (export "inferlet:core/run" (instance $run_interface)))
