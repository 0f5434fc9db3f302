"""Attention in plain torch: gather the places that a group reads, then one fused call.

Owns no state. It is the reference path, and the one for machines without the kernels.
It must never let what lies in a hidden place reach a result: a row that sees nothing gives noughts
(torch's fused call does so for a mask of booleans; a test holds it to that).
"""

import torch
import torch.nn.functional as F

from gpu_worker.attention.plan import Group, Plan
from gpu_worker.kv_cache import KvCache


def attend(cache: KvCache, layer: int, queries: torch.Tensor, plan: Plan) -> torch.Tensor:
    """queries and the result are [row, head, dimension]; the rows' keys are in the cache."""
    result = torch.empty_like(queries)
    keys, values = cache.keys[layer], cache.values[layer]
    for group in plan.groups:
        result[group.rows.ravel()] = _attend_group(keys, values, queries, group)
    return result


def _attend_group(
    keys: torch.Tensor, values: torch.Tensor, queries: torch.Tensor, group: Group
) -> torch.Tensor:
    requests, rows = group.rows.shape
    heads, width = queries.shape[1:]
    key_heads = keys.shape[1]
    share = heads // key_heads  # query heads that read the same key head
    slots = group.places.shape[1]
    flat = group.places.ravel()
    gathered_keys = keys.index_select(0, flat).view(requests, slots, key_heads, width)
    gathered_values = values.index_select(0, flat).view(requests, slots, key_heads, width)
    # The query heads of one key head become rows: [request, key head, share * row, dimension].
    grouped = queries[group.rows].view(requests, rows, key_heads, share, width)
    attended = F.scaled_dot_product_attention(
        grouped.permute(0, 2, 3, 1, 4).reshape(requests, key_heads, share * rows, width),
        gathered_keys.transpose(1, 2),
        gathered_values.transpose(1, 2),
        attn_mask=group.seen.repeat(1, share, 1)[:, None],
    ).view(requests, key_heads, share, rows, width)
    result = attended.permute(0, 3, 1, 2, 4).reshape(requests, rows, heads, width)
    return result.reshape(requests * rows, heads, width)
