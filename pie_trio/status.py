"""The figures that the query `model_status` answers: read-only views of the models."""

from __future__ import annotations

from collections.abc import Mapping

from pie_trio.messages import ResourceKind
from pie_trio.served_model import ServedModel

Figure = int | float | str | list[int]


def model_status(models: Mapping[str, ServedModel]) -> dict[str, Figure]:
    """Flat, with keys `<model>.<figure>`; a model without a worker has no pages."""
    return {
        f"{name}.{figure}": value
        for name, model in models.items()
        for figure, value in _figures(model).items()
    }


def _figures(model: ServedModel) -> dict[str, Figure]:
    generation = model.generation
    if generation is None:
        return {"kv_pages_total": 0, "kv_pages_used": 0, "generation": 0}
    books = generation.manager.pools[ResourceKind.KV_PAGE].books()
    counts = generation.loop.counts
    return {
        "generation": generation.number,
        "numeric": model.facts.numeric,
        "instances": len(generation.residents),
        "kv_pages_total": books.capacity,
        "kv_pages_used": books.capacity - books.free,
        "kv_pages_owned": books.owned,
        "kv_pages_exported": books.exported,
        "kv_pages_pinned": books.pinned,
        "total_batches": counts.batches,
        "total_tokens_processed": counts.rows,
        "total_requests_processed": counts.passes,
        "max_forward_requests_observed": max(len(counts.sizes) - 1, 0),
        "batch_size_hist": list(counts.sizes),
        "last_batch_latency_us": int(counts.last_seconds * 1e6),
        "cumulative_batch_latency_us": int(counts.total_seconds * 1e6),
        "avg_batch_latency_us": int(counts.total_seconds * 1e6 / max(counts.batches, 1)),
    }
