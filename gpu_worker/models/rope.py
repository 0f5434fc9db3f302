"""Rotary position embedding: how far each position turns each pair of dimensions.

Owns the frequencies, with the scalings `linear` and `llama3`, in fp32 as models are trained.
It must never import torch: a worker with compiled kernels starts without it.
"""

import math

import numpy as np

from gpu_worker.bf16 import Wide
from gpu_worker.models.config import Rope


def frequencies(rope: Rope, width: int) -> Wide:
    """One angle per position and pair of dimensions."""
    exponents = np.arange(0, width, 2, dtype=np.float32) / np.float32(width)
    powers = np.power(rope.theta, exponents, dtype=np.float64)  # rounded as torch rounds them
    plain: Wide = np.float32(1) / powers.astype(np.float32)
    match rope.kind:
        case "default":
            return plain
        case "linear":
            return np.divide(plain, rope.factor, dtype=np.float32)
        case "llama3":
            return _llama3(plain, rope)
    raise ValueError(f"rope type {rope.kind!r} is not supported")


def _llama3(plain: Wide, rope: Rope) -> Wide:
    """Long waves are stretched, short ones stay, and those between are mixed."""
    low, high = rope.low_frequency_factor, rope.high_frequency_factor
    turns = rope.original_positions * plain / (2 * math.pi)
    share = ((turns - low) / (high - low)).clip(0.0, 1.0)
    mixed = (1 - share) * plain / rope.factor + share * plain
    return mixed.astype(np.float32)
