"""Sampling controls as a guest sees them: of passes, of streams, and what is refused by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from gpu_worker.mixing import mix
from gpu_worker.wire import ADJUSTMENT, OutputRow
from pie_trio.config import Limits
from pie_trio.errors import GuestFault
from pie_trio.messages import PassResult
from pie_trio.penalties import Adjusting, Penalties
from pie_trio.wasm.host.sampling import SAMPLING
from tests.support.forward_guest import Guest, describing_guest
from tests.support.handles import FACTS
from tests.test_host_ext import SAMPLER, open_stream, stream_function, take


def tell(guest: Guest, function: str, *arguments: Any) -> Any:
    return SAMPLING[function](guest.host, guest.builder, *arguments)


def adjustment(token: int, factor: float = 1.0, addend: float = 0.0) -> dict[str, Any]:
    return {"token": token, "factor": factor, "addend": addend}


def records(output: OutputRow) -> dict[int, tuple[float, float]]:
    return {token: rest for token, *rest in ADJUSTMENT.iter_unpack(output.adjustments)}  # type: ignore[misc]


# Passes


async def test_a_row_is_adjusted_for_all_that_is_asked_of_it_and_for_the_next_execute_alone() -> (
    None
):
    guest = await describing_guest(rows=2)
    guest.set("output-tokens", [1, 0], 0.0)
    guest.set("output-distributions", [1], 1.0, 2)
    assert tell(guest, "adjust", 1, [adjustment(5)]) is None
    assert tell(guest, "adjust", 1, [adjustment(7, 2.0, -0.5)]) is None
    first, other, head = (await guest.draft()).outputs
    assert records(first) == records(head) == {7: [2.0, -0.5]}
    assert other.adjustments == b""
    guest.set("kv-cache", guest.pages, 4)
    guest.set("input-tokens", [1], [0])
    guest.set("output-tokens", [0], 0.0)
    assert (await guest.draft()).outputs[0].adjustments == b""


@pytest.mark.parametrize(
    "given, reason",
    [
        ([adjustment(FACTS.vocab_size)], "vocabulary"),
        ([adjustment(1), adjustment(1)], "each only once"),
        ([adjustment(1, 0.0)], "a factor"),
        ([adjustment(1, float("nan"))], "a factor"),
        ([adjustment(1, 1.0, float("-inf"))], "an addend"),
        ([adjustment(1, 1.0, float("nan"))], "an addend"),
    ],
)
async def test_an_adjustment_out_of_bounds_is_refused_and_changes_nothing(
    given: Sequence[dict[str, Any]], reason: str
) -> None:
    guest = await describing_guest()
    guest.set("output-tokens", [0], 0.0)
    held = guest.host.held.bytes_held
    refused = tell(guest, "adjust", 0, given)
    assert refused.payload.tag == "invalid"
    assert reason in refused.payload.payload
    assert guest.host.held.bytes_held == held
    assert (await guest.draft()).outputs[0].adjustments == b""


async def test_an_adjusted_row_of_which_nothing_is_asked_is_refused() -> None:
    guest = await describing_guest(rows=2)
    guest.set("output-tokens", [0], 0.0)
    tell(guest, "adjust", 1, [adjustment(5)])
    with pytest.raises(GuestFault, match="an adjusted row"):
        await guest.execute()


async def test_what_all_outputs_adjust_has_a_bound() -> None:
    guest = await describing_guest(limits=Limits(pass_adjustments_max=5))
    tell(guest, "adjust", 0, [adjustment(token) for token in range(3)])
    guest.set("output-tokens", [0, 0], 0.0)
    with pytest.raises(GuestFault, match="pass_adjustments_max"):
        await guest.execute()


async def test_log_probabilities_come_once_when_the_pass_has_been_answered() -> None:
    guest = await describing_guest()
    assert tell(guest, "want-logprobs", 3) is None
    guest.set("output-tokens", [1], 0.0)
    guest.set("output-distributions", [1], 1.0, 2)
    answer = await guest.execute()
    token, head = guest.handle.drafts[-1].outputs
    assert (token.logprobs, head.logprobs) == (4, 0)

    def told() -> Any:
        return SAMPLING["get-logprobs"](guest.host, answer)

    assert told() is None
    guest.handle.passes[-1].fill(PassResult((7,), (([1], [1.0]),), (([7, 8], [-1.0, -0.5]),)))
    assert told() == [[(7, -1.0), (8, -0.5)]]
    assert list(told()) == []
    refused = tell(guest, "want-logprobs", Limits().logprobs_max + 1)
    assert "logprobs_max" in refused.payload.payload


async def test_a_seed_draws_by_the_position_in_whatever_row_it_stands() -> None:
    drawn = []
    for tokens, row in (([1], 0), ([1, 2, 3], 2)):
        guest = await describing_guest(rows=0)
        guest.set("input-tokens", tokens, range(9 - row, 10))
        guest.set("output-tokens", [row], 1.0)
        tell(guest, "set-seed", 2**64 - 1)
        seed = (await guest.draft()).seed
        assert seed is not None
        drawn.append(mix(seed, row))
    assert drawn[0] == drawn[1]
    with_none = await describing_guest()
    with_none.set("output-tokens", [0], 1.0)
    assert (await with_none.draft()).seed is None


async def test_a_seed_for_rows_whose_positions_leap_is_refused() -> None:
    guest = await describing_guest(rows=0)
    guest.set("input-tokens", [1, 2], [0, 5])
    guest.set("output-tokens", [0, 1], 1.0)
    tell(guest, "set-seed", 1)
    with pytest.raises(GuestFault, match="count on by one"):
        await guest.execute()


# Streams


async def test_a_stream_adjusts_what_its_text_has_and_what_it_writes_step_by_step() -> None:
    sampler = {
        **SAMPLER,
        "repetition-penalty": 2.0,
        "frequency-penalty": 0.5,
        "presence-penalty": 0.25,
        "logit-bias": [(9, 1.5), (50, -1.0)],
    }
    _, stream = await open_stream(sampler=sampler, earlier=[9, 30], generated=[2, 30, 30])
    adjusting = stream.decode.adjusting
    first = stream.queue.handle.drafts[-1].outputs[0]
    assert first.adjustments == bytes(adjusting.records)
    assert records(first) == {
        1: [2.0, 0.0],
        2: [2.0, -0.75],
        9: [2.0, 1.5],
        30: [2.0, -1.25],
        50: [1.0, -1.0],
    }
    take(stream, 50, 50, 7)
    found = {t: r for t, *r in ADJUSTMENT.iter_unpack(bytes(adjusting.records))}
    assert found[50] == [2.0, -2.25]
    assert found[7] == [2.0, -0.75]
    assert len(found) == 6


def test_penalties_that_change_nothing_leave_no_record() -> None:
    idle = Adjusting(Penalties())
    idle.read([1, 2])
    idle.wrote([3])
    assert not idle.records
    assert Penalties().changes_nothing


async def test_a_stream_tells_log_probabilities_of_tokens_read_or_not() -> None:
    host, stream = await open_stream(sampler={**SAMPLER, "logprobs": 1}, **{"max-tokens": 9})
    assert stream.queue.handle.drafts[-1].outputs[0].logprobs == 2
    for token in range(4):
        told = ([token, 5], [-1.0 - token, -0.5])
        stream.decode.take([PassResult((token,), (), (told,))], 4, 0.0)
    assert stream_function("logprobs", host, stream, 1, 2) == [
        [(1, -2.0), (5, -0.5)],
        [(2, -3.0), (5, -0.5)],
    ]
    assert stream_function("logprobs", host, stream, 4, 9) == []
    stream.close()
    stream.decode.take([PassResult((8,), (), (([8], [-1.0]),))], 4, 0.0)
    assert stream_function("truncate", host, stream, 2) is None
    assert [ids[0] for ids, _ in stream.decode.logprobs] == [0, 1]


@pytest.mark.parametrize(
    "changes, reason",
    [
        ({"repetition-penalty": 0.0}, "repetition-penalty"),
        ({"repetition-penalty": float("nan")}, "repetition-penalty"),
        ({"frequency-penalty": 1000.0}, "penalty_max"),
        ({"presence-penalty": float("-inf")}, "presence-penalty"),
        ({"logit-bias": [(1, float("nan"))]}, "logit_bias_max"),
        ({"logit-bias": [(1, 0.0), (1, 1.0)]}, "each only once"),
        ({"logit-bias": [(FACTS.vocab_size, 0.0)]}, "vocabulary"),
        ({"logprobs": 1000}, "logprobs_max"),
    ],
)
async def test_a_sampler_out_of_bounds_is_refused_with_a_value(
    changes: dict[str, Any], reason: str
) -> None:
    host, refused = await open_stream(sampler={**SAMPLER, **changes})
    assert refused.payload.tag == "invalid"
    assert reason in refused.payload.payload
    assert host.held.bytes_held == 0


@pytest.mark.parametrize(
    "changes, reason",
    [
        ({"earlier": [FACTS.vocab_size]}, "vocabulary"),
        ({"generated": [1] * 65_536}, "pass_rows_max"),
    ],
)
async def test_a_text_that_cannot_be_is_refused_with_a_value(
    changes: dict[str, Any], reason: str
) -> None:
    host, refused = await open_stream(**changes)
    assert reason in refused.payload.payload
    assert host.held.bytes_held == 0
