"""Was every `await` on an instance's path cancelled at? The list of places, held against the runs.

The places come from the parser (`await_graph`), what happened there from a campaign (`campaign`).
What is left out of the list is left out by name, with the reason; a test asks for entries that
match nothing any more. Nothing here runs anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import attrs

from pie_trio.testing.await_graph import AwaitGraph, PathSite
from pie_trio.testing.await_sites import Site
from pie_trio.testing.cancellation import Report

REAL_TIME: Final = "only where slices are cut by the real clock; tests/test_wasm_turns.py"
PROCESS: Final = "waits for a process of its own, in real time; tests/test_wasm_compile.py"
# Part of a function's name and of its text -> why nobody is cancelled there.
EXCLUDED: Final[Mapping[tuple[str, str], str]] = MappingProxyType(
    {
        ("replaying.py:", ""): "offline: there is no engine and no instance",
        ("interpreter.py:ensure_interpreter", ""): PROCESS,
        ("program_loader.py:ProgramLoader._load_python", "ensure_interpreter"): PROCESS,
        ("wasm/compile.py:Compiler._run_child", ""): PROCESS,
        ("wasm/compile.py:Compiler.compile", "_run_child"): PROCESS,
        ("services/fetching.py:OpenWeb.", ""): "the real network; tests/test_fetching.py",
        ("services/worker_process.py:", ""): "the real worker; tests/test_worker_process.py",
        ("services/zmq_socket.py:TrioSocket.", "cancel_shielded"): "shielded: it was sent",
        ("services/zmq_socket.py:TrioSocket.", "checkpoint_if"): "it ends whom it stops",
        ("queue_access.py:InstanceQueue.export", "self._residence"): "a line above it waited",
        ("queue_access.py:InstanceQueue.copy_page", "self._residence"): "a line above it waited",
        ("queue_access.py:InstanceQueue._submit", "_command_queue"): "a line above it waited",
        ("wasm/recording.py:_recorded", "recording.host"): "`run --record`: the same await, noted",
        ("stream.py:PatientStream.wait_send_all_might_not_block", ""): "nobody asks a stream that",
        ("wasm/fiber.py:Fiber._attend", "_come_back"): REAL_TIME,
        ("wasm/fiber.py:Fiber._come_back", ""): REAL_TIME,
        ("wasm/fiber.py:Fiber._next_turn", "checkpoint"): REAL_TIME,
        ("wasm/fiber.py:Fiber._next_turn", "wait_all_tasks_blocked"): REAL_TIME,
        ("wasm/guest.py:Guest._instantiate", ""): "start code that spins; tests/test_wasm_guest.py",
        ("wasm/guest.py:open_guest", ""): "start code that spins; tests/test_wasm_guest.py",
        ("engine.py:Engine._live", "open_guest"): "start code that spins; tests/test_wasm_guest.py",
        ("wasm/wasi/poll.py:Ready.wait", ""): "it is always ready, so nobody waits for it",
    }
)


@attrs.frozen
class Places:
    """The places that must be cancelled at, and those that are left out."""

    required: tuple[PathSite, ...]
    excluded: tuple[tuple[PathSite, str], ...]
    unused: tuple[tuple[str, str], ...]  # exclusions that match nothing any more

    @classmethod
    def of_package(cls) -> Places:
        required, excluded, used = [], [], set[tuple[str, str]]()
        for place in AwaitGraph().sites_on_path():
            keys = [key for key in EXCLUDED if key[0] in place.function and key[1] in place.text]
            used.update(keys)
            if keys:
                excluded.append((place, EXCLUDED[keys[0]]))
            else:
                required.append(place)
        unused = tuple(key for key in EXCLUDED if key not in used)
        return cls(tuple(required), tuple(excluded), unused)


@attrs.define
class Coverage:
    """What a campaign shows."""

    report: Report
    places: Places
    commands: list[str] = attrs.field(factory=list)  # that repeat the failing runs

    @property
    def missing_once(self) -> list[PathSite]:
        told = self.report.once | self.report.twice
        return [place for place in self.places.required if place.site not in told]

    @property
    def missing_twice(self) -> list[PathSite]:
        """Places where a clean-up can stand, by the source or because a run showed one there."""
        return [
            place
            for place in self.places.required
            if (place.in_clean_up or place.site in self.report.cleaning)
            and place.site not in self.report.twice
        ]

    @property
    def holds(self) -> bool:
        return not (self.report.failures or self.missing_once or self.missing_twice)

    def text(self) -> str:
        required = len(self.places.required)
        cleaning = [p for p in self.places.required if p.in_clean_up or p.site in self._cleaning]
        lines = [
            self.report.text(),
            f"cancelled at {required - len(self.missing_once)} of {required} places on the path of"
            f" an instance or a connection, {len(self.places.excluded)} left out by name",
            f"cancelled again in the clean-up at {len(cleaning) - len(self.missing_twice)}"
            f" of {len(cleaning)} places",
        ]
        lines += [f"  never at {p.site} in {p.function}: {p.text}" for p in self.missing_once]
        lines += [f"  not again at {p.site} in {p.function}: {p.text}" for p in self.missing_twice]
        if self.report.skipped and (self.missing_once or self.missing_twice):
            lines.append("  the time was over before all was tried; with more of it they may be")
        lines += [f"  replay: {command}" for command in self.commands]
        return "\n".join(lines)

    @property
    def _cleaning(self) -> set[Site]:
        return self.report.cleaning

    def raw(self) -> dict[str, object]:
        """For a file: what the bars are computed from."""
        told = self.report.once | self.report.twice
        return {
            "command": "sim cancel-everywhere",
            "runs": self.report.runs,
            "left_out": self.report.skipped,
            "seconds": self.report.seconds,
            "failures": [str(run) for run in self.report.failures],
            "replays": self.commands,
            "sites": [
                {
                    "site": str(place.site),
                    "function": place.function,
                    "once": place.site in told,
                    "in_clean_up": place.in_clean_up or place.site in self._cleaning,
                    "twice": place.site in self.report.twice,
                }
                for place in self.places.required
            ],
            "excluded": [
                {"site": str(place.site), "function": place.function, "why": why}
                for place, why in self.places.excluded
            ],
        }
