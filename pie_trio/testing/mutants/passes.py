"""Defects on the way of a pass: order, batches, answers, and what a dead asker leaves behind."""

from __future__ import annotations

from typing import Final

from pie_trio.testing.mutants.mutant import Mutant

_TABLE: Final = "pie_trio/services/pass_table.py"
_PINS: Final = "pie_trio/services/pass_pins.py"
_ORDER: Final = "pie_trio/services/pass_order.py"
_POLICY: Final = "pie_trio/services/batch_policy.py"

PASSES: Final = (
    Mutant(
        "freed_in_flight",
        _TABLE,
        before="            if forward not in self.in_flight:\n"
        "                self.pins.unpin(forward)\n"
        "                self.collected.pop(forward, None)",
        after="            self.pins.unpin(forward)\n            self.collected.pop(forward, None)",
        why="the pins of a pass in flight go when its asker dies, not when it settles",
        source="vllm-ascend 14055, tpu-inference 3449",
    ),
    Mutant(
        "abort_after_deletion",
        _TABLE,
        before="        self.waiting = [w for w in self.waiting if w.forward.owner != owner]\n",
        after="",
        why="a dead asker's pass is off the books but still in the line, and is executed",
        source="SGLang 34894 (decoded on for 71 s after the disconnect)",
    ),
    Mutant(
        "pins_of_the_dead",
        _TABLE,
        before="            self.collected.pop(forward, None)\n"
        "            self.pins.unpin(forward)\n            return",
        after="            self.collected.pop(forward, None)\n            return",
        why="what a batch pinned for an asker that died meanwhile is never given back",
        source="vLLM 46283, vllm-ascend 16662",
    ),
    Mutant(
        "answers_shifted",
        _TABLE,
        before="        for place, chunk in enumerate(chunks):\n            self._settle_chunk",
        after="        def is_dead(chunk: Chunk) -> bool:\n"
        "            return chunk.waiting.forward.owner.number not in self.tracked\n\n"
        "        for place, chunk in enumerate(sorted(chunks, key=is_dead)):\n"
        "            self._settle_chunk",
        why="answers are matched after the dead were taken out of the batch: neighbours swap texts",
        source="contract 9.33",
        ground="batch-mates",
    ),
    Mutant(
        "epoch_queue",
        _TABLE,
        before="        for forward in living:\n",
        after="        for forward in living & self.in_flight:\n",
        why="a lost worker's batch is refused, but what waited behind it is never answered",
        source="prototype epoch_queue; TensorRT-LLM 5820",
    ),
    Mutant(
        "failed_text_counts",
        _TABLE,
        before="        self.pins.unmark(forward)\n",
        after="",
        why="what a failed pass was to write counts as written, and is read",
        source="own history: passes that build on a failed one; TensorRT-LLM 15018",
    ),
    Mutant(
        "built_on_sand",
        _PINS,
        before="            if later not in found and builds_on(forward, waiting.forward)",
        after="            if later in found and builds_on(forward, waiting.forward)",
        why="a pass that builds on a failed one is executed on what is not there",
        source="vLLM 39146, 37076 (stale cache reused)",
    ),
    Mutant(
        "fifo",
        _ORDER,
        before="[self._queue_tails.get((forward.owner.number, forward.queue))]",
        after="[self._queue_tails.get((-1, forward.queue))]",
        why="a pass overtakes the one before it in its queue when its priority is higher",
        source="prototype fifo; contract 9.5",
    ),
    Mutant(
        "branch_overtakes",
        _ORDER,
        before="            candidates += map(self._page_writers.get, forward.pages)",
        after="            candidates += ()",
        why="a branch runs before the pages that it shares have been written",
        source="contract 9.7",
    ),
    Mutant(
        "budget_overrun",
        _POLICY,
        before="min(rows_left, self._budget, self._shares.rows_for(rows_left))",
        after="rows_left",
        why="the last pass of a batch exceeds what the worker takes, and all of the batch fail",
        source="contract 9.8 and 9.32",
    ),
    Mutant(
        "rewritten_too_early",
        _POLICY,
        before="            self._visible.get(page, 0) <= slots.start",
        after="            self._visible.get(page, 0) <= slots.stop + forward.page_size",
        why="a pass rewrites slots that an earlier pass of the same batch still reads",
        source="own history: passes that may not share a batch; vLLM 45357",
    ),
    Mutant(
        "budget_endless",
        _POLICY,
        before="        self._shares.take(rows_left, rows)\n        self._budget -= rows",
        after="        self._budget -= min(rows, 1)",
        why="a batch takes more rows than its budget when several passes share it",
        source="contract 9.8",
    ),
)
