"""A peer's process: what it says is believed, what it breaks costs only its own figures."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks import engine_link
from benchmarks.engine_link import PeerLink, PeerLost, PeerRefusal

FAKE = Path(__file__).parent / "support" / "fake_peer.py"
SPEAK = Path(__file__).parent / "support" / "speaking_peer.py"


def command(temper: str = "well") -> list[str]:
    return [sys.executable, str(FAKE), temper]


@pytest.fixture
def link() -> Iterator[PeerLink]:
    opened = PeerLink(command())
    yield opened
    opened.close()


def state_of(pid: int) -> str:
    stat = Path(f"/proc/{pid}/stat").read_text("ascii")
    return stat[stat.rindex(")") + 2]


def test_a_peer_tells_its_facts_and_answers(link: PeerLink) -> None:
    assert link.facts["engine"] == "fake"
    assert link.ask("prefill", tokens=512) == {"seconds": 0.5, "tokens": 512}


def test_a_peer_that_cannot_do_something_is_asked_again(link: PeerLink) -> None:
    with pytest.raises(PeerRefusal, match="not today"):
        link.ask("refuse")
    assert link.ask("prefill")["tokens"] == 512


def test_an_idle_peer_is_stopped_with_all_its_children(link: PeerLink) -> None:
    link.ask("prefill")
    deadline = time.monotonic() + 5  # a signal reaches a running process a little later
    while state_of(link.facts["child"]) != "T":
        assert time.monotonic() < deadline


def test_a_closed_peer_leaves_no_process_behind() -> None:
    link = PeerLink(command())
    child = link.facts["child"]
    link.close()
    assert not Path(f"/proc/{child}").exists() or state_of(child) == "Z"


@pytest.mark.parametrize("op", ["nonsense", "die"])
def test_a_peer_that_breaks_the_protocol_is_lost(link: PeerLink, op: str) -> None:
    with pytest.raises(PeerLost):
        link.ask(op)


def test_a_peer_that_hangs_is_lost_within_its_bound(
    link: PeerLink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_link, "ANSWER_SECONDS", 0.2)
    with pytest.raises(PeerLost, match="no answer within"):
        link.ask("hang")


def test_a_peer_that_does_not_start_is_lost_with_its_last_words() -> None:
    with pytest.raises(PeerLost, match="no such model"):
        PeerLink(command("dies at once"))


def test_a_speaking_peer_counts_tokens_and_seconds_by_its_own_clock() -> None:
    link = PeerLink([sys.executable, str(SPEAK)])
    try:
        assert link.ask("decode", sequences=3, context=4, steps=5) == {"seconds": 5.0, "tokens": 15}
        assert link.ask("prefill", tokens=7) == {"seconds": 1.0, "tokens": 7}
        assert link.ask("greedy", prompts=[[1, 2], [3]], count=2) == {"tokens": [[3, 4], [4, 5]]}
        with pytest.raises(PeerRefusal, match="unknown work"):
            link.ask("facts")
        requests = [{"at": 0.0, "prompt": [1], "count": 2}, {"at": 0.05, "prompt": [1], "count": 1}]
        times = link.ask("arrivals", requests=requests)["times"]
        assert [len(each) for each in times] == [2, 1]
        assert times[1][0] >= 0.05
    finally:
        link.close()
