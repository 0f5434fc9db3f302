"""Eight-bit weights and rows: the kernels in C hold to the rounding in torch, to the last code.

What is rounded is compared exactly, by products in double precision of what the codes stand for.
How near int8 comes to fp32 on a real model is measured by `pie-trio bench engine --accuracy`.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from gpu_worker.executor import load_executor
from gpu_worker.kernel_choice import KernelChoice
from gpu_worker.models.eight_bits import EightBitLinear, rounded_rows, rounded_weight
from gpu_worker.native.library import Library
from tests.support.kernels import KINDS, VARIANTS, library
from tests.support.tensors import Linear
from tests.support.worker_models import tiny_model
from tests.test_worker_executor import LIMITS, Machine, check_shuffled_batches, machine, part


@pytest.fixture(scope="module", params=VARIANTS)
def lib(request: pytest.FixtureRequest) -> Library:
    torch.manual_seed(12)
    return library(request.param)


def linear_of(lib: Library, weight: torch.Tensor, bias: torch.Tensor | None = None) -> Linear:
    return Linear.pack(lib, weight, bias, numeric="int8")


@pytest.mark.parametrize("outputs", [1, 16, 40, 264])
@pytest.mark.parametrize("depth", [1, 7, 32, 256, 601])
def test_a_product_of_any_number_of_rows_is_that_of_the_codes(
    lib: Library, depth: int, outputs: int
) -> None:
    weight = torch.randn(outputs, depth).bfloat16()
    bias = torch.randn(outputs) if depth % 2 else None
    linear = linear_of(lib, weight, bias)
    wide_bias = None if bias is None else bias.double()
    for rows in (*range(1, 14), 300):
        given = torch.randn(rows, depth) * torch.randn(rows, 1).exp()
        codes = rounded_rows(given).double(), rounded_weight(weight).double()
        expected = F.linear(*codes, wide_bias)
        torch.testing.assert_close(linear(given).double(), expected, rtol=1e-5, atol=1e-4)
        best, finite = linear.best(given)
        assert best.tolist() == linear(given).argmax(dim=-1).tolist()
        assert finite.all()


def test_a_gate_is_that_of_the_codes(lib: Library) -> None:
    weight, given = torch.randn(200, 96).bfloat16(), torch.randn(21, 96)
    gate, up = F.linear(rounded_rows(given), rounded_weight(weight)).chunk(2, dim=-1)
    ours = Linear.pack(lib, weight, is_gate=True, numeric="int8")(given)
    torch.testing.assert_close(ours, F.silu(gate) * up, rtol=1e-4, atol=1e-4)


def test_weights_of_any_size_are_met_and_nought_stays_nought(lib: Library) -> None:
    weight = torch.randn(40, 64)
    sizes = torch.tensor([0.0, 1e-9, 1e-6, 1e-4, 1.0, 1e4])
    weight[: len(sizes)] *= sizes[:, None]
    weight[10], weight[11, :32] = 3.0, 0.0
    linear, one = linear_of(lib, weight.bfloat16()), torch.eye(64)
    expected = rounded_weight(weight.bfloat16()).T
    room = 1e-6 * expected.abs().amax(dim=0)
    assert bool(((linear(one) - expected).abs() <= room).all())
    assert not linear(torch.zeros(2, 64)).any()
    assert bool((linear(one)[:, 10] == 3.0).all())


def test_what_is_no_number_stays_with_its_row(lib: Library) -> None:
    given = torch.randn(3, 40)
    given[1, 5] = float("nan")
    given[2, 0] = float("inf")
    linear = linear_of(lib, torch.randn(64, 40).bfloat16())
    assert linear(given).isfinite().all(dim=-1).tolist() == [True, False, False]
    assert EightBitLinear(torch.randn(64, 40))(given).isfinite().all(dim=-1).tolist() == [
        *(True, False, False)
    ]


def test_a_row_gets_the_same_alone_and_among_others(lib: Library) -> None:
    linear, given = linear_of(lib, torch.randn(70, 600).bfloat16()), torch.randn(17, 600)
    together = linear(given)
    for index, row in enumerate(given):
        assert torch.equal(linear(row[None])[0], together[index])


def test_numbers_of_four_bits_by_blocks_are_met_almost_exactly() -> None:
    """What most files were quantised to: 16 values, evenly apart, for 32 neighbours."""
    codes = torch.randint(0, 16, (50, 4, 32)).float()
    codes[..., 0], codes[..., 1] = 0, 15
    step = torch.rand(50, 4, 1) * 0.01 + 0.001
    weight = (codes * step - 8 * step).flatten(1)
    error = (rounded_weight(weight) - weight).abs().view(50, 4, 32)
    assert bool((error <= 0.02 * step).all())


@pytest.fixture(scope="module", params=KINDS)
def m(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Machine:
    path = tiny_model(tmp_path_factory.mktemp("models"), "blocks")
    return machine(path, request.param, "int8")


def test_a_whole_model_stays_near_what_it_is_in_fp32(m: Machine) -> None:
    text = m.text(40)
    logits = m.run(part(text, m.pages(40), 0, 40))[0]
    expected = m.expect(text)
    apart = (logits - expected).abs().mean() / expected.std()
    assert 0.0005 < float(apart) < 0.08  # the random weights are large: errors grow


def test_chunks_and_neighbours_change_no_likeliest_token(m: Machine) -> None:
    text, other = m.text(40), m.text(25)
    whole = m.run(part(text, m.pages(40), 0, 40))[0]
    held = m.pages(40)
    first, _ = m.run(part(text, held, 0, 23), part(other, m.pages(25), 0, 25))
    second = m.run(part(text, held, 23, 40))[0]
    torch.testing.assert_close(torch.cat((first, second)), whole, rtol=0, atol=0.05)


def test_a_hundred_shuffled_batches_give_the_same_tokens_and_logits(m: Machine) -> None:
    check_shuffled_batches(m)


@pytest.mark.parametrize("mode", ["torch", "auto"])
def test_a_worker_says_what_it_computes_with(tmp_path: Path, mode: str) -> None:
    path = tiny_model(tmp_path, "llama")
    executor = load_executor(path, LIMITS, KernelChoice(mode, tmp_path / "k", print, "int8"))
    assert executor.facts.numeric.startswith("int8 weights and rows by blocks")
