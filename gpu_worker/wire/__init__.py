"""The frames and messages of the worker link: the only code that both processes import.

Owns the meaning of every byte on the link; sans-io, so it neither opens sockets nor waits.
A message that is cut short or damaged raises `WireError` and nothing else, whoever died while
sending it. It must never import torch, Trio or `pie_trio`.
"""

from gpu_worker.wire.arrays import BatchArrays
from gpu_worker.wire.codec import Message, decode, encode
from gpu_worker.wire.errors import WireError
from gpu_worker.wire.grammars import GrammarBounds, Lesson
from gpu_worker.wire.messages import (
    PROTOCOL,
    Answer,
    Batch,
    BatchResult,
    Drain,
    Drained,
    Failed,
    Halt,
    Heartbeat,
    Hello,
    Join,
    Request,
    Start,
    WorkerLimits,
)
from gpu_worker.wire.multi_step import STEPS_MAX, MultiStep
from gpu_worker.wire.outputs import (
    ADDEND_MAX,
    ADJUSTMENT,
    FACTOR_MAX,
    OutputRow,
    SamplerKind,
    pack_adjustments,
)
from gpu_worker.wire.transport import from_frame, only_frame, to_frame

__all__ = [
    "ADDEND_MAX",
    "ADJUSTMENT",
    "FACTOR_MAX",
    "PROTOCOL",
    "STEPS_MAX",
    "Answer",
    "Batch",
    "BatchArrays",
    "BatchResult",
    "Drain",
    "Drained",
    "Failed",
    "GrammarBounds",
    "Halt",
    "Heartbeat",
    "Hello",
    "Join",
    "Lesson",
    "Message",
    "MultiStep",
    "OutputRow",
    "Request",
    "SamplerKind",
    "Start",
    "WireError",
    "WorkerLimits",
    "decode",
    "encode",
    "from_frame",
    "only_frame",
    "pack_adjustments",
    "to_frame",
]
