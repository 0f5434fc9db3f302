"""The samplers against the distributions that they promise, by chi-square with fixed seeds; and
adjustments and log-probabilities by their definition.
"""

from __future__ import annotations

import attrs
import numpy as np
import pytest
import torch

from gpu_worker.mixing import mix, uniform
from gpu_worker.sampler import Choice, sample
from gpu_worker.wire import ADDEND_MAX, OutputRow, SamplerKind, pack_adjustments

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
    rows = np.repeat(logits.numpy()[None], len(choices), axis=0)
    return [result[0] for result in sample(rows, choices, 8)]


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
    (((ids, probabilities),),) = sample(logits[None].numpy(), [Choice(output, 0)], 6000)  # type: ignore[misc]
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


RECORDS = ((0, 2.0, 0.25), (5, 1.5, 0.0), (3, 4.0, -0.5), (7, 1.0, 3.0))
# Token 0 is above nought and divided, 5 below and multiplied, 3 is nought.
CHANGED = torch.tensor([1.25, 1.0, 0.5, -0.5, -0.5, -1.5, -2.0, 4.5])


@pytest.mark.parametrize("kind", [k for k in SamplerKind if k is not SamplerKind.DISTRIBUTION])
def test_adjusted_logits_are_drawn_from_as_if_the_model_had_given_them(kind: SamplerKind) -> None:
    for temperature in (0.0, 0.8):
        plain = OutputRow(0, kind, temperature, top_k=5, top_p=0.9, min_p=0.05)
        adjusted = attrs.evolve(plain, adjustments=pack_adjustments(RECORDS))
        assert draw(adjusted, range(300)) == draw(plain, range(300), CHANGED)


def test_the_distribution_of_adjusted_logits_is_theirs() -> None:
    plain = OutputRow(0, SamplerKind.DISTRIBUTION, 1.0, top_k=8)
    adjusted = attrs.evolve(plain, adjustments=pack_adjustments(RECORDS))
    assert draw(adjusted, range(1)) == draw(plain, range(1), CHANGED)


def test_who_adjusts_nothing_is_sampled_beside_who_does_as_alone() -> None:
    plain = OutputRow(0, SamplerKind.MULTINOMIAL, 1.0)
    adjusted = attrs.evolve(plain, adjustments=pack_adjustments(RECORDS))
    both = [Choice(output, seed) for seed in range(200) for output in (plain, adjusted)]
    drawn = [result[0] for result in sample(np.repeat(LOGITS.numpy()[None], 400, axis=0), both, 8)]
    assert drawn[::2] == draw(plain, range(200))
    assert drawn[1::2] == draw(adjusted, range(200))


def test_a_token_that_is_pushed_down_far_enough_is_never_drawn() -> None:
    banned = pack_adjustments((token, 1.0, -ADDEND_MAX) for token in range(7))
    for kind in (SamplerKind.MULTINOMIAL, SamplerKind.TOP_P, SamplerKind.MIN_P):
        output = OutputRow(0, kind, 5.0, top_p=0.99, min_p=0.0, adjustments=banned)
        assert set(map(str, draw(output, range(300)))) == {"7"}


@pytest.mark.parametrize("temperature", [0.0, 2.0])
def test_log_probabilities_are_the_models_own_whatever_is_adjusted(temperature: float) -> None:
    expected = LOGITS.double().log_softmax(-1)
    adjusted = pack_adjustments(RECORDS)
    output = OutputRow(0, SamplerKind.MULTINOMIAL, temperature, logprobs=4, adjustments=adjusted)
    for token, (ids, values) in sample(  # type: ignore[misc]
        np.repeat(LOGITS.numpy()[None], 20, axis=0),
        [Choice(output, seed) for seed in range(20)],
        8,
    ):
        assert ids == [token, 0, 7, 1]
        assert values == pytest.approx(expected[ids].tolist(), abs=1e-6)
    own = attrs.evolve(output, logprobs=1)
    ((token, (ids, _)),) = sample(LOGITS[None].numpy(), [Choice(own, 0)], 8)  # type: ignore[misc]
    assert ids == [token]
