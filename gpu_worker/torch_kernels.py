"""The arithmetic in plain torch: the reference, and what a machine without a C compiler runs.

Owns the layers, one call after the other. In each one, every row of the batch is appended to the
cache before any row attends, so a later request of a batch may read what an earlier one wrote.
Arrays come and go as numpy's; nobody else knows of tensors. It must never need anything that torch
does not bring.
"""

import warnings

import attrs
import numpy as np
import torch
import torch.nn.functional as F

from gpu_worker.attention.gathered import attend
from gpu_worker.attention.plan import Plan, make_plan
from gpu_worker.bf16 import Wide
from gpu_worker.kernels import LayerParameters, Parameter, Parameters, Step
from gpu_worker.kv_cache import KvCache
from gpu_worker.models.config import DecoderConfig
from gpu_worker.models.eight_bits import EightBitLinear
from gpu_worker.models.linear import WideLinear
from gpu_worker.models.turns import angles, rotate
from gpu_worker.wire.arrays import Array

Linear = EightBitLinear | WideLinear


@attrs.frozen(eq=False)
class _Layer:
    attention_norm: torch.Tensor
    query_key_value: Linear
    attended: Linear
    feed_norm: torch.Tensor
    gate_up: Linear
    down: Linear

    @classmethod
    def pack(cls, stored: LayerParameters, numeric: str) -> "_Layer":
        return cls(
            tensor_of(stored.attention_norm),
            _packed(stored.query_key_value, numeric),
            _packed(stored.attended, numeric),
            tensor_of(stored.feed_norm),
            _packed(stored.gate_up, numeric),
            _packed(stored.down, numeric),
        )


@attrs.frozen(eq=False)
class _Turns:
    """The cosine and sine of each pair of dimensions of a row, for all heads alike."""

    cosine: torch.Tensor
    sine: torch.Tensor

    def apply(self, rows: torch.Tensor) -> torch.Tensor:
        return rotate(rows, self.cosine, self.sine)


class TorchDecoder:
    """One model over pages whose slots lie one after the other."""

    def __init__(
        self,
        config: DecoderConfig,
        parameters: Parameters,
        pages: int,
        page_size: int,
        numeric: str = "bf16",
    ) -> None:
        self._config, self._page_size = config, page_size
        self.memory = KvCache(config.layers, pages, page_size, config.key_heads, config.head_width)
        self._embedding = tensor_of(parameters.embedding)
        self._frequencies = tensor_of(parameters.frequencies)
        self._layers = [_Layer.pack(layer, numeric) for layer in parameters.layers]
        self._norm = tensor_of(parameters.norm)
        self._head = _packed(parameters.head, numeric)

    @torch.inference_mode()
    def forward(self, step: Step) -> Wide:
        hidden = self._embed(step)
        plan = make_plan(step.batch, step.requests.tolist(), self._page_size)
        turns = self._turns(step.batch.positions[step.rows])
        for number, layer in enumerate(self._layers):
            joined = layer.query_key_value(self._normed(hidden, layer.attention_norm))
            hidden += layer.attended(self._attend(number, joined, plan, turns))
            gate, up = layer.gate_up(self._normed(hidden, layer.feed_norm)).chunk(2, dim=-1)
            hidden += layer.down(F.silu(gate) * up)
        normed: Wide = self._normed(hidden, self._norm).numpy()
        return normed

    def best_after(self, step: Step) -> tuple[Array, Array]:
        return self.best(self.forward(step))

    @torch.inference_mode()
    def logits(self, hidden: Wide) -> Wide:
        logits: Wide = self._head(torch.from_numpy(hidden)).numpy()
        return logits

    def best(self, hidden: Wide) -> tuple[Array, Array]:
        logits = self.logits(hidden)
        return logits.argmax(axis=-1), np.asarray(np.isfinite(logits).all(axis=-1))

    def _embed(self, step: Step) -> torch.Tensor:
        tokens = torch.from_numpy(step.batch.tokens[step.rows].astype(np.int64))
        hidden = self._embedding[tokens.clamp_min(0)].to(torch.float32)
        given = tokens < 0
        if bool(given.any()):
            hidden[given] = torch.from_numpy(step.slots)[-1 - tokens[given]]
        return hidden

    def _turns(self, positions: Array) -> _Turns:
        turned = angles(self._frequencies, torch.from_numpy(positions.astype(np.int64)))
        both = torch.cat((turned, turned), dim=-1)[:, None]
        return _Turns(both.cos(), both.sin())

    def _attend(self, layer: int, joined: torch.Tensor, plan: Plan, turns: _Turns) -> torch.Tensor:
        heads, key_heads = self._config.heads, self._config.key_heads
        parts = joined.view(len(joined), -1, self._config.head_width)
        queries, keys, values = parts.tensor_split((heads, heads + key_heads), 1)
        self.memory.append(layer, plan.appends, turns.apply(keys), values)
        return attend(self.memory, layer, turns.apply(queries), plan).flatten(1)

    def _normed(self, hidden: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return F.rms_norm(hidden, weight.shape, weight, self._config.epsilon)


def _packed(parameter: Parameter, numeric: str) -> Linear:
    weight = tensor_of(parameter.weight)
    bias = None if parameter.bias is None else tensor_of(parameter.bias)
    if numeric == "int8":
        return EightBitLinear(weight, bias)
    return WideLinear(weight.to(torch.float32), bias)


def tensor_of(array: Array) -> torch.Tensor:
    """Over the same memory, which may be that of a file; words of 16 bits are bf16."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of a file: nobody writes to it
        if array.dtype == np.uint16:
            return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
        return torch.from_numpy(array)


class TorchKernels:
    """Stateless."""

    name = "torch"

    def __init__(self, numeric: str = "bf16") -> None:
        self._numeric = numeric

    def decoder(
        self, config: DecoderConfig, parameters: Parameters, pages: int, page_size: int
    ) -> TorchDecoder:
        return TorchDecoder(config, parameters, pages, page_size, self._numeric)
