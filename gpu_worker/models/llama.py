"""The parameters of a decoder of the Llama family (Llama, Mistral, Qwen2), by their stored names.

Owns the names, and which matrices are joined because they read the same rows. What is returned is
as it was stored: how it is kept for computing is up to the kernels.
It must never compute with a weight.
"""

from collections.abc import Sequence

import numpy as np

from gpu_worker.kernels import LayerParameters, Parameter, Parameters
from gpu_worker.models.config import DecoderConfig
from gpu_worker.models.rope import frequencies
from gpu_worker.weights import Weights

EMBEDDING = "model.embed_tokens"


def read_parameters(config: DecoderConfig, weights: Weights) -> Parameters:
    head = EMBEDDING if config.tied else "lm_head"
    return Parameters(
        embedding=weights.stored(f"{EMBEDDING}.weight"),
        frequencies=frequencies(config.rope, config.head_width),
        layers=(_layer(weights, f"model.layers.{i}.") for i in range(config.layers)),
        norm=weights.wide("model.norm.weight"),
        head=Parameter(weights.stored(f"{head}.weight")),
    )


def _layer(weights: Weights, prefix: str) -> LayerParameters:
    def joined(*names: str) -> Parameter:
        return _joined(weights, [prefix + name for name in names])

    return LayerParameters(
        attention_norm=weights.wide(f"{prefix}input_layernorm.weight"),
        query_key_value=joined("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
        attended=joined("self_attn.o_proj"),
        feed_norm=weights.wide(f"{prefix}post_attention_layernorm.weight"),
        gate_up=joined("mlp.gate_proj", "mlp.up_proj"),
        down=joined("mlp.down_proj"),
    )


def _joined(weights: Weights, names: Sequence[str]) -> Parameter:
    stored = [weights.stored(f"{name}.weight") for name in names]
    biases = [weights.wide_or_none(f"{name}.bias") for name in names]
    there = [bias for bias in biases if bias is not None]
    if there and len(there) != len(names):
        raise ValueError(f"only some of {', '.join(names)} have a bias")
    return Parameter(stored, np.concatenate(there) if there else None)
