"""How llama.cpp reads a text, for `benchmarks.accuracy`: its likeliest next tokens and its losses.

Each prompt is the last one and a token more, so here the prefix cache is on: without it a text
would be read as often as it has tokens. One slot, one request after the other. The server tells how
likely the token was that it took, and a bias makes it take the one of the text; both its chance and
the likeliest token are those before the bias.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import xllamacpp
from llama_cpp_peer import _open_server, _post, _wishes
from speak import Answer, speak

CONTEXT_TOKENS = 512
BIAS = 1000.0  # more than any two logits differ by


class Forced:
    works = ("read",)

    def __init__(self, options: argparse.Namespace) -> None:
        self._server = _open_server(options, 1, CONTEXT_TOKENS)
        self._weights = options.weights.name

    def facts(self) -> Answer:
        return {"engine": "llama.cpp", "version": xllamacpp.__version__, "weights": self._weights}

    def read(self, tokens: list[int]) -> Answer:
        """The likeliest token after the first one, after the first two and so on, and the loss of
        what comes there; nothing is told of what follows the last."""
        told = [self._next(tokens, end) for end in range(1, len(tokens) + 1)]
        losses: list[float | None] = [loss for _, loss in told]
        return {"tokens": [token for token, _ in told], "losses": [*losses[:-1], None]}

    def _next(self, tokens: list[int], end: int) -> tuple[int, float]:
        after = tokens[end % len(tokens)]
        wishes = {**_wishes(1), "cache_prompt": True, "n_probs": 1, "logit_bias": [[after, BIAS]]}
        [line] = _post(self._server, {"prompt": tokens[:end], **wishes})
        [told] = json.loads(line)["completion_probabilities"]
        if told["id"] != after:
            raise ValueError(f"token {told['id']} was taken where {after} was asked for")
        return int(told["top_logprobs"][0]["id"]), -float(told["logprob"])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--threads", type=int, required=True)
    options = parser.parse_args()
    speak(lambda: Forced(options))


if __name__ == "__main__":
    main()
