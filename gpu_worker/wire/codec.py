"""Messages to frames and back: a msgpack header, then raw little-endian arrays.

Owns the header's schema, which is read off the message classes themselves.
Everything that a broken peer can send raises `WireError`: decoding trusts no type, length or range.
It must never build an object whose size the frames do not already have.
"""

import math
import struct
import types
from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise
from typing import Any, get_args

import attrs
import msgpack

from gpu_worker.wire.arrays import (
    BatchArrays,
    Frame,
    batch_frames,
    check_indptr,
    indptr,
    read_batch,
)
from gpu_worker.wire.errors import WireError
from gpu_worker.wire.fragments import pack
from gpu_worker.wire.grammars import read_lesson, write_lesson
from gpu_worker.wire.messages import (
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
    Start,
)
from gpu_worker.wire.multi_step import read_multi_step, write_multi_step

Message = (
    Join
    | Start
    | Hello
    | Heartbeat
    | Halt
    | Drain
    | Drained
    | Failed
    | Batch
    | BatchArrays
    | BatchResult
)

HEADER_BYTES_MAX = 64 * 1024 * 1024  # a batch may bring many grammars
NUMBER_BYTES = 4
_HEADER_ONLY: Mapping[str, type[Any]] = types.MappingProxyType(
    {
        "join": Join,
        "start": Start,
        "hello": Hello,
        "heartbeat": Heartbeat,
        "halt": Halt,
        "drain": Drain,
        "drained": Drained,
        "failed": Failed,
    }
)
_TYPE_NAMES: Mapping[type[Any], str] = types.MappingProxyType(
    {cls: name for name, cls in _HEADER_ONLY.items()}
)
_RESULT_FIELDS = frozenset(
    ("generation", "number", "step_seconds", "errors", "closed", "first_step", "goes_on")
)
_RESULT_FRAMES = (
    ("token_indptr", "i"),
    ("tokens", "i"),
    ("answer_indptr", "i"),
    ("distribution_indptr", "i"),
    ("ids", "i"),
    ("probabilities", "f"),
)


def encode(message: Message) -> list[bytes]:
    """The frames of a message, header first."""
    match message:
        case Batch():
            header = {
                "type": "batch",
                "generation": message.generation,
                "number": message.number,
                "copies": len(message.copies),
                "lesson": write_lesson(message.lesson),
                "multi_step": write_multi_step(message.multi_step),
            }
            return [_pack(header), *batch_frames(message)]
        case BatchArrays():
            return encode(message.to_batch())
        case BatchResult():
            return _encode_result(message)
        case _:
            return [_pack({"type": _TYPE_NAMES[type(message)], **attrs.asdict(message)})]


def decode(frames: Sequence[Frame]) -> Message:
    """The message of these frames. A batch comes as `BatchArrays`, views into the frames."""
    if not frames:
        raise WireError("a message has at least one frame")
    header = _unpack(frames[0])
    kind = header.pop("type", None)
    if kind == "batch":
        return _decode_batch(header, frames[1:])
    if kind == "result":
        return _decode_result(header, frames[1:])
    if not isinstance(kind, str) or kind not in _HEADER_ONLY:
        raise WireError(f"unknown message type {kind!r:.80}")
    if len(frames) != 1:
        raise WireError(f"a {kind!r} message has one frame, not {len(frames)}")
    message: Message = _build(_HEADER_ONLY[kind], header, kind)
    return message


def _pack(header: dict[str, Any]) -> bytes:
    try:
        packed: bytes = msgpack.packb(header)
    except (OverflowError, TypeError, ValueError) as error:
        raise WireError(f"the header cannot be encoded: {error}") from error
    return packed


def _unpack(frame: Frame) -> dict[str, Any]:
    if len(frame) > HEADER_BYTES_MAX:
        raise WireError(f"a header of {len(frame)} bytes is too long")
    try:
        header = msgpack.unpackb(frame, strict_map_key=True)
    except (ValueError, TypeError, OverflowError, msgpack.UnpackException) as error:
        raise WireError(f"the header is not msgpack: {error}") from error
    if not isinstance(header, dict) or not all(isinstance(key, str) for key in header):
        raise WireError("the header is not a map with text keys")
    return header


def _expect_fields(header: Mapping[str, Any], names: Collection[str], where: str) -> None:
    if header.keys() != set(names):
        different = sorted(header.keys() ^ set(names))
        raise WireError(f"{where!r} lacks or does not know the fields {different!r:.200}")


def _build(cls: type[Any], values: Any, where: str) -> Any:
    if not isinstance(values, dict):
        raise WireError(f"{where!r} is not a map")
    fields = attrs.fields(cls)
    _expect_fields(values, {field.name for field in fields}, where)
    return cls(
        **{field.name: _value(field.type, values[field.name], field.name) for field in fields}
    )


def _value(kind: Any, value: Any, name: str) -> Any:
    if isinstance(kind, types.UnionType):
        if value is None:
            return None
        kind = next(choice for choice in get_args(kind) if choice is not types.NoneType)
    if attrs.has(kind):
        return _build(kind, value, name)
    if kind is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return _finite(float(value), name)
    if kind is int and isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    if kind in (str, bool) and isinstance(value, kind):
        return value
    raise WireError(f"field {name!r} is not a valid {kind.__name__}")


def _finite(value: float, name: str) -> float:
    if not math.isfinite(value):
        raise WireError(f"field {name!r} is not finite")
    return value


def _decode_batch(header: dict[str, Any], frames: Sequence[Frame]) -> BatchArrays:
    names = ("generation", "number", "copies")
    _expect_fields(header, {*names, "lesson", "multi_step"}, "batch")
    generation, number, copies = (_value(int, header[name], name) for name in names)
    batch = read_batch(generation, number, read_lesson(header["lesson"]), frames)
    if len(batch.copies) != copies:
        raise WireError(f"frame 'copies' has {len(batch.copies)} pairs, not {copies}")
    multi_step = read_multi_step(header["multi_step"], batch.request_count)
    if multi_step is None:
        return batch
    if not batch.is_repeatable:
        raise WireError("a batch of several steps has more than one row or token a request")
    return attrs.evolve(batch, multi_step=multi_step)


def _numbers(name: str, kind: str, frame: Frame) -> list[Any]:
    if len(frame) % NUMBER_BYTES:
        raise WireError(f"frame {name!r} is cut within a value")
    return [*struct.unpack(f"<{len(frame) // NUMBER_BYTES}{kind}", frame)]


def _places(value: Any, count: int) -> set[int]:
    if not isinstance(value, list) or not all(type(place) is int for place in value):
        raise WireError("field 'closed' is not a list of numbers")
    if any(not 0 <= place < count for place in value):
        raise WireError("field 'closed' names an answer that is not there")
    return set(value)


def _encode_result(result: BatchResult) -> list[bytes]:
    distributions = [pair for answer in result.answers for pair in answer.distributions]
    if any(len(ids) != len(probabilities) for ids, probabilities in distributions):
        raise WireError("a distribution needs one probability for each id")
    header = {
        "type": "result",
        "generation": result.generation,
        "number": result.number,
        "step_seconds": result.step_seconds,
        "errors": [answer.error for answer in result.answers],
        "closed": [place for place, answer in enumerate(result.answers) if answer.is_closed],
        "first_step": result.first_step,
        "goes_on": result.goes_on,
    }
    # No numpy: a few numbers, and once all weights have been read it is in no cache any more.
    return [
        _pack(header),
        indptr([len(answer.tokens) for answer in result.answers]),
        pack("i", [token for answer in result.answers for token in answer.tokens]),
        indptr([len(answer.distributions) for answer in result.answers]),
        indptr([len(ids) for ids, _ in distributions]),
        pack("i", [token for ids, _ in distributions for token in ids]),
        pack("f", [p for _, probabilities in distributions for p in probabilities]),
    ]


def _decode_result(header: dict[str, Any], frames: Sequence[Frame]) -> BatchResult:
    _expect_fields(header, _RESULT_FIELDS, "result")
    errors = header["errors"]
    if not isinstance(errors, list) or not all(e is None or isinstance(e, str) for e in errors):
        raise WireError("field 'errors' is not a list of texts")
    closed = _places(header["closed"], len(errors))
    if len(frames) != len(_RESULT_FRAMES):
        raise WireError(f"a result has {len(_RESULT_FRAMES)} arrays, not {len(frames)}")
    numbers = [
        _numbers(name, kind, frame)
        for (name, kind), frame in zip(_RESULT_FRAMES, frames, strict=True)
    ]
    ends, told, lists, distribution_indptr, ids, probabilities = numbers
    count = max(len(distribution_indptr) - 1, 0)
    check_indptr("token_indptr", ends, len(errors), len(told))
    check_indptr("answer_indptr", lists, len(errors), count)
    check_indptr("distribution_indptr", distribution_indptr, count, len(ids))
    check_indptr("distribution_indptr", distribution_indptr, count, len(probabilities))
    pairs = [(ids[a:b], probabilities[a:b]) for a, b in pairwise(distribution_indptr)]
    answers = tuple(
        Answer(
            tokens=tuple(told[ends[i] : ends[i + 1]]),
            distributions=tuple(pairs[lists[i] : lists[i + 1]]),
            error=error,
            is_closed=i in closed,
        )
        for i, error in enumerate(errors)
    )
    return BatchResult(
        generation=_value(int, header["generation"], "generation"),
        number=_value(int, header["number"], "number"),
        step_seconds=_value(float, header["step_seconds"], "step_seconds"),
        answers=answers,
        first_step=_value(int, header["first_step"], "first_step"),
        goes_on=_value(bool, header["goes_on"], "goes_on"),
    )
