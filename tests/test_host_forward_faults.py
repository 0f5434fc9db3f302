"""`inferlet:core/forward`: what is refused, by whom, and that nothing is sent then."""

from __future__ import annotations

from typing import Any

import pytest

from pie_trio.config import Limits
from pie_trio.errors import GuestFault
from tests.support.forward_guest import describing_guest
from tests.support.handles import FACTS

NOT_A_NUMBER = float("nan")
INFINITE = float("inf")

BAD_SETTERS: list[tuple[str, tuple[Any, ...], str]] = [
    ("input-tokens", ([1, 2], [0]), "number of positions is 1; allowed: 2"),
    ("input-tokens", ([FACTS.vocab_size], [0]), "a token is 300; allowed: 0 to 299"),
    ("input-tokens", ([1], [2**31]), "a position is 2147483648"),
    ("input-embeddings", ([1], [0, 1]), "number of positions is 2; allowed: 1"),
    ("input-embeddings", ([1], [2**31]), "a position is 2147483648"),
    ("output-embeddings", ([1, 2], [0]), "number of indices is 1; allowed: 2"),
    ("output-tokens", ([0], -0.1), "temperature is -0.1"),
    ("output-tokens", ([0], NOT_A_NUMBER), "temperature is nan"),
    ("output-tokens", ([0], INFINITE), "temperature is inf"),
    ("output-tokens-top-k", ([0], 1.0, 0), "top-k is 0"),
    ("output-tokens-top-k", ([0], -1.0, 1), "temperature is -1.0"),
    ("output-tokens-top-p", ([0], 1.0, 0.0), "top-p is 0.0"),
    ("output-tokens-top-p", ([0], 1.0, 1.1), "top-p is 1.1"),
    ("output-tokens-top-p", ([0], 1.0, NOT_A_NUMBER), "top-p is nan"),
    ("output-tokens-top-p", ([0], -1.0, 0.5), "temperature is -1.0"),
    ("output-tokens-min-p", ([0], 1.0, -0.1), "min-p is -0.1"),
    ("output-tokens-min-p", ([0], 1.0, 1.1), "min-p is 1.1"),
    ("output-tokens-min-p", ([0], 1.0, NOT_A_NUMBER), "min-p is nan"),
    ("output-tokens-min-p", ([0], -1.0, 0.5), "temperature is -1.0"),
    ("output-tokens-top-k-top-p", ([0], 1.0, 0, 0.5), "top-k is 0"),
    ("output-tokens-top-k-top-p", ([0], 1.0, 1, 0.0), "top-p is 0.0"),
    ("output-tokens-top-k-top-p", ([0], -1.0, 1, 0.5), "temperature is -1.0"),
    ("output-distributions", ([0], 1.0, 0), "top-k is 0"),
    ("output-distributions", ([0], NOT_A_NUMBER, None), "temperature is nan"),
]


@pytest.mark.parametrize("function, arguments, reason", BAD_SETTERS)
async def test_a_bad_argument_is_a_fault_that_names_it_and_changes_nothing(
    function: str, arguments: tuple[Any, ...], reason: str
) -> None:
    guest = await describing_guest()
    held = guest.host.held.bytes_held
    with pytest.raises(GuestFault, match=f"^{function}: .*{reason}"):
        guest.set(function, *arguments)
    assert guest.host.held.bytes_held == held
    draft = await guest.draft()
    assert (draft.tokens, draft.outputs, draft.embed_outputs) == ((0, 1), (), ())


BAD_PASSES: list[tuple[str, tuple[Any, ...], str]] = [
    ("kv-cache", ([], 4), "no KV pages"),
    ("kv-cache", ([0, 1, 0], 4), "repeated entry of kv-page-ptrs is 0"),
    ("kv-cache", ([0], 0), "last-kv-page-len is 0; allowed: 1 to 4"),
    ("kv-cache", ([0], 5), "last-kv-page-len is 5; allowed: 1 to 4"),
    ("kv-cache", ([0], 2**32 - 1), "last-kv-page-len is 4294967295"),
    ("kv-cache", ([0], 1), "hold 1 tokens, but the pass has 2 inputs"),
    ("attention-mask", ([],), "rows of the mask is 0; allowed: 2"),
    ("attention-mask", ([[11]],), "rows of the mask is 1; allowed: 2"),
    ("attention-mask", ([[11], [12], [13]],), "rows of the mask is 3; allowed: 2"),
    ("attention-mask", ([[11], [11]],), "mask of row 1 covers 11 slots; .* are 12"),
    ("attention-mask", ([[11], []],), "mask of row 1 covers 0 slots"),
    ("attention-mask", ([[0, 11], [12]],), "mask of row 0 attends to nothing"),
    ("output-tokens", ([2], 0.0), "an index of an output is 2; allowed: 0 to 1"),
    ("output-tokens", ([0, 2**32 - 1], 0.0), "an index of an output is 4294967295"),
    ("output-distributions", ([2], 1.0, 3), "an index of an output is 2"),
    ("output-embeddings", ([0], [2]), "an index of an output is 2"),
]


@pytest.mark.parametrize("function, arguments, reason", BAD_PASSES)
async def test_a_pass_that_does_not_fit_together_is_refused_whole(
    function: str, arguments: tuple[Any, ...], reason: str
) -> None:
    guest = await describing_guest()
    guest.set(function, *arguments)
    with pytest.raises(GuestFault, match=f"forward-pass.execute: .*{reason}"):
        await guest.execute()
    assert guest.handle.drafts == []


@pytest.mark.parametrize(
    "limits, function, arguments, name",
    [
        (Limits(pass_rows_max=3), "input-tokens", ([1, 2], [1, 2]), "pass_rows_max"),
        (Limits(pass_rows_max=3), "input-embeddings", ([1, 2], [1, 2]), "pass_rows_max"),
        (Limits(pass_outputs_max=1), "output-tokens", ([0, 1], 0.0), "pass_outputs_max"),
        (Limits(pass_outputs_max=1), "output-embeddings", ([0, 1], [0, 1]), "pass_outputs_max"),
        (Limits(mask_runs_max=4), "attention-mask", ([[11], [1, 10, 1]],), "mask_runs_max"),
    ],
)
async def test_the_sizes_of_a_pass_are_bounded_by_name(
    limits: Limits, function: str, arguments: tuple[Any, ...], name: str
) -> None:
    guest = await describing_guest(limits=limits)
    with pytest.raises(GuestFault, match=rf"^{function}: .*\({name}\)"):
        guest.set(function, *arguments)


async def test_a_page_that_is_not_the_guests_is_refused_and_the_pass_stays_as_it_was() -> None:
    guest = await describing_guest()
    guest.set("kv-cache", [99], 4)
    with pytest.raises(GuestFault, match="99"):
        await guest.execute()
    guest.set("kv-cache", guest.pages, 4)
    assert (await guest.draft()).tokens == (0, 1)


async def test_a_pass_that_exactly_fills_its_pages_is_accepted() -> None:
    guest = await describing_guest(rows=12)
    assert len((await guest.draft()).tokens) == 12
