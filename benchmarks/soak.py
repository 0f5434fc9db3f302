"""Real processes killed and clients that go: what is left of them, and who lost anything.

    pie-trio bench soak [--quick] [--only workers|servers|clients] [--json FILE]

Three parts: a worker killed in the middle of a batch, a server killed in every state, and clients
on loopback that disconnect at random. It measures no speed: the moments it tells are those of this
machine at this time, so the load and the lateness of the measuring loop itself stand beside them.
Needs Linux, and the default model unless it is left out.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import trio

from benchmarks.bars.soak import SLOPE_SECONDS_MIN, bars, detections, quantile, slope
from benchmarks.soak_clients import PROGRAMS, USER, Tally, run_clients
from benchmarks.soak_server import PRETEND, Server, kill_servers
from benchmarks.soak_worker import VICTIMS, kill_workers
from pie_trio.client import open_client
from pie_trio.home import Home
from pie_trio.services.model_store import DEFAULT_MODEL

FAILED = 5  # the exit code of a bar that does not hold
PARTS = ("workers", "servers", "clients")
KILLS = {False: (100, 5), True: (10, 1)}  # of the pretend worker, of the real one
SERVER_KILLS = {
    False: {"starting": 10, "idle": 10, "in a batch": 10, "compiling": 5},
    True: {"starting": 2, "idle": 2, "in a batch": 2, "compiling": 1},
}
SERVER_KILLS_REAL = {
    False: {"starting": 5, "idle": 3, "in a batch": 5},
    True: {"starting": 1, "idle": 1, "in a batch": 1},
}
CLIENTS = {False: (512, 120.0), True: (64, 15.0)}
STEP_SECONDS = 0.02  # of the pretend model that the clients use
PHASES = 5  # of a long load, each with a rest
SETTLE_SECONDS = 60.0  # what clients left behind ends by itself
RSS_SECONDS = 0.5
SEED = 1
Record = dict[str, Any]
Say = Callable[[str], object]


async def measure(parts: Sequence[str], quick: bool, model: str | None, say: Say) -> Record:
    """`model`: the real one, or None to leave it out."""
    record: Record = {
        "quick": quick,
        "cores": len(os.sched_getaffinity(0)),
        "load_before": os.getloadavg(),
    }
    if "workers" in parts:
        pretend, real = KILLS[quick]
        workers = {"pretend": await kill_workers(None, pretend, VICTIMS, Home.default(), say)}
        if model is not None:
            workers["real"] = await kill_workers(model, real, VICTIMS, Home.default(), say)
        record["workers"] = workers
    if "servers" in parts:
        record["servers"] = await kill_servers(None, SERVER_KILLS[quick], say)
        if model is not None:
            record["servers"] += await kill_servers(model, SERVER_KILLS_REAL[quick], say)
    if "clients" in parts:
        record["clients"] = await soak_with_clients(*CLIENTS[quick], say)
    record["load_after"] = os.getloadavg()
    return record


async def soak_with_clients(clients: int, seconds: float, say: Say) -> Record:
    """A server of its own; its books are looked at when all that was launched has ended."""
    with tempfile.TemporaryDirectory(prefix="pie-soak-") as folder:
        server = Server.start(Path(folder), None, STEP_SECONDS)
        try:
            await server.wait_listening()
            say("preparing the programs")
            await _warm_up(server)
            return await _soak(server, clients, seconds, say)
        finally:
            server.close()


async def _soak(server: Server, clients: int, seconds: float, say: Say) -> Record:
    rss: list[list[float]] = []
    say(f"{clients} clients for {seconds:g} s")
    rests: list[list[float]] = []
    tally = Tally()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_watch_memory, server, rss)
        phases = PHASES if seconds >= SLOPE_SECONDS_MIN else 1
        for phase in range(phases):
            await run_clients(server.address, clients, seconds / phases, SEED + phase, tally)
            status, unfinished = await _settled(server)
            rests.append([time.perf_counter(), server.rss_mib()])
            say(f"{tally.launched} launches, {rests[-1][1]:.0f} MiB at rest")
        nursery.cancel_scope.cancel()
    status_of_exit = await server.stop()
    log = server.log.read_text("utf-8", errors="replace")
    return {
        "clients": clients,
        "seconds": seconds,
        "launched": tally.launched,
        "python": tally.python,
        "went": tally.went,
        "came_back": tally.came_back,
        "stayed": tally.stayed,
        "terminals": {str(times): count for times, count in sorted(tally.terminals.items())},
        "ends": dict(tally.ends),
        "refusals": dict(tally.refusals),
        "failures": tally.failures,
        "status": status,
        "unfinished": unfinished,
        "rss": rss,
        "rests": rests,
        "tracebacks": log.count("Traceback"),
        "errors_in_log": [line for line in log.splitlines() if " error " in line][:20],
        "status_of_exit": status_of_exit,
    }


async def _warm_up(server: Server) -> None:
    """Each program once: what is compiled on first use is none of the load."""
    async with open_client(server.address, user=USER) as client:
        for program in PROGRAMS:
            instance = await client.launch(
                program, arguments=("--prompt", "a", "--max-tokens", "2")
            )
            await instance.result()


async def _watch_memory(server: Server, rss: list[list[float]]) -> None:
    while True:
        rss.append([time.perf_counter(), server.rss_mib()])
        await trio.sleep(RSS_SECONDS)


async def _settled(server: Server) -> tuple[dict[str, Any], int]:
    """The figures of the models, and how many instances still run, when none does or too late."""
    until = trio.current_time() + SETTLE_SECONDS
    async with open_client(server.address, user=USER) as client:
        while True:
            status = await client.model_status()
            unfinished = sum(not each.is_finished for each in await client.list())
            if (
                not (unfinished or status[f"{PRETEND}.kv_pages_used"])
                or trio.current_time() > until
            ):
                return status, unfinished
            await trio.sleep(0.2)


def render(record: Record) -> str:
    lines = [f"load {record['load_before'][0]:.1f} on {record['cores']} cores at the start", ""]
    for model, part in record.get("workers", {}).items():
        seconds = detections(part)
        lags = [max(each["lags"], default=0.0) for each in part["rounds"]]
        told = [each["told_at"] - each["killed_at"] for each in part["rounds"]]
        middle, late = (quantile(seconds, share) * 1e3 for share in (0.5, 0.99))
        lines.append(
            f"{model} worker, {len(seconds)} kills: known after p50 {middle:.1f} ms,"
            f" p99 {late:.1f} ms, last victim told after p50"
            f" {statistics.median(told) * 1e3:.0f} ms; lateness of this loop, median of the worst"
            f" {statistics.median(lags) * 1e3:.1f} ms"
        )
    clients = record.get("clients")
    if clients is not None:
        seen = ("launched", "python", "stayed", "went", "came_back", "refusals", "ends")
        lines.append(", ".join(f"{name} {clients[name]}" for name in seen))
        memory = [round(sample[1]) for sample in clients["rss"]]
        lines.append(
            f"memory of the server: {memory[0]} MiB at first, at most {max(memory)}; at rest"
            f" {[round(rest[1]) for rest in clients['rests']]}, so"
            f" {slope(clients['rests']):+.2f} MiB a minute"
        )
    lines.append("")
    for bar in record["bars"]:
        verdict = "holds" if bar["holds"] else "FAILS"
        lines.append(f"{verdict}  {bar['name']}: {bar['value']:.3g} (goal {bar['goal']})")
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="pie-trio bench soak", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer kills, fewer clients")
    parser.add_argument("--only", action="append", choices=PARTS, help="may be repeated")
    parser.add_argument("--pretend", action="store_true", help="leave the real model out")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all samples there too")
    options = parser.parse_args(arguments)

    def say(text: str) -> None:
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()

    # A terminated run takes its server with it.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    model = None if options.pretend else DEFAULT_MODEL
    record = trio.run(measure, options.only or PARTS, options.quick, model, say)
    record["bars"] = bars(record)
    sys.stdout.write(render(record))
    if options.json is not None:
        options.json.write_text(json.dumps(record) + "\n", "utf-8")
    return 0 if all(bar["holds"] for bar in record["bars"]) else FAILED


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
