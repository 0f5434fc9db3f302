"""A decoder in C of whose parts only attention is looked at: its weights are noughts.

It imports no torch, so that a process which may die of it starts at once.
"""

from __future__ import annotations

import numpy as np

from gpu_worker.bf16 import Wide
from gpu_worker.kernels import LayerParameters, Parameter, Parameters
from gpu_worker.models.config import DecoderConfig
from gpu_worker.native.decoder import NativeDecoder
from gpu_worker.native.library import Library
from gpu_worker.native.packed import Packed


def bare_decoder(
    library: Library, config: DecoderConfig, frequencies: Wide, pages: int
) -> NativeDecoder:
    norm = np.ones(config.hidden, np.float32)
    some = Parameter(np.zeros((config.hidden, config.hidden), np.float32))
    layer = LayerParameters(norm, some, some, norm, some, some)
    layers = iter([layer] * config.layers)
    parameters = Parameters(some.weight, frequencies, layers, norm, some)
    return NativeDecoder(library, config, parameters, pages, Packed(None))
