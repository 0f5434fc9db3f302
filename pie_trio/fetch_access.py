"""The requests of one instance: tasks beside its queues, which end with it.

A request that its guest lets go of is cancelled where it stands, and its connection is closed. What
it asked for is answered once, into its own slot; nothing here outlives the instance.
"""

from __future__ import annotations

import attrs
import trio

from pie_trio.config import Limits
from pie_trio.errors import PieError, TooMany
from pie_trio.fetches import FetchRequest, FetchResponse
from pie_trio.mailbox import Reply
from pie_trio.services.fetching import Charge, Fetcher


@attrs.frozen(eq=False)
class RunningFetch:
    """Implements `handles.FetchHandle`."""

    reply: Reply[FetchResponse] = attrs.field(factory=Reply)
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)

    def close(self) -> None:
        self.scope.cancel()


@attrs.define(eq=False)
class InstanceFetches:
    """Implements `handles.Fetches`."""

    fetcher: Fetcher
    nursery: trio.Nursery
    limits: Limits
    _running: int = attrs.field(default=0, init=False)

    def start(self, request: FetchRequest, charge: Charge) -> RunningFetch:
        self.fetcher.check(request)
        if self._running >= self.limits.fetches_per_instance:
            raise TooMany(f"fetches_per_instance: {self._running} requests are on their way")
        self._running += 1
        fetch = RunningFetch()
        self.nursery.start_soon(self._run, fetch, request, charge)
        return fetch

    async def _run(self, fetch: RunningFetch, request: FetchRequest, charge: Charge) -> None:
        try:
            with fetch.scope:
                fetch.reply.fill(await self.fetcher.fetch(request, charge))
        except PieError as error:
            fetch.reply.refuse(error)
        finally:
            self._running -= 1
