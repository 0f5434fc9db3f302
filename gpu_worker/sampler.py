"""From logits to tokens and distributions.

Owns the six samplers. Temperature nought is the argmax, exactly, for every one that draws a token.
A draw is the inverse of the cumulated weights at a number that depends on the seed and the row
alone, so a seed gives the same token whatever else is in the batch.
It must never hold a random state.
"""

from collections.abc import Sequence

import attrs
import torch

from gpu_worker.mixing import uniform
from gpu_worker.wire import OutputRow, SamplerKind

COLDEST = 1e-6  # what a temperature of nought means for a distribution
HEAD_FIRST = 1024  # top-p looks among so many before it sorts the whole vocabulary

Distribution = tuple[list[int], list[float]]


@attrs.frozen
class Choice:
    """One wanted output and the seed of its request."""

    output: OutputRow
    seed: int


def sample(
    logits: torch.Tensor, choices: Sequence[Choice], distribution_max: int
) -> list[int | Distribution]:
    """One result for each choice; logits has one row for each."""
    best: list[int] = logits.argmax(dim=-1).tolist()
    results: list[int | Distribution] = []
    for row, choice, greedy in zip(logits, choices, best, strict=True):
        output = choice.output
        if output.kind is SamplerKind.DISTRIBUTION:
            results.append(_distribution(row, output, distribution_max))
        elif output.temperature == 0:
            results.append(greedy)
        else:
            results.append(_draw(row, choice))
    return results


def _distribution(logits: torch.Tensor, output: OutputRow, distribution_max: int) -> Distribution:
    count = min(output.top_k or distribution_max, distribution_max, len(logits))
    ids = logits.topk(count).indices
    probabilities = (logits / max(output.temperature, COLDEST)).softmax(dim=-1)
    return ids.tolist(), probabilities[ids].tolist()


def _draw(logits: torch.Tensor, choice: Choice) -> int:
    probabilities = (logits / choice.output.temperature).softmax(dim=-1)
    weights, ids = _kept(probabilities, choice.output)
    cumulated = weights.to(torch.float64).cumsum(dim=0)
    at = uniform(choice.seed, choice.output.row) * float(cumulated[-1])
    drawn = int(torch.searchsorted(cumulated, at, right=True))
    drawn = min(drawn, len(cumulated) - 1)
    return drawn if ids is None else int(ids[drawn])


def _kept(
    probabilities: torch.Tensor, output: OutputRow
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The weights to draw from, and the ids that they belong to (none: all, in order)."""
    match output.kind:
        case SamplerKind.TOP_K if output.top_k:
            return _top_k(probabilities, output.top_k)
        case SamplerKind.TOP_P if output.top_p < 1:
            return _top_p(probabilities, output.top_p)
        case SamplerKind.MIN_P:
            ids = (probabilities >= output.min_p * probabilities.max()).nonzero().ravel()
            return probabilities[ids], ids
        case SamplerKind.TOP_K_TOP_P if output.top_k:
            weights, ids = _top_k(probabilities, output.top_k)
            kept = _nucleus(weights / weights.sum(), output.top_p)
            return weights[:kept], ids[:kept]
        case SamplerKind.TOP_K_TOP_P if output.top_p < 1:
            return _top_p(probabilities, output.top_p)
    return probabilities, None


def _top_k(probabilities: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    weights, ids = probabilities.topk(min(count, len(probabilities)))
    return weights, ids


def _top_p(probabilities: torch.Tensor, share: float) -> tuple[torch.Tensor, torch.Tensor]:
    weights, ids = _top_k(probabilities, HEAD_FIRST)
    if float(weights.sum()) < share:
        weights, ids = probabilities.sort(descending=True)
    kept = _nucleus(weights, share)
    return weights[:kept], ids[:kept]


def _nucleus(weights: torch.Tensor, share: float) -> int:
    """How many of the falling weights it takes to reach the share; at least one."""
    cumulated = weights.to(torch.float64).cumsum(dim=0)
    return min(int(torch.searchsorted(cumulated, share)) + 1, len(weights))
