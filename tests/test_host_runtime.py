"""`inferlet:core/runtime` and `tokenize`: what an instance learns of itself and of its models."""

from __future__ import annotations

import json
from typing import Any

import attrs
import pytest

from pie_trio.config import Limits
from pie_trio.errors import GuestFault
from tests.support.handles import FACTS, MemoryModel, World, call, pretend_tokenizer

RUNTIME = "core/runtime#"
TOKENIZE = "core/tokenize#"


async def test_the_version_is_the_engines() -> None:
    assert call(World().host(), RUNTIME + "get-version") == "1.2.3"


async def test_the_instance_id_is_that_of_the_owner() -> None:
    world = World()
    world.host()
    assert call(world.host(), RUNTIME + "get-instance-id") == "instance-1"


async def test_the_arguments_are_those_of_the_launch() -> None:
    host = World().host(arguments=("--prompt", "ä b"))
    assert list(call(host, RUNTIME + "get-arguments")) == ["--prompt", "ä b"]


async def test_the_last_return_value_wins() -> None:
    host = World().host()
    call(host, RUNTIME + "set-return", "first")
    call(host, RUNTIME + "set-return", "second")
    assert host.return_value == "second"


async def test_a_return_value_that_is_too_long_is_a_fault_and_changes_nothing() -> None:
    host = World(Limits(return_bytes=4)).host()
    call(host, RUNTIME + "set-return", "öö")
    with pytest.raises(GuestFault, match=r"set-return: the size of value is 5; .*return_bytes"):
        call(host, RUNTIME + "set-return", "ööx")
    assert host.return_value == "öö"


async def test_a_model_is_found_by_its_name() -> None:
    host = World().host()
    model = call(host, RUNTIME + "get-model", "small")
    assert model.handle is host.models["small"]


async def test_a_model_that_is_not_served_is_none() -> None:
    assert call(World().host(), RUNTIME + "get-model", "large") is None


def _two_models() -> World:
    blind = MemoryModel(attrs.evolve(FACTS, name="blind", traits=("tokenize",)))
    return World(models={"small": MemoryModel(), "blind": blind})


async def test_all_models_are_listed_in_the_order_of_the_configuration() -> None:
    assert call(_two_models().host(), RUNTIME + "get-all-models") == ["small", "blind"]


@pytest.mark.parametrize(
    "traits, expected",
    [
        ([], ["small", "blind"]),
        (["tokenize"], ["small", "blind"]),
        (["tokenize", "kv_pages"], ["small"]),
        (["input_image"], []),
    ],
)
async def test_traits_filter_the_models(traits: list[str], expected: list[str]) -> None:
    host = _two_models().host()
    assert call(host, RUNTIME + "get-all-models-with-traits", traits) == expected


async def _ask(host: Any, query: str) -> str:
    result = await call(host, RUNTIME + "debug-query", query)
    answer: str = call(host, "core/common#[method]debug-query-result.get", result)
    return answer


@pytest.mark.parametrize(
    "query, expected",
    [
        ("ping", "pong"),
        ("get_instance_count", "3"),
        ("get_server_instance_count", "0"),
        ("list_running_instances", json.dumps(["instance-0", "instance-2"])),
        ("list_in_memory_programs", json.dumps(["program-of-local@1.0.0"])),
        ("nonsense", "Unknown query: nonsense"),
    ],
)
async def test_a_debug_query_tells_of_the_own_tenant(query: str, expected: str) -> None:
    world = World()
    host = world.host()
    world.host("other")
    world.host()
    assert await _ask(host, query) == expected


# Tokenizing


def _tokenizer(host: Any) -> Any:
    model = call(host, RUNTIME + "get-model", "small")
    return call(host, TOKENIZE + "get-tokenizer", model)


@pytest.mark.parametrize("text", ["", "Grüße 🦜", "<|im_start|>user", "x" * 40_000])
async def test_text_survives_tokenizing_and_back(text: str) -> None:
    host = World().host()
    tokenizer = _tokenizer(host)
    tokens = await call(host, TOKENIZE + "[method]tokenizer.tokenize", tokenizer, text)
    assert tokens == pretend_tokenizer().encode(text)
    back = await call(host, TOKENIZE + "[method]tokenizer.detokenize", tokenizer, tokens)
    assert back == text


async def test_the_tokenizer_is_that_of_the_model() -> None:
    host = World().host()
    model = call(host, RUNTIME + "get-model", "small")
    assert call(host, TOKENIZE + "get-tokenizer", model) is model.handle.tokenizer


async def test_an_unknown_token_is_a_fault() -> None:
    host = World().host()
    detokenize = TOKENIZE + "[method]tokenizer.detokenize"
    with pytest.raises(GuestFault, match=r"detokenize: token 4000000000"):
        await call(host, detokenize, _tokenizer(host), [1, 4_000_000_000])


async def test_long_texts_and_long_lists_of_tokens_are_faults() -> None:
    host = World(Limits(tokenize_bytes=16)).host()
    tokenizer = _tokenizer(host)
    with pytest.raises(GuestFault, match="tokenize_bytes"):
        await call(host, TOKENIZE + "[method]tokenizer.tokenize", tokenizer, "x" * 17)
    with pytest.raises(GuestFault, match="tokenize_bytes"):
        await call(host, TOKENIZE + "[method]tokenizer.detokenize", tokenizer, [1] * 5)


async def test_the_vocabulary_comes_in_the_order_of_the_ids() -> None:
    host = World().host()
    tokenizer = _tokenizer(host)
    tokens, texts = await call(host, TOKENIZE + "[method]tokenizer.get-vocabs", tokenizer)
    assert tokens == sorted(set(tokens))
    assert len(texts) == len(tokens)
    by_token = dict(zip(tokens, texts, strict=True))
    spelled = b"".join(by_token[token] for token in pretend_tokenizer().encode("Grüße"))
    assert spelled == "Grüße".encode()
