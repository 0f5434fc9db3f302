"""The worker: a process of its own that keeps KV pages and executes batches of forward passes."""
