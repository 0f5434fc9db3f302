"""Connections without a network: byte streams between the real gateway and its clients.

A stream is bounded in each direction, so a peer that does not read makes the other one wait. Faults
strike where bytes are taken or given: the connection breaks, one direction ends, bytes come late
or one by one, the client goes deaf. Who closes a stream ends both of its directions. No byte is
ever lost, doubled or reordered before an end: TCP promises that.
"""

from __future__ import annotations

import attrs
import trio

from pie_trio.testing.faults import FaultPlan

BUFFER_BYTES = 64 * 1024
LATE_SECONDS = 2.0
DEAF_SECONDS = 90.0
BACKLOG = 128  # connections that nobody has accepted yet; one more is refused


@attrs.define(eq=False)
class Direction:
    """Bytes on their way from one end to the other."""

    bytes_max: int
    waiting: bytearray = attrs.field(factory=bytearray)
    is_ended: bool = False  # nothing more will be sent
    is_broken: bool = False
    _changed: trio.Event = attrs.field(factory=trio.Event)

    async def put(self, data: bytes) -> None:
        while data:
            while len(self.waiting) >= self.bytes_max and not self.is_broken:
                await self._changed.wait()
            if self.is_broken or self.is_ended:
                raise trio.BrokenResourceError("the other side is gone")
            room = self.bytes_max - len(self.waiting)
            self.waiting += data[:room]
            data = data[room:]
            self.announce()

    async def take(self, bytes_max: int) -> bytes:
        if self.waiting or self.is_ended or self.is_broken:
            await trio.lowlevel.checkpoint()
        while not self.waiting and not self.is_ended and not self.is_broken:
            await self._changed.wait()
        if self.is_broken:
            raise trio.BrokenResourceError("the connection was reset")
        data = bytes(self.waiting[:bytes_max])
        del self.waiting[:bytes_max]
        self.announce()
        return data

    def end(self) -> None:
        self.is_ended = True
        self.announce()

    def break_off(self) -> None:
        self.is_broken = True
        self.waiting.clear()
        self.announce()

    def announce(self) -> None:
        self._changed.set()
        self._changed = trio.Event()


@attrs.define(eq=False)
class SimStream(trio.abc.Stream):
    """One end of a connection."""

    out: Direction
    into: Direction
    plan: FaultPlan
    is_client: bool
    is_dribbling: bool = False
    _is_closed: bool = False
    _sends: bool = False
    _receives: bool = False

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        assert not self._sends, "one task at a time sends into a stream"
        self._sends = True
        try:
            await trio.lowlevel.checkpoint()
            self._check_open()
            await self._suffer()
            await self.out.put(bytes(data))
        except trio.BrokenResourceError:
            self._check_open()  # it was this end that closed it meanwhile
            raise
        finally:
            self._sends = False

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        assert not self._receives, "one task at a time receives from a stream"
        self._receives = True
        try:
            self._check_open()
            await self._suffer()
            if self.is_client and (deaf := self.plan.strikes("net.deaf")):
                await trio.sleep(deaf.size * DEAF_SECONDS)
            room = 1 if self.is_dribbling else max_bytes or BUFFER_BYTES
            return await self.into.take(room)
        except trio.BrokenResourceError:
            self._check_open()
            raise
        finally:
            self._receives = False

    async def aclose(self) -> None:
        self._is_closed = True
        self.out.end()
        self.into.break_off()
        await trio.lowlevel.checkpoint()

    def reset(self) -> None:
        """The network is gone; both sides notice."""
        self.out.break_off()
        self.into.break_off()

    def _check_open(self) -> None:
        if self._is_closed:
            raise trio.ClosedResourceError("this end was closed")

    async def _suffer(self) -> None:
        """Passes the points at which the network may fail."""
        strikes = self.plan.strikes
        if strikes("net.disconnect"):
            self.reset()
        if strikes("net.half-close"):
            self.out.end()
        if strikes("net.dribble"):
            self.is_dribbling = True
        if late := strikes("net.delay"):
            await trio.sleep(late.size * LATE_SECONDS)


@attrs.define(eq=False)
class SimListener(trio.abc.Listener[SimStream]):
    """Where clients connect; handed to the gateway."""

    plan: FaultPlan
    bytes_max: int = BUFFER_BYTES
    streams: list[SimStream] = attrs.field(factory=list)  # the clients' ends, ever
    _door: trio.MemorySendChannel[SimStream] = attrs.field(init=False)
    _arrivals: trio.MemoryReceiveChannel[SimStream] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._door, self._arrivals = trio.open_memory_channel[SimStream](BACKLOG)

    async def accept(self) -> SimStream:
        return await self._arrivals.receive()

    async def aclose(self) -> None:
        while self._arrivals.statistics().current_buffer_used:
            self._arrivals.receive_nowait().reset()  # nobody will ever accept these
        self._arrivals.close()
        await trio.lowlevel.checkpoint()

    def connect(self) -> SimStream:
        """A client's end. Raises `OSError` when nobody listens."""
        to_server, to_client = Direction(self.bytes_max), Direction(self.bytes_max)
        client = SimStream(to_server, to_client, self.plan, is_client=True)
        server = SimStream(to_client, to_server, self.plan, is_client=False)
        if self.plan.strikes("net.refuse"):
            client.reset()
            return client
        try:
            self._door.send_nowait(server)
        except (trio.BrokenResourceError, trio.WouldBlock):
            raise ConnectionRefusedError("nobody listens") from None
        self.streams.append(client)
        return client
