"""Clients on loopback that launch, read, and go away in the middle: seeded, and all of it counted.

A client keeps its connection and launches one program after the other. At every launch a die says
whether it stays; one that goes does so before the answer, after it, or between two pieces of
output, politely or with a reset, and some come back to what they left. Clients speak the protocol
frame by frame, so that an event too many is seen. They own nothing at the server.
"""

from __future__ import annotations

import json
import random
import socket
import struct
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import attrs
import trio
import trio_websocket
from trio_websocket import WebSocketConnection

from pie_trio.services.client_messages import (
    AttachProcess,
    AuthIdentify,
    LaunchProcess,
    Ping,
    ProcessEvent,
    Request,
    Response,
)
from pie_trio.services.client_protocol import decode_from_server, encode

GOES_SHARE = 0.2
COMES_BACK_SHARE = 0.5
GOES_AFTER_SECONDS = 0.5  # at most
PROGRAMS = ("text-completion", "text-completion-py")  # in C, in Python
PYTHON_EVERY = 32  # one client of so many runs Python
TOKENS = (2, 12)
THINKS_SECONDS = 8.0  # at most, before each launch: the server is loaded, not drowned
END_SECONDS = 120.0  # an instance that was not told its end by then has none
PAUSE_SECONDS = 0.2  # after a refusal
USER = "soak"
FRAME_BYTES = 8 * 1024 * 1024
TERMINALS = ("return", "error")


class Refused(Exception):
    """The server has answered a request with a refusal."""


@attrs.define(eq=False)
class Tally:
    """What all clients have seen."""

    launched: int = 0
    python: int = 0
    went: int = 0
    came_back: int = 0
    stayed: int = 0
    terminals: Counter[int] = attrs.field(factory=Counter)  # who stayed: how often told the end
    ends: Counter[str] = attrs.field(factory=Counter)
    refusals: Counter[str] = attrs.field(factory=Counter)
    failures: list[str] = attrs.field(factory=list)


@attrs.define(eq=False)
class Wire:
    """One connection, frame by frame."""

    socket: WebSocketConnection
    stream: trio.SocketStream
    number: int = 0
    ends: dict[str, list[ProcessEvent]] = attrs.field(factory=dict)
    pieces: Counter[str] = attrs.field(factory=Counter)
    answers: dict[int, Response] = attrs.field(factory=dict)

    async def ask(self, kind: type[Request], **fields: object) -> str:
        """The answer's text. Raises `Refused`."""
        number = await self.tell(kind, **fields)
        with trio.fail_after(END_SECONDS):
            while number not in self.answers:
                await self.hear()
        answer = self.answers.pop(number)
        if not answer.ok:
            raise Refused(answer.result)
        return answer.result

    async def tell(self, kind: type[Request], **fields: object) -> int:
        self.number += 1
        await self.socket.send_message(encode(kind(corr_id=self.number, **fields)))
        return self.number

    async def hear(self) -> None:
        """One frame."""
        message = decode_from_server(await self.socket.get_message())
        if isinstance(message, Response):
            self.answers[message.corr_id] = message
        elif isinstance(message, ProcessEvent) and message.event in TERMINALS:
            self.ends.setdefault(message.process_id, []).append(message)
        else:
            self.pieces[message.process_id] += 1

    async def read_to_the_end(self, instance: str) -> list[ProcessEvent]:
        """The instance's terminal events: all that came until the server answered once more."""
        while instance not in self.ends:
            await self.hear()
        await self.ask(Ping)
        return self.ends.pop(instance)

    async def leave(self, politely: bool) -> None:
        if politely:
            with trio.move_on_after(1):
                await self.socket.aclose()
            return
        self.stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.stream.socket.close()


@asynccontextmanager
async def open_wire(address: str) -> AsyncIterator[Wire]:
    where = urlsplit(address)
    assert where.hostname is not None, f"{address} names a host"
    stream = await trio.open_tcp_stream(where.hostname, where.port or 80)
    async with trio.open_nursery() as nursery:
        connection = await trio_websocket.wrap_client_stream(
            nursery, stream, where.hostname, "/", message_queue_size=1, max_message_size=FRAME_BYTES
        )
        wire = Wire(connection, stream)
        await wire.ask(AuthIdentify, username=USER)
        yield wire
        with trio.move_on_after(1):
            await connection.aclose()
        nursery.cancel_scope.cancel()


async def run_clients(address: str, clients: int, seconds: float, seed: int, tally: Tally) -> None:
    """Returns when the last client has gone; what they left behind may still run."""
    until = trio.current_time() + seconds
    async with trio.open_nursery() as nursery:
        for number in range(clients):
            chance = random.Random(f"{seed}/{number}")
            nursery.start_soon(_client, address, number, chance, until, tally)


async def _client(
    address: str, number: int, chance: random.Random, until: float, tally: Tally
) -> None:
    is_python = number % PYTHON_EVERY == PYTHON_EVERY - 1
    while trio.current_time() < until:
        try:
            async with open_wire(address) as wire:
                left = await _stay(wire, is_python, chance, until, tally)
            if left and chance.random() < COMES_BACK_SHARE:
                await _come_back(address, left, tally)
        except Exception as error:
            tally.failures.append(f"client {number}: {error!r}")
            await trio.sleep(PAUSE_SECONDS)


async def _stay(
    wire: Wire, is_python: bool, chance: random.Random, until: float, tally: Tally
) -> str:
    """Launches until it goes; the instance that it leaves behind, if it knows one."""
    while await _think(chance, until):
        goes = chance.random() < GOES_SHARE
        try:
            instance = await _launch(wire, is_python, chance, goes, tally)
        except Refused as refusal:
            tally.refusals[str(refusal)[:60]] += 1
            await trio.sleep(PAUSE_SECONDS)
            continue
        if goes:
            tally.went += 1
            with trio.move_on_after(chance.uniform(0, GOES_AFTER_SECONDS)):
                while True:
                    await wire.hear()
            await wire.leave(politely=chance.random() < 0.5)
            return instance
        tally.stayed += 1
        await _note_the_end(wire, instance, tally)
    return ""


async def _think(chance: random.Random, until: float) -> bool:
    """Whether there is still time for a launch afterwards."""
    await trio.sleep(chance.uniform(0, THINKS_SECONDS))
    return trio.current_time() < until


async def _launch(
    wire: Wire, is_python: bool, chance: random.Random, goes: bool, tally: Tally
) -> str:
    """The instance; or none, for one that will not wait for the answer."""
    tokens = chance.randint(*TOKENS)
    words = ["--prompt", f"Tell of {chance.randrange(1000)} cats", "--max-tokens", str(tokens)]
    fields = {
        "inferlet": PROGRAMS[is_python],
        "input": json.dumps({"args": words}),
        "capture_outputs": True,
    }
    tally.launched += 1
    tally.python += is_python
    if goes and chance.random() < 0.3:
        await wire.tell(LaunchProcess, **fields)
        return ""
    return await wire.ask(LaunchProcess, **fields)


async def _come_back(address: str, instance: str, tally: Tally) -> None:
    async with open_wire(address) as wire:
        try:
            await wire.ask(AttachProcess, process_id=instance)
        except Refused as refusal:  # it had ended, and its end had been sent on the old connection
            tally.refusals[f"attach: {refusal}"[:60]] += 1
            return
        tally.came_back += 1
        await _note_the_end(wire, instance, tally)


async def _note_the_end(wire: Wire, instance: str, tally: Tally) -> None:
    told: list[ProcessEvent] = []
    with trio.move_on_after(END_SECONDS):
        told = await wire.read_to_the_end(instance)
    tally.terminals[len(told)] += 1
    for event in told:
        kind = "return" if event.event == "return" else f"error: {event.value[:60]}"
        tally.ends[kind] += 1
    if not told:
        tally.failures.append(f"{instance} was not told to have ended")
