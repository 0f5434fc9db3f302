"""The kernels in C against plain arithmetic, how they are built, and what happens without them.

Each kernel meets shapes that are not whole vectors. Attention is held to a dense reference that
gathers only what a row sees, over memory that is NaN wherever nothing was written.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from gpu_worker.kernel_choice import KernelChoice, choose_kernels
from gpu_worker.kernels import Step
from gpu_worker.models.config import DecoderConfig, Rope
from gpu_worker.models.turns import angles, rotate
from gpu_worker.native import build
from gpu_worker.native.build import NoKernels
from gpu_worker.native.decoder import NativeDecoder
from gpu_worker.native.library import Library
from gpu_worker.wire import Batch, BatchArrays, Request, decode, encode
from gpu_worker.wire.arrays import Array
from pie_trio.home import Home
from tests.support.bare_decoder import bare_decoder
from tests.support.kernels import VARIANTS, library
from tests.support.tensors import Linear, array_of, attend
from tests.support.worker_models import default_model, tiny_model
from tests.test_worker_executor import Machine, check_shuffled_batches, machine, part

PAGE = 16
PAGES = 64
CONFIG = DecoderConfig(100, 64, 1, 6, 2, 64, 1e-5, True, Rope(10_000.0))


@pytest.fixture(scope="module", params=VARIANTS)
def lib(request: pytest.FixtureRequest) -> Library:
    torch.manual_seed(11)
    return library(request.param)


@pytest.mark.parametrize("outputs", [1, 16, 40, 264])
@pytest.mark.parametrize("depth", [1, 7, 256, 601])
def test_a_product_of_any_number_of_rows_is_that_of_the_rounded_weights(
    lib: Library, depth: int, outputs: int
) -> None:
    weight = torch.randn(outputs, depth).bfloat16()
    bias = torch.randn(outputs) if depth % 2 else None
    linear = Linear.pack(lib, weight, bias)
    wide_bias = None if bias is None else bias.double()
    for rows in (*range(1, 14), 300):
        given = torch.randn(rows, depth)
        expected = F.linear(given.double(), weight.double(), wide_bias)
        torch.testing.assert_close(linear(given).double(), expected, rtol=1e-5, atol=1e-4)
        best, finite = linear.best(given)
        assert best.tolist() == linear(given).argmax(dim=-1).tolist()
        assert finite.all()


@pytest.mark.parametrize("width", [1, 3, 8, 16, 24, 100])
def test_the_gate_agrees_from_the_smallest_to_the_largest_number(lib: Library, width: int) -> None:
    weight, given = torch.randn(2 * width, 1).bfloat16(), torch.randn(21, 1)
    given[:7] *= 1e3
    given[7:14] *= 1e-30
    bias = torch.randn(2 * width) if width % 2 else None
    gate, up = F.linear(given, weight.float(), bias).chunk(2, dim=-1)
    ours = Linear.pack(lib, weight, bias, is_gate=True)(given)
    torch.testing.assert_close(ours, F.silu(gate) * up, rtol=1e-5, atol=1e-6)


def test_what_is_no_number_stays_with_its_row(lib: Library) -> None:
    weight, given = torch.randn(64, 8).bfloat16(), torch.randn(3, 8)
    given[1, 5] = float("nan")
    given[2, 0] = float("inf")
    for is_gate in (False, True):
        linear = Linear.pack(lib, weight, is_gate=is_gate)
        assert linear(given).isfinite().all(dim=-1).tolist() == [True, False, False]
    _, finite = Linear.pack(lib, weight).best(given)
    assert finite.tolist() == [True, False, False]


def test_of_equally_good_outputs_the_first_is_the_best(lib: Library) -> None:
    weight = torch.zeros(1000, 1)
    weight[[997, 401, 71]] = 1.0
    ours, _ = Linear.pack(lib, weight).best(torch.ones(20, 1))
    assert ours.tolist() == [71] * 20


def _batch(*requests: Request) -> BatchArrays:
    arrays = decode(encode(Batch(1, 1, (), requests)))
    assert isinstance(arrays, BatchArrays)
    return arrays


def _mask(draw: random.Random, total: int) -> list[list[bool]]:
    """Sparse, dense, empty and whole rows; every other one sees at most up to itself."""
    mask = []
    for row in range(total):
        share = draw.choice((0.0, 0.02, 0.5, 0.95, 1.0))
        sees_all = row % 2 == 0
        mask.append([(sees_all or k <= row) and draw.random() < share for k in range(total)])
    return mask


def _attend_densely(
    joined: torch.Tensor, seen: list[list[bool]], config: DecoderConfig, first: int
) -> torch.Tensor:
    """In double precision, from the rows of one whole sequence; the rows from `first` on."""
    heads, key_heads, width = config.heads, config.key_heads, config.head_width
    parts = joined.double().view(len(joined), -1, width)
    queries, keys, values = parts.tensor_split((heads, heads + key_heads), 1)
    result = torch.zeros(len(joined), heads, width, dtype=torch.float64)
    for row in range(first, len(joined)):
        slots = torch.tensor(seen[row]).nonzero().ravel()
        for head in range(heads) if len(slots) else ():
            key_head = head // (heads // key_heads)
            scores = keys[slots, key_head] @ queries[row, head] * width**-0.5
            result[row, head] = scores.softmax(dim=0) @ values[slots, key_head]
    return result[first:].flatten(1).float()


def _decoder(lib: Library, config: DecoderConfig, frequencies: torch.Tensor) -> NativeDecoder:
    """One whose pages are NaN wherever nothing was written; its products are not looked at."""
    decoder = bare_decoder(lib, config, array_of(frequencies), PAGES)
    decoder.memory.keys.fill(np.nan)
    decoder.memory.values.fill(np.nan)
    return decoder


def _step(requests: list[Request], chosen: list[int] | None = None) -> Step:
    batch = _batch(*requests)
    indices = np.array(range(len(requests)) if chosen is None else chosen)
    rows = [np.arange(*batch.row_indptr[index : index + 2]) for index in indices]
    return Step(batch, indices, np.concatenate(rows), np.zeros(0, np.float32))


def _heads(heads: int, key_heads: int, width: int) -> DecoderConfig:
    return DecoderConfig(100, 64, 2, heads, key_heads, width, 1e-5, True, Rope(10_000.0))


@pytest.mark.parametrize(
    "heads, key_heads, width",
    [(6, 2, 64), (4, 4, 128), (9, 3, 8), (8, 1, 72), (40, 1, 16), (3, 1, 256)],
)
def test_attention_sees_what_the_masks_keep_and_touches_nothing_else(
    lib: Library, heads: int, key_heads: int, width: int
) -> None:
    draw = random.Random(heads * width)
    config = _heads(heads, key_heads, width)
    decoder = _decoder(lib, config, torch.zeros(width // 2))
    numbers = draw.sample(range(PAGES), PAGES)
    requests, expected, rows = [], [], []
    for total, start, masked in ((1, 0, False), (70, 0, True), (100, 63, True), (49, 48, False)):
        joined = torch.randn(total, (heads + 2 * key_heads) * width)
        pages = [numbers.pop() for _ in range(-(-total // PAGE))]
        mask = _mask(draw, total) if masked else None
        seen = mask or [[k <= row for k in range(total)] for row in range(total)]
        if start:
            earlier = part([0] * total, pages, 0, start)
            attend(decoder, 1, joined[:start].clone(), _step([earlier]))
        requests.append(part([0] * total, pages, start, total, mask=mask))
        expected.append(_attend_densely(joined, seen, config, start))
        rows.append(joined[start:])
    ours = attend(decoder, 1, torch.cat(rows), _step(requests))
    torch.testing.assert_close(ours, torch.cat(expected), rtol=0, atol=1e-5)
    assert np.isnan(decoder.memory.keys[0]).all(), "another layer was written"


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("rows, masked", [(1, False), (3, True), (3, False)])
def test_a_long_context_that_threads_share_is_attended_as_a_whole(
    lib: Library, threads: int, rows: int, masked: bool
) -> None:
    draw = random.Random(rows)
    config, total = _heads(9, 3, 64), 700
    decoder = _decoder(lib, config, torch.zeros(32))
    joined = torch.randn(total, 15 * 64)
    pages = draw.sample(range(PAGES), -(-total // PAGE))
    mask = [[k <= row and k // 100 % 2 == 0 for k in range(total)] for row in range(total)]
    seen = mask if masked else [[k <= row for k in range(total)] for row in range(total)]
    lib.set_threads(threads)
    try:
        first = part([0] * total, pages, 0, total - rows)
        attend(decoder, 0, joined[: total - rows].clone(), _step([first]))
        last = part([0] * total, pages, total - rows, total, mask=mask if masked else None)
        ours = attend(decoder, 0, joined[total - rows :].clone(), _step([last]))
    finally:
        lib.set_threads(len(os.sched_getaffinity(0)))
    expected = _attend_densely(joined, seen, config, total - rows)
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-5)


def test_rows_are_turned_by_their_position_before_they_are_kept(lib: Library) -> None:
    frequencies = torch.rand(32)
    decoder = _decoder(lib, CONFIG, frequencies)
    joined = torch.randn(3, 10, 64)
    request = part([0] * 19, [2, 1], 16, 19, positions=[7, 1000, 0] * 7)
    step = _step([request])
    attend(decoder, 0, given := joined.flatten(1).clone(), step)
    turned = angles(frequencies, torch.from_numpy(step.batch.positions.copy()))
    both = torch.cat((turned, turned), dim=-1)[:, None]
    rotated = rotate(joined[:, :8], both.cos(), both.sin())
    keys, values = (torch.from_numpy(m) for m in (decoder.memory.keys, decoder.memory.values))
    torch.testing.assert_close(given.view(3, 10, 64)[:, :8], rotated)
    torch.testing.assert_close(keys[0, 1, :, :, :3].permute(2, 0, 1), rotated[:, 6:])
    torch.testing.assert_close(values[0, 1, :, :3].transpose(0, 1), joined[:, 8:])


def test_requests_that_are_left_out_leave_no_trace(lib: Library) -> None:
    decoder = _decoder(lib, CONFIG, torch.zeros(32))
    rows = torch.randn(5, 10 * 64)
    requests = [part([0] * 3, [0], 0, 3), part([0] * 9, [1], 0, 9), part([0] * 2, [2], 0, 2)]
    attended = attend(decoder, 0, rows.clone(), _step(requests, [0, 2]))
    assert np.isnan(decoder.memory.keys[0, 1]).all()
    seen = [[k <= row for k in range(3)] for row in range(3)]
    for first, end in ((0, 3), (3, 5)):
        expected = _attend_densely(rows[first:end], seen, CONFIG, 0)
        torch.testing.assert_close(attended[first:end], expected, rtol=0, atol=1e-5)


def _misplaced(values: Array) -> Array:
    """The same numbers one byte behind where numbers usually begin."""
    memory = np.zeros(values.nbytes + 1, np.uint8)
    memory[1:] = np.frombuffer(values.tobytes(), np.uint8)
    return memory[1:].view(values.dtype).reshape(values.shape)


def test_a_message_may_bring_numbers_at_any_address(lib: Library) -> None:
    config, joined = _heads(9, 3, 64), torch.randn(40, 15 * 64)
    mask = _mask(random.Random(3), 40)
    step = _step([part([0] * 40, [5, 9, 2], 0, 40, mask=mask)])
    names = [each.name for each in attrs.fields(BatchArrays) if each.name.endswith("indptr")]
    names += ["tokens", "positions", "pages", "last_page_lengths", "mask_intervals"]
    moved: dict[str, Any] = {name: _misplaced(getattr(step.batch, name)) for name in names}
    batch = attrs.evolve(step.batch, **moved)
    assert not batch.pages.flags.aligned
    ours = attend(
        _decoder(lib, config, torch.zeros(32)), 0, joined.clone(), attrs.evolve(step, batch=batch)
    )
    expected = _attend_densely(joined, mask, config, 0)
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "spoil, reason",
    [
        (lambda values: values.astype(np.int64), "the types that the wire carries"),
        (lambda values: np.repeat(values, 2)[::2], "numbers that lie together"),
    ],
)
def test_numbers_of_another_shape_in_memory_never_reach_the_kernels(
    lib: Library, spoil: Callable[[Array], Array], reason: str
) -> None:
    decoder = _decoder(lib, CONFIG, torch.zeros(32))
    step = _step([part([0] * 3, [0], 0, 3)])
    batch = attrs.evolve(step.batch, positions=spoil(step.batch.positions))
    with pytest.raises(AssertionError, match=reason):
        attend(decoder, 0, torch.randn(3, 10 * 64), attrs.evolve(step, batch=batch))
    assert np.isnan(decoder.memory.keys).all()


@pytest.fixture(
    scope="module",
    params=["llama", pytest.param("default", marks=[pytest.mark.model, pytest.mark.slow])],
)
def m(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Machine:
    if request.param == "default":
        return machine(default_model(), VARIANTS[0])
    return machine(tiny_model(tmp_path_factory.mktemp("models"), request.param), VARIANTS[0])


def test_a_hundred_shuffled_batches_give_the_same_tokens_and_logits(m: Machine) -> None:
    check_shuffled_batches(m)


def test_with_compiled_kernels_a_worker_samples_without_torch(tmp_path: Path) -> None:
    library("portable")  # or there are none here
    model = tiny_model(tmp_path, "llama")
    check = (
        "import sys\n"
        "from pathlib import Path\n"
        "from gpu_worker.executor import load_executor\n"
        "from gpu_worker.kernel_choice import KernelChoice\n"
        "from gpu_worker.wire import *\n"
        "cache, model = map(Path, sys.argv[1:])\n"
        "limits = WorkerLimits(16, 1 << 24, 8, 8, 64, 32)\n"
        "executor = load_executor(model, limits, KernelChoice('native', cache, print))\n"
        "output = OutputRow(0, SamplerKind.TOP_P, 1.0, top_p=0.9, logprobs=2)\n"
        "request = Request([5], [0], [3], 1, None, (output,), (), 7)\n"
        "answers = executor.execute(decode(encode(Batch(1, 1, (), (request,))))).answers\n"
        "assert answers[0].error is None and answers[0].tokens, answers\n"
        "assert 'torch' not in sys.modules\n"
    )
    cache = Home.default().root / "kernels"
    subprocess.run([sys.executable, "-c", check, str(cache), str(model)], check=True)


def test_torch_and_the_kernels_share_one_openmp(lib: Library) -> None:
    del lib
    mapped = Path("/proc/self/maps").read_text(encoding="utf-8").splitlines()
    assert len({line.split()[-1] for line in mapped if "libgomp" in line}) == 1


@pytest.fixture
def no_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nor was there one when the package was installed: the sources lie alone."""
    source = tmp_path / "source"
    source.mkdir()
    for path in build.SOURCE.glob("*.[ch]"):
        shutil.copy2(path, source)
    monkeypatch.setattr(build, "SOURCE", source)
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))


def _choose(mode: str, cache: Path, page_size: int = PAGE) -> tuple[str, list[str]]:
    told: list[str] = []
    kernels = choose_kernels(KernelChoice(mode, cache, told.append), CONFIG, page_size)
    return kernels.name, told


@pytest.mark.usefixtures("no_compiler")
def test_without_a_compiler_the_worker_computes_in_torch_and_says_so_once(tmp_path: Path) -> None:
    name, told = _choose("auto", tmp_path / "cache")
    assert name == "torch"
    assert told == ["computing in plain torch, which is slower: there is no C compiler"]
    with pytest.raises(NoKernels, match="no C compiler"):
        _choose("native", tmp_path / "cache")
    assert _choose("torch", tmp_path / "cache") == ("torch", [])


def test_shapes_that_the_kernels_do_not_cover_are_left_to_torch(tmp_path: Path) -> None:
    name, told = _choose("auto", tmp_path, page_size=8)
    assert name == "torch"
    assert "page size" in told[0]
