"""What other engines take for the likeliest next token, in the words of `benchmarks.accuracy`.

Owns the peers' processes while they answer. One that is not set up or is lost is told with its
reason, and never counted as right or wrong.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import attrs

from benchmarks import engine_peers
from benchmarks.engine_link import PeerLink, PeerLost, PeerRefusal
from benchmarks.engine_peers import PEERS, Peer
from benchmarks.engine_setup import python_of, weights_file

STRIDE = 4  # an engine that must read each beginning anew is asked at every fourth place only
FORCED = "llama_cpp_forced.py"
ASKED = (
    engine_peers.LLAMA_Q8,
    engine_peers.LLAMA_F16,
    engine_peers.OPENVINO_F32,
    engine_peers.OPENVINO,
)
Say = Callable[[str], object]
Parts = list[list[int]]


def peers(parts: Parts, asked: Sequence[str], say: Say) -> dict[str, dict[str, Any]]:
    """The tokens of each peer by its name, or why there are none."""
    by_name = {peer.name: peer for peer in PEERS}
    found: dict[str, dict[str, Any]] = {}
    for name in asked:
        say(name)
        peer = by_name[name]
        if peer.environment == "llamacpp":
            peer = attrs.evolve(peer, script=FORCED)
        try:
            with _open(peer) as link:
                found[name] = {"best": _tokens(link, peer, parts), "facts": link.facts}
        except (PeerLost, PeerRefusal) as error:
            found[name] = {"error": str(error)}
    return found


@contextlib.contextmanager
def _open(peer: Peer) -> Iterator[PeerLink]:
    python = python_of(peer)
    if python is None:
        raise PeerLost("not set up: pie-trio bench engine --setup")
    places = {"f16": str(weights_file("f16")), "q8": str(weights_file("q8"))}
    arguments = [argument.format(**places) for argument in peer.arguments]
    script = Path(__file__).parent / "peers" / peer.script
    threads = len(os.sched_getaffinity(0))
    link = PeerLink([str(python), str(script), *arguments, "--threads", str(threads)])
    try:
        yield link
    finally:
        link.close()


def _tokens(link: PeerLink, peer: Peer, parts: Parts) -> list[int | None]:
    best: list[int | None] = []
    for part in parts:
        if peer.script == FORCED:
            best += link.ask("forced", tokens=part)["tokens"]
            continue
        ends = range(STRIDE, len(part) + 1, STRIDE)
        answers = link.ask("greedy", prompts=[part[:end] for end in ends], count=1)["tokens"]
        told: list[int | None] = [None] * len(part)
        for end, [token] in zip(ends, answers, strict=True):
            told[end - 1] = token
        best += told
    return best
