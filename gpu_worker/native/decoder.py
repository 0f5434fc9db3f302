"""A decoder in C: its parameters laid out once, then one call for each pass.

Owns the packed layers and the memory that a pass computes in, which grows to the largest pass and
is kept. Passes of one decoder run one after the other.
It must never be made for a shape that the kernels do not cover (`covers`).
"""

import ctypes

import attrs
import numpy as np
import torch

from gpu_worker.kernels import LayerParameters, Parameters, Step
from gpu_worker.models.config import DecoderConfig
from gpu_worker.native.arrays import aligned_empty
from gpu_worker.native.library import Library
from gpu_worker.native.linear import PanelLinear, Panels
from gpu_worker.native.memory import PagedMemory
from gpu_worker.native.packed import Packed
from gpu_worker.native.plan import KernelPlan, make_plan
from gpu_worker.native.structures import DecoderView, LayerView, PlanView, StepView


@attrs.frozen(eq=False)
class _Layer:
    """Everything that `view` points to."""

    norms: tuple[torch.Tensor, torch.Tensor]
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
        norms = (stored.attention_norm.contiguous(), stored.feed_norm.contiguous())
        return cls(norms, panels, stored.down.shape[1])

    def view(self) -> LayerView:
        norms = (norm.data_ptr() for norm in self.norms)
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
        self._norm = parameters.norm.contiguous()
        self._frequencies = parameters.frequencies.contiguous()
        self._embedding = parameters.embedding.to(torch.bfloat16).contiguous()
        self._layer_views = (LayerView * config.layers)(*(layer.view() for layer in self._layers))
        self._view = self._make_view()
        self._at = ctypes.addressof(self._view)
        self._scratch = aligned_empty((0,), np.float32)
        self.logits, self.best = self._head, self._head.best

    def forward(self, step: Step) -> torch.Tensor:
        hidden = torch.empty(len(step.rows), self._config.hidden)
        plan = self._plan(step)
        view = self._step(step, plan)
        tokens = step.batch.tokens[step.rows]
        view.tokens, view.slots = tokens.ctypes.data, step.slots.data_ptr()
        view.hidden = hidden.data_ptr()
        self._library.call("pie_forward", self._at, ctypes.addressof(view))
        return hidden

    def attend(self, layer: int, joined: torch.Tensor, step: Step) -> torch.Tensor:
        """One layer's part that is no product: turns and keeps rows, then attends."""
        result = torch.empty(len(joined), self._config.heads * self._config.head_width)
        plan = self._plan(step)
        view = self._step(step, plan)
        self._library.call(
            "pie_attend",
            *(self._at, ctypes.addressof(view), layer, joined.data_ptr(), result.data_ptr()),
        )
        return result

    def _plan(self, step: Step) -> KernelPlan:
        config = self._config
        return make_plan(step, config.heads // config.key_heads, config.key_heads)

    def _step(self, step: Step, plan: KernelPlan) -> StepView:
        """Points into the plan and the scratch memory; both must outlive it."""
        config, memory = self._config, self.memory
        rows, parts = len(step.rows), plan.part_count
        floats = self._library.call("pie_scratch_floats", self._at, rows)
        partial = parts * self._library.call(
            "pie_partial_floats", config.heads, config.key_heads, config.head_width
        )
        if len(self._scratch) < floats + partial:
            self._scratch = aligned_empty((floats + partial,), np.float32)
        at = self._scratch.ctypes.data
        return StepView(
            rows=rows,
            positions=plan.positions.ctypes.data,
            places=plan.places.ctypes.data,
            keys=memory.keys.data_ptr(),
            values=memory.values.data_ptr(),
            layer_floats=memory.keys.stride(0),
            plan=PlanView(
                *(config.heads, config.key_heads, config.head_width, len(plan.tiles), parts),
                *(plan.tiles.ctypes.data, plan.pages.ctypes.data),
                *(plan.interval_indptr.ctypes.data, plan.intervals.ctypes.data),
                at + floats * 4,
            ),
            scratch=at,
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
            norm=self._norm.data_ptr(),
            frequencies=self._frequencies.data_ptr(),
            embedding=self._embedding.data_ptr(),
            epsilon=config.epsilon,
        )
