"""OpenVINO GenAI behind a small server: its continuous batching, its prefix cache, its defaults.

It brings no server of its own. This one understands as much of llama.cpp's `POST /completion` as
the evaluation asks for: one thread a connection, and one that hands requests to the pipeline and
steps it. `--lookup` makes one whose pipeline guesses by what stands in the prompt.
"""

from __future__ import annotations

import argparse
import json
import queue
import threading
from concurrent.futures import Future
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import openvino_genai as genai
from line import read_options, serve

CACHE_GIGABYTES = 1
BATCHED_TOKENS = 4096
SEQUENCES = 64
LOOK_BACK, GUESSES = 2, 4
ANSWER_SECONDS = 120.0
Wanted = dict[str, Any]
Asked = tuple[Wanted, Future[Wanted]]


class Pipeline:
    """Requests of many threads, stepped by one."""

    def __init__(self, options: argparse.Namespace) -> None:
        scheduler = genai.SchedulerConfig()
        scheduler.cache_size = CACHE_GIGABYTES
        scheduler.max_num_batched_tokens = BATCHED_TOKENS
        scheduler.max_num_seqs = SEQUENCES
        scheduler.enable_prefix_caching = True
        properties: dict[str, Any] = {"INFERENCE_NUM_THREADS": options.threads}
        if options.lookup:
            properties["prompt_lookup"] = True
        self._is_lookup = options.lookup
        self._pipeline: Any = genai.ContinuousBatchingPipeline(
            str(options.weights), scheduler, "CPU", properties
        )
        self._tokenizer: Any = self._pipeline.get_tokenizer()
        # Raw text may end as a document does, and not as a turn.
        document_end = self._tokenizer.encode("<|endoftext|>").input_ids.data.tolist()[0]
        self._ends = {self._tokenizer.get_eos_token_id(), *document_end}
        self._coming: queue.Queue[Asked] = queue.Queue()
        self._running: dict[int, tuple[Any, Future[Wanted]]] = {}
        threading.Thread(target=self._run, daemon=True).start()

    def complete(self, wanted: Wanted) -> Wanted:
        answer: Future[Wanted] = Future()
        self._coming.put((wanted, answer))
        return answer.result(ANSWER_SECONDS)

    def _run(self) -> None:
        number = 0
        while True:
            while not self._running or not self._coming.empty():
                wanted, answer = self._coming.get()
                number += 1
                self._start(number, wanted, answer)
            self._pipeline.step()
            for each, (handle, answer) in list(self._running.items()):
                if not str(handle.get_status()).endswith("RUNNING"):
                    del self._running[each]
                    answer.set_result(self._told(handle))

    def _start(self, number: int, wanted: Wanted, answer: Future[Wanted]) -> None:
        try:
            handle = self._pipeline.add_request(number, wanted["prompt"], self._config(wanted))
        except (RuntimeError, KeyError, TypeError) as error:
            answer.set_exception(error)
        else:
            self._running[number] = (handle, answer)

    def _config(self, wanted: Wanted) -> Any:
        config = genai.GenerationConfig()
        config.do_sample = False
        config.max_new_tokens = wanted["n_predict"]
        config.ignore_eos = wanted["ignore_eos"]
        if not wanted["ignore_eos"]:
            config.stop_token_ids = self._ends
        if "beams" in wanted:
            config.num_beams = wanted["beams"]
            config.stop_criteria = genai.StopCriteria.EARLY  # nothing is looked for behind the best
            config.num_return_sequences = 1
        if "grammar" in wanted:
            grammar = genai.StructuredOutputConfig(grammar=wanted["grammar"])
            config.structured_output_config = grammar
        if self._is_lookup:
            config.max_ngram_size, config.num_assistant_tokens = LOOK_BACK, GUESSES
        return config

    def _told(self, handle: Any) -> Wanted:
        [best] = handle.read_all()
        tokens = list(best.generated_ids)
        return {"content": self._tokenizer.decode(tokens), "tokens_predicted": len(tokens)}


def handler_of(pipeline: Pipeline) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            try:
                status, answer = 200, pipeline.complete(json.loads(body))
            except (RuntimeError, KeyError, TypeError, TimeoutError) as error:
                status, answer = 500, {"error": str(error)}
            content = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002
            """Nobody reads it."""

    return Handler


class Server(ThreadingHTTPServer):
    request_queue_size = SEQUENCES  # many ask at once


def open_server(options: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    server = Server(("127.0.0.1", 0), handler_of(Pipeline(options)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    facts = {"version": genai.__version__, "weights": options.weights.name}
    return f"http://127.0.0.1:{server.server_port}", facts


def main() -> None:
    options = read_options()
    serve(lambda: open_server(options))


if __name__ == "__main__":
    main()
