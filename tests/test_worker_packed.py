"""Packed weights that are kept from one start to the next: never wrong ones, never half of them."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest

from gpu_worker.kernels import Parameter
from gpu_worker.native.linear import PanelLinear
from gpu_worker.native.packed import HEAD_BYTES, PART, Packed, keep, key_of, packed_at
from gpu_worker.wire.arrays import Array
from tests.support.kernels import library

ROWS = np.linspace(-1, 1, 3 * 40, dtype=np.float32).reshape(3, 40)


def _weight(seed: int) -> Parameter:
    return Parameter(np.random.default_rng(seed).standard_normal((70, 40), np.float32))


def _products(packed: Packed, seed: int, numeric: str = "bf16") -> Array:
    lib = library("portable")
    return np.concatenate(
        [PanelLinear(lib, packed, _weight(seed + i), numeric=numeric)(ROWS) for i in range(2)]
    )


def _kept(path: Path, seed: int = 0, numeric: str = "bf16") -> Array:
    """What a first start computes, after it has kept what it packed."""
    packed = Packed(None)
    products = _products(packed, seed, numeric)
    keep(path, "key", packed.arrays)
    return products


def _wait(packed: Packed) -> None:
    assert packed.keeping is not None
    packed.keeping.join()


@pytest.mark.parametrize("numeric", ["bf16", "int8"])
def test_a_second_start_maps_what_the_first_one_packed(tmp_path: Path, numeric: str) -> None:
    path = tmp_path / "packed"
    first = _kept(path, 0, numeric)
    with packed_at(path, "key") as packed:
        # Other weights: their products would show if they were packed.
        assert np.array_equal(_products(packed, 7, numeric), first)
    assert packed.is_mapped
    assert list(tmp_path.iterdir()) == [path]


def test_what_was_packed_is_kept_without_anybody_waiting(tmp_path: Path) -> None:
    path = tmp_path / "packed"
    with packed_at(path, "key") as packed:
        first = _products(packed, 0)
        assert not path.exists()
    _wait(packed)
    with packed_at(path, "key") as packed:
        assert np.array_equal(_products(packed, 7), first)


@pytest.mark.parametrize("missing", [0, 1, HEAD_BYTES - 1, HEAD_BYTES, HEAD_BYTES + 1, -1])
def test_a_file_that_is_cut_is_not_used(tmp_path: Path, missing: int) -> None:
    path = tmp_path / "packed"
    _kept(path)
    whole = path.read_bytes()
    path.write_bytes(whole[:missing])
    with packed_at(path, "key") as packed:
        assert np.array_equal(_products(packed, 7), _products(Packed(None), 7))
    _wait(packed)
    with packed_at(path, "key") as packed:
        assert np.array_equal(_products(packed, 0), _products(Packed(None), 7))


def test_what_was_made_of_something_else_is_not_used(tmp_path: Path) -> None:
    path = tmp_path / "packed"
    _kept(path)
    with packed_at(path, "other") as packed:
        assert np.array_equal(_products(packed, 7), _products(Packed(None), 7))
    _wait(packed)


def test_the_key_changes_with_weights_kernels_and_mode(tmp_path: Path) -> None:
    weights = tmp_path / "weights"
    weights.write_bytes(b"one")
    os.utime(weights, ns=(0, 1))
    keys = [
        key_of(weights, "a", "bf16"),
        key_of(weights, "b", "bf16"),
        key_of(weights, "a", "int8"),
    ]
    assert key_of(weights, "a", "bf16") == keys[0]
    os.utime(weights, ns=(0, 2))
    keys.append(key_of(weights, "a", "bf16"))
    weights.write_bytes(b"more")
    os.utime(weights, ns=(0, 1))
    keys.append(key_of(weights, "a", "bf16"))
    assert len(set(keys)) == len(keys)


def test_one_that_cannot_write_computes_all_the_same(tmp_path: Path) -> None:
    path = tmp_path / "missing" / "packed"
    with packed_at(path, "key") as packed:
        assert np.array_equal(_products(packed, 0), _products(Packed(None), 0))
    _wait(packed)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_there_is_replaced_and_never_written_to(tmp_path: Path) -> None:
    path = tmp_path / "packed"
    first = _kept(path)
    with packed_at(path, "key") as packed:
        _kept(path, seed=7)
        assert np.array_equal(_products(packed, 7), first)
    with packed_at(path, "key") as packed:
        assert np.array_equal(_products(packed, 0), _products(Packed(None), 7))


def test_who_finds_that_the_part_has_become_the_file_leaves_it_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "packed"
    locked = fcntl.flock

    def meanwhile(file: BinaryIO, operation: int) -> None:
        """Somebody else finishes between our opening and our locking."""
        path.with_name(path.name + PART).replace(path)
        path.write_bytes(b"finished")
        locked(file, operation)

    monkeypatch.setattr(fcntl, "flock", meanwhile)
    _kept(path)
    assert path.read_bytes() == b"finished"


def test_two_at_once_do_not_write_the_same_file(tmp_path: Path) -> None:
    path = tmp_path / "packed"
    with path.with_name(path.name + PART).open("ab") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        _kept(path)
        assert not path.exists()
    _kept(path)
    assert path.exists()


def test_one_that_was_killed_leaves_a_part_that_the_next_begins_anew(tmp_path: Path) -> None:
    path = tmp_path / "packed"
    path.with_name(path.name + PART).write_bytes(b"half of it" * 100_000)
    first = _kept(path)
    with packed_at(path, "key") as packed:
        assert np.array_equal(_products(packed, 7), first)


def test_every_array_begins_at_a_line(tmp_path: Path) -> None:
    path, sizes = tmp_path / "packed", (1, 63, 64, 65, 1000, 40 << 20, 3)
    for _start in range(2):
        with packed_at(path, "key") as packed:
            arrays = [packed.take((size,), np.uint8, lambda array: array.fill(1)) for size in sizes]
        if not packed.is_mapped:
            _wait(packed)
        assert [array.ctypes.data % 64 for array in arrays] == [0] * len(sizes)
        assert all(array.sum() == size for array, size in zip(arrays, sizes, strict=True))
    assert packed.is_mapped
