"""Defects of the page pool and of the resource manager: who holds a page, and who waits for one."""

from __future__ import annotations

from typing import Final

from pie_trio.testing.mutants.mutant import Mutant

_POOL: Final = "pie_trio/services/page_pool.py"
_MANAGER: Final = "pie_trio/actors/resource_manager.py"
_LINE: Final = "last-pages"  # where the ground is a line for pages

PAGES: Final = (
    Mutant(
        "skip_down",
        _MANAGER,
        before="        finally:\n            self.bury(lease)",
        after="        except PieError:\n            raise\n"
        "        else:\n            self.bury(lease)",
        why="a lease is buried only if its instance ends by itself: who is killed keeps its pages",
        source="prototype skip_down; SGLang 34894 (state gone before the abort)",
    ),
    Mutant(
        "await_cleanup",
        _MANAGER,
        before="            self.bury(lease)\n            send.close()",
        after="            await trio.lowlevel.checkpoint()\n"
        "            self.bury(lease)\n            send.close()",
        why="the clean-up waits, and so is itself cancelled",
        source="prototype await_cleanup; Ray 60865, Petals 163",
    ),
    Mutant(
        "burial_by_message",
        _MANAGER,
        before="        finally:\n            self.bury(lease)",
        after="        except trio.Cancelled:\n"
        "            async def bury_later() -> None:\n"
        "                self.bury(lease)\n\n"
        "            self._sessions.start_soon(bury_later)\n"
        "            raise\n"
        "        else:\n            self.bury(lease)",
        why="a killed instance is seen dead before its pages are back",
        source="the original's fire-and-forget clean-up (contract 9.18)",
    ),
    Mutant(
        "no_tombstone",
        _MANAGER,
        before="                if lease.owner.number not in self._leases:",
        after="                if lease.owner.number < 0:",
        why="a request that lay in the mailbox is served after its asker's death",
        source="prototype no_tombstone; contract 9.18",
        ground=_LINE,
    ),
    Mutant(
        "toctou",
        _MANAGER,
        before="                self._consider(Waiter(lease,",
        after="                await trio.lowlevel.checkpoint()\n"
        "                self._consider(Waiter(lease,",
        why="between the look whether the asker lives and the grant, it may die",
        source="prototype toctou",
        ground=_LINE,
    ),
    Mutant(
        "late_task",
        _MANAGER,
        before="        self._sessions.start_soon(self._serve, lease, receive)",
        after="        async def serve() -> None:\n"
        "            await self._serve(self._leases[owner.number], receive)\n\n"
        "        self._sessions.start_soon(serve)",
        why="a spawned task is given a key to look up, and when it starts nobody is there",
        source="prototype late_task",
        ground=_LINE,
    ),
    Mutant(
        "oom_partial",
        _MANAGER,
        before="            return None\n        return self.pools[kind].grant",
        after="            pool = self.pools[kind]\n"
        "            pool.grant(lease.tenancies[kind], min(count, pool.free_count))\n"
        "            return None\n        return self.pools[kind].grant",
        why="an allocation that finds no room takes what there is, and nobody knows of it",
        source="prototype oom_partial; SGLang 16067",
        ground=_LINE,
    ),
    Mutant(
        "withdrawal_untold",
        _MANAGER,
        before="            self._waiters = remaining\n            self.reconsider()",
        after="            self._waiters = remaining",
        why="when the first in the line gives up, those behind it are not looked at again",
        source="TensorRT-LLM 13713 (burst and cancels, then a wedge)",
        ground=_LINE,
    ),
    Mutant(
        "refused_before_settling",
        _MANAGER,
        before="        if pool.limbo_count:\n            return True\n",
        after="",
        why="a waiter is refused although a batch in flight is about to give pages back",
        source="own history: waits that were refused too early",
        ground=_LINE,
    ),
    Mutant(
        "granted_and_timed_out",
        _MANAGER,
        before="        if request.reply.is_filled:  # it came",
        after="        if request.reply is None:  # it came",
        why="a grant in the very step in which the wait ran out is answered twice",
        source="Triton 8034 (double completion)",
        ground=_LINE,
    ),
    Mutant(
        "no_pin",
        _POOL,
        before="        if page in self._pins:\n            self._limbo.add(page)",
        after="        if page in self._limbo:\n            self._limbo.add(page)",
        why="a page is free while a batch in flight still writes it",
        source="prototype no_pin; vLLM 45357, 32255",
    ),
    Mutant(
        "settling_untold",
        _POOL,
        before="        if came_back:\n            self.on_pages_back()",
        after="",
        why="pages that come back with a batch are offered to nobody who waits for them",
        source="TGI 1199, ROCm/ATOM 1562 (no blocks left after aborted streams)",
        ground=_LINE,
    ),
    Mutant(
        "import_noref",
        _POOL,
        before="        for page in set(export.pages):\n            self._let_go(page, export)",
        after="        for page in set(export.pages):\n"
        "            if export.exporter.number not in self._tenancies:\n"
        "                self._holders[page] = {export}\n"
        "            self._let_go(page, export)",
        why="a name whose exporter is dead takes the pages away from who imported them",
        source="prototype import_noref; contract 9.14",
    ),
    Mutant(
        "no_owner_check",
        _POOL,
        before="            return (*map(self.pages.__getitem__, numbers),)",
        after="            return (*(self.pages.get(n, PageId(n)) for n in numbers),)",
        why="a number that was never given to a guest is taken as the page of that number",
        source="prototype no_owner_check; contract 9.13",
    ),
    Mutant(
        "stale_slots",
        _POOL,
        before="            self._holders[page] = set()\n            self.marks.clear(page)",
        after="            self._holders[page] = set()",
        why="a page comes with its last owner's marks, and so its text can be read",
        source="own history: slots that were never written; contract 9.13",
    ),
    Mutant(
        "hidden_export_stays",
        _POOL,
        before="            if not export.is_visible:\n                self._drop_export(export)",
        after="            if not export.pages:\n                self._drop_export(export)",
        why="an export whose turn never came keeps its pages and its name for ever",
        source="contract 9.15",
    ),
    Mutant(
        "named_twice",
        _POOL,
        before="        if len(set(handles)) != len(handles):\n"
        '            raise GuestFault(f"a {self.what} is named twice in one call")\n',
        after="",
        why="a page that is given up twice in one call breaks the books",
        source="contract 9.13 (double free)",
    ),
)
