"""Defects of the link to a worker: correlation, silence, lies, sockets, processes."""

from __future__ import annotations

from typing import Final

from pie_trio.testing.mutants.mutant import Mutant

_ANSWERS: Final = "pie_trio/services/worker_answers.py"
_LINK: Final = "pie_trio/services/worker_link.py"

WORKERS: Final = (
    Mutant(
        "lost_silent",
        _LINK,
        before="        self.lose(process.epitaph())",
        after="        process.epitaph()",
        why="the end of the worker's process is seen and told to nobody",
        source="prototype lost_silent; vLLM 21728, 39863, 11996",
    ),
    Mutant(
        "no_timeout",
        _LINK,
        before="            if busy > limits.batch_seconds_max:",
        after="            if busy > limits.batch_seconds_max < 0:",
        why="a batch whose answer got lost is waited for without end",
        source="prototype no_timeout; vLLM 46283; contract 9.3 and 9.4",
    ),
    Mutant(
        "no_epoch",
        _LINK,
        before="        in_flight = self._waiting.get(result.number)",
        after="        in_flight = next(iter(self._waiting.values()), None)",
        why="any answer will do, also one to an earlier batch",
        source="prototype no_epoch; contract 9.10",
    ),
    Mutant(
        "answered_twice",
        _LINK,
        before="        if in_flight is None or in_flight.reply.is_filled:",
        after="        if in_flight is None:",
        why="an answer that comes twice is filled in twice",
        source="Triton 8034, 8078",
    ),
    Mutant(
        "lost_after_the_answer",
        _LINK,
        before="            if not in_flight.reply.is_filled:\n"
        "                in_flight.reply.refuse(self._lost)",
        after="            in_flight.reply.refuse(self._lost)",
        why="a worker that dies right after its answer has that answer refused again",
        source="Triton 7368",
    ),
    Mutant(
        "torn_frame_climbs",
        _LINK,
        before="        except wire.WireError as error:\n            self.lose",
        after="        except KeyError as error:\n            self.lose",
        why="a message that is none stops the engine instead of the worker",
        source="contract 9.11 and 9.32b",
    ),
    Mutant(
        "liar_believed",
        _ANSWERS,
        before="        fault = result_fault(self.batch, result, vocab_size)\n",
        after="        fault = None\n"
        "        if not result.answers:\n"
        "            fault = result_fault(self.batch, result, vocab_size)\n",
        why="a worker that answers something else than what was asked is believed",
        source="own history: a worker that lies stopped the engine",
    ),
    Mutant(
        "orphan",
        _LINK,
        before="        process.kill()\n",
        after="",
        why="a worker that does not stop politely is left behind",
        source="vLLM 55510 (orphans keep the GPU)",
    ),
    Mutant(
        "silence_unheard",
        _LINK,
        before="            if silent > limits.heartbeat_lost_seconds:",
        after="            if silent > limits.heartbeat_lost_seconds < 0:",
        why="a worker that hangs without a word is taken for one that works",
        source="vLLM 21728; contract 9.11",
    ),
)
