"""The measurements of one run: which case is asked of whom, and in what order.

Engines take turns case by case and part by part of a round, so that what else the machine does
meets all of them alike; what ours is held against most closely, the machine and its own bare
batches, is measured right before it and right after. One that is missing, cannot do a case or dies
is noted with its reason, and the run goes on: what is not measured does not hold.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.engine_link import PeerLink, PeerLost, PeerRefusal
from benchmarks.engine_others import Moment
from benchmarks.engine_peers import (
    BARE,
    INT8,
    LIMITS_OF_MACHINE,
    MACHINE,
    PEERS,
    SERVED,
    TRANSFORMERS,
    Peer,
)
from benchmarks.engine_plan import CONTEXT, At, Case, Plan, cases
from benchmarks.engine_prompts import questions, tokens_of
from benchmarks.engine_served import Arrival, Served
from benchmarks.engine_setup import python_of, weights_file
from benchmarks.engine_start import start_times

SCRIPTS = Path(__file__).parent / "peers"
GUESTS, GUEST_TOKENS = 32, 32
ARRIVALS_PER_SECOND = 2.5
ARRIVAL_TOKENS = 24
CONTINUATION = 24  # tokens of ours along which all engines are asked for the next one
PREFIX_STEP = 6
AFTER = " after"
Say = Callable[[str], object]
Record = dict[str, Any]


class Bench:
    """Everything that is measured goes into `record`."""

    def __init__(self, plan: Plan, say: Say) -> None:
        self.plan = plan
        self.record: Record = {
            "bench": "engine",
            "model": plan.model,
            "threads": plan.threads,
            "rounds": plan.rounds,
            "quick": plan.is_quick,
            "engines": {},
            "samples": [],
            "skipped": [],
            "agreement": {},
            "arrivals": {},
            "starts": [],
            "strangers": [],
        }
        self._say = say
        self._links: dict[str, PeerLink] = {}
        self._served: Served | None = None

    def run(self) -> Record:
        with contextlib.ExitStack() as stack:
            stack.callback(self._close)
            self._measure_starts()
            self._open_all()
            for turn in range(self.plan.rounds):
                self._say(f"round {turn + 1} of {self.plan.rounds}")
                self._round(turn)
            self._compare_answers()
            self._measure_arrivals()
        return self.record

    def _open_all(self) -> None:
        for peer in (LIMITS_OF_MACHINE, *filter(self.plan.takes, PEERS)):
            self._say(f"starting {peer.name}")
            link = self._open(peer)
            if link is not None:
                self._links[peer.name] = link
                if peer is not LIMITS_OF_MACHINE:
                    self._ask(peer.name, "decode", sequences=8, context=CONTEXT, steps=2)
        if self.plan.only is None or SERVED in self.plan.only:
            self._say("starting our server")
            try:
                self._served = Served(self.plan.model)
                self.record["engines"][SERVED] = {"engine": "pie-trio serve", "weight_bytes": 2}
            except PeerLost as error:
                self._lose(SERVED, str(error))

    def _open(self, peer: Peer) -> PeerLink | None:
        python = python_of(peer)
        if python is None:
            self._lose(peer.name, "not set up: pie-trio bench engine --setup")
            return None
        try:
            link = PeerLink(self._command(peer, python))
        except PeerLost as error:
            self._lose(peer.name, str(error))
            return None
        facts = {**link.facts, "start_seconds": link.start_seconds}
        self.record["engines"][peer.name] = {**facts, "weight_bytes": peer.weight_bytes}
        return link

    def _command(self, peer: Peer, python: Path) -> list[str]:
        places = {
            "model": str(self.plan.directory),
            "f16": str(weights_file("f16")),
            "q8": str(weights_file("q8")),
        }
        arguments = [argument.format(**places) for argument in peer.arguments]
        threads = ("--threads", str(self.plan.threads))
        return [str(python), str(SCRIPTS / peer.script), *arguments, *threads]

    def _round(self, turn: int) -> None:
        began = Moment.now()
        for case in cases():
            for at in self.plan.moments(turn, case.name):
                self._case(at, case)
        for at in self.plan.moments(turn):
            self._guests(at)
        self.record["strangers"].append(Moment.now().since(began))

    def _case(self, at: At, case: Case) -> None:
        """All engines, ours first, between two looks at the machine's limit."""
        for peer in PEERS:
            if peer.name in self._links and self.plan.is_due(peer, case.name, at):
                limit = case.limit if peer.name == BARE else None
                self._limit(at, limit)
                self._sample(at, peer.name, case.name, case.op, case.order)
                self._limit(at, limit, AFTER)

    def _limit(self, at: At, what: str | None, when: str = "") -> None:
        found = self._ask(MACHINE, what) if what else None
        if found is not None:
            self._note(at, MACHINE, f"{what}{when}", found["value"])

    def _sample(self, at: At, name: str, case: str, op: str, order: Record) -> None:
        answer = self._ask(name, op, **order)
        if answer is not None:
            self._note(at, name, case, answer["tokens"] / answer["seconds"])

    def _guests(self, at: At) -> None:
        if self._served is None:
            return
        self._bare_guests(at)
        for kind in ("c", "python") if at.is_seldom else ("c",):
            try:
                rate = self._served.decode(kind, GUESTS, CONTEXT, GUEST_TOKENS)
            except Exception as error:
                self._drop_server(f"{type(error).__name__}: {error}")
                return
            self._note(at, SERVED, f"{GUESTS} {kind} guests", rate)
            if kind == "c":
                self._bare_guests(at, AFTER)

    def _bare_guests(self, at: At, when: str = "") -> None:
        """The batches of that many guests, with no guests."""
        order = {"sequences": GUESTS, "context": CONTEXT, "steps": GUEST_TOKENS}
        self._sample(at, BARE, f"as {GUESTS} guests{when}", "decode", order)

    def _compare_answers(self) -> None:
        """Each engine's next token along our own greedy answers."""
        if BARE not in self._links:
            return
        self._say("comparing answers")
        prompts = tokens_of(self.plan.directory, questions(self.plan.questions))
        ours = self._ask(BARE, "greedy", prompts=prompts, count=CONTINUATION)
        if ours is None:
            return
        prefixes, expected = [], []
        for prompt, answer in zip(prompts, ours["tokens"], strict=True):
            for place in range(0, CONTINUATION, PREFIX_STEP):
                prefixes.append(prompt + answer[:place])
                expected.append(answer[place])
        for name in list(self._links):
            if name != MACHINE:
                found = self._ask(name, "greedy", prompts=prefixes, count=1)
                if found is not None:
                    tokens = [each[0] for each in found["tokens"]]
                    same = sum(a == b for a, b in zip(tokens, expected, strict=True))
                    self.record["agreement"][name] = {"same": same, "asked": len(expected)}

    def _measure_arrivals(self) -> None:
        """Everybody gets the same questions at the same moments."""
        asked = [each for each in self._links if each not in (MACHINE, BARE, INT8, TRANSFORMERS)]
        if not asked and self._served is None:
            return
        prompts = tokens_of(self.plan.directory, questions(self.plan.arrivals))
        chance, now, moments = random.Random(1), 0.0, []
        for _ in prompts:
            now += chance.expovariate(ARRIVALS_PER_SECOND)
            moments.append(now)
        self.record["arrivals"] = {"at": moments, "tokens": ARRIVAL_TOKENS, "times": {}}
        times = self.record["arrivals"]["times"]
        requests = [
            {"at": at, "prompt": prompt, "count": ARRIVAL_TOKENS}
            for at, prompt in zip(moments, prompts, strict=True)
        ]
        for name in asked:
            self._say(f"requests by chance: {name}")
            found = self._ask(name, "arrivals", requests=requests)
            if found is not None:
                times[name] = found["times"]
        if self._served is not None:
            self._say("requests by chance: our server")
            coming = [Arrival(r["at"], len(r["prompt"]), ARRIVAL_TOKENS - 1) for r in requests]
            try:
                times[SERVED] = self._served.arrivals(coming)["times"]
            except Exception as error:
                self._drop_server(f"{type(error).__name__}: {error}")

    def _measure_starts(self) -> None:
        if not self.plan.starts or (self.plan.only and TRANSFORMERS not in self.plan.only):
            return
        self._say("starting cold")
        [peer] = [each for each in PEERS if each.name == TRANSFORMERS]
        try:
            for what, seconds in start_times(
                self.plan.directory, self.plan.starts, lambda: self._open(peer)
            ):
                self.record["starts"].append({"what": what, "seconds": seconds})
        except PeerLost as error:
            self._skip(BARE, "start", str(error))

    def _ask(self, name: str, op: str, **order: Any) -> Record | None:
        link = self._links.get(name)
        if link is None:
            return None
        try:
            return link.ask(op, **order)
        except PeerRefusal as error:
            self._skip(name, op, str(error))
        except PeerLost as error:
            self._lose(name, str(error))
            self._links.pop(name).close()
        return None

    def _note(self, at: At, engine: str, case: str, value: float) -> None:
        when = {"round": at.turn, "part": at.part}
        sample = {**when, "engine": engine, "case": case, "value": value}
        self.record["samples"].append(sample)

    def _skip(self, engine: str, case: str, reason: str) -> None:
        self._say(f"{engine} skips {case}: {reason}")
        self.record["skipped"].append({"engine": engine, "case": case, "reason": reason})

    def _lose(self, engine: str, reason: str) -> None:
        self._say(f"{engine} is missing: {reason}")
        self.record["engines"].setdefault(engine, {})["missing"] = reason

    def _drop_server(self, reason: str) -> None:
        self._lose(SERVED, reason)
        if self._served is not None:
            self._served.close()
            self._served = None

    def _close(self) -> None:
        for link in self._links.values():
            link.let_go()
        for link in self._links.values():
            link.close()
        if self._served is not None:
            self._served.close()
