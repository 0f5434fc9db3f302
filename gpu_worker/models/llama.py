"""A decoder of the Llama family (Llama, Mistral, Qwen2), computed in fp32.

Owns the layers. In each one, every row of the batch is appended to the cache before any row
attends, so a later request of a batch may read what an earlier one wrote.
It must never run the output head for rows that nobody asked for.
"""

import attrs
import torch
import torch.nn.functional as F

from gpu_worker.attention.gathered import attend
from gpu_worker.attention.plan import Plan
from gpu_worker.kv_cache import KvCache
from gpu_worker.models.config import DecoderConfig
from gpu_worker.models.linear import Linear
from gpu_worker.models.rope import frequencies, rotate, rotation
from gpu_worker.weights import Weights


@attrs.frozen(eq=False)
class _Layer:
    attention_norm: torch.Tensor
    query_key_value: Linear
    attention_output: Linear
    feed_norm: torch.Tensor
    gate_up: Linear
    down: Linear


class Llama:
    """One decoder and its packed weights."""

    def __init__(self, config: DecoderConfig, weights: Weights) -> None:
        self.config = config
        self._embedding = weights.stored("model.embed_tokens.weight")
        self._layers = [_load_layer(weights, number) for number in range(config.layers)]
        self._norm = weights.wide("model.norm.weight")
        head = "model.embed_tokens.weight" if config.tied else "lm_head.weight"
        self._head = Linear(weights.wide(head))
        self._frequencies = frequencies(config.rope, config.head_width)

    def embed(self, tokens: torch.Tensor) -> torch.Tensor:
        return self._embedding[tokens].to(torch.float32)

    def forward(
        self, hidden: torch.Tensor, positions: torch.Tensor, plan: Plan, cache: KvCache
    ) -> torch.Tensor:
        """The final hidden rows, normed."""
        turn = rotation(self._frequencies, positions)
        for number, layer in enumerate(self._layers):
            hidden = hidden + self._attend(
                layer, number, self._normed(hidden, layer), turn, plan, cache
            )
            hidden = hidden + _feed(layer, _rms_norm(hidden, layer.feed_norm, self.config.epsilon))
        return _rms_norm(hidden, self._norm, self.config.epsilon)

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        return self._head(hidden)

    def _normed(self, hidden: torch.Tensor, layer: _Layer) -> torch.Tensor:
        return _rms_norm(hidden, layer.attention_norm, self.config.epsilon)

    def _attend(
        self,
        layer: _Layer,
        number: int,
        rows: torch.Tensor,
        turn: tuple[torch.Tensor, torch.Tensor],
        plan: Plan,
        cache: KvCache,
    ) -> torch.Tensor:
        config = self.config
        joined = layer.query_key_value(rows).view(len(rows), -1, config.head_width)
        query, key, values = joined.tensor_split((config.heads, config.heads + config.key_heads), 1)
        queries = rotate(query, *turn)
        keys = rotate(key, *turn)
        cache.append(number, plan.appends, keys, values)
        attended = attend(cache, number, queries, plan)
        return layer.attention_output(attended.flatten(1))


def _feed(layer: _Layer, rows: torch.Tensor) -> torch.Tensor:
    gate, up = layer.gate_up(rows).chunk(2, dim=-1)
    return layer.down(F.silu(gate) * up)


def _rms_norm(rows: torch.Tensor, weight: torch.Tensor, epsilon: float) -> torch.Tensor:
    return F.rms_norm(rows, weight.shape, weight, epsilon)


def _load_layer(weights: Weights, number: int) -> _Layer:
    prefix = f"model.layers.{number}."

    def linear(*names: str) -> Linear:
        """Several layers that read the same rows become one product."""
        joined = torch.cat([weights.wide(f"{prefix}{name}.weight") for name in names])
        biases = [weights.wide_or_none(f"{prefix}{name}.bias") for name in names]
        there = [bias for bias in biases if bias is not None]
        if there and len(there) != len(names):
            raise ValueError(f"layer {number} has a bias on some of {names} only")
        return Linear(joined, torch.cat(there) if there else None)

    return _Layer(
        attention_norm=weights.wide(f"{prefix}input_layernorm.weight"),
        query_key_value=linear("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
        attention_output=linear("self_attn.o_proj"),
        feed_norm=weights.wide(f"{prefix}post_attention_layernorm.weight"),
        gate_up=linear("mlp.gate_proj", "mlp.up_proj"),
        down=linear("mlp.down_proj"),
    )
