"""A chunk of a pass becomes a request on the wire, and its answer a part of the pass's result.

Pure. The seed of a row depends on the pass alone, never on how it was cut or batched.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import attrs

from gpu_worker import wire
from pie_trio.messages import ForwardPass, Listed, PassResult
from pie_trio.services.batch_policy import Chunk

# The worker's mixer walks by this step from row to row (`gpu_worker.mixing`, splitmix64).
SEED_STEP = 0x9E3779B97F4A7C15


def pass_seed(engine_seed: int, instance: int, queue: int, number: int) -> int:
    """64 bits from who asks, so that a seed reproduces a run whatever the batches were."""
    text = f"{engine_seed}/{instance}/{queue}/{number}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")


def step_seed(origin: tuple[int, int, int, int], chosen: int | None, row: int, step: int) -> int:
    """Of one step of a sequence whose first pass is of this origin and draws after `row`.

    It draws what a pass would, or with a chosen seed what that says of the next row.
    """
    if chosen is None:
        return pass_seed(*origin[:3], origin[3] + step)
    return seed_from_row(chosen, row + step)


def chosen_seed(seed: int, position: int) -> int:
    """Under which row 0 draws what a guest's seed says of a position."""
    digest = hashlib.blake2b(f"chosen/{seed}".encode(), digest_size=8).digest()
    return seed_from_row(int.from_bytes(digest, "little"), position)


def seed_from_row(seed: int, row: int) -> int:
    """The seed under which row 0 of a chunk draws what `row` of the whole pass would draw."""
    return (seed + SEED_STEP * row) & (2**64 - 1)


def whole_request(forward: ForwardPass) -> wire.Request:
    """All rows of a pass, encoded: done while it waits, so that a batch is only joined."""
    request = forward.request()
    assert request.fragment.rows == len(forward.tokens), "what was checked can be encoded"
    return request


def request_for(chunk: Chunk) -> wire.Request:
    """Rows [first, end) as a request whose context ends with its last row."""
    forward = chunk.waiting.forward
    if chunk.end - chunk.first == len(forward.tokens):
        return chunk.waiting.request or whole_request(forward)
    size = forward.page_size
    rows = slice(chunk.first, chunk.end)
    total = (len(forward.pages) - 1) * size + forward.last_page_length
    total -= len(forward.tokens) - chunk.end
    pages = -(-total // size)
    return wire.Request(
        tokens=forward.tokens[rows],
        positions=forward.positions[rows],
        pages=forward.pages[:pages],
        last_page_length=total - (pages - 1) * size,
        mask=None if forward.mask is None else forward.mask[rows],
        outputs=tuple(
            attrs.evolve(output, row=output.row - chunk.first) for _, output in _outputs(chunk)
        ),
        embed_outputs=tuple(
            (row - chunk.first, slot)
            for row, slot in forward.embed_outputs
            if chunk.first <= row < chunk.end
        ),
        seed=seed_from_row(forward.seed, chunk.first),
    )


def _outputs(chunk: Chunk) -> Iterable[tuple[int, wire.OutputRow]]:
    for ordinal, output in enumerate(chunk.waiting.forward.outputs):
        if chunk.first <= output.row < chunk.end:
            yield ordinal, output


def whole_result(chunk: Chunk, answer: wire.Answer) -> PassResult | None:
    """The result of a pass that was not cut and asked for nothing but tokens: the usual one."""
    is_plain = not (answer.distributions or answer.is_closed)
    return PassResult(answer.tokens, ()) if is_plain and is_whole(chunk) else None


def is_whole(chunk: Chunk) -> bool:
    return not chunk.first and chunk.waiting.has_left


@attrs.define(eq=False)
class Collected:
    """What the chunks of one pass have answered so far, by the ordinal of the output."""

    tokens: dict[int, int] = attrs.field(factory=dict)
    lists: dict[int, Listed] = attrs.field(factory=dict)
    is_closed: bool = False

    def add(self, chunk: Chunk, answer: wire.Answer) -> None:
        self.is_closed = self.is_closed or answer.is_closed
        tokens = iter(answer.tokens)
        lists = iter(answer.distributions)
        for ordinal, output in _outputs(chunk):
            if output.kind is not wire.SamplerKind.DISTRIBUTION:
                self.tokens[ordinal] = next(tokens)
            if output.wants_list:
                self.lists[ordinal] = next(lists)

    def result(self, forward: ForwardPass) -> PassResult:
        everywhere = range(len(forward.outputs))
        if not self.lists:
            tokens = tuple([self.tokens[ordinal] for ordinal in everywhere])
            return PassResult(tokens, (), is_closed=self.is_closed)
        heads = [ordinal for ordinal in everywhere if ordinal not in self.tokens]
        drawn = [ordinal for ordinal in everywhere if ordinal in self.tokens]
        return PassResult(
            tokens=tuple([self.tokens[ordinal] for ordinal in drawn]),
            distributions=tuple([self.lists[ordinal] for ordinal in heads]),
            logprobs=tuple([self.lists[ordinal] for ordinal in drawn if ordinal in self.lists]),
            is_closed=self.is_closed,
        )
