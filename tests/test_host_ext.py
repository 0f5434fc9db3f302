"""`pie:ext`: streams and pages as a guest sees them, function by function; refusals are values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import trio
import trio.testing

from pie_trio.errors import OutOfPages, PassFailed, PieError, Terminated, TooMany, WorkerLost
from pie_trio.messages import PassResult, ResourceKind
from pie_trio.wasm.codec import Case, Err
from pie_trio.wasm.host.ext_errors import error_value
from pie_trio.wasm.host.interfaces import host_interfaces
from tests.support.handles import World, open_queue

SAMPLER: Mapping[str, Any] = {
    "temperature": 0.0,
    **dict.fromkeys(("top-k", "top-p", "min-p", "seed", "logprobs")),
    **dict.fromkeys(("repetition-penalty", "frequency-penalty", "presence-penalty")),
    "logit-bias": [],
}


def ext(name: str, *arguments: Any) -> Any:
    interface, function = name.split("#")
    return host_interfaces()[f"pie:ext/{interface}"][function](*arguments)


def stream_function(name: str, *arguments: Any) -> Any:
    return ext(f"generate#[method]token-stream.{name}", *arguments)


async def open_stream(**changes: Any) -> Any:
    """A host, and a stream over two pages of four tokens, one of them to grow into."""
    host = World().host()
    queue, memory = open_queue(host)
    first, second = await memory.allocate(ResourceKind.KV_PAGE, 2)
    request = {
        "tokens": [1, 2],
        "positions": [0, 1],
        "pages": [first],
        "last-page-len": 2,
        "reserve": [second],
        "mask": None,
        "sampler": SAMPLER,
        "stop-tokens": [],
        "stop-sequences": [],
        "max-tokens": 5,
        "earlier": [],
        "generated": [],
    }
    return host, await ext("generate#start", host, queue, {**request, **changes})


def take(stream: Any, *tokens: int) -> bool:
    """Steps of the model that give these; whether it goes on."""
    for token in tokens:
        stream.decode.take([PassResult((token,), ())], 4, 0.0)
    return stream.decode.reason is None


async def test_a_stream_is_read_in_chunks_and_then_tells_its_end() -> None:
    host, stream = await open_stream()
    pollable = stream_function("pollable", host, stream)
    assert not pollable.ready()
    assert take(stream, 7)
    assert pollable.ready()
    assert stream_function("read", host, stream, 9) == [7]
    assert not pollable.ready()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pollable.wait)
        await trio.testing.wait_all_tasks_blocked()
        for token in (8, 9, 10):
            assert take(stream, token)
        assert not take(stream, 11)
    assert stream_function("finished", host, stream) is None, "tokens are unread"
    assert stream_function("read", host, stream, 2) == [8, 9]
    assert pollable.ready()
    assert stream_function("read", host, stream, 2) == [10, 11]
    assert stream_function("finished", host, stream) == "length"


async def test_a_failed_stream_gives_its_tokens_and_then_says_why() -> None:
    host, stream = await open_stream()
    take(stream, 7)
    stream.decode.fail(PassFailed("no"))
    assert stream_function("read", host, stream, 9) == [7]
    assert stream_function("finished", host, stream) == "failed"
    assert stream_function("read", host, stream, 9) == Err(Case("failed", "no"))


async def test_a_stream_that_is_dropped_stops_and_is_charged_no_more() -> None:
    host, stream = await open_stream()
    assert host.held.bytes_held > 0
    stream.close()
    assert host.held.bytes_held == 0
    assert not take(stream, 7)


async def test_stop_says_how_many_tokens_there_are() -> None:
    host, stream = await open_stream()
    take(stream, 7)
    assert stream_function("stop", host, stream) == 1
    assert not take(stream, 8)


async def test_only_a_stream_that_has_ended_is_cut_and_never_longer() -> None:
    host, stream = await open_stream()
    for token in range(4):
        take(stream, token)
    early = stream_function("truncate", host, stream, 1)
    assert early.payload.tag == "invalid"
    take(stream, 4)
    assert stream_function("truncate", host, stream, 6).payload.tag == "invalid"
    assert stream_function("truncate", host, stream, 2) is None
    assert stream.decode.tokens == [0, 1]


@pytest.mark.parametrize(
    "changes, reason",
    [
        ({"max-tokens": 0}, "max-tokens is 0"),
        ({"stop-sequences": [[]]}, "a stop sequence"),
        ({"tokens": [], "positions": []}, "no input"),
        ({"sampler": {**SAMPLER, "min-p": 0.5, "top-k": 3}}, "min-p"),
        ({"sampler": {**SAMPLER, "temperature": -1.0}}, "temperature"),
        ({"reserve": [77]}, "handle 77"),
    ],
)
async def test_a_request_that_breaks_a_rule_is_refused_with_a_value(
    changes: dict[str, Any], reason: str
) -> None:
    host, refused = await open_stream(**changes)
    assert refused.payload.tag == "invalid"
    assert reason in refused.payload.payload
    assert host.held.bytes_held == 0


@pytest.mark.parametrize(
    "error, tag",
    [
        (WorkerLost("w"), "worker-lost"),
        (TooMany("w"), "budget-exceeded"),
        (Terminated("w"), "cancelled"),
        (PassFailed("w"), "failed"),
        (PieError("w"), "invalid"),
    ],
)
def test_each_refusal_says_whose_situation_it_is(error: PieError, tag: str) -> None:
    assert error_value(error) == Case(tag, "w")


def test_a_lack_of_pages_is_told_in_numbers() -> None:
    counts = {"needed": 3, "free": 1, "held-by-you": 2, "capacity": 9}
    assert error_value(OutOfPages("w", 3, 1, 2, 9)) == Case("out-of-pages", counts)


async def test_a_copy_of_more_than_a_page_or_onto_itself_is_refused() -> None:
    host = World().host()
    queue, memory = open_queue(host)
    first, second = await ext("pages#allocate", host, queue, 2)
    assert (await ext("pages#copy", host, queue, first, second, 5)).payload.tag == "invalid"
    assert (await ext("pages#copy", host, queue, first, second, 0)).payload.tag == "invalid"
    assert (await ext("pages#copy", host, queue, first, first, 1)).payload.tag == "invalid"
    assert await ext("pages#copy", host, queue, first, second, 4) is None
    assert (ResourceKind.KV_PAGE, second) in memory.owned


async def test_an_import_gives_pages_or_none() -> None:
    host = World().host()
    queue, memory = open_queue(host)
    pages = await ext("pages#allocate", host, queue, 2)
    assert await ext("pages#import-pages", host, queue, "shown") is None
    await memory.export(ResourceKind.KV_PAGE, pages, "shown")
    assert len(await ext("pages#import-pages", host, queue, "shown")) == 2
