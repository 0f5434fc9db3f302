"""Rotary position embedding: the positions enter here, and nowhere else.

Owns the frequencies, with the scalings `linear` and `llama3`. Angles are computed for the positions
of a batch, so that no table bounds them.
It must never see KV slots: a token's place in the pages and its position are two things.
"""

import math

import torch

from gpu_worker.models.config import Rope


def frequencies(rope: Rope, width: int) -> torch.Tensor:
    """One angle per position and pair of dimensions."""
    exponents = torch.arange(0, width, 2, dtype=torch.int64).float() / width
    plain = 1.0 / (rope.theta**exponents)
    match rope.kind:
        case "default":
            return plain
        case "linear":
            return plain / rope.factor
        case "llama3":
            return _llama3(plain, rope)
    raise ValueError(f"rope type {rope.kind!r} is not supported")


def _llama3(plain: torch.Tensor, rope: Rope) -> torch.Tensor:
    """Long waves are stretched, short ones stay, and those between are mixed."""
    low, high = rope.low_frequency_factor, rope.high_frequency_factor
    turns = rope.original_positions * plain / (2 * math.pi)
    share = ((turns - low) / (high - low)).clamp(0.0, 1.0)
    return (1 - share) * plain / rope.factor + share * plain


def angles(frequency: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """By how much each pair of dimensions of a row is turned: [row, pair]."""
    return positions.to(torch.float32)[:, None] * frequency[None]


def rotate(rows: torch.Tensor, cosine: torch.Tensor, sine: torch.Tensor) -> torch.Tensor:
    """rows [row, head, dimension], each turned by its own position; the others [row, 1, dim.]."""
    first, second = rows.chunk(2, dim=-1)
    return rows * cosine + torch.cat((-second, first), dim=-1) * sine
