# ruff: noqa: ASYNC110 (a guest may poll, and the loop must stand it)
"""The event loop of Python guests, with a host whose clock only waiting moves."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any

import pytest

from tests.support.kit import kit

HostLoop, WaitsForEver = kit("loop").HostLoop, kit("loop").WaitsForEver


class Host:
    """Pollables are the times from which they are ready."""

    def __init__(self) -> None:
        self.time = 0.0
        self.polls: list[tuple[list[float], float | None]] = []

    def now(self) -> float:
        return self.time

    def poll(self, pollables: Sequence[float], until: float | None) -> list[int]:
        self.polls.append((list(pollables), until))
        moments = [*pollables, *([until] if until is not None else [])]
        self.time = max(self.time, min(moments))
        return [place for place, moment in enumerate(pollables) if moment <= self.time]


def run(main: Coroutine[Any, Any, Any], host: Host | None = None) -> Any:
    return HostLoop(host or Host()).run_until_complete(main)


async def wait(pollable: float) -> float:
    await asyncio.get_running_loop().wait(pollable)  # type: ignore[attr-defined]
    return pollable


def test_many_waits_are_one_poll() -> None:
    host = Host()

    async def main() -> list[float]:
        return list(await asyncio.gather(wait(3.0), wait(1.0), wait(2.0)))

    assert run(main(), host) == [3.0, 1.0, 2.0]
    assert [pollables for pollables, _ in host.polls] == [[3.0, 1.0, 2.0], [3.0, 2.0], [3.0]]


def test_a_sleep_ends_when_its_time_has_come() -> None:
    host = Host()

    async def main() -> None:
        await asyncio.gather(asyncio.sleep(0.5), wait(0.2))

    run(main(), host)
    assert host.time == 0.5
    assert host.polls == [([0.2], 0.5), ([], 0.5)]


def test_a_timeout_takes_its_wait_out_of_the_poll() -> None:
    host = Host()

    async def main() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1.0):
                await wait(9.0)
        await wait(2.0)

    run(main(), host)
    assert host.polls[-1] == ([2.0], None)


def test_a_cancelled_timer_wakes_nobody() -> None:
    host = Host()

    async def main() -> None:
        asyncio.get_running_loop().call_later(1.0, pytest.fail).cancel()
        await wait(5.0)

    run(main(), host)
    assert host.polls == [([5.0], None)]


def test_tasks_that_never_wait_do_not_starve_those_that_do() -> None:
    async def spin(until: asyncio.Task[float]) -> None:
        while not until.done():
            await asyncio.sleep(0)

    async def main() -> None:
        await spin(asyncio.create_task(wait(0.0)))

    run(main())


def test_what_main_leaves_running_is_cancelled() -> None:
    ended: list[str] = []

    async def leftover() -> None:
        try:
            await wait(9.0)
        finally:
            ended.append("leftover")

    async def main() -> str:
        task = asyncio.create_task(leftover())
        await asyncio.sleep(0)
        assert not task.done()
        return "main"

    host = Host()
    assert run(main(), host) == "main"
    assert ended == ["leftover"]
    assert host.time == 0.0


def test_the_error_of_main_comes_out_and_ends_the_others() -> None:
    async def fail() -> None:
        raise KeyError("mine")

    async def main() -> None:
        await asyncio.gather(wait(9.0), fail())

    with pytest.raises(KeyError, match="mine"):
        run(main())


def test_a_program_that_waits_for_itself_is_told_so() -> None:
    async def main() -> None:
        await asyncio.get_running_loop().create_future()

    with pytest.raises(WaitsForEver):
        run(main())


def test_an_abandoned_generator_is_closed() -> None:
    closed: list[bool] = []

    async def numbers() -> Any:
        try:
            yield 1
        finally:
            closed.append(True)

    async def main() -> None:
        async for _ in numbers():
            break
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    run(main())
    assert closed == [True]


def test_an_error_that_nobody_awaits_goes_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    async def main() -> None:
        asyncio.get_running_loop().call_soon(lambda: [][0])
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    run(main())
    assert "IndexError" in capsys.readouterr().err
