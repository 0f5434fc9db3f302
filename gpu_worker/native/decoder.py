"""A decoder in C: its parameters laid out once, then one call for each pass.

Owns the packed layers and the memory that a pass computes in, which grows to the largest pass and
is kept. Passes of one decoder run one after the other.
It must never be made for a shape that the kernels do not cover (`covers`).
"""

import ctypes
from typing import Any

import attrs
import numpy as np

from gpu_worker.bf16 import Wide
from gpu_worker.kernels import LayerParameters, Parameter, Parameters, Step
from gpu_worker.models.config import DecoderConfig
from gpu_worker.native.arrays import aligned_empty
from gpu_worker.native.library import Library
from gpu_worker.native.linear import PanelLinear, Panels
from gpu_worker.native.memory import PagedMemory
from gpu_worker.native.packed import Packed
from gpu_worker.native.structures import BatchView, DecoderView, LayerView, RoomView
from gpu_worker.wire.arrays import Array


@attrs.frozen(eq=False)
class _Layer:
    """Everything that `view` points to."""

    norms: tuple[Wide, Wide]
    panels: tuple[Panels, ...]
    feed: int

    @classmethod
    def pack(
        cls, library: Library, packed: Packed, stored: LayerParameters, numeric: str
    ) -> "_Layer":
        panels = (
            Panels(library, packed, stored.query_key_value, numeric=numeric),
            Panels(library, packed, stored.attended, numeric=numeric),
            Panels(library, packed, stored.gate_up, is_gate=True, numeric=numeric),
            Panels(library, packed, stored.down, numeric=numeric),
        )
        return cls((stored.attention_norm, stored.feed_norm), panels, stored.down.shape[1])

    def view(self) -> LayerView:
        norms = (norm.ctypes.data for norm in self.norms)
        return LayerView(*norms, *(panels.view for panels in self.panels))


class NativeDecoder:
    """One model over its own pages."""

    def __init__(
        self,
        library: Library,
        config: DecoderConfig,
        parameters: Parameters,
        pages: int,
        packed: Packed,
        numeric: str = "bf16",
    ) -> None:
        self.memory = PagedMemory(config, pages)
        self._library, self._config = library, config
        layers = parameters.layers
        self._layers = [_Layer.pack(library, packed, layer, numeric) for layer in layers]
        self._head = PanelLinear(library, packed, parameters.head, numeric=numeric)
        self._norm, self._frequencies = parameters.norm, parameters.frequencies
        self._embedding = Parameter(parameters.embedding).rounded
        self._layer_views = (LayerView * config.layers)(*(layer.view() for layer in self._layers))
        self._view = self._make_view()
        self._at = ctypes.addressof(self._view)
        self._room = self._make_room()
        self._scratch = aligned_empty((0,), np.float32)
        self.logits, self.best = self._head, self._head.best

    def forward(self, step: Step) -> Wide:
        hidden = np.empty((len(step.rows), self._config.hidden), np.float32)
        self._call("pie_forward", step, hidden)
        return hidden

    def best_after(self, step: Step) -> tuple[Array, Array]:
        """In the same call as the layers: between two calls the threads would have to come together
        again, and memory would be idle.
        """
        count, room = len(step.rows), self._room
        best, finite = np.empty(count, np.int64), np.empty(count, np.bool_)
        hidden = np.empty((count, self._config.hidden), np.float32)
        room.best, room.finite = best.ctypes.data, finite.ctypes.data
        self._call("pie_forward", step, hidden, head=self._head.address)
        return best, finite

    def attend(self, layer: int, joined: Wide, step: Step) -> Wide:
        """One layer's part that is no product: turns and keeps rows, then attends."""
        width = self._config.heads * self._config.head_width
        result = np.empty((len(joined), width), np.float32)
        self._call("pie_attend", step, result, layer, joined.ctypes.data, result.ctypes.data)
        return result

    def _call(
        self, name: str, step: Step, hidden: Wide, *others: int, head: int | None = None
    ) -> None:
        """Again with more scratch memory where it was too little."""
        batch = view_of(step)
        room = self._room
        room.slots, room.hidden, room.head = step.slots.ctypes.data, hidden.ctypes.data, head
        views = (self._at, ctypes.addressof(batch), ctypes.addressof(room))
        while needed := self._library.call(name, *views, *others):
            self._scratch = aligned_empty((needed,), np.float32)
            room.scratch, room.scratch_floats = self._scratch.ctypes.data, needed

    def _make_room(self) -> RoomView:
        memory = self.memory
        return RoomView(
            keys=memory.keys.ctypes.data,
            values=memory.values.ctypes.data,
            layer_floats=memory.keys[0].size,
        )

    def _make_view(self) -> DecoderView:
        config = self._config
        return DecoderView(
            layers=config.layers,
            hidden=config.hidden,
            heads=config.heads,
            key_heads=config.key_heads,
            width=config.head_width,
            feed=self._layers[0].feed,
            parameters=ctypes.addressof(self._layer_views),
            norm=self._norm.ctypes.data,
            frequencies=self._frequencies.ctypes.data,
            embedding=self._embedding.ctypes.data,
            epsilon=config.epsilon,
        )


def view_of(step: Step) -> BatchView:
    """Points into the arrays of the step, which must outlive it."""
    batch = step.batch
    return BatchView(
        len(step.requests),
        _address(step.requests, np.int64),
        _address(batch.tokens),
        _address(batch.positions),
        _address(batch.row_indptr),
        _address(batch.pages),
        _address(batch.page_indptr),
        _address(batch.last_page_lengths),
        _address(batch.masked, np.uint8),
        _address(batch.mask_indptr),
        _address(batch.mask_intervals),
    )


def _address(array: Array, kind: type[np.integer[Any]] = np.int32) -> int:
    assert array.dtype == kind, "the kernels read the types that the wire carries"
    assert array.flags.c_contiguous, "the kernels read numbers that lie together"
    address: int = array.__array_interface__["data"][0]
    return address
