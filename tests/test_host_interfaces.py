"""The tables of host functions name exactly what the WIT names, and what is not served says so."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

import pie_trio.wasm
from pie_trio.errors import GuestFault
from pie_trio.wasm.host.interfaces import host_interfaces, inferlet_interfaces
from pie_trio.wasm.wasi.poll import Deadline
from tests.support.handles import World, call, open_queue

POLL = "wasi:io/poll#"
WIT = Path(pie_trio.wasm.__path__[0]) / "wit" / "deps"
OF_THE_GUEST = "run"  # the only interface that a guest exports
INTERFACE = re.compile(r"^interface ([a-z-]+) \{(.*?)^\}", re.DOTALL | re.MULTILINE)
RESOURCE = re.compile(r"resource ([a-z-]+) \{(.*?)^    \}", re.DOTALL | re.MULTILINE)
FUNCTION = re.compile(r"([a-z-]+): (static )?func\(")


def _functions_of(body: str) -> set[str]:
    """The names by which a component imports what an interface declares."""
    names = set()
    for resource, inside in RESOURCE.findall(body):
        for name, static in FUNCTION.findall(inside):
            names.add(f"[{'static' if static else 'method'}]{resource}.{name}")
        if "constructor(" in inside:
            names.add(f"[constructor]{resource}")
    return names | {name for name, _static in FUNCTION.findall(RESOURCE.sub("", body))}


def _declared() -> dict[str, set[str]]:
    declared = {}
    for package in ("core", "adapter", "image", "zo", "ext"):
        for path in (WIT / package).glob("*.wit"):
            text = re.sub(r"//.*", "", path.read_text())
            for interface, body in INTERFACE.findall(text):
                if interface != OF_THE_GUEST:
                    space = "pie" if package == "ext" else "inferlet"
                    declared[f"{space}:{package}/{interface}"] = _functions_of(body)
    return declared


def test_every_function_of_the_wit_is_served_and_nothing_else() -> None:
    served = {name: set(functions) for name, functions in inferlet_interfaces().items()}
    assert served == _declared()


def test_guests_are_linked_against_the_inferlet_interfaces_and_wasi() -> None:
    assert set(inferlet_interfaces()) < set(host_interfaces())
    assert "wasi:io/poll" in host_interfaces()


@pytest.mark.parametrize(
    "function, arguments",
    [
        ("adapter/common#set-adapter", (None, 1)),
        ("adapter/common#download-adapter", (None, 1, "name")),
        ("image/image#embed-image", (None, [1], b"png", 0)),
        ("image/image#calculate-embed-size", (None, 10, 10)),
        ("zo/evolve#set-adapter-seed", (None, 1)),
        ("zo/evolve#initialize-adapter", (None, 1, 8, 16.0, 4, 0.5, 0.1)),
        ("zo/evolve#update-adapter", (None, 1, [0.5], [1], 0.1)),
    ],
)
async def test_what_is_not_served_yet_refuses_by_its_name(
    function: str, arguments: tuple[Any, ...]
) -> None:
    host = World().host()
    with pytest.raises(GuestFault, match=function.split("#")[1] + ": not served yet"):
        call(host, function, *arguments)


async def test_an_adapter_that_is_uploaded_in_vain_is_not_kept() -> None:
    host = World().host()
    queue, _ = open_queue(host)
    blob = call(host, "core/common#[constructor]blob", b"weights")
    with pytest.raises(GuestFault, match="upload-adapter: not served yet"):
        call(host, "adapter/common#upload-adapter", queue, 1, "name", blob)
    assert host.held.bytes_held == 0


async def test_an_instance_that_only_a_peer_can_wake_counts_as_waiting_for_a_client(
    nursery: trio.Nursery,
) -> None:
    host = World().host()
    listener = call(host, "core/message#subscribe", "t")
    pollable = call(host, "core/message#[method]subscription.pollable", listener)
    assert not host.client_waiting
    nursery.start_soon(call, host, f"{POLL}[method]pollable.block", pollable)
    await wait_all_tasks_blocked()
    assert host.client_waiting
    await call(host, "core/message#broadcast", "t", "a")
    await wait_all_tasks_blocked()
    assert not host.client_waiting


async def test_an_instance_that_waits_for_a_client_or_a_time_is_not_waiting_for_a_client(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    host = World().host()
    result = call(host, "core/message#receive")
    pollable = call(host, "core/message#[method]receive-result.pollable", result)
    with trio.move_on_after(1):
        nursery.start_soon(call, host, f"{POLL}poll", [pollable, Deadline(2.0)])
        await wait_all_tasks_blocked()
        assert not host.client_waiting
        await trio.sleep_forever()
    assert not host.client_waiting


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
async def test_a_guest_whose_console_is_full_waits_for_its_client(
    stream: str, nursery: trio.Nursery
) -> None:
    room = trio.Event()

    async def console(_data: bytes) -> None:
        await room.wait()

    host = World().host(console=console)
    nursery.start_soon(getattr(host.wasi, stream), b"text")
    await wait_all_tasks_blocked()
    assert host.client_waiting
    room.set()
    await wait_all_tasks_blocked()
    assert not host.client_waiting
