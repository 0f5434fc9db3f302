"""Must hold: a thousand suspended Python guests in one engine, all answered, all cleaned up."""

from __future__ import annotations

import gc
import sys
from pathlib import Path

import psutil
import pytest
import trio

from pie_trio.actors.instance import Instance
from tests.world import open_world, read_all

COUNT = 1000
WAIT = """
import inferlet

async def main(args):
    return "heard " + await inferlet.receive()
"""


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_a_thousand_suspended_python_guests_are_answered_and_cleaned_up(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    program = tmp_path / "wait.py"
    program.write_text(WAIT)
    process = psutil.Process()
    async with open_world(tmp_path / "home") as world:
        first = await world.launch(program)
        first.inbox.deliver("you")
        await read_all(first)
        memory, cpu = process.memory_full_info().uss, sum(process.cpu_times()[:2])
        guests = [await world.launch(program) for _ in range(COUNT)]
        with trio.fail_after(300):
            await suspended(guests)
        per_guest = (process.memory_full_info().uss - memory) / COUNT
        cpu_per_guest = (sum(process.cpu_times()[:2]) - cpu) / COUNT
        for number, guest in enumerate(guests):
            guest.inbox.deliver(str(number))
        ends = [await guest.ended.answer() for guest in guests]
        assert [end.value for end in ends] == [f"heard {number}" for number in range(COUNT)]
        gc.collect()
        left = (process.memory_full_info().uss - memory) / COUNT
        assert left < 0.25 * per_guest, "what the guests took comes back"
    with capsys.disabled():
        sys.stdout.write(
            f"\n{COUNT} suspended Python guests: {per_guest / 2**20:.2f} MiB and"
            f" {cpu_per_guest * 1000:.1f} ms of CPU each; {left / 2**20:.3f} MiB each afterwards\n"
        )


async def suspended(guests: list[Instance]) -> None:
    """Until each of them waits for its client."""
    while not all(guest.inbox.is_awaited for guest in guests):  # noqa: ASYNC110
        await trio.sleep(0.05)
