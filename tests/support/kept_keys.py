"""Run by itself with a variant's name: attends in a context of which only what is kept exists.

Pages that no row sees have a number that leads far out of memory: this process dies of the first
look at one.
"""

from __future__ import annotations

import sys

import numpy as np

from gpu_worker.kernels import Step
from gpu_worker.models.config import DecoderConfig, Rope
from gpu_worker.native.build import loaded_kernels
from gpu_worker.native.decoder import NativeDecoder
from gpu_worker.native.library import Library
from gpu_worker.wire import Batch, BatchArrays, Request, decode, encode
from pie_trio.home import Home
from tests.support.bare_decoder import bare_decoder

PAGE, CONTEXT, PAGES = 16, 2048, 16
NOWHERE = 2**31 - 1  # a page behind all addresses that there are
HEADS, KEY_HEADS, WIDTH = 9, 3, 64


def decoder_of(variant: str) -> NativeDecoder:
    config = DecoderConfig(100, 64, 1, HEADS, KEY_HEADS, WIDTH, 1e-5, True, Rope(10_000.0))
    library = loaded_kernels(Home.default().root / "kernels", variant, Library)
    return bare_decoder(library, config, np.zeros(WIDTH // 2, np.float32), PAGES)


def step_of(mask: list[list[int]]) -> Step:
    """The last rows of the context; the pages that they see, and no other, exist."""
    kept = sorted({slot // PAGE for row in mask for slot in _slots(row)})
    pages = [NOWHERE] * (CONTEXT // PAGE)
    for number, page in enumerate(kept):
        pages[page] = number
    own = range(CONTEXT - len(mask), CONTEXT)
    request = Request([0] * len(mask), own, pages, PAGE, mask, [], [], 0)
    batch = decode(encode(Batch(1, 1, (), (request,))))
    assert isinstance(batch, BatchArrays)
    return Step(batch, np.array([0]), np.arange(len(mask)), np.zeros(0, np.float32))


def _slots(row: list[int]) -> list[int]:
    pairs = zip(row[::2], row[1::2], strict=True)
    return [slot for start, stop in pairs for slot in range(start, stop)]


MASKS = (
    [[CONTEXT - 64, CONTEXT]],
    [[0, 4, 1000, 1001, CONTEXT - 64, CONTEXT]],
    [[at - 63, at + 1] for at in range(CONTEXT - 32, CONTEXT)],
)


def main(variant: str) -> None:
    decoder = decoder_of(variant)
    for mask in MASKS:
        joined = np.ones((len(mask), (HEADS + 2 * KEY_HEADS) * WIDTH), np.float32)
        assert np.isfinite(decoder.attend(0, joined, step_of(mask))).all()
    sys.stdout.write(f"attended {len(MASKS)} times\n")


if __name__ == "__main__":
    main(sys.argv[1])
