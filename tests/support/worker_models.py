"""Models for tests of the worker: the default one, and tiny ones with random weights.

Everything that a session makes lies in one temporary directory or in the cache of the default
model. A tiny model is made by transformers and added to a store like anybody's, so that adding is
tested too.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pie_trio.home import Home
from pie_trio.services.model_store import ModelStore, pretend_model

TINY: Mapping[str, Any] = {
    "vocab_size": 264,
    "hidden_size": 48,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
    "initializer_range": 0.3,
    "eos_token_id": 258,
    "bos_token_id": 257,
}
BLOCKS: Mapping[str, Any] = {
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}


def default_model() -> Path:
    return ModelStore(Home.default().models).ensure_default().path


def save_tiny_model(directory: Path, kind: str) -> Path:
    """A Hugging Face directory with random bf16 weights and the pretend tokenizer."""
    import torch
    import transformers

    torch.manual_seed(7)
    config: transformers.PretrainedConfig
    match kind:
        case "llama":
            config = transformers.LlamaConfig(**TINY, tie_word_embeddings=False)
        case "llama3":
            config = transformers.LlamaConfig(
                **TINY, tie_word_embeddings=True, rope_parameters=LLAMA3_ROPE, attention_bias=True
            )
        case "blocks":  # matrices of whole blocks of any quantisation
            config = transformers.LlamaConfig(**TINY | BLOCKS, tie_word_embeddings=False)
        case "qwen2":
            config = transformers.Qwen2Config(**TINY, tie_word_embeddings=True)
        case _:
            raise ValueError(kind)
    build: Any = transformers.AutoModelForCausalLM.from_config
    model = build(config)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter, std=0.5)
    model.to(torch.bfloat16).save_pretrained(directory)
    for name in ("tokenizer.json", "chat_template.jinja"):
        shutil.copy(pretend_model().path / name, directory / name)
    return directory


def tiny_model(root: Path, kind: str) -> Path:
    """The same, as a stored model."""
    store = ModelStore(root / "store")
    store.add(save_tiny_model(root / f"tiny-{kind}", kind))
    return store.open(f"tiny-{kind}").path
