"""The directory of one stored model: what is in it, and how to know that it is whole.

    model.safetensors  bf16      tokenizer.json      chat_template.jinja
    config.json        as Hugging Face reads it      metadata.json, written last

Owns the form and its version. Whoever dies while writing leaves no metadata, hence no model.
It must never open a model whose files are not those that were written.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
from blake3 import blake3

from pie_trio.errors import BadModel
from pie_trio.services.model_config import check_config, expected_tensors
from pie_trio.services.tensor_file import Progress, TensorSource, read_tensors, write_tensors
from pie_trio.services.tokenizer import Tokenizer

FORMAT = 1
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
_SHARD_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*\.safetensors")
# What ends an answer in the usual chat formats, where it is a token of its own.
_USUAL_ENDS = ("<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<|end_of_text|>", "</s>")


@attrs.frozen
class ModelFacts:
    """What the engine tells about a model without loading it."""

    name: str
    description: str
    architecture: str
    vocab_size: int
    context_tokens_max: int
    stop_tokens: tuple[str, ...]
    chat_template: str
    source: str
    file_bytes: int


@attrs.frozen
class StoredModel:
    """A model whose files are there, with the sizes that they were written with."""

    path: Path
    facts: ModelFacts


@attrs.frozen
class Parts:
    """What a stored model is made of, wherever it comes from."""

    config: Mapping[str, Any]
    tensors: tuple[TensorSource, ...]
    tokenizer: str
    chat_template: str
    stop_tokens: tuple[str, ...]
    description: str
    source: str


def open_model(path: Path) -> StoredModel:
    """Checks the version and the size of every file."""
    metadata = _read_json(path / "metadata.json")
    if metadata.get("format") != FORMAT:
        raise BadModel(f"{path} has format {metadata.get('format')!r}, not {FORMAT}; add it again")
    try:
        for name, entry in metadata["files"].items():
            if not (path / name).is_file() or (path / name).stat().st_size != entry["bytes"]:
                raise BadModel(f"{path / name} is missing or cut; remove the model and add it")
        facts = ModelFacts(
            name=metadata["name"],
            description=metadata["description"],
            architecture=metadata["architecture"],
            vocab_size=int(metadata["vocab_size"]),
            context_tokens_max=int(metadata["context_tokens_max"]),
            stop_tokens=tuple(metadata["stop_tokens"]),
            chat_template=(path / "chat_template.jinja").read_text(encoding="utf-8"),
            source=metadata["source"],
            file_bytes=sum(entry["bytes"] for entry in metadata["files"].values()),
        )
    except (KeyError, TypeError, AttributeError, OSError) as error:
        raise BadModel(f"{path} is damaged ({error!r}); remove it and add it again") from error
    return StoredModel(path, facts)


def verify(stored: StoredModel) -> None:
    """Reads every byte."""
    for name, entry in _read_json(stored.path / "metadata.json")["files"].items():
        if _checksum(stored.path / name) != entry["blake3"]:
            raise BadModel(f"{stored.path / name} has changed; remove the model and add it again")


def _checksum(path: Path) -> str:
    return blake3(max_threads=blake3.AUTO).update_mmap(path).hexdigest()


def write_model(directory: Path, name: str, parts: Parts, progress: Progress) -> None:
    """Fills an empty directory; the metadata comes last."""
    tensors = _wanted_tensors(parts)
    tokenizer = directory / "tokenizer.json"
    tokenizer.write_text(parts.tokenizer, encoding="utf-8")
    stop_tokens = _stop_tokens(parts, Tokenizer.from_file(tokenizer))
    _write_json(directory / "config.json", parts.config)
    (directory / "chat_template.jinja").write_text(parts.chat_template, encoding="utf-8")
    write_tensors(directory / WEIGHTS, tensors, progress)
    metadata = {
        "format": FORMAT,
        "name": name,
        "description": parts.description,
        "architecture": parts.config["model_type"],
        "vocab_size": parts.config["vocab_size"],
        "context_tokens_max": parts.config["max_position_embeddings"],
        "stop_tokens": stop_tokens,
        "source": parts.source,
        "files": {
            file.name: {"bytes": file.stat().st_size, "blake3": _checksum(file)}
            for file in sorted(directory.iterdir())
        },
    }
    _write_json(directory / "metadata.json", metadata)
    for file in directory.iterdir():
        _flush_to_disk(file)


def _flush_to_disk(file: Path) -> None:
    descriptor = os.open(file, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _wanted_tensors(parts: Parts) -> list[TensorSource]:
    check_config(parts.config)
    there = {tensor.name: tensor for tensor in parts.tensors}
    wanted = []
    for name, shape in expected_tensors(parts.config).items():
        if name not in there:
            raise BadModel(f"the model lacks the tensor {name}")
        if there[name].shape != shape:
            raise BadModel(f"tensor {name} has shape {there[name].shape}, config.json says {shape}")
        wanted.append(there[name])
    return wanted


def _stop_tokens(parts: Parts, tokenizer: Tokenizer) -> list[str]:
    known = [token for token in _USUAL_ENDS if tokenizer.token_id(token) is not None]
    return list(dict.fromkeys((*parts.stop_tokens, *known)))


def read_directory(path: Path) -> Parts:
    """The parts of a Hugging Face directory."""
    config = _read_json(path / "config.json")
    check_config(config)
    tokenizer = path / "tokenizer.json"
    if not tokenizer.is_file():
        raise BadModel(f"{path} has no tokenizer.json")
    return Parts(
        config=config,
        tensors=tuple(tensor for file in _weight_files(path) for tensor in read_tensors(file)),
        tokenizer=tokenizer.read_text(encoding="utf-8"),
        chat_template=_chat_template(path),
        stop_tokens=_declared_ends(path, config, Tokenizer.from_file(tokenizer)),
        description=f"{config['model_type']} model, from {path.name}",
        source=path.name,
    )


def _weight_files(path: Path) -> list[Path]:
    """One file, or those that the index names, or all there are."""
    if (path / WEIGHTS).is_file():
        return [path / WEIGHTS]
    if (path / INDEX).is_file():
        return _indexed_files(path)
    files = sorted(path.glob("*.safetensors"))
    if not files:
        raise BadModel(f"{path} has no *.safetensors file")
    return files


def _indexed_files(path: Path) -> list[Path]:
    weight_map = _read_json(path / INDEX).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise BadModel(f"{path / INDEX} has no weight_map")
    names = set(weight_map.values())
    for name in names:
        if not isinstance(name, str) or not _SHARD_NAME.fullmatch(name):
            raise BadModel(f"{path / INDEX} names {name!r}, which is no file beside it")
    missing = sorted(name for name in names if not (path / name).is_file())
    if missing:
        raise BadModel(f"{path} lacks {', '.join(missing)}, which its index names")
    return [path / name for name in sorted(names)]


def _chat_template(path: Path) -> str:
    """The template in a file of its own, else in the tokenizer's settings, else none."""
    if (path / "chat_template.jinja").is_file():
        return (path / "chat_template.jinja").read_text(encoding="utf-8")
    if not (path / "tokenizer_config.json").is_file():
        return ""
    template = _read_json(path / "tokenizer_config.json").get("chat_template", "")
    if isinstance(template, list):
        named = {entry.get("name"): entry.get("template", "") for entry in template}
        template = named.get("default", "")
    return template if isinstance(template, str) else ""


def _declared_ends(path: Path, config: Mapping[str, Any], tokenizer: Tokenizer) -> tuple[str, ...]:
    declared = config.get("eos_token_id")
    if (path / "generation_config.json").is_file():
        declared = _read_json(path / "generation_config.json").get("eos_token_id", declared)
    ids = declared if isinstance(declared, list) else [declared]
    return tuple(tokenizer.decode([token]) for token in ids if isinstance(token, int))


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BadModel(f"{path} is missing") from None
    except (OSError, ValueError) as error:
        raise BadModel(f"{path} cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise BadModel(f"{path} is not a JSON object")
    return content


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(dict(content), indent=2) + "\n", encoding="utf-8")
