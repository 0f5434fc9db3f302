"""The arithmetic in C.

Owns the choice of what it covers, and where packed weights are kept from one start to the next.
Weights are packed once and read as such for any number of rows, so that logits depend on the
composition of a batch by fp32 rounding alone.
It must never be made for a shape that the kernels do not cover (`covers`).
"""

from pathlib import Path

from gpu_worker.kernels import Parameters
from gpu_worker.models.config import DecoderConfig
from gpu_worker.native.decoder import NativeDecoder
from gpu_worker.native.library import Library
from gpu_worker.native.memory import PAGE_SIZE
from gpu_worker.native.packed import key_of, packed_at
from gpu_worker.weights import FILE

LANES = 8
WIDTH_MAX = 256  # of a head, as in source/attention.h


def covers(config: DecoderConfig, page_size: int) -> bool:
    width = config.head_width
    return page_size == PAGE_SIZE and width % LANES == 0 and width <= WIDTH_MAX


class NativeKernels:
    """One compiled variant."""

    def __init__(
        self,
        library: Library,
        variant: str,
        numeric: str = "bf16",
        model: Path | None = None,
    ) -> None:
        """What is packed is kept beside the weights of `model`; none: nowhere."""
        self.name = variant
        self._library, self._numeric, self._model = library, numeric, model

    def decoder(
        self, config: DecoderConfig, parameters: Parameters, pages: int, page_size: int
    ) -> NativeDecoder:
        assert covers(config, page_size), "kernels are chosen for shapes that they cover"
        numeric = self._numeric
        with packed_at(*self._kept()) as packed:
            return NativeDecoder(self._library, config, parameters, pages, packed, numeric)

    def _kept(self) -> tuple[Path | None, str]:
        if self._model is None:
            return None, ""
        key = key_of(self._model / FILE, self._library.name, self._numeric)
        return self._model / f"packed-{self._numeric}.bin", key
