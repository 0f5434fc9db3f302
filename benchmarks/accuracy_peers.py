"""What other engines take for the likeliest next token, and how likely the text is to them.

Owns a peer's process while it answers. One that is not set up or is lost is told with its
reason, and never counted as right or wrong.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs

from benchmarks import engine_peers
from benchmarks.engine_link import PeerLink, PeerLost, PeerRefusal
from benchmarks.engine_peers import PEERS, Peer
from benchmarks.engine_setup import python_of, weights_file

STRIDE = 8  # an engine that must read each beginning anew is asked at every fourth place only
FORCED = "llama_cpp_forced.py"
ASKED = (
    engine_peers.LLAMA_Q8,
    engine_peers.LLAMA_F16,
    engine_peers.OPENVINO_F32,
    engine_peers.OPENVINO,
)
Parts = list[list[int]]


def answers(parts: Parts, name: str) -> dict[str, Any]:
    """Its likeliest token and its loss at each place of the text, or why there are none."""
    [peer] = [each for each in PEERS if each.name == name]
    if peer.environment == "llamacpp":
        peer = attrs.evolve(peer, script=FORCED)
    told: dict[str, Any] = {"best": [], "loss": []}
    try:
        with _open(peer) as link:
            for part in parts:
                read = link.ask("read", tokens=part)
                told["loss"] += read["losses"]
                told["best"] += read["tokens"] if "tokens" in read else _best_of_some(link, part)
            return told | {"facts": link.facts}
    except (PeerLost, PeerRefusal) as error:
        return {"error": str(error)}


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


def _best_of_some(link: PeerLink, part: list[int]) -> list[int | None]:
    ends = range(STRIDE, len(part) + 1, STRIDE)
    answers = link.ask("greedy", prompts=[part[:end] for end in ends], count=1)["tokens"]
    told: list[int | None] = [None] * len(part)
    for end, [token] in zip(ends, answers, strict=True):
        told[end - 1] = token
    return told
