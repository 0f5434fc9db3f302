"""A decoder of the Llama family (Llama, Mistral, Qwen2), computed in fp32.

Owns the layers. In each one, every row of the batch is appended to the cache before any row
attends, so a later request of a batch may read what an earlier one wrote.
It must never run the output head for rows that nobody asked for, nor know how its kernels work.
"""

import attrs
import torch

from gpu_worker.kernels import Attend, Kernels, Linear
from gpu_worker.models.config import DecoderConfig
from gpu_worker.models.rope import angles, frequencies
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

    def __init__(self, config: DecoderConfig, weights: Weights, kernels: Kernels) -> None:
        self.config = config
        self.kernels = kernels
        self._embedding = weights.stored("model.embed_tokens.weight")
        self._layers = [_load_layer(weights, kernels, number) for number in range(config.layers)]
        self._norm = weights.wide("model.norm.weight")
        head = "model.embed_tokens.weight" if config.tied else "lm_head.weight"
        self._head = kernels.linear(weights.stored(head), None)
        self._frequencies = frequencies(config.rope, config.head_width)

    def embed(self, tokens: torch.Tensor) -> torch.Tensor:
        return self._embedding[tokens].to(torch.float32)

    def angles(self, positions: torch.Tensor) -> torch.Tensor:
        return angles(self._frequencies, positions)

    def forward(self, hidden: torch.Tensor, attend: Attend) -> torch.Tensor:
        """The final hidden rows, normed. The rows that are given are used up."""
        change: torch.Tensor | None = None
        for number, layer in enumerate(self._layers):
            joined = layer.query_key_value(self._add_norm(hidden, change, layer.attention_norm))
            change = layer.attention_output(attend(number, joined))
            joined = layer.gate_up(self._add_norm(hidden, change, layer.feed_norm))
            change = layer.down(self.kernels.gated(joined))
        return self._add_norm(hidden, change, self._norm)

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        return self._head(hidden)

    def _add_norm(
        self, hidden: torch.Tensor, change: torch.Tensor | None, weight: torch.Tensor
    ) -> torch.Tensor:
        return self.kernels.add_norm(hidden, change, weight, self.config.epsilon)


def _load_layer(weights: Weights, kernels: Kernels, number: int) -> _Layer:
    prefix = f"model.layers.{number}."

    def linear(*names: str) -> Linear:
        """Several layers that read the same rows become one product."""
        joined = torch.cat([weights.stored(f"{prefix}{name}.weight") for name in names])
        biases = [weights.wide_or_none(f"{prefix}{name}.bias") for name in names]
        there = [bias for bias in biases if bias is not None]
        if there and len(there) != len(names):
            raise ValueError(f"layer {number} has a bias on some of {names} only")
        return kernels.linear(joined, torch.cat(there) if there else None)

    return _Layer(
        attention_norm=weights.wide(f"{prefix}input_layernorm.weight"),
        query_key_value=linear("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
        attention_output=linear("self_attn.o_proj"),
        feed_norm=weights.wide(f"{prefix}post_attention_layernorm.weight"),
        gate_up=linear("mlp.gate_proj", "mlp.up_proj"),
        down=linear("mlp.down_proj"),
    )
