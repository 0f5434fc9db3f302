"""Defects of command queues and of what a pass may name: order, barriers, copies, refusals."""

from __future__ import annotations

from typing import Final

from pie_trio.testing.mutants.mutant import Mutant

_QUEUE: Final = "pie_trio/actors/command_queue.py"
_ACCESS: Final = "pie_trio/queue_access.py"
_PLAN: Final = "pie_trio/pass_plan.py"
_PINS: Final = "pie_trio/services/pass_pins.py"

QUEUES: Final = (
    Mutant(
        "eager_bypass",
        _QUEUE,
        before="        if not self._in_mailbox and not self._is_decoding:",
        after="        if self._in_mailbox >= 0 and not self._is_decoding:",
        why="a pass overtakes the commands that wait in its queue",
        source="contract 9.5",
    ),
    Mutant(
        "failure_forgotten",
        _QUEUE,
        before="                self._has_failed = True",
        after="                self._has_failed = False",
        why="a barrier says that all is well although a pass before it has failed",
        source="contract 9.28 (errors swallowed as empty lists)",
    ),
    Mutant(
        "shared_write",
        _ACCESS,
        before="    return pool.is_shared(page) or residence.loop.passes.pins.is_source(page)",
        after="    return len(pool._holders[page]) > 2",
        why="a page that two hold is written in place, under the eyes of the other",
        source="prototype shared_write; contract 9.14",
    ),
    Mutant(
        "source_rewritten",
        _PINS,
        before="        return page in self._sources",
        after="        return page in self._sources and page not in self._sources",
        why="a page that is still to be copied is rewritten before the copy is made",
        source="own history: copies whose source was dropped",
        ground="batch-mates",
    ),
    Mutant(
        "stale_kv",
        _PLAN,
        before="        plan._check_context_written(lease.pools[ResourceKind.KV_PAGE].marks)\n",
        after="",
        why="a guest reads slots that it never wrote: the text of whoever had the page before",
        source="prototype stale_kv; TensorRT-LLM 15018",
    ),
    Mutant(
        "deallocation_by_handle",
        _ACCESS,
        before="        await self._post(lambda _ok: pool.take_back(tenancy, pages))",
        after="        await self._post(\n"
        "            lambda ok: pool.take_back(\n"
        "                tenancy, pages if ok else [PageId(handle) for handle in handles]\n"
        "            )\n"
        "        )",
        why="after a failed pass, handles are given back as if they were pages",
        source="contract 9.13",
    ),
)
