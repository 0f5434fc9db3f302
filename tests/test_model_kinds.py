"""Models as they are handed around: quantised GGUF files and weights in several files.

Blocks hold any bits, and are decoded again by plain loops. What is installed must be those numbers
rounded once, and what runs must be the model that transformers makes of them.
"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch

from gpu_worker.bf16 import round_to_bf16
from pie_trio.errors import BadModel
from pie_trio.services.model_store import ModelStore
from pie_trio.services.tensor_file import TensorSource, read_tensors
from tests.support.gguf_blocks import BLOCK_KINDS
from tests.support.gguf_files import Floats, permuted, save_gguf
from tests.support.worker_models import save_tiny_model
from tests.test_worker_executor import TOLERANCE, machine, part


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("source") / "blocks", "blocks")


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    return ModelStore(tmp_path / "models")


def sources(path: Path) -> dict[str, TensorSource]:
    return {tensor.name: tensor for tensor in read_tensors(path / "model.safetensors")}


class DrawnBlocks:
    """Replaces every matrix by blocks of one kind, and keeps the numbers that they mean."""

    def __init__(self, kind: str) -> None:
        self._name, self._kind = kind, BLOCK_KINDS[kind]
        self._chance = random.Random(5)
        self.matrices: list[Floats] = []

    def __call__(self, weight: Floats) -> tuple[Floats, gguf.GGMLQuantizationType]:
        count = weight.shape[1] // self._kind.length
        # A few different rows suffice, and plain loops are slow.
        rows = [[self._kind.draw(self._chance) for _ in range(count)] for _ in range(7)]
        decoded = [[number for block in row for number in self._kind.decode(block)] for row in rows]
        chosen = [self._chance.randrange(len(rows)) for _ in range(weight.shape[0])]
        self.matrices.append(np.array(decoded, dtype=np.float32)[chosen])
        packed = np.frombuffer(b"".join(b"".join(row) for row in rows), dtype=np.uint8)
        return packed.reshape(len(rows), -1)[chosen], gguf.GGMLQuantizationType[self._name]


def interleaving_undone(name: str, matrix: Floats, directory: Path) -> Floats:
    config = json.loads((directory / "config.json").read_text())
    for part_of_name, key in (("q_proj", "num_attention_heads"), ("k_proj", "num_key_value_heads")):
        if part_of_name in name:
            order = permuted(np.arange(len(matrix)), config[key])
            return matrix[np.argsort(order)]
    return matrix


@pytest.mark.parametrize("kind", BLOCK_KINDS)
def test_a_quantised_file_is_installed_as_the_numbers_that_its_blocks_mean(
    store: ModelStore, source: Path, tmp_path: Path, kind: str
) -> None:
    blocks = DrawnBlocks(kind)
    path = save_gguf(tmp_path / f"{kind}.gguf", source, encode=blocks)
    stored = sources(store.open(store.add(path)).path)
    matrices = [name for name, tensor in sources(source).items() if len(tensor.shape) == 2]
    assert len(matrices) == len(blocks.matrices)
    for name, matrix in zip(matrices, blocks.matrices, strict=True):
        expected = round_to_bf16(interleaving_undone(name, matrix, source))
        # One unit of the last place: products of scales may be rounded in another order.
        steps = stored[name].load().astype(np.int32) - expected.astype(np.int32)
        assert np.abs(steps).max() <= 1, name
        assert (steps != 0).mean() < 0.01, name


@pytest.mark.parametrize("kind", ["F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q8_0"])
def test_what_the_usual_quantiser_writes_is_read_as_what_it_wrote(
    store: ModelStore, source: Path, tmp_path: Path, kind: str
) -> None:
    step = {"Q4_0": 0.15, "Q4_1": 0.1, "Q5_0": 0.08, "Q8_0": 0.01, "F16": 1e-3, "BF16": 1e-9}[kind]
    wanted = gguf.GGMLQuantizationType[kind]

    def encode(weight: Floats) -> tuple[Floats, gguf.GGMLQuantizationType]:
        return gguf.quants.quantize(weight, wanted), wanted

    path = save_gguf(tmp_path / f"{kind}.gguf", source, encode=encode)
    stored = sources(store.open(store.add(path)).path)
    for name, tensor in sources(source).items():
        given = tensor.wide()
        largest = float(np.abs(given).max())
        assert np.abs(stored[name].wide() - given).max() <= (step + 2**-8) * largest, name


@pytest.mark.parametrize("kind", ["Q4_K", "Q8_0"])
def test_a_quantised_model_runs_as_transformers_runs_it(
    store: ModelStore, source: Path, tmp_path: Path, kind: str
) -> None:
    path = save_gguf(tmp_path / "any.gguf", source, encode=DrawnBlocks(kind))
    m = machine(store.open(store.add(path)).path, "torch")
    text = m.text(20)
    logits = m.run(part(text, m.pages(20), 0, 20))[0]
    torch.testing.assert_close(logits, m.expect(text), rtol=0, atol=TOLERANCE)


def test_a_type_that_we_never_tested_is_refused_by_name(
    store: ModelStore, source: Path, tmp_path: Path
) -> None:
    kind = gguf.GGMLQuantizationType.TQ1_0

    def encode(weight: Floats) -> tuple[Floats, gguf.GGMLQuantizationType]:
        return gguf.quants.quantize(weight, kind), kind

    with pytest.raises(BadModel, match=r"has type TQ1_0; we read F32, F16, BF16, Q4_0"):
        store.add(save_gguf(tmp_path / "odd.gguf", source, encode=encode))


INDEX = "model.safetensors.index.json"
SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")


@pytest.fixture
def sharded(source: Path, tmp_path: Path) -> Path:
    """The weights in two files with an index, as large models come."""
    from safetensors.torch import load_file, save_file

    directory = Path(shutil.copytree(source, tmp_path / "sharded"))
    weights = load_file(directory / "model.safetensors")
    (directory / "model.safetensors").unlink()
    names = sorted(weights)
    weight_map = {}
    for number, shard in enumerate(SHARDS):
        mine = names[number::2]
        save_file({name: weights[name] for name in mine}, directory / shard)
        weight_map |= dict.fromkeys(mine, shard)
    (directory / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return directory


def test_a_model_in_several_files_is_installed_and_runs(
    store: ModelStore, sharded: Path, source: Path
) -> None:
    (sharded / "leftover.safetensors").write_bytes(b"not named by the index, not read")
    path = store.open(store.add(sharded)).path
    stored = sources(path)
    for name, tensor in sources(source).items():
        assert np.array_equal(stored[name].load(), tensor.load())
    m = machine(path, "torch")
    text = m.text(12)
    logits = m.run(part(text, m.pages(12), 0, 12))[0]
    torch.testing.assert_close(logits, m.expect(text), rtol=0, atol=TOLERANCE)


def point_at(name: Any) -> Callable[[Path], None]:
    def spoil(directory: Path) -> None:
        index = json.loads((directory / INDEX).read_text())
        index["weight_map"]["model.norm.weight"] = name
        (directory / INDEX).write_text(json.dumps(index))

    return spoil


def forget_second(directory: Path) -> None:
    """The index is whole, but says that all is in the first file."""
    index = json.loads((directory / INDEX).read_text())
    index["weight_map"] = dict.fromkeys(index["weight_map"], SHARDS[0])
    (directory / INDEX).write_text(json.dumps(index))


@pytest.mark.parametrize(
    "spoil, reason",
    [
        (lambda d: (d / SHARDS[1]).unlink(), f"lacks {SHARDS[1]}, which its index names"),
        (point_at("../blocks/model.safetensors"), "names '../blocks/model.safetensors'"),
        (point_at("/etc/passwd"), "is no file beside it"),
        (point_at(".."), "is no file beside it"),
        (point_at(7), "names 7"),
        (lambda d: (d / INDEX).write_text("{}"), "has no weight_map"),
        (lambda d: (d / INDEX).write_text("[]"), "is not a JSON object"),
        (forget_second, "the model lacks the tensor"),
    ],
)
def test_an_index_that_is_not_right_is_refused_and_leaves_nothing(
    store: ModelStore, sharded: Path, spoil: Callable[[Path], None], reason: str, tmp_path: Path
) -> None:
    spoil(sharded)
    with pytest.raises(BadModel, match=reason):
        store.add(sharded)
    assert not list((tmp_path / "models").glob("*"))
