"""What a worker executes by itself behind the first step of a batch.

Owns the form of it in the header of a batch: how many steps, how much of them is told at a time,
and of each request the pages that it grows into, the seeds of its later steps and the tokens after
which nothing more is wanted. Such a batch has one row and one token a request. Everything that a
broken peer can send raises `WireError`. It must never hold behaviour: the steps are made in
`gpu_worker.multi_step`.
"""

from typing import Any

import attrs

from gpu_worker.wire.errors import WireError

STEPS_MAX = 1 << 10

Lists = tuple[tuple[int, ...], ...]  # one of each request


@attrs.frozen
class MultiStep:
    """At most so many steps, the first included. Their answers are told when there are those of
    `part_steps`, or when those of another step would make it more than `part_seconds`.
    """

    steps: int
    part_steps: int
    part_seconds: float
    spare: Lists  # pages, in the order in which they are needed
    seeds: Lists  # of the steps behind the first
    stops: Lists  # tokens: the step that draws one of them is the last


def write_multi_step(multi_step: MultiStep | None) -> Any:
    return None if multi_step is None else attrs.astuple(multi_step)


def read_multi_step(value: Any, requests: int) -> MultiStep | None:
    """Raises `WireError`."""
    if value is None:
        return None
    try:
        steps, part_steps, part_seconds, spare, seeds, stops = value
        lists = (_lists(spare, 1 << 31), _lists(seeds, 1 << 64), _lists(stops, 1 << 31))
        steps, part_steps = _numbers([steps, part_steps], STEPS_MAX + 1)
        found = MultiStep(steps, part_steps, _seconds(part_seconds), *lists)
    except (TypeError, ValueError) as error:
        raise WireError(f"the later steps of a batch are malformed: {error}") from error
    if any(len(each) != requests for each in (found.spare, found.seeds, found.stops)):
        raise WireError(f"the later steps of a batch are not those of {requests} requests")
    if steps < 1 or any(len(each) != steps - 1 for each in found.seeds):
        raise WireError(f"a batch of {steps} steps needs a seed for each but the first")
    if part_steps < 1:
        raise WireError("a part of the answers of a batch has at least one step")
    return found


def _seconds(value: Any) -> float:
    if not isinstance(value, float) or not value >= 0:
        raise TypeError(f"{value!r:.80} is not a time")
    return value


def _lists(value: Any, bound: int) -> Lists:
    return tuple([_numbers(each, bound) for each in value])


def _numbers(value: Any, bound: int) -> tuple[int, ...]:
    if not isinstance(value, list) or not all(type(each) is int for each in value):
        raise TypeError(f"{value!r:.80} is not a list of numbers")
    if value and not (min(value) >= 0 and max(value) < bound):
        raise ValueError(f"{value!r:.80} has a number that is none of 0 to {bound - 1}")
    return tuple(value)
