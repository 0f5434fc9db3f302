"""OpenVINO GenAI: its continuous batching over the F16 file, stepped by hand.

`--precision f32` pins arithmetic and key-value memory to fp32 and switches dynamic quantisation
off; `--precision default` leaves every choice to OpenVINO. Its scheduler and sampler are inside
what is timed. The prefix cache is off.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import openvino_genai as genai
from speak import Answer, Engine, Prompt, speak

F32 = {
    "INFERENCE_PRECISION_HINT": "f32",
    "KV_CACHE_PRECISION": "f32",
    "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0",
}
CACHE_GIGABYTES = 1
BATCHED_TOKENS = 4096


class OpenVino(Engine):
    works = (*Engine.works, "read")

    def __init__(self, options: argparse.Namespace) -> None:
        properties: dict[str, Any] = {"INFERENCE_NUM_THREADS": options.threads}
        properties |= F32 if options.precision == "f32" else {}
        scheduler = genai.SchedulerConfig()
        scheduler.cache_size = CACHE_GIGABYTES
        scheduler.max_num_batched_tokens = BATCHED_TOKENS
        scheduler.max_num_seqs = 256
        scheduler.enable_prefix_caching = False
        self._configuration = {
            **properties,
            "weights": options.weights.name,
            "cache_size_gigabytes": CACHE_GIGABYTES,
            "max_num_batched_tokens": BATCHED_TOKENS,
            "enable_prefix_caching": False,
        }
        self._pipeline = genai.ContinuousBatchingPipeline(
            str(options.weights), scheduler, "CPU", properties
        )
        self._handles: dict[int, Any] = {}

    def facts(self) -> dict[str, Any]:
        return {
            "engine": "OpenVINO GenAI",
            "version": genai.__version__,
            "configuration": self._configuration,
        }

    def read(self, tokens: Prompt) -> Answer:
        """The loss of each next token of a text; nothing is told of what follows the last."""
        config = genai.GenerationConfig()
        config.max_new_tokens, config.ignore_eos, config.do_sample = 1, True, False
        config.echo, config.logprobs = True, 1
        ids = openvino.Tensor(np.array([tokens], dtype=np.int64))
        handle = self._pipeline.add_request(time.monotonic_ns(), ids, config)
        while not str(handle.get_status()).endswith("FINISHED"):
            self._pipeline.step()
        chances = [chance for each in handle.read_all() for chance in each.generated_log_probs]
        if len(chances) != len(tokens) + 1:
            raise ValueError(f"{len(chances)} chances for {len(tokens)} tokens and one more")
        return {"losses": [*(-chance for chance in chances[1:-1]), None]}

    def submit(self, number: int, prompt: Prompt, count: int) -> None:
        config = genai.GenerationConfig()
        config.max_new_tokens = count
        config.ignore_eos = True
        config.do_sample = False
        ids = openvino.Tensor(np.array([prompt], dtype=np.int64))
        self._handles[number] = self._pipeline.add_request(number, ids, config)

    def poll(self, _seconds: float) -> list[tuple[int, list[int]]]:
        self._pipeline.step()
        found = []
        for number, handle in list(self._handles.items()):
            if handle.can_read():
                outputs = handle.read().values()
                found.append((number, [token for each in outputs for token in each.generated_ids]))
            if str(handle.get_status()).endswith("FINISHED"):
                del self._handles[number]
        return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--precision", choices=("f32", "default"), required=True)
    options = parser.parse_args()
    speak(lambda: OpenVino(options))


if __name__ == "__main__":
    main()
