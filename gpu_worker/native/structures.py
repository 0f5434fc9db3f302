"""The structures that the kernels read, as Python lays them out.

Owns the fields, in the order of `source/weight.h`, `source/plan.h` and `source/pass.h`;
`library` refuses a library whose sizes differ. A structure holds addresses: who makes one keeps
what it points to alive.
It must never hold a tensor.
"""

import ctypes

_P, _N, _F = ctypes.c_void_p, ctypes.c_int64, ctypes.c_float


class WeightView(ctypes.Structure):
    """A packed matrix; `kind` is one of `source/weight.h`."""

    _fields_ = (
        ("kind", _N),
        ("outputs", _N),
        ("depth", _N),
        ("panels", _P),
        ("scales", _P),
        ("bias", _P),
    )


class LayerView(ctypes.Structure):
    """One layer's parameters."""

    _fields_ = (
        ("attention_norm", _P),
        ("feed_norm", _P),
        ("query_key_value", WeightView),
        ("attended", WeightView),
        ("gate_up", WeightView),
        ("down", WeightView),
    )


class DecoderView(ctypes.Structure):
    """A whole decoder but for its head."""

    _fields_ = (
        *((name, _N) for name in ("layers", "hidden", "heads", "key_heads", "width", "feed")),
        *((name, _P) for name in ("parameters", "norm", "frequencies", "embedding")),
        ("epsilon", _F),
    )


class BatchView(ctypes.Structure):
    """The arrays of a batch that the kernels read, and which of its requests are executed."""

    _fields_ = (
        ("chosen_count", _N),
        *((name, _P) for name in ("chosen", "tokens", "positions", "row_indptr", "pages")),
        *((name, _P) for name in ("page_indptr", "last_page_lengths", "masked", "mask_indptr")),
        ("mask_intervals", _P),
    )


class RoomView(ctypes.Structure):
    """Where a pass reads and writes; with a head its results are the best tokens."""

    _fields_ = (
        *((name, _P) for name in ("slots", "keys", "values")),
        ("layer_floats", _N),
        ("scratch", _P),
        ("scratch_floats", _N),
        *((name, _P) for name in ("hidden", "head", "best", "finite")),
    )


VIEWS = (WeightView, LayerView, DecoderView, BatchView, RoomView)
