"""What a model of the Llama family must consist of, as its `config.json` states it.

Owns the list of architectures that the worker computes and the shape of each tensor they need, so
that a model that would fail in the worker is refused when it is added, with the reason.
It must never guess a missing number that changes the arithmetic.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pie_trio.errors import BadModel

ARCHITECTURES = ("llama", "mistral", "qwen2")
_NUMBERS = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "max_position_embeddings",
)
_ROPE_TYPES = (None, "default", "llama3", "linear")

Config = Mapping[str, Any]


def check_config(config: Config) -> None:
    """Raises `BadModel` for what the worker does not compute."""
    architecture = config.get("model_type")
    if architecture not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        raise BadModel(f"architecture {architecture!r} is not supported; we serve {known}")
    for name in _NUMBERS:
        if not isinstance(config.get(name), int) or config[name] < 1:
            raise BadModel(f"config.json: {name} must be a positive number")
    if config.get("hidden_act", "silu") != "silu":
        raise BadModel(f"config.json: activation {config['hidden_act']!r} is not supported")
    if config.get("mlp_bias"):
        raise BadModel("config.json: mlp_bias is not supported")
    if _slides(config):
        raise BadModel("config.json: sliding window attention is not supported")
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if rope.get("rope_type", rope.get("type")) not in _ROPE_TYPES:
        raise BadModel(f"config.json: rope type {rope.get('rope_type')!r} is not supported")


def _slides(config: Config) -> bool:
    if config["model_type"] == "qwen2":
        return bool(config.get("use_sliding_window", False))
    return config["model_type"] == "mistral" and config.get("sliding_window") is not None


def expected_tensors(config: Config) -> dict[str, tuple[int, ...]]:
    """Each tensor that the worker reads, and its shape."""
    hidden, vocabulary = config["hidden_size"], config["vocab_size"]
    tensors: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (vocabulary, hidden),
        "model.norm.weight": (hidden,),
    }
    if not config.get("tie_word_embeddings", False):
        tensors["lm_head.weight"] = (vocabulary, hidden)
    layer = _layer_tensors(config)
    for number in range(config["num_hidden_layers"]):
        tensors |= {f"model.layers.{number}.{name}": shape for name, shape in layer.items()}
    return tensors


def _layer_tensors(config: Config) -> dict[str, tuple[int, ...]]:
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    heads = config["num_attention_heads"]
    head = config.get("head_dim") or hidden // heads
    query, key = heads * head, (config.get("num_key_value_heads") or heads) * head
    tensors: dict[str, tuple[int, ...]] = {
        "input_layernorm.weight": (hidden,),
        "post_attention_layernorm.weight": (hidden,),
        "self_attn.q_proj.weight": (query, hidden),
        "self_attn.k_proj.weight": (key, hidden),
        "self_attn.v_proj.weight": (key, hidden),
        "self_attn.o_proj.weight": (hidden, query),
        "mlp.gate_proj.weight": (inner, hidden),
        "mlp.up_proj.weight": (inner, hidden),
        "mlp.down_proj.weight": (hidden, inner),
    }
    if config["model_type"] == "qwen2" or config.get("attention_bias", False):
        tensors |= {
            "self_attn.q_proj.bias": (query,),
            "self_attn.k_proj.bias": (key,),
            "self_attn.v_proj.bias": (key,),
        }
    if config["model_type"] != "qwen2" and config.get("attention_bias", False):
        tensors["self_attn.o_proj.bias"] = (hidden,)
    return tensors
