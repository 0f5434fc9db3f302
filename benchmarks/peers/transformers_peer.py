"""transformers, fp32: the model called step by step with its own cache of keys and values.

It has no server of its own here, and `generate` costs more than these bare calls: what is timed is
the model and an argmax. Sequences that come together and are equally long are one batch.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
import transformers
from speak import Answer, Engine, Prompt, speak


class Cohort:
    """Sequences that go on together."""

    def __init__(self, numbers: list[int], prompts: list[Prompt], count: int) -> None:
        self.numbers = numbers
        self.tokens = torch.tensor(prompts)
        self.left = count
        self.cache = transformers.DynamicCache()


class Transformers(Engine):
    works = ("decode", "prefill", "greedy")

    def __init__(self, options: argparse.Namespace) -> None:
        torch.set_num_threads(options.threads)
        self._model: Any = transformers.AutoModelForCausalLM.from_pretrained(
            options.model, dtype=torch.float32, local_files_only=True
        )
        self._model.eval()
        self._coming: dict[tuple[int, int], list[tuple[int, Prompt]]] = {}
        self._cohorts: list[Cohort] = []

    def facts(self) -> Answer:
        return {
            "engine": "transformers",
            "version": transformers.__version__,
            "configuration": {
                "dtype": "float32",
                "attention": self._model.config._attn_implementation,
                "weights": "model.safetensors",
            },
        }

    def submit(self, number: int, prompt: Prompt, count: int) -> None:
        self._coming.setdefault((len(prompt), count), []).append((number, prompt))

    def poll(self, _seconds: float) -> list[tuple[int, list[int]]]:
        for (_, count), members in self._coming.items():
            numbers, prompts = [n for n, _ in members], [p for _, p in members]
            self._cohorts.append(Cohort(numbers, prompts, count))
        self._coming = {}
        cohort = self._cohorts[0]
        found = self._step(cohort)
        if not cohort.left:
            self._cohorts.pop(0)
        return found

    @torch.inference_mode()
    def _step(self, cohort: Cohort) -> list[tuple[int, list[int]]]:
        out = self._model(
            cohort.tokens, past_key_values=cohort.cache, use_cache=True, logits_to_keep=1
        )
        cohort.tokens = out.logits[:, -1].argmax(-1, keepdim=True)
        cohort.left -= 1
        chosen = cohort.tokens[:, 0].tolist()
        return [(number, [token]) for number, token in zip(cohort.numbers, chosen, strict=True)]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--threads", type=int, required=True)
    options = parser.parse_args()
    speak(lambda: Transformers(options))


if __name__ == "__main__":
    main()
