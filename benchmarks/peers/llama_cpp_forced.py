"""llama.cpp's next token after each beginning of a text, for `benchmarks.accuracy`.

Each prompt is the last one and a token more, so here the prefix cache is on: without it a text
would be read as often as it has tokens. One slot, one request after the other.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import xllamacpp
from llama_cpp_peer import _open_server, _post, _wishes
from speak import Answer, speak

CONTEXT_TOKENS = 512


class Forced:
    works = ("forced",)

    def __init__(self, options: argparse.Namespace) -> None:
        self._server = _open_server(options, 1, CONTEXT_TOKENS)
        self._weights = options.weights.name

    def facts(self) -> Answer:
        return {"engine": "llama.cpp", "version": xllamacpp.__version__, "weights": self._weights}

    def forced(self, tokens: list[int]) -> Answer:
        """The likeliest token after the first token, after the first two, and so on."""
        return {"tokens": [self._next(tokens[: end + 1]) for end in range(len(tokens))]}

    def _next(self, prompt: list[int]) -> int:
        wishes = {**_wishes(1), "cache_prompt": True}
        [line] = _post(self._server, {"prompt": prompt, **wishes})
        [token] = json.loads(line)["tokens"]
        return int(token)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--threads", type=int, required=True)
    options = parser.parse_args()
    speak(lambda: Forced(options))


if __name__ == "__main__":
    main()
