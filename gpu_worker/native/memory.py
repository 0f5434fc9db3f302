"""The pages as the kernels read them, and attention over them.

Owns the memory: keys of a layer as [page, head, dimension, slot], values as [page, head, slot,
dimension]. Memory is taken from the system when a page is first written, and is nought until then.
It must never know who owns a page; the engine does.
"""

import numpy as np
import torch

from gpu_worker.kernels import Attend
from gpu_worker.models.config import DecoderConfig
from gpu_worker.native.library import Library
from gpu_worker.native.plan import make_plan
from gpu_worker.wire import BatchArrays


class PagedMemory:
    """Keys and values in fp32."""

    def __init__(self, library: Library, config: DecoderConfig, pages: int, page_size: int) -> None:
        heads, width = config.key_heads, config.head_width
        keys = (config.layers, pages, heads, width, page_size)
        values = (config.layers, pages, heads, page_size, width)
        # numpy asks the system for empty pages; torch.zeros would touch them all.
        self.keys = torch.from_numpy(np.zeros(keys, dtype=np.float32))
        self.values = torch.from_numpy(np.zeros(values, dtype=np.float32))
        self._library, self._config, self._page_size = library, config, page_size

    def copy_page(self, source: int, target: int) -> None:
        for memory in (self.keys, self.values):
            memory[:, target] = memory[:, source]

    def attention(self, batch: BatchArrays, requests: list[int], angles: torch.Tensor) -> Attend:
        config, library = self._config, self._library
        heads, key_heads, width = config.heads, config.key_heads, config.head_width
        plan = make_plan(batch, requests, self._page_size, heads // key_heads)
        cosine, sine = angles.cos(), angles.sin()
        scale = width**-0.5

        def attend_layer(layer: int, joined: torch.Tensor) -> torch.Tensor:
            rows, stride = joined.shape
            keys, values = self.keys[layer].data_ptr(), self.values[layer].data_ptr()
            library.append_call(
                *(joined.data_ptr(), rows, heads, key_heads, width),
                *(cosine.data_ptr(), sine.data_ptr(), plan.places.ctypes.data),
                *(keys, values, self._page_size),
            )
            result = torch.empty(rows, heads * width)
            library.attend_call(
                *(joined.data_ptr(), stride, keys, values, result.data_ptr()),
                *(heads, key_heads, width, scale, plan.tiles.ctypes.data, len(plan.tiles)),
                *(plan.pages.ctypes.data, plan.interval_indptr.ctypes.data),
                plan.intervals.ctypes.data,
            )
            return result

        return attend_layer
