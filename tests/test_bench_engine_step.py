"""`benchmarks.engine_step`: a run on a tiny model gives all that its table and its bars need."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import engine_step
from benchmarks.bars.engine_step import bars
from benchmarks.engine import sizes_of
from gpu_worker.weights import Weights
from tests.support.worker_models import tiny_model


def test_a_run_measures_each_case_with_each_kind_of_kernels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_step, "SAMPLE_SECONDS", 0.01)
    model = tiny_model(tmp_path, "llama")
    samples = engine_step.measure(model, 1, lambda _text: None)
    for case in engine_step.CASES:
        for kind in ("torch", "native", "native beside busy cores"):
            assert samples[f"{case.name} {kind}"][0] > 0

    record = engine_step.record_of(samples, Weights(model))
    assert record["weight_bytes"] == 2 * sizes_of(model)["weights"]
    assert 0 < record["token_operations"] < record["weight_bytes"]
    found = bars(record)
    assert all(bar["value"] > 0 for bar in found)
    assert engine_step.render(samples, found).count("| decode ") == 3
