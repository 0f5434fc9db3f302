"""From logits to tokens, distributions and log-probabilities.

Owns the six samplers. Temperature nought is the argmax, exactly, for every one that draws a token.
Adjustments change the logits before any sampler sees them, and a constraint says which of them
there are; log-probabilities are those of the model itself, at temperature one, whatever was
adjusted. A draw is the inverse of the cumulated weights at a number that depends on the seed and
the row alone, so a seed gives the same token whatever else is in the batch.
It must never hold a random state, nor import torch.
"""

import math
from collections.abc import Sequence

import attrs
import numpy as np

from gpu_worker.bf16 import Wide
from gpu_worker.mixing import uniform
from gpu_worker.wire import OutputRow, SamplerKind
from gpu_worker.wire.arrays import Array
from gpu_worker.wire.outputs import ADJUSTMENT_KIND

COLDEST = 1e-6  # what a temperature below it means, nought for a distribution included
HEAD_FIRST = 256  # top-p looks among so many before it sorts the whole vocabulary
GROUP = 64  # neighbouring tokens of which only the best is compared at first

Distribution = tuple[list[int], list[float]]
Result = tuple[int | Distribution, ...]  # a token, a distribution, or a token and its list


@attrs.frozen
class Choice:
    """One wanted output and the seed of its request."""

    output: OutputRow
    seed: int
    allowed: Array | None = None  # the tokens from which is chosen, rising; none: from all


def sample(logits: Wide, choices: Sequence[Choice], distribution_max: int) -> list[Result]:
    """One result for each choice; logits has one finite row for each."""
    with np.errstate(over="ignore"):  # a cold draw divides by next to nothing
        return _sample(logits, choices, distribution_max)


def _sample(logits: Wide, choices: Sequence[Choice], distribution_max: int) -> list[Result]:
    adjusted = _adjusted(logits, choices)
    best: list[int] = adjusted.argmax(axis=-1).tolist()
    results: list[Result] = []
    for place, (choice, greedy) in enumerate(zip(choices, best, strict=True)):
        output, row, allowed = choice.output, adjusted[place], choice.allowed
        if allowed is not None:
            row = row[allowed]
            greedy = int(row.argmax())
        if output.kind is SamplerKind.DISTRIBUTION:
            head = _distribution(row, output, distribution_max)
            results.append((_named(head, allowed),))
            continue
        token = greedy if output.temperature == 0 else _draw(row, row[greedy], choice)
        token = token if allowed is None else int(allowed[token])
        if output.logprobs:
            results.append((token, _logprobs(logits[place], token, output.logprobs - 1)))
        else:
            results.append((token,))
    return results


def _named(head: Distribution, allowed: Array | None) -> Distribution:
    """With tokens in place of their ranks among those that are allowed."""
    ids, shares = head
    return (ids if allowed is None else allowed[ids].tolist()), shares


def _adjusted(logits: Wide, choices: Sequence[Choice]) -> Wide:
    """The logits that are sampled from; the model's own are left as they are."""
    places = [place for place, choice in enumerate(choices) if choice.output.adjustments]
    if not places:
        return logits
    adjusted = logits.copy()
    for place in places:
        records = np.frombuffer(choices[place].output.adjustments, ADJUSTMENT_KIND)
        tokens, factors, addends = (records[name] for name in ("f0", "f1", "f2"))
        ours = logits[place, tokens]
        adjusted[place, tokens] = np.where(ours > 0, ours / factors, ours * factors) + addends
    return adjusted


def _logprobs(logits: Wide, token: int, count: int) -> Distribution:
    """Of the token and of so many of the likeliest."""
    ids = [token, *(_top(logits, count).tolist() if count else ())]
    greatest = logits.max()
    total = float(np.exp(logits - greatest).sum(dtype=np.float64))
    return ids, (logits[ids] - (float(greatest) + math.log(total))).tolist()


def _distribution(logits: Wide, output: OutputRow, distribution_max: int) -> Distribution:
    count = min(output.top_k or distribution_max, distribution_max, len(logits))
    ids = _top(logits, count)
    greatest, heat = logits[ids[0]], output.temperature
    weights = _weights(logits[ids], greatest, heat)
    total = _weights(logits, greatest, heat).sum(dtype=np.float64)
    return ids.tolist(), (weights / total).tolist()


def _draw(logits: Wide, greatest: np.float32, choice: Choice) -> int:
    weights, ids = _kept(logits, greatest, choice.output)
    cumulated = weights.cumsum(dtype=np.float64)
    at = uniform(choice.seed, choice.output.row) * float(cumulated[-1])
    drawn = min(int(cumulated.searchsorted(at, side="right")), len(cumulated) - 1)
    return drawn if ids is None else int(ids[drawn])


def _weights(logits: Wide, greatest: np.float32, heat: float) -> Wide:
    """The softmax but for a common factor; the greatest has weight one."""
    scaled = (logits - greatest) / np.float32(max(heat, COLDEST))
    weights: Wide = np.exp(scaled, out=scaled)
    return weights


def _kept(logits: Wide, greatest: np.float32, output: OutputRow) -> tuple[Wide, Array | None]:
    """The weights to draw from, and the ids that they belong to (none: all, in order)."""
    heat = output.temperature
    match output.kind:
        case SamplerKind.TOP_P if output.top_p < 1:
            return _top_p(logits, greatest, output)
        case SamplerKind.TOP_K if output.top_k:
            ids = _top(logits, output.top_k)
            return _weights(logits[ids], greatest, heat), ids
        case SamplerKind.MIN_P:
            weights = _weights(logits, greatest, heat)
            ids = (weights >= output.min_p).nonzero()[0]
            return weights[ids], ids
        case SamplerKind.TOP_K_TOP_P if output.top_k:
            ids = _top(logits, output.top_k)
            weights = _weights(logits[ids], greatest, heat)
            kept = _nucleus(weights, output.top_p * float(weights.sum(dtype=np.float64)))
            return weights[:kept], ids[:kept]
        case SamplerKind.TOP_K_TOP_P if output.top_p < 1:
            return _top_p(logits, greatest, output)
    return _weights(logits, greatest, heat), None


def _top(logits: Wide, count: int) -> Array:
    """The ids of the greatest logits, falling; of equal ones the first."""
    count = min(count, len(logits))
    groups = len(logits) // GROUP
    if count > groups:
        return _falling(logits)[:count]
    # Each of the best `count` groups has a logit that is at least the last of their maxima.
    best = logits[: groups * GROUP].reshape(groups, GROUP).max(axis=1)
    least = np.partition(best, groups - count)[groups - count]
    ids = (logits >= least).nonzero()[0]
    found: Array = ids[_falling(logits[ids])[:count]]
    return found


def _falling(values: Wide) -> Array:
    return np.argsort(-values, kind="stable")


def _top_p(logits: Wide, greatest: np.float32, output: OutputRow) -> tuple[Wide, Array]:
    all_weights = _weights(logits, greatest, output.temperature)
    share = output.top_p * float(all_weights.sum(dtype=np.float64))
    ids = _top(logits, HEAD_FIRST)
    if float(all_weights[ids].sum(dtype=np.float64)) < share:
        ids = _top(logits, len(logits))
    weights = all_weights[ids]
    kept = _nucleus(weights, share)
    return weights[:kept], ids[:kept]


def _nucleus(weights: Wide, share: float) -> int:
    """How many of the falling weights it takes to reach the share; at least one."""
    cumulated = weights.cumsum(dtype=np.float64)
    return min(int(cumulated.searchsorted(share)) + 1, len(weights))
