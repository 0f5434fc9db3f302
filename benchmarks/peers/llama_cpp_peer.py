"""llama.cpp: the server inside xllamacpp, asked over its HTTP interface on loopback.

A slot's context is fixed, so there is a server of 64 slots for most cases and one of a single slot
for a long prompt; never both, for an idle one takes half of the other's speed. Decoding and prefill
are taken from the server's own timings, so that HTTP and JSON are not in them; only arrivals are
timed where the client stands. All sequences of a case come in one request, and so start together.
The prefix cache is off.
"""

from __future__ import annotations

import argparse
import json
import queue
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import xllamacpp
from speak import Answer, Engine, Prompt, made_up, speak

SLOTS = 64
SLOT_TOKENS = 576
LONG_TOKENS = 4096
BATCH_TOKENS = 4096


class LlamaCpp(Engine):
    def __init__(self, options: argparse.Namespace) -> None:
        self._configuration = {
            "weights": options.weights.name,
            "n_threads": options.threads,
            "n_batch": BATCH_TOKENS,
            "n_parallel": SLOTS,
            "n_ctx": SLOTS * SLOT_TOKENS,
            "cache_prompt": False,
            "system": xllamacpp.get_system_info().strip(),
        }
        self._options = options
        self._slots = 0
        self._server: Any = None
        self._server_of(SLOTS)
        self._news: queue.Queue[tuple[int, int]] = queue.Queue()

    def facts(self) -> Answer:
        return {
            "engine": "llama.cpp (xllamacpp)",
            "version": xllamacpp.__version__,
            "configuration": self._configuration,
        }

    def decode(self, sequences: int, context: int, steps: int) -> Answer:
        results = self._complete(made_up(sequences, context), steps + 1)
        seconds = max(each["timings"]["predicted_ms"] for each in results) / 1000
        return {"seconds": seconds, "tokens": sequences * steps}

    def prefill(self, tokens: int) -> Answer:
        [result] = self._complete(made_up(1, tokens), 1)
        return {"seconds": result["timings"]["prompt_ms"] / 1000, "tokens": tokens}

    def greedy(self, prompts: list[Prompt], count: int) -> Answer:
        return {"tokens": [each["tokens"] for each in self._complete(prompts, count)]}

    def submit(self, number: int, prompt: Prompt, count: int) -> None:
        self._server_of(SLOTS)
        threading.Thread(target=self._stream, args=(number, prompt, count), daemon=True).start()

    def poll(self, seconds: float) -> list[tuple[int, list[int]]]:
        try:
            number, count = self._news.get(timeout=max(seconds, 0.0001))
        except queue.Empty:
            return []
        return [(number, [0] * count)]

    def _server_of(self, slots: int) -> Any:
        if self._slots != slots:
            self._server = None  # it ends before the other one begins
            context = SLOTS * SLOT_TOKENS if slots == SLOTS else LONG_TOKENS
            self._server = _open_server(self._options, slots, context)
            self._slots = slots
        return self._server

    def _complete(self, prompts: list[Prompt], count: int) -> list[Answer]:
        server = self._server_of(SLOTS if len(prompts[0]) + count <= SLOT_TOKENS else 1)
        [line] = _post(server, {"prompt": prompts, **_wishes(count)})
        answer = json.loads(line)
        return answer if isinstance(answer, list) else [answer]

    def _stream(self, number: int, prompt: Prompt, count: int) -> None:
        """A token that is no whole character yet is told with the next one, or at the end."""
        told = 0
        for line in _post(self._server, {"prompt": prompt, "stream": True, **_wishes(count)}):
            if not line.startswith(b"data: "):
                continue
            event = json.loads(line[6:])
            new = count - told if event["stop"] else len(event["tokens"])
            told += new
            if new:
                self._news.put((number, new))


def _open_server(options: argparse.Namespace, slots: int, context: int) -> Any:
    params = xllamacpp.CommonParams()
    params.model.path = str(options.weights)
    params.n_parallel = slots
    params.n_ctx = context
    params.n_batch = BATCH_TOKENS
    params.kv_unified = False
    params.cache_prompt = False
    params.cache_ram_mib = 0
    params.n_ctx_checkpoints = 0
    params.verbosity = -1
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = options.threads
    return xllamacpp.Server(params)


def _wishes(count: int) -> Answer:
    return {
        "n_predict": count,
        "temperature": 0,
        "ignore_eos": True,
        "cache_prompt": False,
        "return_tokens": True,
    }


def _post(server: Any, body: Answer) -> Iterator[bytes]:
    request = urllib.request.Request(
        server.listening_address + "/completion",
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request) as answer:
        yield from answer


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--threads", type=int, required=True)
    options = parser.parse_args()
    speak(lambda: LlamaCpp(options))


if __name__ == "__main__":
    main()
