"""The only place that nests nurseries: models outside, the instances that use them inside.

    open_engine
     ├ each model: keep_worker_running      lives as long as the engine
     └ instances                            opened inside all models
        └ instance                          one cancel scope: leases > queues > guest fiber
           └ instance, a child of it        beside its queues: ends before its parent can

A bug anywhere climbs to here and stops everything. Leaving the block cancels the innermost
nursery first, so pages go back while their models still live; then the workers are drained.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext

import attrs
import trio

from pie_trio import __version__
from pie_trio.actors.instance import Instance
from pie_trio.children import Children, ChildRequest
from pie_trio.config import Settings
from pie_trio.errors import BadProgram, PieError, TooMany
from pie_trio.fetch_access import InstanceFetches
from pie_trio.guest_console import text_sink
from pie_trio.handles import EngineFacts
from pie_trio.home import Home
from pie_trio.instance_scope import InstanceScope
from pie_trio.launch import Launch, child_launch
from pie_trio.messages import InstanceId, Owner
from pie_trio.model_access import InstanceModel
from pie_trio.model_table import Progress, open_models
from pie_trio.ports import Ports
from pie_trio.program_loader import LoaderMaker, ProgramLike, ProgramLoader, ProgramSource
from pie_trio.served_model import Resident, ServedModel
from pie_trio.services.fetch_rules import AllowList
from pie_trio.services.fetching import Fetcher, OpenWeb, Web
from pie_trio.services.kvs import KeyValueStore
from pie_trio.services.model_store import ModelStore
from pie_trio.services.program_store import ProgramRecord, ProgramStore
from pie_trio.services.topics import TopicBoard
from pie_trio.services.worker_link import WorkerLauncher, open_local_worker
from pie_trio.status import model_status
from pie_trio.wasm.guest import Sandbox, open_sandbox
from pie_trio.wasm.host.state import InstanceHost
from pie_trio.wasm.native import open_native
from pie_trio.wasm.ticker import Slicing
from pie_trio.wasm.wasi.state import WasiState

LOCAL_TENANT = "local"


@attrs.define(eq=False)
class Engine:
    """The handle of a running engine; see `open_engine`."""

    settings: Settings
    ports: Ports
    programs: ProgramStore
    models: dict[str, ServedModel]
    started_at: float
    _loader: ProgramSource
    _nursery: trio.Nursery
    _topics: TopicBoard
    _kvs: KeyValueStore
    _fetcher: Fetcher
    _running: dict[InstanceId, Instance] = attrs.field(factory=dict, init=False)
    _finished: dict[InstanceId, Instance] = attrs.field(factory=dict, init=False)  # oldest first
    _launches: int = attrs.field(default=0, init=False)
    _launching: int = attrs.field(default=0, init=False)

    async def launch(
        self,
        program: ProgramRecord,
        arguments: Sequence[str],
        *,
        user: str,
        tenant: str = LOCAL_TENANT,
        input_text: str = "",
        capture: bool = True,
    ) -> Instance:
        """Compiles if need be, starts, and returns at once. Cancelled: nothing was started."""
        loaded = await self._load(program)
        launch = Launch(loaded, tuple(arguments), user, tenant, input_text, capture)
        return self._start(launch, self._nursery)

    def find(self, instance_id: str, tenant: str = LOCAL_TENANT) -> Instance | None:
        """Running, or finished and still remembered."""
        self._forget_old()
        identity = InstanceId(instance_id)
        found = self._running.get(identity) or self._finished.get(identity)
        return found if found is not None and found.tenant == tenant else None

    def instances(self, tenant: str = LOCAL_TENANT) -> list[Instance]:
        """In the order of their launches."""
        self._forget_old()
        known = (*self._finished.values(), *self._running.values())
        mine = (instance for instance in known if instance.tenant == tenant)
        return sorted(mine, key=lambda instance: instance.owner.number)

    def forget(self, instance: Instance) -> None:
        """It has finished, and its terminal event was delivered."""
        assert instance.is_finished, "only what has finished is forgotten"
        self._finished.pop(instance.id, None)

    def model_status(self) -> dict[str, int | float | str | list[int]]:
        """What the query `model_status` answers, flat, with keys `<model>.<figure>`."""
        return model_status(self.models)

    async def _load(self, program: ProgramRecord) -> ProgramLike:
        """Compiles if need be; meanwhile it counts as an instance."""
        self._check_room()
        self._launching += 1
        try:
            loaded = await self._loader.load(program)
        finally:
            self._launching -= 1
        return loaded

    def _check_room(self) -> None:
        self._forget_old()
        limit = self.settings.limits.instances_max
        if len(self._running) + self._launching >= limit:
            raise TooMany(f"instances_max: {limit} instances are running; try again later")

    async def _launch_child(self, family: Children, request: ChildRequest) -> Instance:
        """Beside the queues of its parent. Cancelled: nothing was started."""
        record = self.programs.find(request.program)
        if record is None and request.program:
            raise BadProgram(f"child.start: there is no program {request.program!r:.120}")
        if record is None:
            self._check_room()
        loaded = family.program if record is None else await self._load(record)
        limit = self.settings.limits.children_max
        if sum(instance.parent is not None for instance in self._running.values()) >= limit:
            raise TooMany(f"children_max: {limit} children are running; try again later")
        return self._start(child_launch(loaded, record, family, request), family.nursery)

    def _start(self, launch: Launch, nursery: trio.Nursery) -> Instance:
        identity = InstanceId(self.ports.uuid())
        owner = Owner(self._launches, identity, launch.tenant, launch.loaded.identity)
        self._launches += 1
        instance = launch.instance(owner, self.settings.limits, self.ports)
        self._running[identity] = instance
        nursery.start_soon(self._run, instance, launch, name=f"instance {owner.number}")
        return instance

    async def _run(self, instance: Instance, launch: Launch) -> None:
        try:
            await instance.run(lambda instance: self._live(instance, launch))
        finally:
            self._finished[instance.id] = self._running.pop(instance.id)
            if launch.family is not None:  # nobody but its parent asks for its end
                self.forget(instance)

    async def _live(self, instance: Instance, launch: Launch) -> str:
        """The body of an instance; nesting is the order of death, inside first."""
        loaded, outlet = launch.loaded, launch.outlet_of(instance)
        async with AsyncExitStack() as leases, trio.open_nursery() as queues:
            resident = Resident(instance.owner, instance.end_with, lambda: host.client_waiting)
            scope = InstanceScope(resident, leases, queues, self.settings.limits, self.ports)
            children = Children(
                instance, loaded, queues, outlet, self.settings.limits, self._launch_child
            )
            host = self._host(instance, scope, launch, children)
            try:
                async with loaded.open_guest(
                    host,
                    memory_bytes=self.settings.limits.memory_guest_bytes,
                    on_park=scope.parked,
                    on_wake=scope.woke,
                    on_slice=scope.used_slice,
                ) as guest:
                    await guest.run()
            except PieError as error:
                instance.end_with(error)
            queues.cancel_scope.cancel()
        return host.return_value

    def _host(
        self, instance: Instance, scope: InstanceScope, launch: Launch, children: Children
    ) -> InstanceHost:
        random = self.ports.streams.fresh(f"guest/{instance.owner.number}")
        return InstanceHost(
            owner=instance.owner,
            arguments=(*launch.loaded.arguments, *launch.arguments),
            models={name: InstanceModel(model, scope) for name, model in self.models.items()},
            outlet=children.outlet,
            inbox=instance.inbox,
            topics=self._topics,
            kvs=self._kvs,
            children=children,
            fetches=InstanceFetches(self._fetcher, scope.queues, self.settings.limits),
            facts=self._facts(),
            limits=self.settings.limits,
            wasi=WasiState(
                stdout=text_sink(children.outlet.put, "stdout"),
                stderr=text_sink(children.outlet.put, "stderr"),
                random=random,
                wall=self.ports.wall,
                limits=self.settings.limits,
            ),
            parent="" if instance.parent is None else instance.parent.id,
        )

    def _facts(self) -> EngineFacts:
        return EngineFacts(
            version=__version__,
            instance_count=lambda: len(self._running),
            running_instances=lambda tenant: [
                instance.id for instance in self._running.values() if instance.tenant == tenant
            ],
            programs=lambda _tenant: [record.identity for record in self.programs.list()],
        )

    def _forget_old(self) -> None:
        """Finished instances are remembered for a time, and no more of them than a bound."""
        limits = self.settings.limits
        horizon = trio.current_time() - limits.finished_seconds
        old: list[InstanceId] = []
        for instance in self._finished.values():
            assert instance.ended_at is not None, "a finished instance knows when it ended"
            too_many = len(self._finished) - len(old) > limits.finished_max
            if instance.ended_at >= horizon and not too_many:
                break
            if not instance.outlet.is_attached:
                old.append(instance.id)
        for identity in old:
            del self._finished[identity]


@asynccontextmanager
async def open_engine(
    settings: Settings,
    ports: Ports,
    home: Home,
    *,
    launcher: WorkerLauncher = open_local_worker,
    slicing: Slicing | None = None,
    progress: Progress | None = None,
    sandbox: Sandbox | None = None,
    loader: LoaderMaker = ProgramLoader,
    web: Web | None = None,
) -> AsyncIterator[Engine]:
    """A running engine with all its models ready. Leaving the block ends every instance.

    A sandbox that is handed in may serve several engines, one after the other.
    """
    limits = settings.limits
    fetcher = Fetcher(AllowList.parse(settings.fetch_allow), web or OpenWeb(), limits)
    say = progress or (lambda _line: None)
    opening = (
        open_sandbox(limits, slicing=slicing, native=open_native(home.native, say))
        if sandbox is None
        else nullcontext(sandbox)
    )
    async with (
        opening as shared,
        trio.open_nursery() as models_nursery,
    ):
        models = open_models(settings, ports, ModelStore(home.models), launcher, say)
        for model in models.values():
            models_nursery.start_soon(model.keep_worker_running, name=f"worker {model.name}")
        for model in models.values():
            say(f"starting the worker of {model.name}")
            await model.wait_ready()
        async with trio.open_nursery() as instances:
            yield Engine(
                settings,
                ports,
                ProgramStore(home.programs, limits, hit=ports.hit),
                models,
                trio.current_time(),
                loader(shared, home, limits, say),
                instances,
                TopicBoard(limits),
                KeyValueStore(limits, ports.hit),
                fetcher,
            )
            instances.cancel_scope.cancel()
        models_nursery.cancel_scope.cancel()
