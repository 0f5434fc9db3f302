"""What must hold at the end of a run: nothing is left, all were answered, the living were right.

Pure looking: the books of the engine, what clients were told, and how each program ends when it is
alone in a faultless world. Returns broken rules as sentences, none when all is well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from pie_trio.engine import Engine
from pie_trio.messages import ResourceKind
from pie_trio.services.pass_table import PassTable
from pie_trio.testing.scripts import STEADY
from pie_trio.testing.sim_net import SimListener
from pie_trio.testing.sim_web import SimWeb
from pie_trio.testing.sim_worker import SimWorkers
from pie_trio.testing.world import TERMINALS, Launch
from pie_trio.wasm.guest import Sandbox

Reference = Callable[[str, tuple[str, ...]], "str | None"]
STEADY_COMPONENTS = frozenset({"text-completion", "kvs"})


def at_rest(engine: Engine) -> bool:
    """No instance runs, no batch is in flight and no page only waits for one."""
    if engine._running or engine._launching:
        return False
    return all(
        not generation.loop.passes.in_flight
        and not any(p.limbo_count for p in generation.manager.pools.values())
        for model in engine.models.values()
        if (generation := model.generation) is not None
    )


def _is_busy(passes: PassTable) -> bool:
    return any(passes.tracked.values()) or bool(passes.waiting or passes.collected)


def engine_rules(engine: Engine) -> Iterator[str]:
    """Of an engine in which every instance has ended."""
    if engine._running or engine._launching:
        yield "an instance outlives the scenario"
    for model in engine.models.values():
        generation = model.generation
        if generation is None:
            continue
        if generation.residents:
            yield "a resident is left"
        loop, manager = generation.loop, generation.manager
        if _is_busy(loop.passes) or loop._pings:
            yield "orphan commands in the model's loop"
        if manager._waiters or manager._leases:
            yield "somebody still waits for pages"
        for kind in (ResourceKind.KV_PAGE, ResourceKind.EMBEDDING):
            books = manager.pools[kind].books()
            if not books.balanced:
                yield f"the books of {kind.name} do not balance"
            if books.owned or books.pinned:
                yield f"leak: {books.owned} owned and {books.pinned} pinned of {kind.name}"
            exported = {p for e in manager.pools[kind].all_exports() for p in e.pages}
            if books.exported != len(exported):
                yield "a page is exported without an export"
        if loop.passes.pins._sources:
            yield "a copy is for ever still to be made"
    if engine._topics.topic_count and any(
        topic.subscriptions
        for topics in engine._topics._tenants.values()
        for topic in topics.values()
    ):
        yield "the subscription of a dead instance is left"


def outside_rules(
    workers: SimWorkers, listener: SimListener, web: SimWeb, sandbox: Sandbox
) -> Iterator[str]:
    """After the engine has been left."""
    for worker in workers.started:
        if not worker.process.how:
            yield "a worker process outlives the engine"
        elif not worker.process.is_closed:
            yield "a worker process was not closed"
        if not worker.socket.is_closed:
            yield "a worker's socket was not closed"
    if sandbox.borders:
        yield "a guest outlives its engine"
    streams = (*listener.streams, *web.streams)
    if any(not stream.into.is_ended and not stream.into.is_broken for stream in streams):
        yield "a connection was not closed"
    if any(not stream._is_closed for stream in web.streams):
        yield "a connection to another host is left"
    if web.trespasses:
        yield f"a program reached {web.trespasses[0]}, which is not allowed"


def client_rules(launches: list[Launch], reference: Reference) -> Iterator[str]:
    """Of what clients were told."""
    for launch in launches:
        ends = [event for event in launch.events if event.kind in TERMINALS]
        if len(ends) > 1 or launch.after_end:
            yield f"{launch.program} had {len(ends)} terminal events, {launch.after_end} after one"
        if launch.value is None or not _is_steady(launch.program):
            continue
        if launch.value != reference(launch.program, launch.arguments):
            yield f"{launch.program} {' '.join(launch.arguments)} survived with another result"


def _is_steady(program: str) -> bool:
    return program in STEADY or program in STEADY_COMPONENTS
