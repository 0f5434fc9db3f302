"""The pages: keys and values of every layer, addressed by page number.

Owns the memory. Each layer's keys and values lie as [page, slot, head, dimension], so that the flat
index page * page_size + slot addresses a token. Memory is taken from the system when a page is
first written, and is nought until then: reading a page that nobody wrote gives numbers, never NaN.
It must never know who owns a page; the engine does.
"""

from pathlib import Path

import numpy as np
import torch

from gpu_worker.wire import WorkerLimits

FREE_SHARE = 4  # a worker takes at most one part in so many of the free memory
BYTES_PER_VALUE = 4


class KvCache:
    """Keys and values in fp32."""

    def __init__(self, layers: int, pages: int, page_size: int, heads: int, width: int) -> None:
        self.pages, self.page_size = pages, page_size
        shape = (layers, pages * page_size, heads, width)
        # numpy asks the system for empty pages; torch.zeros would touch them all.
        self.keys = torch.from_numpy(np.zeros(shape, dtype=np.float32))
        self.values = torch.from_numpy(np.zeros(shape, dtype=np.float32))

    def append(
        self, layer: int, places: torch.Tensor, keys: torch.Tensor, values: torch.Tensor
    ) -> None:
        self.keys[layer].index_copy_(0, places, keys)
        self.values[layer].index_copy_(0, places, values)

    def copy_page(self, source: int, target: int) -> None:
        for memory in (self.keys, self.values):
            paged = memory.view(memory.shape[0], self.pages, self.page_size, *memory.shape[2:])
            paged[:, target] = paged[:, source]


def pages_within(limits: WorkerLimits, layers: int, heads: int, width: int) -> int:
    """As many pages as the limits name, else as many as fit in the memory that may be taken."""
    if limits.pages_max is not None:
        return limits.pages_max
    page_bytes = 2 * layers * limits.page_size * heads * width * BYTES_PER_VALUE
    memory = min(limits.kv_bytes_max, free_memory_bytes() // FREE_SHARE)
    if memory < page_bytes:
        raise MemoryError(f"{memory} bytes are not enough for one page of {page_bytes}")
    return memory // page_bytes


def free_memory_bytes() -> int:
    for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    raise OSError("the system does not tell how much memory is available")
