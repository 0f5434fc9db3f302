"""The arithmetic in plain torch: the reference, and what a machine without a C compiler runs.

Owns nothing but the putting together of `attention`, `models.rope`, `models.linear` and `kv_cache`.
It must never need anything that torch does not bring.
"""

import torch
import torch.nn.functional as F

from gpu_worker.attention.gathered import attend
from gpu_worker.attention.plan import make_plan
from gpu_worker.kernels import Attend, Linear
from gpu_worker.kv_cache import KvCache
from gpu_worker.models.config import DecoderConfig
from gpu_worker.models.linear import WideLinear
from gpu_worker.models.rope import rotate
from gpu_worker.wire import BatchArrays


class TorchMemory(KvCache):
    """Pages whose slots lie one after the other."""

    def __init__(self, config: DecoderConfig, pages: int, page_size: int) -> None:
        super().__init__(config.layers, pages, page_size, config.key_heads, config.head_width)
        self._config = config

    def attention(self, batch: BatchArrays, requests: list[int], angles: torch.Tensor) -> Attend:
        plan = make_plan(batch, requests, self.page_size)
        heads, key_heads, width = (
            self._config.heads,
            self._config.key_heads,
            self._config.head_width,
        )
        both = torch.cat((angles, angles), dim=-1)[:, None]
        cosine, sine = both.cos(), both.sin()

        def attend_layer(layer: int, joined: torch.Tensor) -> torch.Tensor:
            parts = joined.view(len(joined), -1, width)
            queries, keys, values = parts.tensor_split((heads, heads + key_heads), 1)
            self.append(layer, plan.appends, rotate(keys, cosine, sine), values)
            return attend(self, layer, rotate(queries, cosine, sine), plan).flatten(1)

        return attend_layer


class TorchKernels:
    """Stateless."""

    name = "torch"

    def memory(self, config: DecoderConfig, pages: int, page_size: int) -> TorchMemory:
        return TorchMemory(config, pages, page_size)

    def linear(self, weight: torch.Tensor, bias: torch.Tensor | None) -> Linear:
        return WideLinear(weight.to(torch.float32), bias)

    def add_norm(
        self,
        hidden: torch.Tensor,
        change: torch.Tensor | None,
        weight: torch.Tensor,
        epsilon: float,
    ) -> torch.Tensor:
        if change is not None:
            hidden += change
        return F.rms_norm(hidden, weight.shape, weight, epsilon)

    def gated(self, joined: torch.Tensor) -> torch.Tensor:
        gate, up = joined.chunk(2, dim=-1)
        return F.silu(gate) * up
