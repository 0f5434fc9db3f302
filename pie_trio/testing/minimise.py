"""From a failing run to the smallest one that still fails in the same way.

First fewer faults (delta debugging over their numbers), then a shorter prefix of the schedule,
behind which tasks run in plain order. Each try is a fresh run; the result is a run that was seen to
fail, never a guess.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pie_trio.testing.scenarios import Scenario
from pie_trio.testing.simulation import Outcome, Simulation


def minimise(outcome: Outcome, scenario: Scenario | None = None) -> Outcome:
    """A run with as few faults and decisions as could be found that breaks the same first rule."""
    assert outcome.violations, "only a failing run can be made smaller"
    rule = rule_name(outcome.violations[0])
    best = outcome

    def fails(numbers: Sequence[int], picks: Sequence[int] | None) -> bool:
        nonlocal best
        run = Simulation(
            outcome.seed,
            [fault for fault in outcome.faults if fault.number in set(numbers)],
            scenario or outcome.scenario,
            outcome.scheduler,
            picks=picks,
        ).run()
        if any(rule_name(violation) == rule for violation in run.violations):
            best = run
            return True
        return False

    fewer_faults([fault.number for fault in outcome.faults], lambda kept: fails(kept, None))
    numbers = [fault.number for fault in best.faults]
    picks = best.picks
    shorter(len(picks), lambda length: fails(numbers, picks[:length]))
    return best


def rule_name(violation: str) -> str:
    """What two violations have in common when only numbers and programs differ."""
    return violation.partition(":")[0]


def fewer_faults(numbers: list[int], fails: Callable[[list[int]], bool]) -> list[int]:
    """Delta debugging: a smaller list for which `fails` still holds."""
    if numbers and fails([]):
        return []
    parts = 2
    while len(numbers) >= 2:
        size = max(1, len(numbers) // parts)
        chunks = [numbers[start : start + size] for start in range(0, len(numbers), size)]
        for chunk in chunks:
            rest = [number for number in numbers if number not in chunk]
            if fails(rest):
                numbers, parts = rest, max(parts - 1, 2)
                break
        else:
            if parts >= len(numbers):
                break
            parts = min(len(numbers), parts * 2)
    return numbers


def shorter(length: int, fails: Callable[[int], bool]) -> int:
    """A short prefix, found in steps that halve; the shortest one if failing is monotone in it."""
    if length and fails(0):
        return 0
    step = length // 2
    while step:
        if fails(length - step):
            length -= step
        else:
            step //= 2
    return length
