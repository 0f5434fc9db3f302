"""Several steps that a worker executes without asking: as many single batches, and no more.

The worker's side on the pretend executor and on a real one, the engine's side through real queues:
who is carried on, who ends that, and what is there when a step in the middle fails.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import attrs
import msgpack
import pytest
import trio

from gpu_worker.multi_step import execute_steps
from gpu_worker.pretend import Pace, PretendExecutor, PretendModel
from gpu_worker.wire import (
    STEPS_MAX,
    Answer,
    Batch,
    BatchArrays,
    BatchResult,
    MultiStep,
    OutputRow,
    Request,
    SamplerKind,
    WireError,
    WorkerLimits,
    decode,
    encode,
)
from pie_trio.config import Limits
from pie_trio.decode import FinishReason
from pie_trio.errors import PassFailed
from pie_trio.services.worker_answers import Parts, in_one, result_fault
from pie_trio.testing.inline_worker import WorkerScript
from tests.scripted import KV, open_scripted
from tests.support.kernels import KINDS
from tests.support.worker_models import tiny_model
from tests.test_decode_streams import TEXT, Wakes, by_passes, ended, start
from tests.test_worker_executor import PAGE, machine
from tests.world import open_world

SIZE, PAGES = 4, 64
LIMITS = WorkerLimits(SIZE, 1 << 24, PAGES, 8, 64, 32)
FAILED = Answer((), (), "no")
Execute = Callable[[BatchArrays], BatchResult]


def never() -> bool:
    return False


def arrays(batch: Batch) -> BatchArrays:
    found = decode(encode(batch))
    assert isinstance(found, BatchArrays)
    return found


@attrs.define
class Text:
    """A text of its own pages, whose last token is still to be read."""

    tokens: list[int]
    pages: tuple[int, ...]
    seeds: tuple[int, ...]
    temperature: float
    size: int = SIZE

    def request(self, step: int = 0) -> Request:
        total = len(self.tokens)
        used = -(-total // self.size)
        output = OutputRow(0, SamplerKind.MULTINOMIAL, self.temperature)
        place = (self.pages[:used], (total - 1) % self.size + 1)
        row = ((self.tokens[-1],), (total - 1,))
        return Request(*row, *place, None, (output,), (), self.seeds[step])

    def prefill(self) -> Request:
        count = len(self.tokens) - 1
        used = -(-count // self.size)
        row = (tuple(self.tokens[:-1]), tuple(range(count)))
        return Request(*row, self.pages[:used], (count - 1) % self.size + 1, None, (), (), 0)

    def spare(self) -> tuple[int, ...]:
        return self.pages[-(-len(self.tokens) // self.size) :]


def texts_of(seed: int, size: int = SIZE, sampled: bool = True) -> list[Text]:
    """Three texts of other lengths, so that each comes to the end of a page in another step."""
    draw = random.Random(seed)
    free = draw.sample(range(PAGES), PAGES)
    return [
        Text(
            [draw.randrange(40, 60) for _ in range(length * size // SIZE)],
            tuple(free[place * 8 : place * 8 + 8]),
            tuple(draw.randrange(1 << 64) for _ in range(32)),
            draw.choice((0.0, 1.3)) if sampled else 0.0,
            size,
        )
        for place, length in enumerate(draw.sample(range(2, 14), 3))
    ]


def one_by_one(execute: Execute, texts: Sequence[Text], steps: int) -> list[list[int]]:
    found: list[list[int]] = [[] for _ in texts]
    for step in range(steps):
        requests = [text.request(step) for text in texts]
        answers = execute(arrays(Batch(1, 2 + step, (), requests))).answers
        for text, said, answer in zip(texts, found, answers, strict=True):
            said.append(answer.tokens[0])
            text.tokens.append(answer.tokens[0])
    return found


def several(
    texts: Sequence[Text],
    steps: int,
    stops: Sequence[int] = (),
    part_steps: int = STEPS_MAX,
    part_seconds: float = 1e9,
) -> Batch:
    more = MultiStep(
        steps,
        part_steps,
        part_seconds,
        tuple(text.spare() for text in texts),
        tuple(text.seeds[1:steps] for text in texts),
        tuple(tuple(stops) for _ in texts),
    )
    return Batch(1, 2, (), [text.request() for text in texts], None, more)


def said(result: BatchResult, count: int) -> list[list[int]]:
    return [[answer.tokens[0] for answer in result.answers[place::count]] for place in range(count)]


def at_once(execute: Execute, texts: Sequence[Text], steps: int) -> list[list[int]]:
    batch = arrays(several(texts, steps))
    return said(execute_steps(execute, texts[0].size, batch, never, in_one), len(texts))


def test_the_most_steps_that_can_be_configured_travel_and_one_more_does_not() -> None:
    (text, *_) = texts_of(0)
    for steps in (STEPS_MAX, STEPS_MAX + 1):
        text.seeds = tuple(range(steps))
        message = encode(several([text], steps))
        if steps > STEPS_MAX:
            with pytest.raises(WireError, match=f"none of 0 to {STEPS_MAX}"):
                decode(message)
        else:
            assert isinstance(decode(message), BatchArrays)


def pretend() -> PretendExecutor:
    return PretendExecutor(PretendModel(), LIMITS, Pace())


@pytest.mark.parametrize("seed", range(6))
def test_several_steps_say_what_as_many_batches_say(seed: int) -> None:
    steps = 9
    first, second = pretend(), pretend()
    for worker in (first, second):
        worker.execute(arrays(Batch(1, 1, (), [text.prefill() for text in texts_of(seed)])))
    truth = one_by_one(first.execute, texts_of(seed), steps)
    assert at_once(second.execute, texts_of(seed), steps) == truth


@pytest.mark.parametrize("kind", KINDS)
def test_a_real_model_says_the_same_too(kind: str, tmp_path: Path) -> None:
    executor = machine(tiny_model(tmp_path, "llama"), kind).executor
    found = []
    for run in (one_by_one, at_once):
        texts = texts_of(3, PAGE, sampled=False)
        executor.execute(arrays(Batch(1, 1, (), [text.prefill() for text in texts])))
        found.append(run(executor.execute, texts, PAGE + 3))
    assert found[0] == found[1]


def test_the_step_that_may_be_the_last_of_one_is_the_last_of_all() -> None:
    truth = told_by(pretend(), 9)
    stop = next(token for token in truth[1][2:] if token not in chain(*[t[:2] for t in truth]))
    length = min(text.index(stop) for text in truth if stop in text) + 1
    batch = arrays(several(texts_of(1), 9, [stop]))
    result = execute_steps(filled(pretend()).execute, SIZE, batch, never, in_one)
    assert said(result, 3) == [text[:length] for text in truth]


@pytest.mark.parametrize("calls", [0, 1, 4])
def test_whoever_calls_ends_it_with_the_step_under_way(calls: int) -> None:
    heard = iter([False] * calls + [True])
    batch = arrays(several(texts_of(1), 9))
    result = execute_steps(filled(pretend()).execute, SIZE, batch, lambda: next(heard), in_one)
    assert said(result, 3) == [text[: calls + 1] for text in told_by(pretend(), 9)]


def test_nobody_grows_into_pages_that_were_not_given() -> None:
    texts = texts_of(1)
    for text in texts:
        text.pages = text.pages[: -(-len(text.tokens) // SIZE)]
    room = min(len(text.pages) * SIZE - len(text.tokens) for text in texts)
    result = execute_steps(
        filled(pretend()).execute, SIZE, arrays(several(texts, 9)), never, in_one
    )
    assert len(result.answers) == 3 * (room + 1)


def test_a_step_that_fails_is_the_last() -> None:
    worker, steps = filled(pretend()), []

    def execute(batch: BatchArrays) -> BatchResult:
        steps.append(batch)
        result = worker.execute(batch)
        if len(steps) < 3:
            return result
        return attrs.evolve(result, answers=(result.answers[0], FAILED, result.answers[2]))

    result = execute_steps(execute, SIZE, arrays(several(texts_of(1), 9)), never, in_one)
    assert [answer.error for answer in result.answers] == [None] * 7 + ["no", None]


def filled(worker: PretendExecutor) -> PretendExecutor:
    worker.execute(arrays(Batch(1, 1, (), [text.prefill() for text in texts_of(1)])))
    return worker


def told_by(worker: PretendExecutor, steps: int) -> list[list[int]]:
    return one_by_one(filled(worker).execute, texts_of(1), steps)


@pytest.mark.parametrize("told", [1, 2, 4, 8])
def test_what_is_told_in_parts_is_all_that_was_said(told: int) -> None:
    parts: list[BatchResult] = []
    batch = arrays(several(texts_of(1), 9, part_steps=told))
    parts.append(execute_steps(filled(pretend()).execute, SIZE, batch, never, parts.append))
    assert [part.goes_on for part in parts] == [True] * (len(parts) - 1) + [False]
    assert [part.first_step for part in parts] == list(range(0, 9, told))
    answers = tuple(answer for part in parts for answer in part.answers)
    assert said(attrs.evolve(parts[0], answers=answers), 3) == told_by(pretend(), 9)


def test_a_part_takes_no_longer_than_it_may() -> None:
    worker, parts = filled(pretend()), list[BatchResult]()
    slow = {3: 0.5}

    def execute(batch: BatchArrays) -> BatchResult:
        return attrs.evolve(worker.execute(batch), step_seconds=slow.get(len(parts), 0.125))

    batch = arrays(several(texts_of(1), 9, part_seconds=0.25))
    rest = execute_steps(execute, SIZE, batch, never, parts.append)
    assert [len(part.answers) // 3 for part in (*parts, rest)] == [2, 2, 2, 1, 2]


def test_whoever_calls_between_two_parts_is_told_only_the_rest() -> None:
    heard, parts = iter([False] * 4 + [True]), list[BatchResult]()
    batch = arrays(several(texts_of(1), 9, part_steps=3))
    execute = filled(pretend()).execute
    rest = execute_steps(execute, SIZE, batch, lambda: next(heard), parts.append)
    assert [len(part.answers) // 3 for part in (*parts, rest)] == [3, 2]
    assert (rest.first_step, rest.goes_on) == (3, False)


# The wire


def header_of(batch: Batch) -> tuple[dict[str, Any], list[bytes]]:
    header, *frames = encode(batch)
    return msgpack.unpackb(header), frames


def test_what_a_worker_needs_for_more_steps_arrives() -> None:
    batch = several(texts_of(1), 3, [7])
    assert arrays(batch).multi_step == batch.multi_step


@pytest.mark.parametrize(
    "more",
    [
        7,
        [2],
        [2, 2, 1, [[]] * 3, [[1]] * 3, [[]] * 3],
        [2, 2, -0.5, [[]] * 3, [[1]] * 3, [[]] * 3],
        [2, 2, float("nan"), [[]] * 3, [[1]] * 3, [[]] * 3],
        [2, 0, 0.5, [[]] * 3, [[1]] * 3, [[]] * 3],
        [2, -1, 0.5, [[]] * 3, [[1]] * 3, [[]] * 3],
        [0, 2, 0.5, [[]] * 3, [[]] * 3, [[]] * 3],
        [2**40, 2, 0.5, [[]] * 3, [[1]] * 3, [[]] * 3],
        [2, 2, 0.5, [[]] * 2, [[1]] * 3, [[]] * 3],
        [2, 2, 0.5, [[]] * 3, [[1], [1], []], [[]] * 3],
        [2, 2, 0.5, [[]] * 3, [[-1]] * 3, [[]] * 3],
        [2, 2, 0.5, [[-1], [], []], [[1]] * 3, [[]] * 3],
        [2, 2, 0.5, [[]] * 3, [[1]] * 3, [[True], [], []]],
        [2, 2, 0.5, [[]] * 3, [[1]] * 3, [["x"], [], []]],
        [2, 2, 0.5, [[]] * 3, [[1]] * 3, None],
    ],
)
def test_steps_that_cannot_be_are_refused(more: object) -> None:
    header, frames = header_of(several(texts_of(1), 2))
    broken = msgpack.packb({**header, "multi_step": more})
    with pytest.raises(WireError):
        decode([broken, *frames])


@pytest.mark.parametrize(
    "change",
    [
        {"tokens": (1, 2), "positions": (1, 2)},
        {"outputs": ()},
        {"outputs": (OutputRow(0, SamplerKind.DISTRIBUTION, 1.0),)},
        {"outputs": (OutputRow(0, SamplerKind.MULTINOMIAL, 0.0, written=b"\0\0\0\0"),)},
        {"mask": ((0, 1),)},
        {"embed_outputs": ((0, 1),)},
    ],
)
def test_only_rows_that_can_go_on_have_more_steps(change: dict[str, Any]) -> None:
    batch = several(texts_of(1), 2)
    first, *others = batch.requests
    with pytest.raises(WireError, match="several steps"):
        arrays(attrs.evolve(batch, requests=[attrs.evolve(first, **change), *others]))


@pytest.mark.parametrize(("answers", "is_good"), [(2, True), (4, True), (3, False), (6, False)])
def test_an_answer_has_whole_steps_and_no_more_than_were_wanted(
    answers: int, is_good: bool
) -> None:
    batch = several(texts_of(1)[:2], 2)
    result = BatchResult(1, 2, 0.0, (Answer((40,), (), None),) * answers)
    assert (result_fault(batch, result, 264) is None) == is_good
    one = attrs.evolve(batch, multi_step=None)
    assert (result_fault(one, result, 264) is None) == (answers == 2)


@pytest.mark.parametrize(
    ("first_step", "steps", "goes_on", "is_good"),
    [
        (0, 4, False, True),
        (0, 3, True, True),
        (1, 3, False, True),
        (2, 1, True, True),
        (0, 4, True, False),  # there is nothing to go on with
        (2, 2, True, False),
        (2, 3, False, False),
        (4, 1, False, False),
    ],
)
def test_the_parts_of_an_answer_have_no_more_steps_than_were_wanted(
    first_step: int, steps: int, goes_on: bool, is_good: bool
) -> None:
    batch = several(texts_of(1)[:1], 4)
    answers = (Answer((40,), (), None),) * steps
    result = BatchResult(1, 2, 0.0, answers, first_step, goes_on)
    assert decode(encode(result)) == result
    assert (result_fault(batch, result, 264) is None) == is_good


def test_a_worker_that_goes_on_behind_an_error_is_lost() -> None:
    batch = several(texts_of(1)[:1], 4)
    result = BatchResult(1, 2, 0.0, (FAILED,), 0, goes_on=True)
    assert "goes on" in str(result_fault(batch, result, 264))
    assert result_fault(batch, attrs.evolve(result, goes_on=False), 264) is None


def test_a_part_that_comes_twice_counts_once_and_one_that_is_missing_is_told() -> None:
    parts: list[BatchResult] = []
    ends: list[BatchResult] = []
    told = Parts(several(texts_of(1)[:1], 6), parts.append, ends.append)
    one = (Answer((40,), (), None),)
    first, second, last, late = (
        BatchResult(1, 2, 0.0, one * 2, 0, goes_on=True),
        BatchResult(1, 2, 0.0, one, 2, goes_on=True),
        BatchResult(1, 2, 0.0, one, 3),
        BatchResult(1, 2, 0.0, one, 4),
    )
    assert [told.take(part, 264) for part in (first, first, second, first)] == [None] * 4
    assert parts == [first, second]
    assert "missing" in str(told.take(late, 264))
    assert not ends
    assert told.take(last, 264) is None
    assert ends == [last]


# The engine


async def test_a_stream_alone_takes_few_batches(tmp_path: Path) -> None:
    script = WorkerScript()
    async with open_world(tmp_path, script=script) as world, open_scripted(world, 1) as one:
        decode = await ended(await start(one, await one.queue.allocate(KV, 3), TEXT))
        assert (script.steps, len(script.batches)) == (len(decode.tokens), 2)


async def test_a_chunk_is_told_when_it_is_due(tmp_path: Path) -> None:
    script, limits = WorkerScript(step_seconds=0.01), Limits(decode_chunk_seconds=0.045)
    async with (
        open_world(tmp_path, script=script, limits=limits) as world,
        open_scripted(world, 1) as one,
    ):
        pages = await one.queue.allocate(KV, 3)
        decode = await start(one, pages, TEXT)
        lengths = []
        while decode.reason is None or decode.unread:
            if decode.is_ready:
                lengths.append(len(decode.read(64)))
            await trio.sleep(0.001)
        assert lengths == [1, *[4] * 9, 3]


async def test_no_more_steps_are_executed_without_asking_than_is_allowed(tmp_path: Path) -> None:
    limits, script = Limits(decode_steps_max=8, decode_chunk_tokens=4), WorkerScript()
    async with (
        open_world(tmp_path, script=script, limits=limits) as world,
        open_scripted(world, 1) as one,
    ):
        pages = await one.queue.allocate(KV, 3)
        await ended(await start(one, pages, TEXT, tokens_max=21))
        more = [batch.multi_step for batch in script.batches if batch.multi_step]
        assert [each.steps for each in more] == [8, 8, 4]


async def test_only_the_first_token_of_a_text_is_waited_for(tmp_path: Path) -> None:
    async def batches_and_wakes(*, goes_on: bool) -> tuple[list[int], list[int], int]:
        script, wakes = WorkerScript(), Wakes()
        async with open_world(tmp_path, script=script) as world, open_scripted(world, 1) as one:
            pages = await one.queue.allocate(KV, 3)
            await (await one.submit(pages[:1], TEXT, len(TEXT))).answer()
            script.batches.clear()
            total = len(TEXT) + 1
            decode = await start(
                one, pages, [7], total=total, tokens_max=20, goes_on=goes_on, wakes=wakes
            )
            await ended(decode)
            steps = [batch.multi_step.steps if batch.multi_step else 1 for batch in script.batches]
            return steps, decode.tokens, len(wakes.times)

    steps, tokens, wakes = await batches_and_wakes(goes_on=False)
    assert (steps, wakes) == ([1, 19], 2)
    assert await batches_and_wakes(goes_on=True) == ([20], tokens, 1)


async def test_a_text_that_goes_on_with_several_rows_reads_them_first(tmp_path: Path) -> None:
    script = WorkerScript()
    async with open_world(tmp_path, script=script) as world, open_scripted(world, 1) as one:
        fresh = await ended(await start(one, await one.queue.allocate(KV, 3), TEXT))
        script.batches.clear()
        pages = await one.queue.allocate(KV, 3)
        again = await ended(await start(one, pages, TEXT, goes_on=True))
        assert again.tokens == fresh.tokens
        assert script.batches[0].multi_step is None


@pytest.mark.parametrize("comes", ["pass", "ping", "copy", "death"])
async def test_whoever_comes_waits_for_one_step(comes: str, tmp_path: Path) -> None:
    script = WorkerScript(step_seconds=0.005)
    async with (
        open_world(tmp_path, script=script) as world,
        open_scripted(world, 2) as other,
        open_scripted(world, 1) as one,
    ):
        page, target = await other.queue.allocate(KV, 2)
        await (await other.submit([page], TEXT, 5)).answer()
        decode = await start(one, await one.queue.allocate(KV, 3), TEXT)
        begun = script.steps
        while script.steps < begun + 6:  # noqa: ASYNC110
            await trio.sleep(0.001)
        (running,) = [batch.multi_step for batch in script.batches[-1:]]
        assert running is not None
        assert running.steps > 12
        batches, steps = len(script.batches), script.steps
        generation = world.model.generation
        assert generation is not None
        loop = generation.loop
        if comes == "pass":
            await other.submit([target], TEXT, 5)
        elif comes == "ping":
            await other.queue.debug_query("ping")
        elif comes == "copy":
            await other.queue.copy_page(page, target, 3)
        else:
            loop.drop_owner(one.queue.model.scope.owner)
        while len(script.batches) == batches and loop.passes.in_flight:  # noqa: ASYNC110
            await trio.sleep(0.001)
        assert script.steps <= steps + 2
        assert comes == "death" or (await ended(decode)).reason is FinishReason.LENGTH


async def test_two_streams_are_carried_on_together_and_say_what_each_says_alone(
    tmp_path: Path,
) -> None:
    async with open_world(tmp_path) as world, open_scripted(world, 1) as one:
        texts = ([9, 8], TEXT)
        alone = [
            (await ended(await start(one, await one.queue.allocate(KV, 3), text))).tokens
            for text in texts
        ]
        async with open_scripted(world, 2) as other:
            streams = [
                await start(each, await each.queue.allocate(KV, 3), text)
                for each, text in zip((one, other), texts, strict=True)
            ]
            assert [(await ended(decode)).tokens for decode in streams] == alone


async def test_tokens_before_a_step_that_failed_are_there_and_it_is_told(tmp_path: Path) -> None:
    script = WorkerScript(fails_at_step=9)
    async with open_world(tmp_path, script=script) as world, open_scripted(world, 1) as one:
        truth = await by_passes(one, TEXT, 5)
        decode = await ended(await start(one, await one.queue.allocate(KV, 3), TEXT))
        assert isinstance(decode.failure, PassFailed)
        assert decode.tokens == truth[:3]
        pages = await one.queue.allocate(KV, 3)
        script.fails_at_step = None
        assert (await ended(await start(one, pages, TEXT, tokens_max=5))).tokens == truth


async def test_what_several_steps_have_written_may_be_read(tmp_path: Path) -> None:
    async with open_world(tmp_path) as world, open_scripted(world, 1) as one:
        pages = await one.queue.allocate(KV, 3)
        decode = await ended(await start(one, pages, TEXT, tokens_max=30))
        for length in (6, 12, 17, 34):
            text = (TEXT + decode.tokens)[:length]
            assert await one.next_token(pages, text[-1:], length) == await one.next_of(text)
