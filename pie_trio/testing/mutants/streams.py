"""Defects of sequences that the model decodes by itself: what they draw, adjust, tell, forget."""

from __future__ import annotations

from typing import Final

from pie_trio.testing.mutants.mutant import Mutant

_DECODE: Final = "pie_trio/decode.py"
_CHUNKS: Final = "pie_trio/services/pass_chunks.py"
_MORE: Final = "pie_trio/services/multi_step.py"
_TABLE: Final = "pie_trio/services/pass_table.py"
_ANSWERS: Final = "pie_trio/services/worker_answers.py"
_PINS: Final = "pie_trio/services/pass_pins.py"
_WORKER: Final = "gpu_worker/multi_step.py"

STREAMS: Final = (
    Mutant(
        "penalties_of_the_first_step",
        _DECODE,
        before="            records = bytes(self.adjusting.records)\n",
        after="            records = output.adjustments\n",
        why="every step is sent with the penalties of the first: what was written since is free",
        source="our own history: a step is encoded once and patched",
    ),
    Mutant(
        "told_of_what_was_cut",
        _DECODE,
        before="        del self.tokens[keep:], self.logprobs[keep:]\n",
        after="        del self.tokens[keep:]\n",
        why="log-probabilities of tokens that were cut are told as if they still stood there",
        source="our own history",
    ),
    Mutant(
        "draws_by_step",
        _CHUNKS,
        before="    return seed_from_row(chosen, row + step)\n",
        after="    return seed_from_row(chosen, step)\n",
        why="a seeded step counts from the first token, not from its row: passes draw otherwise",
        source="our own history: seeds by position",
    ),
    Mutant(
        "stop_unheard",
        _DECODE,
        before="        if self.reason is None and self._is_stopping:\n",
        after="        if False:\n",
        why="a stream that was stopped or dropped decodes on until its budget is spent",
        source="SGLang 34894 (decoded on for 71 s after the disconnect)",
    ),
    Mutant(
        "later_seeds_shifted",
        _MORE,
        before="decode.seed_of(written + step) for step",
        after="decode.seed_of(written + step - 1) for step",
        why="steps that a worker executes by itself draw with the seeds of those before them",
        source="our own history: several steps at once",
    ),
    Mutant(
        "grows_into_a_neighbour",
        _WORKER,
        before="grown = [plan.spare[i][used[i]] for i",
        after="grown = [plan.spare[0][used[0]] for i",
        why="a sequence whose page is full goes on in the next page of another one",
        source="our own history: several steps at once",
    ),
    Mutant(
        "one_step_marked",
        _PINS,
        before="        if steps > 1 and forward.decode is not None:\n",
        after="        if steps < 1 and forward.decode is not None:\n",
        why="of several steps only the first counts as written, and nobody may read on",
        source="our own history: several steps at once",
    ),
    Mutant(
        "part_told_twice",
        _ANSWERS,
        before="        if result.first_step < self._steps_told:\n",
        after="        if result.first_step < 0:\n",
        why="a part of an answer that comes twice is taken for the next one",
        source="our own history: answers in parts",
        ground="refrains",
    ),
    Mutant(
        "seeds_of_the_first_part",
        _WORKER,
        before="        step = self._executed - 1\n",
        after="        step = len(self._results) - 1\n",
        why="behind the first part of an answer a worker draws with the seeds of that part again",
        source="our own history: answers in parts",
        ground="refrains",
    ),
    Mutant(
        "goes_on_from_the_last_part",
        _TABLE,
        before="        self._told[forward] += forward.decode.take(",
        after="        self._told[forward] = forward.decode.take(",
        why="the next batch goes on as if the steps of earlier parts had not been executed",
        source="our own history: answers in parts",
        ground="refrains",
    ),
    Mutant(
        "unpinned_with_a_part",
        _TABLE,
        before="                if decode.reason is not None:  # its guest has had enough\n",
        after="                if decode.reason is not None:\n"
        "                    self.pins.unpin(forward)\n",
        why="the pages of a stream that was stopped come back while its worker still writes them",
        source="our own history: answers in parts",
        ground="refrains",
    ),
)
