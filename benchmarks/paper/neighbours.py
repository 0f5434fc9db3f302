"""Other engines behind their own servers: what one would run instead of ours, on this machine.

Each is a process in the environment that `pie-trio bench engine --setup` makes. It is stopped while
somebody else is measured, since an idle one may spin, and it ends with its bench. One that is not
there, or does not start, is told of with its reason; what hangs on it counts as not measured.
"""

from __future__ import annotations

import json
import os
import signal
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import attrs
import trio

from benchmarks.engine_link import PeerLink, PeerLost, signal_family
from benchmarks.engine_peers import Peer
from benchmarks.engine_setup import python_of, weights_file
from benchmarks.paper.prompts import Part, prompt_of
from benchmarks.paper.record import Run
from pie_trio.home import Home
from pie_trio.services.chat_template import ChatTemplate
from pie_trio.services.model_store import DEFAULT_MODEL, ModelStore

SCRIPTS = Path(__file__).parent / "peers"
ANSWER_SECONDS = 120.0
PLAIN, BEAMS, GRAMMAR, LOOKUP = "plain", "beams", "grammar", "lookup"  # what may be asked for
LLAMA_CPP, OPENVINO = "llama.cpp", "OpenVINO"
NAMES = (LLAMA_CPP, OPENVINO)


@attrs.frozen
class Server:
    """One process: which peer, how it is started, and what may be asked of it."""

    peer: Peer
    weights: str
    features: frozenset[str]
    arguments: tuple[str, ...] = ()


_LLAMA_CPP = Peer(LLAMA_CPP, "llamacpp", "llama_cpp_server.py", (), 34 / 32)
_OPENVINO = Peer(OPENVINO, "openvino", "openvino_server.py", (), 2)
SERVERS = (
    Server(_LLAMA_CPP, "q8", frozenset({PLAIN, GRAMMAR})),
    Server(_LLAMA_CPP, "q8", frozenset({LOOKUP}), ("--lookup",)),
    Server(_OPENVINO, "f16", frozenset({PLAIN, GRAMMAR, BEAMS})),
    Server(_OPENVINO, "f16", frozenset({LOOKUP}), ("--lookup",)),
)


@attrs.frozen(eq=False)
class Neighbour:
    """A server that is stopped until somebody runs it."""

    name: str
    features: frozenset[str]
    address: str
    pid: int
    template: ChatTemplate

    @contextmanager
    def running(self) -> Iterator[None]:
        signal_family(self.pid, signal.SIGCONT)
        try:
            yield
        finally:
            signal_family(self.pid, signal.SIGSTOP)

    def talk(self, address: str, nonce: str) -> PeerTalk:
        """Over another address than its own: that of a proxy."""
        return PeerTalk(address.replace("ws://", "http://"), self.template, nonce)


@attrs.frozen
class PeerTalk:
    """Plain completions of another engine, each a request of its own."""

    address: str
    template: ChatTemplate
    nonce: str  # stands before every prompt, so that nothing is left of earlier rounds
    wishes: Mapping[str, Any] = {}
    counts: list[int] = attrs.field(factory=list)  # tokens of each answer

    async def complete(self, parts: Sequence[Part], tokens: int, is_exact: bool = False) -> str:
        body = {
            "prompt": self.nonce + prompt_of(parts, self.template),
            "n_predict": tokens,
            "temperature": 0,
            "ignore_eos": is_exact,
            "cache_prompt": True,
            **self.wishes,
        }
        answer: dict[str, Any] = await trio.to_thread.run_sync(post, self.address, body)
        self.counts.append(int(answer["tokens_predicted"]))
        return str(answer["content"])

    async def remember(self, parts: Sequence[Part]) -> None:
        """Its cache keeps what it has read."""
        await self.complete(parts, 1)
        self.counts.clear()

    def wishing(self, **wishes: Any) -> PeerTalk:
        return attrs.evolve(self, wishes=wishes)


def post(address: str, body: Mapping[str, Any]) -> Any:
    request = urllib.request.Request(
        f"{address}/completion", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=ANSWER_SECONDS) as answer:
        return json.load(answer)


@contextmanager
def open_neighbours(run: Run, features: frozenset[str]) -> Iterator[list[Neighbour]]:
    """Those that can do some of this. What they are, or why they are missing, becomes a fact."""
    found: list[Neighbour] = []
    facts = run.facts.setdefault("peers", {})
    with ExitStack() as stack:
        for server in SERVERS:
            if not server.features & features:
                continue
            run.say(f"starting {server.peer.name} {' '.join(server.arguments)}".rstrip())
            try:
                neighbour, told = _start(server, run, stack)
            except PeerLost as error:
                run.say(f"{server.peer.name} is not measured: {error}")
                facts[_label(server)] = f"not measured: {error}"
            else:
                facts[_label(server)] = f"{told['version']}, {told['weights']}"
                found.append(neighbour)
        yield found


def _label(server: Server) -> str:
    return " ".join((server.peer.name, *server.arguments))


def _start(server: Server, run: Run, stack: ExitStack) -> tuple[Neighbour, dict[str, Any]]:
    if run.model.pretend or run.model.name != DEFAULT_MODEL:
        raise PeerLost(f"its weights are those of {DEFAULT_MODEL}")
    python, weights = python_of(server.peer), weights_file(server.weights)
    if python is None or not weights.exists():
        raise PeerLost("not set up: pie-trio bench engine --setup")
    threads = str(len(os.sched_getaffinity(0)))
    given = ("--weights", str(weights), "--threads", threads, *server.arguments)
    link = PeerLink([str(python), str(SCRIPTS / server.peer.script), *given])
    stack.callback(link.close)
    facts = link.facts
    model = ModelStore(Home.default().models).open(run.model.name)
    template = ChatTemplate(model.facts.chat_template)
    neighbour = Neighbour(
        server.peer.name, server.features, facts["address"], facts["pid"], template
    )
    return neighbour, facts
