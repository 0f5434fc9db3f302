"""Small GGUF files, made from a Hugging Face directory as converters make them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from pie_trio.services.tensor_file import read_tensors

NAMES = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
}
Floats = np.ndarray[Any, Any]
# What becomes of a matrix: raw bytes of blocks, or numbers; and the type that the file claims.
Encode = Callable[[Floats], tuple[Floats, gguf.GGMLQuantizationType | None]]


def permuted(weight: Floats, heads: int) -> Floats:
    """As converters to GGUF order the rows: the two halves of a head interleaved."""
    halves = weight.reshape(heads, 2, weight.shape[0] // heads // 2, *weight.shape[1:])
    return halves.swapaxes(1, 2).reshape(weight.shape)


def as_fp32(weight: Floats) -> tuple[Floats, None]:
    return weight, None


def save_gguf(
    path: Path,
    source: Path,
    pre: str = "smollm",
    extra: str | None = None,
    fields: Mapping[str, Any] | None = None,
    encode: Encode = as_fp32,
) -> Path:
    """The model of the directory; `encode` decides what becomes of each matrix."""
    config = json.loads((source / "config.json").read_text())
    writer = gguf.GGUFWriter(path, "llama")
    _add_numbers(writer, config)
    _add_tokenizer(writer, json.loads((source / "tokenizer.json").read_text()), pre)
    for name, value in (fields or {}).items():
        add = writer.add_string if isinstance(value, str) else writer.add_uint32
        add(name, value)
    for tensor in read_tensors(source / "model.safetensors"):
        name, weight = _renamed(tensor.name, tensor.wide(), config)
        data, kind = encode(weight) if weight.ndim == 2 else as_fp32(weight)
        writer.add_tensor(name, np.ascontiguousarray(data), raw_dtype=kind)
    if extra:
        writer.add_tensor(extra, np.zeros(4, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _renamed(name: str, weight: Floats, config: Mapping[str, Any]) -> tuple[str, Floats]:
    for theirs, ours in NAMES.items():
        name = name.replace(theirs, ours)
    if "attn_q" in name or "attn_k" in name:
        heads = config["num_attention_heads" if "attn_q" in name else "num_key_value_heads"]
        weight = permuted(weight, heads)
    return name.replace("model.layers", "blk"), weight


def _add_numbers(writer: gguf.GGUFWriter, config: Mapping[str, Any]) -> None:
    writer.add_name("Tiny")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])


def _add_tokenizer(writer: gguf.GGUFWriter, tokenizer: Mapping[str, Any], pre: str) -> None:
    # One special token makes room for the merged token that a GGUF file must have.
    specials = {entry["content"]: entry["id"] for entry in tokenizer["added_tokens"][1:]}
    vocabulary = tokenizer["model"]["vocab"] | specials | {"ab": len(tokenizer["model"]["vocab"])}
    tokens = sorted(vocabulary, key=vocabulary.__getitem__)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types([3 if token in specials else 1 for token in tokens])
    writer.add_token_merges(["a b"])
    writer.add_eos_token_id(258)
    writer.add_chat_template("{{ messages }}")
