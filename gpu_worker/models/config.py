"""The numbers of a Llama-family decoder, read from its `config.json`.

Owns the reading of both spellings that exist (before and since `rope_parameters`).
It must never invent a number that changes the arithmetic; what is missing raises `KeyError`.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs


@attrs.frozen
class Rope:
    """Rotary positions; `kind` is default, linear or llama3, and the rest is theirs."""

    theta: float
    kind: str = "default"
    factor: float = 1.0
    low_frequency_factor: float = 1.0
    high_frequency_factor: float = 4.0
    original_positions: int = 8192

    @classmethod
    def read(cls, config: Mapping[str, Any]) -> "Rope":
        given = config.get("rope_parameters") or config.get("rope_scaling") or {}
        theta = given.get("rope_theta", config.get("rope_theta", 10000.0))
        return cls(
            theta=float(theta),
            kind=given.get("rope_type", given.get("type", "default")),
            factor=float(given.get("factor", 1.0)),
            low_frequency_factor=float(given.get("low_freq_factor", 1.0)),
            high_frequency_factor=float(given.get("high_freq_factor", 4.0)),
            original_positions=int(given.get("original_max_position_embeddings", 8192)),
        )


@attrs.frozen
class DecoderConfig:
    """One decoder."""

    vocab_size: int
    hidden: int
    layers: int
    heads: int
    key_heads: int
    head_width: int
    epsilon: float
    tied: bool
    rope: Rope

    @classmethod
    def read(cls, directory: Path) -> "DecoderConfig":
        config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
        heads = int(config["num_attention_heads"])
        hidden = int(config["hidden_size"])
        return cls(
            vocab_size=int(config["vocab_size"]),
            hidden=hidden,
            layers=int(config["num_hidden_layers"]),
            heads=heads,
            key_heads=int(config.get("num_key_value_heads") or heads),
            head_width=int(config.get("head_dim") or hidden // heads),
            epsilon=float(config["rms_norm_eps"]),
            tied=bool(config.get("tie_word_embeddings", False)),
            rope=Rope.read(config),
        )
