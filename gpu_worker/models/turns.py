"""Rotary position embedding in plain torch: the positions enter here, and nowhere else.

Owns no state. Angles are computed for the positions of a batch, so that no table bounds them.
It must never see KV slots: a token's place in the pages and its position are two things.
"""

import torch


def angles(frequency: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """By how much each pair of dimensions of a row is turned: [row, pair]."""
    return positions.to(torch.float32)[:, None] * frequency[None]


def rotate(rows: torch.Tensor, cosine: torch.Tensor, sine: torch.Tensor) -> torch.Tensor:
    """rows [row, head, dimension], each turned by its own position; the others [row, 1, dim.]."""
    first, second = rows.chunk(2, dim=-1)
    return rows * cosine + torch.cat((-second, first), dim=-1) * sine
