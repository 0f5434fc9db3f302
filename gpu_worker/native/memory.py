"""The pages as the kernels read them.

Owns the memory: keys of a layer as [page, head, dimension, slot], values as [page, head, slot,
dimension]. Memory is taken from the system when a page is first written, and is nought until then.
It must never know who owns a page; the engine does.
"""

import numpy as np

from gpu_worker.models.config import DecoderConfig
from gpu_worker.native.arrays import aligned_zeros

PAGE_SIZE = 16


class PagedMemory:
    """Keys and values in fp32."""

    def __init__(self, config: DecoderConfig, pages: int) -> None:
        heads, width = config.key_heads, config.head_width
        keys = (config.layers, pages, heads, width, PAGE_SIZE)
        values = (config.layers, pages, heads, PAGE_SIZE, width)
        self.keys = aligned_zeros(keys, np.float32)
        self.values = aligned_zeros(values, np.float32)

    def copy_page(self, source: int, target: int) -> None:
        for memory in (self.keys, self.values):
            memory[:, target] = memory[:, source]
