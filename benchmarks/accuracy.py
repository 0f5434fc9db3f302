"""`pie-trio bench engine --accuracy`: how exact each numeric mode is, beside other engines.

    python -m benchmarks.accuracy [--quick] [--json FILE]

The measure is fp32 arithmetic in plain torch on the weights as the model's own GGUF file means
them, rounded nowhere. A text of ours is read in parts of PART tokens; at every place our modes'
logits are compared. Other engines tell only their likeliest next token: theirs is agreement.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.accuracy_peers import ASKED, peers
from benchmarks.accuracy_report import render
from benchmarks.bars.accuracy import bars
from gpu_worker.interface import NUMERICS
from gpu_worker.kernel_choice import KernelChoice, choose_kernels
from gpu_worker.kernels import Decoder, Step
from gpu_worker.models.config import DecoderConfig
from gpu_worker.models.llama import read_parameters
from gpu_worker.weights import Weights
from gpu_worker.wire import Batch, BatchArrays, OutputRow, Request, SamplerKind, decode, encode
from pie_trio.home import Home
from pie_trio.services.gguf_model import read_gguf
from pie_trio.services.model_store import DEFAULT_MODEL, ModelStore, packaged_model
from pie_trio.services.tokenizer import Tokenizer

TEXT = Path(__file__).with_name("text.txt")
PART = 128  # tokens that are read together, and forgotten before the next ones
PAGE = 16
PARTS_QUICK = 4
Say = Callable[[str], object]
Record = dict[str, Any]


class FileWeights(Weights):
    """The numbers that the blocks of a GGUF file mean, in fp32."""

    def __init__(self, path: Path) -> None:
        self._tensors = {tensor.name: tensor for tensor in read_gguf(path).tensors}
        self.names = frozenset(self._tensors)

    def stored(self, name: str) -> torch.Tensor:
        return torch.from_numpy(self._tensors[name].wide().copy())


def open_decoder(directory: Path, weights: Weights, mode: str, numeric: str, say: Say) -> Decoder:
    config = DecoderConfig.read(directory)
    choice = KernelChoice(mode, Home.default().root / "kernels", say, numeric)
    kernels = choose_kernels(choice, config, PAGE)
    return kernels.decoder(config, read_parameters(config, weights), PART // PAGE, PAGE)


@torch.inference_mode()
def logits_of(decoder: Decoder, tokens: Sequence[int], hidden_width: int) -> torch.Tensor:
    """[token, vocabulary] of one part."""
    last = OutputRow(len(tokens) - 1, SamplerKind.MULTINOMIAL, 0.0)
    pages = -(-len(tokens) // PAGE)
    request = Request(
        tokens=tokens,
        positions=range(len(tokens)),
        pages=range(pages),
        last_page_length=len(tokens) - (pages - 1) * PAGE,
        mask=None,
        outputs=(last,),
        embed_outputs=(),
        seed=0,
    )
    batch = decode(encode(Batch(1, 1, (), (request,))))
    assert isinstance(batch, BatchArrays), "a batch is decoded to its arrays"
    every = torch.arange(len(tokens)).numpy()
    step = Step(batch, every[:1], every, torch.zeros(1, hidden_width))
    return decoder.logits(decoder.forward(step)).clone()


def measure(directory: Path, parts: list[list[int]], say: Say) -> Record:
    """The raw values of the reference and of our modes, place by place."""
    width = DecoderConfig.read(directory).hidden
    say("fp32 on the weights of the file")
    reference = open_decoder(directory, FileWeights(packaged_model()), "torch", "bf16", say)
    right = [logits_of(reference, part, width) for part in parts]
    del reference
    record: Record = {
        "bench": "accuracy",
        "part_tokens": PART,
        "tokens": [token for part in parts for token in part],
        "reference": {"best": _best(right), "loss": _losses(right, parts)},
        "engines": {},
    }
    for numeric in NUMERICS:
        say(numeric)
        decoder = open_decoder(directory, Weights(directory), "auto", numeric, say)
        found = [logits_of(decoder, part, width) for part in parts]
        record["engines"][numeric] = _compared(found, right) | {"loss": _losses(found, parts)}
    return record


def _compared(found: list[torch.Tensor], right: list[torch.Tensor]) -> Record:
    largest: list[float] = []
    mean: list[float] = []
    divergence: list[float] = []
    for ours, theirs in zip(found, right, strict=True):
        difference = (ours - theirs).abs()
        largest += difference.amax(dim=-1).tolist()
        mean += difference.mean(dim=-1).tolist()
        wide = theirs.double().log_softmax(dim=-1)
        apart = wide.exp() * (wide - ours.double().log_softmax(dim=-1))
        divergence += apart.sum(dim=-1).tolist()
    return {"best": _best(found), "largest": largest, "mean": mean, "divergence": divergence}


def _best(parts: list[torch.Tensor]) -> list[int]:
    return [int(token) for part in parts for token in part.argmax(dim=-1)]


def _losses(found: list[torch.Tensor], parts: list[list[int]]) -> list[float | None]:
    """Of the next token at each place; nothing is told of what follows a part."""
    losses: list[float | None] = []
    for logits, tokens in zip(found, parts, strict=True):
        chances = logits[:-1].log_softmax(dim=-1)
        losses += (-chances[range(len(tokens) - 1), tokens[1:]]).tolist()
        losses.append(None)
    return losses


def text_parts(directory: Path) -> list[list[int]]:
    """Whole parts only."""
    tokens = Tokenizer.from_file(directory / "tokenizer.json").encode(TEXT.read_text("utf-8"))
    return [list(tokens[start : start + PART]) for start in range(0, len(tokens) - PART + 1, PART)]


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="pie-trio bench engine --accuracy", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a part of the text only")
    parser.add_argument("--only", action="append", help="this other engine only; may be repeated")
    parser.add_argument("--json", type=Path, help="write raw values and bars there too")
    options = parser.parse_args(arguments)

    def say(text: str) -> None:
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()

    directory = ModelStore(Home.default().models).open(DEFAULT_MODEL).path
    parts = text_parts(directory)[: PARTS_QUICK if options.quick else None]
    record = measure(directory, parts, say)
    record["engines"] |= peers(parts, options.only or ASKED, say)
    record["bars"] = bars(record)
    sys.stdout.write(render(record))
    if options.json is not None:
        options.json.write_text(json.dumps(record) + "\n", "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
