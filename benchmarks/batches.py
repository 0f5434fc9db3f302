"""Batches for a bare worker: what as many guests would ask for, without any of them.

Each sequence owns neighbouring pages; greedy, and one token is asked for a sequence. Nothing here
sends anything.
"""

from __future__ import annotations

from gpu_worker import wire


def plain_requests(
    sequences: int, rows: int, total: int, page: int, tokens_most: int
) -> tuple[wire.Request, ...]:
    """The requests of a step in which each sequence appends `rows` tokens up to `total`; it has
    pages for `tokens_most`.
    """
    most, count = -(-tokens_most // page), -(-total // page)
    output = wire.OutputRow(rows - 1, wire.SamplerKind.MULTINOMIAL, 0.0)
    return tuple(
        wire.Request(
            tokens=tuple(range(100, 100 + rows)),
            positions=tuple(range(total - rows, total)),
            pages=tuple(range(place * most, place * most + count)),
            last_page_length=total - (count - 1) * page,
            mask=None,
            outputs=(output,),
            embed_outputs=(),
            seed=0,
        )
        for place in range(sequences)
    )
