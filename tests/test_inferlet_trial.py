"""A user's program under every fault: what counts as survived, and for which forms of a program."""

from __future__ import annotations

from pathlib import Path

import pytest

from pie_trio.errors import BadProgram
from pie_trio.testing.faults import Fault
from pie_trio.testing.inferlet_trial import (
    Baseline,
    Case,
    Fate,
    TrialReport,
    fates,
    open_trial,
)
from tests.support.kit import INFERLETS

IMPATIENT = """
import asyncio
import inferlet

async def main(args):
    context = inferlet.Context(inferlet.get_model())
    context.fill("hello")
    async def decode():
        return [await context.decode_step(inferlet.Sampler.multinomial(0.0)) for _ in range(2)]
    try:
        return await asyncio.wait_for(decode(), 0.3)
    except asyncio.TimeoutError:
        if args:
            return "too slow"
        raise
"""


def test_a_component_and_its_folder_are_tried_alike() -> None:
    folder = INFERLETS / "text-completion"
    arguments = ("--prompt", "a", "--max-tokens", "3")
    by_folder = open_trial(folder, arguments)
    by_file = open_trial(folder / "text-completion.wasm", arguments)
    assert by_folder.baseline.value == by_file.baseline.value
    assert [case.name for case in by_folder.cases()] == [case.name for case in by_file.cases()]
    kinds = {case.kind for case in by_folder.cases()}
    assert kinds == {
        "worker lost",
        "out of pages",
        "slow batches",
        "pass refused by the worker",
        "client gone",
        "cancelled",
    }


def test_every_case_of_a_good_program_is_survived_and_repeats_itself() -> None:
    trial = open_trial(INFERLETS / "text-completion", ("--prompt", "a", "--max-tokens", "3"))
    report = trial.run()
    assert report.holds, report.text()
    assert report == trial.run()
    told = fates(report.verdicts)
    assert told["ended with Terminated"] == len(trial.baseline.calls)
    assert told["ended with WorkerLost"] == 2 * trial.baseline.batches


def test_a_program_that_fails_without_a_fault_is_not_tried() -> None:
    trial = open_trial(INFERLETS / "text-completion", ())
    with pytest.raises(BadProgram, match="does not run without any fault: --prompt is missing"):
        trial.cases()


@pytest.mark.slow
def test_who_fails_by_itself_has_not_survived_and_who_catches_it_has(tmp_path: Path) -> None:
    path = tmp_path / "impatient.py"
    path.write_text(IMPATIENT, "utf-8")
    slow = Case("slow batches", "batch 1", (Fault(9, "worker.slow", 0, 0.5),))
    falls = open_trial(path, ()).judge(slow)
    assert (falls.fate, falls.survived, falls.error) == (Fate.FAILED, False, "GuestFault")
    told = TrialReport("impatient", Baseline("x", (), 1, 1), (falls,)).text("again {case}")
    assert "NOT SURVIVED  slow batches" in told
    assert "replay: again 'slow batches/batch 1'" in told
    lives = open_trial(path, ("catch",)).judge(slow)
    assert (lives.fate, lives.survived, lives.told) == (Fate.OTHER, True, "too slow")
