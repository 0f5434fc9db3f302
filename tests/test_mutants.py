"""The catalogue of mutants fits today's source, and a mutant leaks into nothing but its process."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from benchmarks.bars.mutants import bars
from pie_trio.testing.mutants import MUTANTS, Mutant, PatchDoesNotFit, child
from pie_trio.testing.mutants.hunt import rotating_sample, run_mutants
from tests.source_tree import ROOT

PROTOTYPES = (
    "await_cleanup",
    "skip_down",
    "no_tombstone",
    "no_pin",
    "oom_partial",
    "import_noref",
    "toctou",
    "counter_leak",
    "zombie",
    "lost_silent",
    "no_timeout",
    "no_epoch",
    "stale_kv",
    "fifo",
    "no_owner_check",
    "late_task",
    "epoch_queue",
    "shared_write",
)
OF_THE_BORDERS = (
    "pie_trio/wasm/",
    "pie_trio/services/gateway/",
    "pie_trio/services/worker_link",
    "pie_trio/services/zmq_socket",
    "pie_trio/client/",
)
NAMES = [mutant.name for mutant in MUTANTS]


@pytest.mark.parametrize("mutant", MUTANTS, ids=NAMES)
def test_a_patch_fits_once_and_its_module_compiles_and_differs(mutant: Mutant) -> None:
    text = (ROOT / mutant.file).read_text("utf-8")
    patched = mutant.apply(text)
    assert patched != text
    assert compile(patched, mutant.file, "exec", dont_inherit=True) != compile(
        text, mutant.file, "exec", dont_inherit=True
    )


def test_mutants_are_distinct() -> None:
    assert [name for name, count in Counter(NAMES).items() if count > 1] == []
    assert len({(mutant.file, mutant.before, mutant.after) for mutant in MUTANTS}) == len(MUTANTS)


def test_there_are_enough_mutants_and_all_of_the_prototypes() -> None:
    assert len(MUTANTS) >= 48
    assert set(PROTOTYPES) <= set(NAMES)
    assert sum(mutant.file.startswith(OF_THE_BORDERS) for mutant in MUTANTS) >= 10


def test_a_mutant_says_what_goes_wrong_and_where_it_was_seen() -> None:
    assert [mutant.name for mutant in MUTANTS if len(mutant.why) < 30 or not mutant.source] == []


def test_a_patch_that_does_not_fit_is_an_error() -> None:
    mutant = Mutant("none", "pie_trio/mailbox.py", "not in there", "x", "why", "source")
    with pytest.raises(PatchDoesNotFit, match="0 times"):
        mutant.apply((ROOT / mutant.file).read_text("utf-8"))


def test_a_patch_is_in_force_in_its_own_process_only() -> None:
    program = (
        f"import sys; sys.path.insert(0, {str(Path(child.__file__).parent)!r})\n"
        "import child; sys.path.pop(0)\n"
        "child.install('pie_trio.errors', 'broke a rule', 'broke a mirror')\n"
        "import pie_trio.errors\n"
        "assert 'mirror' in pie_trio.errors.GuestFault.__doc__\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT)
    from pie_trio.errors import GuestFault

    assert "broke a rule" in (GuestFault.__doc__ or "")


def test_bars_count_who_was_found_late_or_never() -> None:
    found = {"file": "pie_trio/outlet.py", "plain": [], "found_by": "seeds", "seeds": 3}
    spoilt = {**found, "name": "b", "plain": ["a rule"]}
    late = {**found, "name": "c", "found_by": "cancellation", "seeds": 100}
    never = {**found, "name": "d", "found_by": "", "seeds": 100}
    raw = {"is_whole": False, "seeds_max": 100, "mutants": [{**found, "name": "a"}, spoilt]}
    assert [bar["holds"] for bar in bars(raw)] == [True, True, False]
    raw["mutants"] = [late, never, {**found, "name": "a"}]
    assert [(bar["value"], bar["holds"]) for bar in bars(raw)] == [
        (2, False),
        (101, False),
        (0, True),
    ]


@pytest.mark.slow
def test_a_hunt_finds_a_mutant_that_survives_the_plain_scenarios() -> None:
    report = run_mutants(["named_twice"], seeds_max=20, seconds_each=60.0, processes=1)
    [finding] = report.findings
    assert finding.survives, finding.plain
    assert finding.found_by == "seeds", finding
    assert report.holds
    assert report.raw()["seeds_max"] == 20


@pytest.mark.parametrize("count", [1, 3, 7])
def test_samples_in_turn_hunt_every_mutant_once(count: int) -> None:
    stride = -(-len(MUTANTS) // count)
    seen = [mutant.name for turn in range(stride) for mutant in rotating_sample(count, turn)]
    assert sorted(seen) == sorted(mutant.name for mutant in MUTANTS)
