"""An engine that counts up from the last token of its prompt, a second a step by its own clock."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks" / "peers"))

from speak import Answer, Engine, Prompt, speak


class Counter(Engine):
    def __init__(self) -> None:
        self._sequences: dict[int, tuple[int, int]] = {}
        self._seconds = 0.0

    def facts(self) -> Answer:
        return {"engine": "counter", "version": "1", "configuration": {}}

    def submit(self, number: int, prompt: Prompt, count: int) -> None:
        self._sequences[number] = (prompt[-1], count)

    def poll(self, _seconds: float) -> list[tuple[int, list[int]]]:
        print("engines print what they like")  # noqa: T201
        self._seconds += 1.0
        found = [(number, [token + 1]) for number, (token, _) in self._sequences.items()]
        self._sequences = {
            number: (token + 1, left - 1)
            for number, (token, left) in self._sequences.items()
            if left > 1
        }
        return found

    def clock(self) -> float:
        return self._seconds


if __name__ == "__main__":
    speak(Counter)
