"""The pages for plain torch: keys and values of every layer, addressed by page number.

Owns the memory. Each layer's keys and values lie as [page, slot, head, dimension], so that the flat
index page * page_size + slot addresses a token. Memory is taken from the system when a page is
first written, and is nought until then: reading a page that nobody wrote gives numbers, never NaN.
It must never know who owns a page; the engine does.
"""

import numpy as np
import torch


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
