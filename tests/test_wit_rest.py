"""Functions of the contract that no other subject covers, called as the linker calls them."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
import trio
from trio.testing import MockClock

from pie_trio.wasm.host.interfaces import host_interfaces
from pie_trio.wasm.wasi.poll import Deadline, Pollable


@attrs.define(eq=False)
class Wasi:
    """Remembers what it was told about waiting."""

    seen: list[int] = attrs.field(factory=list)

    def waits_on(self, pollables: tuple[Pollable, ...]) -> None:
        self.seen.append(len(pollables))


@attrs.define(eq=False)
class Host:
    wasi: Wasi = attrs.field(factory=Wasi)


def _function(interface: str, name: str) -> Any:
    return host_interfaces()[interface][name]


async def test_block_returns_at_the_moment_when_its_pollable_is_ready(
    autojump_clock: MockClock,
) -> None:
    host = Host()
    deadline = Deadline(trio.current_time() + 7.0)
    await _function("wasi:io/poll", "[method]pollable.block")(host, deadline)
    assert trio.current_time() == pytest.approx(deadline.time)
    assert host.wasi.seen == [1, 0]


def test_the_clock_says_how_fine_it_is() -> None:
    resolution = _function("wasi:clocks/monotonic-clock", "resolution")(Host())
    assert 0 < resolution <= 1_000_000
