"""`inferlet:core/forward`: what the builder collects, and the answer of an executed pass."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from gpu_worker.wire import OutputRow, SamplerKind
from pie_trio.config import Limits
from pie_trio.errors import GuestFault, PassFailed, TooMany, WorkerLost
from pie_trio.messages import PassResult
from tests.support.forward_guest import FORWARD, describing_guest, new_guest
from tests.support.handles import FACTS, call

# The builder


async def test_a_new_pass_is_empty_and_cannot_be_executed() -> None:
    guest = await new_guest()
    with pytest.raises(GuestFault, match="no input"):
        await guest.execute()


async def test_inputs_append_in_the_order_of_the_calls() -> None:
    guest = await new_guest()
    guest.set("kv-cache", guest.pages, 4)
    guest.set("input-tokens", [10, 11], [0, 1])
    guest.set("input-embeddings", [5], [2])
    guest.set("input-tokens", [12], [9])
    draft = await guest.draft()
    assert draft.tokens == (10, 11, -6, 12)
    assert draft.positions == (0, 1, 2, 9)


async def test_tokens_become_rows() -> None:
    guest = await describing_guest(rows=3)
    assert (await guest.draft()).tokens == (0, 1, 2)


async def test_embeddings_become_rows_that_name_their_handle() -> None:
    guest = await new_guest()
    guest.set("kv-cache", guest.pages, 4)
    guest.set("input-embeddings", [0, 2**32 - 1], [0, 1])
    assert (await guest.draft()).tokens == (-1, -(2**32))


async def test_pages_are_replaced_by_a_second_call() -> None:
    guest = await describing_guest()
    guest.set("kv-cache", guest.pages[:1], 3)
    draft = await guest.draft()
    assert (draft.pages, draft.last_page_length) == ((guest.pages[0],), 3)


async def test_a_mask_is_replaced_by_a_second_call_and_sent_as_intervals() -> None:
    guest = await describing_guest(rows=2)
    guest.set("attention-mask", [[1, 2, 8], [12]])
    guest.set("attention-mask", [[1, 9, 1], [1, 9, 2]])
    assert (await guest.draft()).mask == ((0, 1, 10, 11), (0, 1, 10, 12))


async def test_a_mask_that_hides_nothing_is_sent_as_none() -> None:
    guest = await describing_guest(rows=2)
    guest.set("attention-mask", [[11], [5, 0, 7]])
    assert (await guest.draft()).mask is None


async def test_a_pass_without_a_mask_is_causal() -> None:
    guest = await describing_guest()
    assert (await guest.draft()).mask is None


@pytest.mark.parametrize(
    "function, arguments, expected",
    [
        ("output-tokens", (0.0,), OutputRow(1, SamplerKind.MULTINOMIAL, 0.0)),
        ("output-tokens-top-k", (0.5, 9), OutputRow(1, SamplerKind.TOP_K, 0.5, top_k=9)),
        (
            "output-tokens-top-k",
            (0.5, 2**32 - 1),
            OutputRow(1, SamplerKind.TOP_K, 0.5, top_k=FACTS.vocab_size),
        ),
        ("output-tokens-top-p", (0.5, 0.9), OutputRow(1, SamplerKind.TOP_P, 0.5, top_p=0.9)),
        ("output-tokens-min-p", (0.5, 0.0), OutputRow(1, SamplerKind.MIN_P, 0.5, min_p=0.0)),
        (
            "output-tokens-top-k-top-p",
            (0.5, 9, 1.0),
            OutputRow(1, SamplerKind.TOP_K_TOP_P, 0.5, top_k=9, top_p=1.0),
        ),
        (
            "output-distributions",
            (0.5, 7),
            OutputRow(1, SamplerKind.DISTRIBUTION, 0.5, top_k=7),
        ),
        (
            "output-distributions",
            (0.5, None),
            OutputRow(1, SamplerKind.DISTRIBUTION, 0.5, top_k=FACTS.distribution_max),
        ),
    ],
)
async def test_an_output_reaches_the_draft_with_its_sampler(
    function: str, arguments: tuple[Any, ...], expected: OutputRow
) -> None:
    guest = await describing_guest()
    guest.set(function, [1], *arguments)
    assert (await guest.draft()).outputs == (expected,)


async def test_a_distribution_has_32_ids_unless_the_guest_says_otherwise() -> None:
    guest = await describing_guest()
    model = guest.handle.model
    model.facts = attrs.evolve(FACTS, distribution_max=256)
    guest.set("output-distributions", [0], 1.0, None)
    assert (await guest.draft()).outputs[0].top_k == 32


async def test_outputs_append_in_the_order_of_the_calls() -> None:
    guest = await describing_guest()
    guest.set("output-tokens", [1], 0.0)
    guest.set("output-distributions", [0], 1.0, 2)
    guest.set("output-tokens", [0, 1], 0.0)
    assert [row.row for row in (await guest.draft()).outputs] == [1, 0, 0, 1]


async def test_embedding_outputs_pair_rows_with_handles() -> None:
    guest = await describing_guest()
    guest.set("output-embeddings", [8, 9], [1, 0])
    assert (await guest.draft()).embed_outputs == ((1, 8), (0, 9))


async def test_an_executed_pass_is_empty_again_and_can_be_described_anew() -> None:
    guest = await describing_guest()
    guest.set("attention-mask", [[11], [1, 11]])
    guest.set("output-tokens", [0], 0.0)
    await guest.execute()
    guest.set("kv-cache", guest.pages[:1], 1)
    guest.set("input-tokens", [42], [7])
    described = attrs.astuple(await guest.draft(), recurse=False)
    assert described == ((42,), (7,), (guest.pages[0],), 1, None, (), (), None, None)


async def test_what_a_pass_holds_is_given_back_when_it_is_executed_or_dropped() -> None:
    guest = await describing_guest()
    guest.set("attention-mask", [[11], [12]])
    assert guest.host.held.bytes_held > 0
    await guest.execute()
    assert guest.host.held.bytes_held == 0
    guest.set("input-tokens", [1], [1])
    guest.builder.close()
    guest.builder.close()
    assert guest.host.held.bytes_held == 0


async def test_what_is_replaced_is_no_longer_held() -> None:
    guest = await describing_guest()
    for function, arguments in (
        ("kv-cache", (guest.pages, 4)),
        ("attention-mask", ([[11], [12]],)),
    ):
        guest.set(function, *arguments)
        held = guest.host.held.bytes_held
        guest.set(function, *arguments)
        assert guest.host.held.bytes_held == held


async def test_what_passes_hold_is_bounded_for_thenew_guest() -> None:
    guest = await new_guest(Limits(guest_held_bytes=1000))
    with pytest.raises(TooMany, match=r"input-tokens: .*guest_held_bytes"):
        guest.set("input-tokens", [0] * 100, [0] * 100)


# The answer


async def test_a_pass_with_no_output_runs_and_has_no_result() -> None:
    guest = await describing_guest()
    guest.set("output-embeddings", [0], [1])
    guest.set("output-tokens", [], 0.0)
    assert await guest.execute() is None
    assert len(guest.handle.drafts) == 1


async def test_tokens_are_none_until_ready_then_given_once() -> None:
    guest = await describing_guest()
    guest.set("output-tokens", [1], 0.0)
    answer = await guest.execute()
    get = FORWARD + "[method]forward-pass-result.get-tokens"
    assert call(guest.host, get, answer) is None
    guest.handle.passes[0].fill(PassResult((17,), ()))
    assert list(call(guest.host, get, answer)) == [17]
    assert list(call(guest.host, get, answer)) == []


async def test_distributions_are_none_until_ready_then_given_once() -> None:
    guest = await describing_guest()
    guest.set("output-distributions", [1], 1.0, 2)
    answer = await guest.execute()
    get = FORWARD + "[method]forward-pass-result.get-distributions"
    assert call(guest.host, get, answer) is None
    guest.handle.passes[0].fill(PassResult((), (([4, 5], [0.75, 0.25]),)))
    assert list(call(guest.host, get, answer)) == [([4, 5], [0.75, 0.25])]
    assert list(call(guest.host, get, answer)) == []


async def test_the_pollable_of_a_result_is_ready_when_the_pass_settled() -> None:
    guest = await describing_guest()
    guest.set("output-tokens", [1], 0.0)
    answer = await guest.execute()
    pollable = call(guest.host, FORWARD + "[method]forward-pass-result.pollable", answer)
    assert not pollable.ready()
    guest.handle.passes[0].fill(PassResult((17,), ()))
    await pollable.wait()
    assert pollable.ready()


@pytest.mark.parametrize("get", ["get-tokens", "get-distributions"])
async def test_a_refused_pass_is_ready_and_raises_its_refusal(get: str) -> None:
    guest = await describing_guest()
    guest.set("output-tokens", [1], 0.0)
    answer = await guest.execute()
    guest.handle.passes[0].refuse(WorkerLost("it died"))
    pollable = call(guest.host, FORWARD + "[method]forward-pass-result.pollable", answer)
    assert pollable.ready()
    with pytest.raises(WorkerLost, match="it died"):
        call(guest.host, f"{FORWARD}[method]forward-pass-result.{get}", answer)


async def test_a_refused_pass_that_nobody_asked_about_ends_the_next_execute() -> None:
    guest = await describing_guest()
    await guest.execute()
    guest.handle.passes[0].refuse(PassFailed("bad page"))
    guest.set("input-tokens", [1], [1])
    with pytest.raises(PassFailed, match="bad page"):
        await guest.execute()
    assert len(guest.handle.drafts) == 1


async def test_a_barrier_that_told_of_the_failure_makes_a_new_start() -> None:
    guest = await describing_guest()
    await guest.execute()
    barrier = await call(guest.host, "core/common#[method]queue.synchronize", guest.queue)
    guest.handle.passes[0].refuse(PassFailed("bad page"))
    guest.handle.barriers[0].fill(False)
    get = "core/common#[method]synchronization-result.get"
    assert call(guest.host, get, barrier) is False
    guest.set("kv-cache", guest.pages, 4)
    guest.set("input-tokens", [1], [1])
    await guest.execute()
    assert len(guest.handle.drafts) == 2


async def test_a_dropped_result_gives_back_what_it_held() -> None:
    guest = await describing_guest()
    guest.set("output-distributions", [0, 1], 1.0, 16)
    answer = await guest.execute()
    assert guest.host.held.bytes_held > 0
    answer.close()
    answer.close()
    assert guest.host.held.bytes_held == 0
