"""A real guest calls every function of the interfaces through the airlock, over the real engine."""

from __future__ import annotations

from pathlib import Path

import pytest

from pie_trio.actors.instance import Instance
from pie_trio.messages import OutputEvent
from pie_trio.services.guest_build.c_component import build_c
from tests.world import open_world

GUESTS = Path(__file__).parent / "guests"
UNSERVED = [
    "set-adapter",
    "download-adapter",
    "upload-adapter",
    "embed-image",
    "calculate-embed-size",
    "set-adapter-seed",
    "initialize-adapter",
    "update-adapter",
]


@pytest.fixture(scope="session")
def guest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    component = tmp_path_factory.mktemp("guest") / "every-function.wasm"
    build_c(GUESTS, "every_function.c", component)
    return component


async def _talk(instance: Instance) -> list[OutputEvent]:
    """Reads everything, and answers when the guest says that it is ready."""
    reader = instance.outlet.attach()
    events: list[OutputEvent] = []
    while fresh := await reader.next_events():
        events += fresh
        if OutputEvent("message", "ready") in fresh:
            instance.inbox.deliver("from the client")
            instance.inbox.deliver_blob(b"abc")
    return events


async def test_a_guest_that_calls_every_function_gets_what_it_expects(
    guest: Path, tmp_path: Path
) -> None:
    async with open_world(tmp_path) as world:
        instance = await world.launch(guest)
        events = await _talk(instance)
        assert events == [
            OutputEvent("file", "", bytes([1, 2, 3, 4])),
            OutputEvent("message", "ready"),
            OutputEvent("return", "all is well"),
        ]


async def test_a_function_that_is_not_served_ends_a_real_guest_with_its_name(
    guest: Path, tmp_path: Path
) -> None:
    async with open_world(tmp_path) as world:
        for function in UNSERVED:
            end = await world.run(guest, function)
            assert end.error is not None
            assert f"{function}: not served yet" in end.error
            assert end.error_kind == "GuestFault"
