"""What attention reads grows with the keys that masks keep, not with the square of the context.

In torch the plan is counted. In C, pages that no row sees are numbered where there is no memory, so
that a kernel which as much as looks at one of them dies; it runs in a process of its own.
"""

from __future__ import annotations

import random
import subprocess
import sys

import attrs
import pytest

from gpu_worker.attention.plan import Plan, make_plan
from gpu_worker.wire import Batch, BatchArrays, Request, decode, encode
from tests.source_tree import ROOT
from tests.support.kernels import VARIANTS, library

PAGE = 16
CONTEXT = 2048
WINDOW = 64


def _request(rows: int, window: int | None, context: int = CONTEXT) -> Request:
    """The last rows of a context, each of which sees so many slots up to itself, or all of them."""
    own = range(context - rows, context)
    return Request(
        tokens=[0] * rows,
        positions=own,
        pages=range(context // PAGE),
        last_page_length=PAGE,
        mask=None if window is None else [[max(0, at + 1 - window), at + 1] for at in own],
        outputs=[],
        embed_outputs=[],
        seed=0,
    )


def _plan(*requests: Request) -> Plan:
    batch = decode(encode(Batch(1, 1, (), requests)))
    assert isinstance(batch, BatchArrays)
    return make_plan(batch, [*range(len(requests))], PAGE)


def _pairs(plan: Plan) -> int:
    """Rows times places: what all groups multiply."""
    return sum(group.seen.numel() for group in plan.groups)


def test_a_window_over_a_long_context_gathers_the_window_alone() -> None:
    (group,) = _plan(*[_request(1, WINDOW)] * 3).groups
    assert group.places.shape == (3, WINDOW)
    assert group.places[0].tolist() == [*range(CONTEXT - WINDOW, CONTEXT)]


def test_a_prefill_in_windows_costs_its_rows_times_the_window() -> None:
    assert _pairs(_plan(_request(CONTEXT, WINDOW))) < 2 * CONTEXT * WINDOW
    twice = _pairs(_plan(_request(2 * CONTEXT, WINDOW, 2 * CONTEXT)))
    assert twice < 2.1 * _pairs(_plan(_request(CONTEXT, WINDOW)))


def test_a_whole_prefill_costs_half_of_rows_times_context() -> None:
    assert _pairs(_plan(_request(CONTEXT, None))) < 0.6 * CONTEXT**2


def test_a_row_that_sees_two_ends_gathers_nothing_between_them() -> None:
    ends = attrs.evolve(_request(1, None), mask=[[0, 4, CONTEXT - 8, CONTEXT]])
    (group,) = _plan(ends).groups
    assert group.places[0].tolist() == [0, 1, 2, 3, *range(CONTEXT - 8, CONTEXT)]
    assert bool(group.seen.all())


def _random_mask(draw: random.Random, rows: int, context: int) -> list[list[int]]:
    """Up to three intervals a row, none behind the row itself, sometimes none at all."""
    mask = []
    for own in range(context - rows, context):
        bounds = sorted(draw.sample(range(own + 2), 2 * draw.randint(0, min(3, own // 2))))
        mask.append(bounds)
    return mask


def test_a_plan_sees_exactly_what_the_masks_keep() -> None:
    draw = random.Random(5)
    requests, expected = [], []
    for rows, context, masked in ((150, 160, True), (1, 96, True), (70, 80, False), (1, 64, True)):
        mask = _random_mask(draw, rows, context) if masked else None
        pages = draw.sample(range(100), context // PAGE)
        request = _request(rows, None, context)
        requests.append(attrs.evolve(request, pages=pages, mask=mask))
        places = [page * PAGE + slot for page in pages for slot in range(PAGE)]
        for row, own in enumerate(range(context - rows, context)):
            bounds = [0, own + 1] if mask is None else mask[row]
            pairs = zip(bounds[::2], bounds[1::2], strict=True)
            expected.append([place for start, stop in pairs for place in places[start:stop]])
    found: dict[int, list[int]] = {}
    for group in _plan(*requests).groups:
        for rows_of, places_of, seen in zip(group.rows, group.places, group.seen, strict=True):
            for number, kept in zip(rows_of.tolist(), seen, strict=True):
                found[number] = places_of[kept].tolist()
    assert found == dict(enumerate(expected))


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_kernels_never_look_at_a_page_that_no_row_sees(variant: str) -> None:
    library(variant)
    command = [sys.executable, "-m", "tests.support.kept_keys", variant]
    ended = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert (ended.returncode, ended.stdout) == (0, "attended 3 times\n"), ended.stderr
