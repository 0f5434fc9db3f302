"""`pie-trio bench engine --accuracy`: how exact each numeric mode is, beside other engines.

    python -m benchmarks.accuracy [--quick] [--only NAME] [--json FILE]

The measure is fp32 arithmetic in plain torch on the weights as the model's own GGUF file means
them, rounded nowhere. A text of ours is read in parts of PART tokens; at every place our modes'
logits are compared. Other engines tell no logits: theirs are agreement and perplexity. An engine a
call is enough: what FILE holds of the same text and weights is kept, and written after each engine.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.accuracy_peers import ASKED, answers
from benchmarks.accuracy_report import render
from benchmarks.bars.accuracy import bars
from gpu_worker.bf16 import Wide
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
PARTS, PARTS_QUICK = 14, 4  # all of the text; with every engine under 5 minutes on two cores
FAILED = 5  # the exit code when a bar does not hold
DEPARTURES = ("best", "largest", "mean", "divergence", "loss")
Say = Callable[[str], object]
Record = dict[str, Any]


class FileWeights(Weights):
    """The numbers that the blocks of a GGUF file mean, in fp32."""

    def __init__(self, path: Path) -> None:
        self._sources = {tensor.name: tensor for tensor in read_gguf(path).tensors}
        self.names = frozenset(self._sources)

    def stored(self, name: str) -> Wide:
        return self._sources[name].wide()


def open_decoder(directory: Path, weights: Weights, mode: str, numeric: str) -> Decoder:
    config = DecoderConfig.read(directory)
    choice = KernelChoice(mode, Home.default().root / "kernels", sys.stderr.write, numeric)
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
    every = np.arange(len(tokens))
    step = Step(batch, every[:1], every, np.zeros((1, hidden_width), np.float32))
    return torch.from_numpy(decoder.logits(decoder.forward(step)))


@torch.inference_mode()
def measure(directory: Path, parts: list[list[int]], numerics: Sequence[str]) -> Record:
    """The raw values of the reference and of our modes, place by place. One part at a time: the
    logits of the whole text would fill a gigabyte."""
    width = DecoderConfig.read(directory).hidden
    reference = open_decoder(directory, FileWeights(packaged_model()), "torch", "bf16")
    ours = {each: open_decoder(directory, Weights(directory), "auto", each) for each in numerics}
    record: Record = {"reference": {"best": [], "loss": []}, "engines": {}}
    for numeric in numerics:
        record["engines"][numeric] = {name: [] for name in DEPARTURES}
    for part in parts:
        right = logits_of(reference, part, width)
        chances = right.double().log_softmax(dim=-1)
        _append(record["reference"], {"best": best(right), "loss": losses(chances, part)})
        for numeric, decoder in ours.items():
            found = logits_of(decoder, part, width)
            _append(record["engines"][numeric], departures(found, right, chances, part))
    return record


def _append(told: Record, news: Record) -> None:
    for name, values in news.items():
        told[name] += values


def departures(
    found: torch.Tensor, right: torch.Tensor, chances: torch.Tensor, tokens: Sequence[int]
) -> Record:
    """How far logits are from the right ones, whose log-softmax is `chances`, at each place."""
    difference = (found - right).abs()
    ours = found.double().log_softmax(dim=-1)
    return {
        "best": best(found),
        "largest": difference.amax(dim=-1).tolist(),
        "mean": difference.mean(dim=-1).tolist(),
        "divergence": (chances.exp() * (chances - ours)).sum(dim=-1).tolist(),
        "loss": losses(ours, tokens),
    }


def best(logits: torch.Tensor) -> list[int]:
    return [int(token) for token in logits.argmax(dim=-1)]


def losses(chances: torch.Tensor, tokens: Sequence[int]) -> list[float | None]:
    """Of the next token at each place; nothing is told of what follows a part."""
    after = list(tokens[1:])
    return [*(-chances[range(len(after)), after]).tolist(), None]


def text_parts(directory: Path) -> list[list[int]]:
    """Whole parts only."""
    tokens = Tokenizer.from_file(directory / "tokenizer.json").encode(TEXT.read_text("utf-8"))
    return [list(tokens[start : start + PART]) for start in range(0, len(tokens) - PART + 1, PART)]


def identity_of(parts: list[list[int]]) -> Record:
    """What a record must share with an earlier one to be continued."""
    with packaged_model().open("rb") as file:
        weights = hashlib.file_digest(file, "sha256").hexdigest()
    tokens = [token for part in parts for token in part]
    return {"bench": "accuracy", "part_tokens": PART, "tokens": tokens, "weights_sha256": weights}


def continued(path: Path | None, identity: Record, say: Say) -> Record:
    """The record that lies there, if it is of the same text and weights; else one without any."""
    if path is not None and path.exists():
        record: Record = json.loads(path.read_text("utf-8"))
        if all(record.get(name) == value for name, value in identity.items()):
            return record
        say(f"{path} is of another text or other weights, and is written anew")
    return identity | {"engines": {}}


def main(arguments: Sequence[str]) -> int:
    options = _parser().parse_args(arguments)

    def say(text: str) -> None:
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()

    directory = ModelStore(Home.default().models).open(DEFAULT_MODEL).path
    parts = text_parts(directory)[: PARTS_QUICK if options.quick else PARTS]
    record = continued(options.json, identity_of(parts), say)
    asked = options.only or [*NUMERICS, *ASKED]
    for news in _measured(directory, parts, asked, "reference" in record, say):
        record["engines"] |= news.pop("engines")
        record |= news
        record["bars"] = bars(record)
        if options.json is not None:
            options.json.write_text(json.dumps(record) + "\n", "utf-8")
    sys.stdout.write(render(record))
    return 0 if options.only or all(bar["holds"] for bar in record["bars"]) else FAILED


def _measured(
    directory: Path, parts: list[list[int]], asked: list[str], has_reference: bool, say: Say
) -> Iterator[Record]:
    numerics = [name for name in NUMERICS if name in asked]
    if numerics or not has_reference:
        say(" and ".join([*numerics, "fp32 on the weights of the file"]))
        yield measure(directory, parts, numerics)
    for name in asked:
        if name not in NUMERICS:
            say(name)
            yield {"engines": {name: answers(parts, name)}}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="pie-trio bench engine --accuracy", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a part of the text only")
    parser.add_argument(
        "--only",
        action="append",
        choices=(*NUMERICS, *ASKED),
        metavar="NAME",
        help="this engine only, of " + ", ".join((*NUMERICS, *ASKED)) + "; may be repeated",
    )
    parser.add_argument("--json", type=Path, help="add raw values and bars to those there")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
