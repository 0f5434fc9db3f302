"""The samplers against the distributions that they promise, by chi-square with fixed seeds."""

from __future__ import annotations

import pytest
import torch

from gpu_worker.mixing import mix, uniform
from gpu_worker.sampler import Choice, sample
from gpu_worker.wire import OutputRow, SamplerKind

DRAWS = 4000
LOGITS = torch.tensor([2.0, 1.0, 0.5, 0.0, -0.5, -1.0, -2.0, 1.5])
# The 99.9 % points of the chi-square distribution for 1 to 7 degrees of freedom.
CHI_SQUARE_MAX = (0.0, 10.83, 13.82, 16.27, 18.47, 20.52, 22.46, 24.32)


def expected(kind: SamplerKind, temperature: float) -> torch.Tensor:
    """The probabilities by definition, written another way than the sampler's."""
    p = (LOGITS / temperature).softmax(-1)
    order = p.argsort(descending=True).tolist()
    match kind:
        case SamplerKind.MULTINOMIAL:
            kept = order
        case SamplerKind.TOP_K:
            kept = order[:3]
        case SamplerKind.MIN_P:
            kept = [token for token in order if p[token] >= 0.3 * p.max()]
        case SamplerKind.TOP_P:
            kept = nucleus(p, order, 0.8)
        case SamplerKind.TOP_K_TOP_P:
            top = order[:4]
            kept = nucleus(p / p[top].sum(), top, 0.7)
    weights = torch.zeros(len(p))
    weights[kept] = p[kept]
    return weights / weights.sum()


def nucleus(p: torch.Tensor, order: list[int], share: float) -> list[int]:
    kept: list[int] = []
    for token in order:
        kept.append(token)
        if float(p[kept].sum()) >= share:
            break
    return kept


def draw(output: OutputRow, seeds: range, logits: torch.Tensor = LOGITS) -> list[object]:
    choices = [Choice(output, seed) for seed in seeds]
    return list(sample(logits.expand(len(choices), -1), choices, 8))


@pytest.mark.parametrize("temperature", [0.6, 1.0, 1.7])
@pytest.mark.parametrize("kind", [k for k in SamplerKind if k is not SamplerKind.DISTRIBUTION])
def test_draws_follow_the_promised_distribution(kind: SamplerKind, temperature: float) -> None:
    promised = expected(kind, temperature)
    top_k = 3 if kind is SamplerKind.TOP_K else 4
    top_p = 0.8 if kind is SamplerKind.TOP_P else 0.7
    output = OutputRow(0, kind, temperature, top_k=top_k, top_p=top_p, min_p=0.3)
    drawn = draw(output, range(DRAWS))
    counts = torch.tensor([drawn.count(token) for token in range(len(LOGITS))]).float()
    possible = promised > 0
    assert counts[~possible].sum() == 0, "a token was drawn that is excluded"
    wanted = promised[possible] * DRAWS
    chi_square = float(((counts[possible] - wanted) ** 2 / wanted).sum())
    assert chi_square < max(CHI_SQUARE_MAX[int(possible.sum()) - 1], 1e-6)


def test_top_p_sorts_the_whole_vocabulary_when_its_head_is_not_enough() -> None:
    flat = torch.zeros(5000)
    drawn = draw(OutputRow(0, SamplerKind.TOP_P, 1.0, top_p=0.9), range(600), flat)
    assert len(set(map(str, drawn))) > 500


@pytest.mark.parametrize("kind", [k for k in SamplerKind if k is not SamplerKind.DISTRIBUTION])
def test_temperature_nought_is_the_argmax(kind: SamplerKind) -> None:
    output = OutputRow(0, kind, 0.0, top_k=5, top_p=0.9, min_p=0.01)
    assert set(map(str, draw(output, range(50)))) == {"0"}


def test_a_cold_distribution_has_all_its_weight_on_the_argmax_and_keeps_the_order() -> None:
    (result,) = draw(OutputRow(0, SamplerKind.DISTRIBUTION, 0.0, top_k=4), range(1))
    assert result == ([0, 7, 1, 2], [1.0, 0.0, 0.0, 0.0])


@pytest.mark.parametrize("count", [1, 7, 40, 300, 5001])
def test_the_top_of_a_large_vocabulary_falls_and_of_equal_logits_the_first_come_first(
    count: int,
) -> None:
    torch.manual_seed(count)
    logits = (torch.randn(5001) * 4).round()
    output = OutputRow(0, SamplerKind.DISTRIBUTION, 1.0, top_k=count)
    ((ids, probabilities),) = sample(logits[None], [Choice(output, 0)], 6000)
    order = sorted(range(5001), key=lambda token: (-float(logits[token]), token))
    assert ids == order[:count]
    assert probabilities == pytest.approx(logits.double().softmax(-1)[ids].tolist(), rel=1e-4)


def test_limits_of_nought_mean_no_limit() -> None:
    for kind in (SamplerKind.TOP_K, SamplerKind.TOP_K_TOP_P):
        open_ended = draw(OutputRow(0, kind, 1.0), range(100))
        assert open_ended == draw(OutputRow(0, SamplerKind.MULTINOMIAL, 1.0), range(100))


def test_a_seed_and_a_row_name_one_number() -> None:
    assert mix(0, 0) == 0xE220A8397B1DCDAF, "the first output of splitmix64 for seed 0"
    assert len({mix(seed, row) for seed in range(50) for row in range(50)}) == 2500
    assert all(0 <= uniform(2**64 - 1, row) < 1 for row in range(100))
