"""Fault points are passed where they say, and named streams of chance are independent."""

from __future__ import annotations

from pathlib import Path

import trio

from pie_trio.client import open_client
from pie_trio.config import Limits
from pie_trio.engine import open_engine
from pie_trio.ports import Ports, RandomStreams
from pie_trio.services.gateway import open_listeners, serve_gateway
from pie_trio.testing.inline_worker import WorkerScript, inline_launcher
from tests.world import settings, shared_home

FAULT_POINTS = {
    "command_queue.command",
    "gateway.listen",
    "gateway.write",
    "instance.start",
    "model.dispatch",
    "model.settle",
    "queue.submit",
    "resource_manager.request",
}


async def test_one_run_passes_every_fault_point(tmp_path: Path) -> None:
    """Few pages, so that an allocation goes through the resource manager."""
    hits: list[str] = []
    ports = Ports(RandomStreams(1), hit=hits.append)
    opening = open_engine(
        settings(Limits(page_wait_seconds=5), pages=4),
        ports,
        shared_home(tmp_path),
        launcher=inline_launcher(WorkerScript(step_seconds=0.005)),
    )
    async with opening as engine, trio.open_nursery() as nursery:
        (listener,) = await open_listeners("127.0.0.1", 0, engine.settings.limits)
        nursery.start_soon(serve_gateway, engine, [listener], engine.settings, ports)
        url = f"ws://127.0.0.1:{listener.socket.getsockname()[1]}"
        async with open_client(url) as client, trio.open_nursery() as runs:

            async def run() -> None:
                arguments = ["--prompt", "x", "--max-tokens", "3"]
                instance = await client.launch("text-completion", arguments=arguments)
                await instance.result()

            for _ in range(3):
                runs.start_soon(run)
            arguments = ["--layer", "inference", "--count", "2"]  # pings wait for their turn
            await (await client.launch("bench-latency", arguments=arguments)).result()
        nursery.cancel_scope.cancel()
    assert set(hits) == FAULT_POINTS


def test_a_draw_from_one_stream_does_not_shift_another() -> None:
    one, two = RandomStreams(5), RandomStreams(5)
    one.stream("first").random()
    assert one.stream("second").random() == two.stream("second").random()
    assert one.fresh("first").random() == two.stream("first").random()
    assert RandomStreams(6).stream("second").random() != RandomStreams(5).stream("second").random()
