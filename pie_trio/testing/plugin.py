"""The pytest plugin: one test, many seeds, and the line that repeats the seed that failed.

    @pytest.mark.seeds(0, 50)
    def test_two_users(simulation):
        simulation(two_users)

The fixture `simulation` plays a scenario with the test's seed and fails when a rule is broken. When
the test fails for whatever reason, its report tells each run that it made. Loaded wherever this
package is installed, so nothing of the harness is imported before a test asks for it.
"""

from __future__ import annotations

import shlex
from collections.abc import Awaitable, Callable, Collection, Iterator, Sequence
from typing import TYPE_CHECKING

import attrs
import pytest

if TYPE_CHECKING:
    from pie_trio.testing.faults import Fault, Faults
    from pie_trio.testing.scenarios import Scenario
    from pie_trio.testing.scheduler import Mode
    from pie_trio.testing.simulation import Outcome
    from pie_trio.testing.world import World

MARKER = "seeds(first, last): play the test once with each seed from first on, without the last"


class RuleBrokenError(AssertionError):
    """A simulated run broke a rule; the text is what `pie-trio sim run` would say."""


@attrs.define(eq=False)
class Play:
    """The fixture: call it with a scenario."""

    seed: int
    node: str
    outcomes: list[Outcome] = attrs.field(factory=list)

    def __call__(
        self,
        scenario: str | Scenario | Callable[[World], Awaitable[None]],
        *,
        faults: str | Faults | Sequence[Fault] | None = None,
        scheduler: Mode | None = None,
        only: Collection[int] | None = None,
        programs: Sequence[str] = (),
        two_models: bool = False,
    ) -> Outcome:
        """One run. `faults`: kinds as on the command line, or the faults; `programs`: components
        that the scenario launches, by name or path. Raises `RuleBrokenError`."""
        from pie_trio.testing.scenarios import scenario_of_any
        from pie_trio.testing.simulation import Simulation

        chosen = scenario_of_any(scenario)
        if callable(scenario):
            chosen = attrs.evolve(chosen, programs=tuple(programs), two_models=two_models)
        outcome = Simulation(self.seed, faults, chosen, scheduler, only).run()
        self.outcomes.append(outcome)
        if outcome.violations:
            raise RuleBrokenError(f"\n{self._told(outcome)}")
        return outcome

    @property
    def command(self) -> str:
        return shlex.join(["pytest", self.node])

    def _told(self, outcome: Outcome) -> str:
        from pie_trio.testing.report import failure_text

        return failure_text(outcome, self.command)

    def lines(self) -> Iterator[str]:
        """A line a run, for the report of a test that failed."""
        for outcome in self.outcomes:
            struck = ", ".join(map(str, outcome.fired)) or "no fault"
            yield f"seed {outcome.seed}, scenario {outcome.scenario}, {outcome.scheduler}: {struck}"
        yield f"replay: {self.command}"


PLAYS = pytest.StashKey[Play]()


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", MARKER)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    marker = metafunc.definition.get_closest_marker("seeds")
    if marker is None:
        return
    try:
        first, last = marker.args
        seeds = range(first, last)
    except (TypeError, ValueError):
        raise pytest.UsageError("@pytest.mark.seeds takes two numbers: seeds(0, 50)") from None
    metafunc.parametrize("seed", seeds, ids=[f"seed-{seed}" for seed in seeds])


@pytest.fixture
def seed() -> int:
    """The seed of a test without the marker."""
    return 0


@pytest.fixture
def simulation(request: pytest.FixtureRequest, seed: int) -> Play:
    """Plays scenarios with the test's seed; see the module."""
    play = Play(seed, request.node.nodeid)
    request.node.stash[PLAYS] = play
    return play


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Iterator[None]:
    report: pytest.TestReport = yield  # type: ignore[assignment]
    play = item.stash.get(PLAYS, None)
    if report.when == "call" and report.failed and play is not None:
        report.sections.append(("simulation", "\n".join(play.lines())))
    return report  # type: ignore[return-value]
