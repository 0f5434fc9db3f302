"""A model by its name: worker generations, one after the other, and who resides in them.

A lost worker ends a generation, not the model, and never another model's instances: its residents
are told why, their passes and waits are refused, its exports are remembered as lost. A new
generation starts after a pause; after too many failures in a row the model refuses by name.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import attrs
import trio

from gpu_worker import wire
from pie_trio.actors.model import ModelLoop
from pie_trio.actors.resource_manager import Lease, ResourceManager
from pie_trio.config import Batching
from pie_trio.errors import PieError, Terminated, WorkerLost, retold
from pie_trio.events import WorkerDied, WorkerStarted
from pie_trio.handles import ModelFacts, TokenizerLike
from pie_trio.messages import Owner, ResourceKind
from pie_trio.services.batch_counts import BatchCounts
from pie_trio.services.chat_template import ChatTemplate
from pie_trio.services.grammar import Grammars
from pie_trio.services.grammar_book import GrammarBook
from pie_trio.services.page_pool import Books, PagePool
from pie_trio.services.worker_link import WorkerLauncher, WorkerLink, WorkerSpec


@attrs.frozen(eq=False)
class Resident:
    """An instance that uses a model."""

    owner: Owner
    end_with: Callable[[PieError], None]  # synchronous
    waits_for_client: Callable[[], bool]


@attrs.define(eq=False)
class Generation:
    """One life of a worker, seen from the engine."""

    number: int
    manager: ResourceManager
    loop: ModelLoop
    residents: dict[int, Resident] = attrs.field(factory=dict)


@attrs.frozen(eq=False)
class Residence:
    """What an instance holds of a model: its lease, and the loop that takes its passes."""

    lease: Lease
    loop: ModelLoop
    manager: ResourceManager


class ServedModel:
    """One model of the engine; lives as long as the engine."""

    def __init__(
        self,
        spec: WorkerSpec,
        service_id: int,
        description: str,
        stop_tokens: tuple[str, ...],
        template: ChatTemplate,
        tokenizer: TokenizerLike,
        batching: Batching,
        launch: WorkerLauncher,
    ) -> None:
        self.name = spec.settings.name
        self.tokenizer = tokenizer
        self.template = template
        self.lost_exports: dict[tuple[str, ResourceKind, str], int] = {}
        self.grammars = Grammars(
            spec.directory / "tokenizer.json", ends_of(stop_tokens, tokenizer), spec.limits
        )
        self.compiling = trio.CapacityLimiter(1)  # grammars, in a thread
        self.past_counts: list[BatchCounts] = []
        self._spec = spec
        self._service_id = service_id
        self._description = description
        self._stop_tokens = stop_tokens
        self._batching = batching
        self._launch = launch
        self._generation: Generation | None = None
        self._facts: ModelFacts | None = None
        self._given_up: WorkerLost | None = None
        self._changed = trio.Event()

    @property
    def facts(self) -> ModelFacts:
        assert self._facts is not None, "a model is used only after its first worker is ready"
        return self._facts

    @property
    def generation(self) -> Generation | None:
        return self._generation

    def books(self, kind: ResourceKind = ResourceKind.KV_PAGE) -> Books | None:
        """The books of the living generation."""
        return None if self._generation is None else self._generation.manager.pools[kind].books()

    @asynccontextmanager
    async def reside(self, resident: Resident) -> AsyncIterator[Residence]:
        """Waits for a ready worker. On leaving, everything the resident had here is back."""
        generation = await self._ready_generation()
        number = resident.owner.number
        async with generation.manager.open_lease(
            resident.owner, resident.waits_for_client
        ) as lease:
            generation.residents[number] = resident
            try:
                yield Residence(lease, generation.loop, generation.manager)
            finally:
                del generation.residents[number]
                generation.loop.drop_owner(resident.owner)

    async def wait_ready(self) -> None:
        """Until the first worker is ready. Raises `WorkerLost` when there will be none."""
        await self._ready_generation()

    async def _ready_generation(self) -> Generation:
        while self._generation is None:
            if self._given_up is not None:
                raise retold(self._given_up)
            await self._changed.wait()
        return self._generation

    async def keep_worker_running(self) -> None:
        """Generations, one after the other, until the scope ends or the worker will not stay."""
        limits = self._spec.limits
        number = failures = 0
        while True:
            number += 1
            began = trio.current_time()
            async with self._launch(self._spec, number) as link:
                ready = await link.wait_ready()
                if isinstance(ready, WorkerLost):
                    lost = ready
                else:
                    lost = await self._run_generation(number, link, ready, began)
                    lasted = trio.current_time() - began > limits.worker_steady_seconds
                    if self.past_counts[-1].batches or lasted:
                        failures = 0  # it did work; that it died is no reason to give up
                self._emit_death(number, lost)
            failures += 1
            if failures > limits.worker_restarts_max:
                self._give_up(lost)
                return
            await trio.sleep(limits.worker_restart_backoff_seconds * 2 ** (failures - 1))

    async def _run_generation(
        self, number: int, link: WorkerLink, hello: wire.Hello, began: float
    ) -> WorkerLost:
        limits, ports = self._spec.limits, self._spec.ports
        now = trio.current_time()
        ports.emit(WorkerStarted(now, self.name, number, hello.pid, hello.pages, now - began))
        pools = {
            ResourceKind.KV_PAGE: PagePool(hello.pages, "KV page", limits.exports_max),
            ResourceKind.EMBEDDING: PagePool(hello.embeddings, "embedding", limits.exports_max),
        }
        async with trio.open_nursery() as nursery:
            loop = ModelLoop(
                self.name,
                number,
                min(hello.batch_tokens_max, limits.batch_tokens),
                pools,
                self._batching,
                limits,
                ports,
                self._end_resident,
                GrammarBook(self.grammars.ends, self.grammars.bounds, limits.grammars_per_worker),
            )
            manager = ResourceManager(self.name, pools, limits, ports, nursery)
            self._facts = self._facts_of(hello)
            self._set_generation(Generation(number, manager, loop))
            nursery.start_soon(loop.run, link)
            try:
                lost = await link.wait_lost()
                self._retire(lost, lost)
            finally:
                if self._generation is not None:  # cancelled: everybody ends, and not for this
                    stopped = WorkerLost(f"the worker of {self.name} was stopped")
                    self._retire(stopped, Terminated("the engine is stopping"))
            nursery.cancel_scope.cancel()
        return lost

    def _set_generation(self, generation: Generation | None) -> None:
        self._generation = generation
        self._changed.set()
        self._changed = trio.Event()

    def _retire(self, lost: WorkerLost, cause: PieError) -> None:
        """Synchronous: fences the generation before anybody can use it again."""
        generation, self._generation = self._generation, None
        assert generation is not None, "a generation retires once"
        self.past_counts = [*self.past_counts[-7:], generation.loop.counts]
        for kind, pool in generation.manager.pools.items():
            for export in pool.all_exports():
                self._remember_lost(export.tenant, kind, export.name, generation.number)
        generation.manager.close(lost)  # first: the pages of the passes are nobody's any more
        generation.loop.close(lost)
        for resident in list(generation.residents.values()):
            resident.end_with(cause)

    def _remember_lost(self, tenant: str, kind: ResourceKind, name: str, number: int) -> None:
        self.lost_exports[tenant, kind, name] = number
        while len(self.lost_exports) > self._spec.limits.exports_max:
            del self.lost_exports[next(iter(self.lost_exports))]

    def _end_resident(self, owner: Owner, error: PieError) -> None:
        if self._generation is not None and owner.number in self._generation.residents:
            self._generation.residents[owner.number].end_with(error)

    def _emit_death(self, number: int, lost: WorkerLost) -> None:
        self._spec.ports.emit(WorkerDied(trio.current_time(), self.name, number, str(lost)))

    def _give_up(self, lost: WorkerLost) -> None:
        tries = self._spec.limits.worker_restarts_max
        self._given_up = WorkerLost(f"{lost}; given up after {tries} restarts")
        self._set_generation(None)

    def _facts_of(self, hello: wire.Hello) -> ModelFacts:
        return ModelFacts(
            name=self.name,
            service_id=self._service_id,
            description=self._description,
            traits=("input_text", "tokenize", "output_text", "kv_pages", "embeddings"),
            prompt_template=self.template.source,
            stop_tokens=self._stop_tokens,
            vocab_size=hello.vocab_size,
            page_size=hello.page_size,
            pages=hello.pages,
            batch_tokens=hello.batch_tokens_max,
            distribution_max=hello.distribution_max,
            numeric=hello.numeric,
        )


def ends_of(stop_tokens: tuple[str, ...], tokenizer: TokenizerLike) -> tuple[int, ...]:
    """The ids of those that are one token."""
    encoded = [tokenizer.encode(text) for text in stop_tokens]
    return tuple(tokens[0] for tokens in encoded if len(tokens) == 1)
