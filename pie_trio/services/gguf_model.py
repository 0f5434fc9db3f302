"""A GGUF file of the Llama family, seen as the parts of a Hugging Face directory.

Owns the translation: names, the order of the query and key rows (GGUF interleaves the two halves
of each head), quantised blocks to numbers, and the tokenizer from its lists.
It must never guess: a file whose meaning it does not know is refused by name.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import numpy as np
from gguf import GGMLQuantizationType, GGUFReader, ReaderTensor
from gguf.quants import dequantize

from gpu_worker.bf16 import Wide
from pie_trio.errors import BadModel
from pie_trio.services.tensor_file import TensorSource

_ARCHITECTURES: Mapping[str, str] = {"llama": "llama", "qwen2": "qwen2"}
_TOP_NAMES: Mapping[str, str] = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
_LAYER_NAMES: Mapping[str, str] = {
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
# The quantisations whose meaning is tested; tensors of one file may differ in theirs.
_KINDS = (
    *("F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"),
    *("Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K"),
)
_CONTROL, _USER_DEFINED = 3, 4  # token types

_DIGITS_ONE_BY_ONE = {"type": "Digits", "individual_digits": True}
_QWEN2_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@attrs.frozen
class GgufModel:
    """The parts; tensors are dequantised when they are asked for."""

    name: str
    config: dict[str, Any]
    tensors: tuple[TensorSource, ...]
    tokenizer: str
    chat_template: str
    stop_tokens: tuple[str, ...]


def read_gguf(path: Path) -> GgufModel:
    """Raises `BadModel` for anything that is not a model that we can convert."""
    try:
        reader = GGUFReader(path)
        fields = {name: field.contents() for name, field in reader.fields.items()}
    except (OSError, ValueError, IndexError, KeyError) as error:
        raise BadModel(f"{path} is not a GGUF file that we can read: {error}") from error
    try:
        return _translate(fields, reader.tensors)
    except KeyError as error:
        raise BadModel(f"{path} lacks the field {error}") from error


def _translate(fields: Mapping[str, Any], tensors: Sequence[ReaderTensor]) -> GgufModel:
    architecture = fields["general.architecture"]
    if architecture not in _ARCHITECTURES:
        known = ", ".join(_ARCHITECTURES)
        raise BadModel(f"GGUF architecture {architecture!r} is not supported; we read {known}")
    if fields.get("split.count", 1) != 1:
        raise BadModel("a GGUF model in several files is not supported; merge them into one")
    names = {tensor.name for tensor in tensors}
    config = _config(fields, tied="output.weight" not in names)
    tokens: list[str] = fields["tokenizer.ggml.tokens"]
    ends = (fields.get(f"tokenizer.ggml.{kind}_token_id") for kind in ("eos", "eot"))
    return GgufModel(
        name=str(fields.get("general.name", architecture)),
        config=config,
        tensors=tuple(_source(tensor, config) for tensor in tensors),
        tokenizer=json.dumps(_tokenizer(fields), ensure_ascii=False),
        chat_template=str(fields.get("tokenizer.chat_template", "")),
        stop_tokens=tuple(tokens[token] for token in ends if token is not None),
    )


def _config(fields: Mapping[str, Any], tied: bool) -> dict[str, Any]:
    architecture = fields["general.architecture"]

    def number(name: str) -> Any:
        return fields[f"{architecture}.{name}"]

    heads, hidden = number("attention.head_count"), number("embedding_length")
    epsilon = float(np.format_float_positional(np.float32(number(_EPSILON)), unique=True))
    return {
        "architectures": ["Qwen2ForCausalLM" if architecture == "qwen2" else "LlamaForCausalLM"],
        "model_type": _ARCHITECTURES[architecture],
        "vocab_size": len(fields["tokenizer.ggml.tokens"]),
        "hidden_size": hidden,
        "intermediate_size": number("feed_forward_length"),
        "num_hidden_layers": number("block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": fields.get(f"{architecture}.attention.head_count_kv", heads),
        "head_dim": fields.get(f"{architecture}.attention.key_length", hidden // heads),
        "max_position_embeddings": number("context_length"),
        "rms_norm_eps": epsilon,
        **_rope(fields, architecture),
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": tied,
        "bos_token_id": fields.get("tokenizer.ggml.bos_token_id"),
        "eos_token_id": fields.get("tokenizer.ggml.eos_token_id"),
        "dtype": "bfloat16",
        "torch_dtype": "bfloat16",
    }


_EPSILON = "attention.layer_norm_rms_epsilon"


def _rope(fields: Mapping[str, Any], architecture: str) -> dict[str, Any]:
    theta = float(fields.get(f"{architecture}.rope.freq_base", 10000.0))
    kind = fields.get(f"{architecture}.rope.scaling.type", "none")
    parameters: dict[str, Any] = {"rope_type": "default", "rope_theta": theta}
    if kind == "linear":
        factor = float(fields[f"{architecture}.rope.scaling.factor"])
        parameters |= {"rope_type": "linear", "factor": factor}
    elif kind != "none":
        raise BadModel(
            f"GGUF rope scaling {kind!r} is not supported; add the Hugging Face directory"
        )
    return {"rope_theta": theta, "rope_parameters": parameters}


def _source(tensor: ReaderTensor, config: Mapping[str, Any]) -> TensorSource:
    name = _tensor_name(tensor.name)
    shape = tuple(int(length) for length in reversed(tensor.shape))
    heads = _interleaved_heads(name, config)
    kind = GGMLQuantizationType(tensor.tensor_type)
    if kind.name not in _KINDS:
        known = ", ".join(_KINDS)
        raise BadModel(f"GGUF tensor {tensor.name} has type {kind.name}; we read {known}")

    def read() -> Wide:
        values = dequantize(tensor.data, kind).astype(np.float32, copy=False).reshape(shape)
        if heads:
            halves = values.reshape(heads, shape[0] // heads // 2, 2, *shape[1:])
            values = halves.swapaxes(1, 2).reshape(shape)
        return values

    return TensorSource(name, shape, read)


def _tensor_name(name: str) -> str:
    if name in _TOP_NAMES:
        return _TOP_NAMES[name]
    match name.split("."):
        case ["blk", number, part, kind] if part in _LAYER_NAMES:
            return f"model.layers.{number}.{_LAYER_NAMES[part]}.{kind}"
    raise BadModel(
        f"GGUF tensor {name!r} is not one that we know; add the Hugging Face directory instead"
    )


def _interleaved_heads(name: str, config: Mapping[str, Any]) -> int:
    if config["model_type"] != "llama":
        return 0
    if ".q_proj." in name:
        return int(config["num_attention_heads"])
    return int(config["num_key_value_heads"]) if ".k_proj." in name else 0


def _tokenizer(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The `tokenizer.json` of a byte-level vocabulary."""
    if fields["tokenizer.ggml.model"] != "gpt2":
        kind = fields["tokenizer.ggml.model"]
        raise BadModel(
            f"a GGUF tokenizer of kind {kind!r} is not supported; add the Hugging Face directory"
        )
    tokens, types = fields["tokenizer.ggml.tokens"], fields["tokenizer.ggml.token_type"]
    added = [
        _added_token(number, token, special=kind == _CONTROL)
        for number, (token, kind) in enumerate(zip(tokens, types, strict=True))
        if kind in (_CONTROL, _USER_DEFINED)
    ]
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": _pre_tokenizer(fields.get("tokenizer.ggml.pre", "default"), level),
        "post_processor": None,
        "decoder": {**level, "use_regex": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {token: number for number, token in enumerate(tokens)},
            "merges": [merge.split(" ", 1) for merge in fields["tokenizer.ggml.merges"]],
        },
    }


def _added_token(number: int, content: str, *, special: bool) -> dict[str, Any]:
    return {
        "id": number,
        "content": content,
        "single_word": False,
        "lstrip": False,
        "rstrip": False,
        "normalized": False,
        "special": special,
    }


def _pre_tokenizer(kind: str, level: Mapping[str, Any]) -> dict[str, Any]:
    words = {**level, "use_regex": True}
    match kind:
        case "smollm":
            return {"type": "Sequence", "pretokenizers": [_DIGITS_ONE_BY_ONE, words]}
        case "qwen2":
            split = {
                "type": "Split",
                "pattern": {"Regex": _QWEN2_WORDS},
                "behavior": "Isolated",
                "invert": False,
            }
            bytes_only = {**level, "use_regex": False}
            return {"type": "Sequence", "pretokenizers": [split, bytes_only]}
        case "default" | "gpt-2":
            return words
    raise BadModel(f"GGUF pre-tokenizer {kind!r} is not supported; add the Hugging Face directory")
