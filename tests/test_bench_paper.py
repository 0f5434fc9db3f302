"""The evaluation's own tools: the far client, what it counts, and one section from end to end."""

from __future__ import annotations

import json
import struct
import time
from pathlib import Path

import msgpack
import pytest
import trio
import wsproto
from wsproto.events import AcceptConnection, BytesMessage

import inferlets
from benchmarks.listener import UPGRADE, frame, messages
from benchmarks.paper.completions import constant, value_of
from benchmarks.paper.launches import custom_section
from benchmarks.paper.policies import line_through
from benchmarks.paper.proxy import open_proxy
from benchmarks.paper.published import AGENT_LATENCY, TECHNIQUE_LATENCY
from benchmarks.paper.served import GUESTS
from benchmarks.paper.tax import period_of, steps_of, whole_batches
from benchmarks.paper.techniques import TECHNIQUES
from pie_trio.cli.exit_codes import ExitCode
from pie_trio.services.guest_build.c_component import build_c
from tests.support.command import pie

ROUND_TRIP = 0.05
ASKED = 4


async def _echo(stream: trio.SocketStream) -> None:
    async for data in stream:
        await stream.send_all(data)


async def _ask(address: str, times: int, size: int) -> float:
    """Seconds for so many questions, one after the other."""
    host, port = address.removeprefix("ws://").split(":")
    async with await trio.open_tcp_stream(host, int(port)) as stream:
        started = time.perf_counter()
        for turn in range(times):
            question = bytes([turn]) * size
            await stream.send_all(question)
            heard = b""
            while len(heard) < size:
                heard += await stream.receive_some()
            assert heard == question
        return time.perf_counter() - started


@pytest.mark.parametrize("size", [1, 300_000])
async def test_each_question_takes_a_round_trip_longer_and_no_byte_is_lost(
    size: int, nursery: trio.Nursery
) -> None:
    listeners = await nursery.start(trio.serve_tcp, _echo, 0)
    address = f"ws://127.0.0.1:{listeners[0].socket.getsockname()[1]}"
    async with open_proxy(address, ROUND_TRIP) as far:
        seconds = await _ask(far, ASKED, size)
    assert seconds >= ASKED * ROUND_TRIP
    assert seconds < await _ask(address, ASKED, size) + 2 * ASKED * ROUND_TRIP
    nursery.cancel_scope.cancel()


async def test_what_goes_away_on_one_side_goes_away_on_the_other(nursery: trio.Nursery) -> None:
    async def hang_up(stream: trio.SocketStream) -> None:
        await stream.aclose()

    listeners = await nursery.start(trio.serve_tcp, hang_up, 0)
    address = f"ws://127.0.0.1:{listeners[0].socket.getsockname()[1]}"
    async with open_proxy(address, 0.0) as far:
        host, port = far.removeprefix("ws://").split(":")
        async with await trio.open_tcp_stream(host, int(port)) as stream:
            with trio.fail_after(10):
                assert await stream.receive_some() == b""
    nursery.cancel_scope.cancel()


def batch(answered: float, passes: int, rows: int = 1) -> dict[str, float]:
    return {"answered": answered, "passes": float(passes), "rows": float(rows)}


def test_tokens_that_come_in_bunches_are_timed_from_bunch_to_bunch() -> None:
    batches = [batch(0.4 * turn, 4) for turn in range(1, 7)]
    arrivals = [each["answered"] + 0.001 * place for each in batches for place in range(1, 5)]
    assert period_of(arrivals, batches, 0.03) == pytest.approx(0.1, rel=0.01)
    assert period_of(arrivals[:4], batches, 0.03) is None


def test_a_text_counts_as_all_tokens_that_were_made_until_it_came() -> None:
    batches = [batch(0.1, 1), batch(0.9, 8), batch(1.5, 6), batch(1.8, 3)]
    arrivals = [each["answered"] + 0.002 for each in batches]
    assert period_of(arrivals, batches, 0.03) == pytest.approx(0.1)


def test_messages_are_heard_whole_however_they_are_cut() -> None:
    said = [{"type": "a", "value": "x" * size} for size in (1, 200, 70_000)]
    heard: list[dict[str, object]] = []
    buffer = bytearray()
    for written in map(_as_a_server_writes, said):
        for start in range(0, len(written), 7):
            buffer += written[start : start + 7]
            heard += messages(buffer)
    assert heard == said
    assert not buffer


@pytest.mark.parametrize("size", [125, 126, 1000])
def test_a_frame_has_the_shortest_length_that_there_is(size: int) -> None:
    server = wsproto.WSConnection(wsproto.ConnectionType.SERVER)
    server.receive_data(UPGRADE.encode())
    list(server.events())
    server.send(AcceptConnection())
    server.receive_data(frame(bytes(size)))
    [event] = server.events()
    assert isinstance(event, BytesMessage)
    assert event.data == bytes(size)


def _as_a_server_writes(message: dict[str, str]) -> bytes:
    """Without a mask."""
    payload = msgpack.packb(message)
    if len(payload) < 126:
        return struct.pack(">BB", 0x82, len(payload)) + payload
    if len(payload) < 1 << 16:
        return struct.pack(">BBH", 0x82, 126, len(payload)) + payload
    return struct.pack(">BBQ", 0x82, 127, len(payload)) + payload


def test_only_batches_between_those_of_everybody_count() -> None:
    sizes = [(1, 1), (2, 2), (4, 4), (3, 3), (4, 12), (4, 4), (2, 2)]
    batches = [batch(0.0, passes, rows) for rows, passes in sizes]
    whole = whole_batches(batches, 4)
    assert [each["rows"] for each in whole] == [4, 3, 4, 4]
    assert [steps_of(each) for each in whole] == [1, 1, 3, 1]


def test_the_cost_of_batches_is_a_line_that_never_starts_below_nothing() -> None:
    assert line_through([(1, 13.0), (8, 20.0), (32, 44.0)]) == pytest.approx((12.0, 1.0))
    assert line_through([(1, 1.0), (2, 11.0), (3, 21.0)]) == pytest.approx((0.0, 10.0))


def test_a_custom_section_makes_another_component_of_the_same_code() -> None:
    [folder] = inferlets.__path__
    component = (Path(folder) / "bench-spawn" / "bench-spawn.wasm").read_bytes()
    marked = component + custom_section("cold-1")
    assert marked.startswith(component)
    assert custom_section("cold-1") == b"\0\x07\x06cold-1"


def test_the_guest_in_c_is_in_step_with_its_headers(tmp_path: Path) -> None:
    build_c(GUESTS, "fused.c", tmp_path / "fused.wasm")
    assert (tmp_path / "fused.wasm").stat().st_size > 1000


def test_both_sides_read_the_same_texts() -> None:
    assert constant("agent-react", "SYSTEM").startswith("You answer")
    assert len(value_of("prefix-tree", "LEVELS")) == 3
    with pytest.raises(LookupError, match="has no NOTHING"):
        constant("agent-react", "NOTHING")


def test_every_technique_and_every_agent_has_a_figure_of_the_paper() -> None:
    assert {technique.name for technique in TECHNIQUES} == set(TECHNIQUE_LATENCY)
    assert set(AGENT_LATENCY) == {"react", "codeact", "swarm"}


def test_a_section_runs_from_end_to_end_and_others_are_kept(tmp_path: Path) -> None:
    file = tmp_path / "paper.json"
    kept = {"section": "fig9", "case": "warm 1", "measure": "median", "round": 1, "value": 0.001}
    facts = {"model": "smollm2-135m", "scale": 0.5, "facts": {}, "runs": {}}
    file.write_text(json.dumps({**facts, "samples": [kept]}), "utf-8")
    arguments = ("--pretend", "--quick", "--only", "fig10", "--json", str(file))
    ended = pie(tmp_path, "bench", "paper", *arguments)
    assert ended.returncode == ExitCode.CHECK_FAILED, ended.stderr
    found = json.loads(file.read_text("utf-8"))
    assert kept in found["samples"]
    cases = {sample["case"] for sample in found["samples"] if sample["section"] == "fig10"}
    assert {"control 1", "control 64", "inference 64"} <= cases
    assert "| inference 64 |" in ended.stdout


def test_a_section_that_is_not_there_is_named(tmp_path: Path) -> None:
    ended = pie(tmp_path, "bench", "paper", "--only", "fig5")
    assert ended.returncode == ExitCode.USAGE
    assert "there is no section 'fig5'" in ended.stderr
