"""vLLM for CPUs, fp32: its engine stepped by hand in this process, eager, prefix cache off.

Its scheduler, sampler and output processing are inside what is timed.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from speak import Answer, Engine, Prompt, speak

MODEL_TOKENS = 4096
BATCHED_TOKENS = 4096
SEQUENCES = 64


class Vllm(Engine):
    def __init__(self, options: argparse.Namespace) -> None:
        import vllm

        self._vllm: Any = vllm
        self._configuration = {
            "dtype": "float32",
            "enforce_eager": True,
            "enable_prefix_caching": False,
            "max_model_len": MODEL_TOKENS,
            "max_num_batched_tokens": BATCHED_TOKENS,
            "max_num_seqs": SEQUENCES,
            "skip_tokenizer_init": True,
            "disable_log_stats": True,
        }
        arguments = vllm.EngineArgs(model=str(options.model), **self._configuration)
        self._engine = vllm.LLMEngine.from_engine_args(arguments)

    def facts(self) -> Answer:
        return {
            "engine": "vLLM for CPUs",
            "version": self._vllm.__version__,
            "configuration": {**self._configuration, "weights": "model.safetensors"},
        }

    def submit(self, number: int, prompt: Prompt, count: int) -> None:
        params = self._vllm.SamplingParams(
            temperature=0.0,
            max_tokens=count,
            ignore_eos=True,
            detokenize=False,
            output_kind=self._vllm.sampling_params.RequestOutputKind.DELTA,
        )
        self._engine.add_request(str(number), {"prompt_token_ids": prompt}, params)

    def poll(self, _seconds: float) -> list[tuple[int, list[int]]]:
        return [
            (int(output.request_id), list(output.outputs[0].token_ids))
            for output in self._engine.step()
        ]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--threads", type=int, required=True)
    options = parser.parse_args()
    os.environ |= {
        "OMP_NUM_THREADS": str(options.threads),
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_LOGGING_LEVEL": "ERROR",
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
    }
    speak(lambda: Vllm(options))


if __name__ == "__main__":
    main()
