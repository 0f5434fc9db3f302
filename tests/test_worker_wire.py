"""The worker's wire: what is sent arrives, and what is damaged is refused by one exception only."""

from __future__ import annotations

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpu_worker import wire
from gpu_worker.wire import (
    Answer,
    Batch,
    BatchArrays,
    BatchResult,
    OutputRow,
    Request,
    SamplerKind,
    WireError,
    decode,
    encode,
    pack_adjustments,
)

I32 = st.integers(-(2**31), 2**31 - 1)
U32 = st.integers(0, 2**31 - 1)
U64 = st.integers(0, 2**64 - 1)
F32 = st.floats(width=32, allow_nan=False)
TEXT = st.text(max_size=20)
HOT = SamplerKind.MULTINOMIAL
LIMITS = wire.WorkerLimits(16, 1 << 40, None, 128, 2048, 256)

ADJUSTMENTS = st.lists(st.tuples(I32, F32, F32), max_size=3).map(pack_adjustments)
OUTPUTS = st.builds(
    OutputRow, U32, st.sampled_from(SamplerKind), F32, U32, F32, F32, U32, ADJUSTMENTS
)


@st.composite
def requests(draw: st.DrawFn) -> Request:
    rows = draw(st.integers(0, 4))
    interval = st.tuples(U32, U32)
    mask_row = st.lists(interval, max_size=3).map(lambda pairs: tuple(v for p in pairs for v in p))
    mask = draw(st.none() | st.tuples(*[mask_row] * rows))
    return Request(
        tokens=draw(st.tuples(*[I32] * rows)),
        positions=draw(st.tuples(*[U32] * rows)),
        pages=tuple(draw(st.lists(U32, max_size=4))),
        last_page_length=draw(U32),
        mask=mask,
        outputs=tuple(draw(st.lists(OUTPUTS, max_size=3))),
        embed_outputs=tuple(draw(st.lists(st.tuples(U32, U32), max_size=2))),
        seed=draw(U64),
    )


BATCHES = st.builds(
    Batch,
    U64,
    U64,
    st.lists(st.tuples(U32, U32), max_size=3).map(tuple),
    st.lists(requests(), max_size=4).map(tuple),
)
DISTRIBUTIONS = st.lists(st.tuples(U32, F32), max_size=3).map(
    lambda pairs: ([token for token, _ in pairs], [p for _, p in pairs])
)
ANSWERS = st.builds(
    Answer,
    st.lists(U32, max_size=3).map(tuple),
    st.lists(DISTRIBUTIONS, max_size=2).map(tuple),
    st.none() | TEXT,
)
RESULTS = st.builds(
    BatchResult,
    U64,
    U64,
    st.floats(0, 1e6),
    st.lists(ANSWERS, max_size=4).map(tuple),
)
HEADER_ONLY = st.one_of(
    st.builds(wire.Join, U32, U32),
    st.builds(wire.Start, U64, U64, st.just(LIMITS)),
    st.builds(wire.Hello, *[U32] * 3, TEXT, *[U32] * 8, TEXT),
    st.builds(wire.Heartbeat, U64, st.none() | U64, st.floats(0, 1e6)),
    st.just(wire.Halt()),
    st.just(wire.Drain()),
    st.just(wire.Drained()),
    st.builds(wire.Failed, TEXT),
)


@given(BATCHES)
def test_a_batch_arrives_as_it_was_sent(batch: Batch) -> None:
    arrived = decode(encode(batch))
    assert isinstance(arrived, BatchArrays)
    assert arrived.to_batch() == batch
    assert encode(arrived) == encode(batch)


@given(RESULTS | HEADER_ONLY)
def test_every_other_message_arrives_as_it_was_sent(message: wire.Message) -> None:
    assert decode(encode(message)) == message


def test_arrays_of_a_batch_are_views_into_the_frames() -> None:
    frames = encode(Batch(1, 1, (), (Request((1, 2), (0, 1), (3,), 2, None, (), (), 5),)))
    arrived = decode(frames)
    assert isinstance(arrived, BatchArrays)
    assert any(np.shares_memory(arrived.tokens, np.frombuffer(f, "<i4")) for f in frames[1:] if f)


@settings(max_examples=30)
@given(BATCHES | RESULTS | HEADER_ONLY)
def test_a_message_cut_anywhere_is_refused_or_whole(message: wire.Message) -> None:
    """Cuts each frame at each length: a shorter array may never pass for a whole message."""
    frames = encode(message)
    for index, frame in enumerate(frames):
        for length in range(len(frame)):
            with pytest.raises(WireError):
                decode([*frames[:index], frame[:length], *frames[index + 1 :]])
    for count in range(len(frames)):
        with pytest.raises(WireError):
            decode(frames[:count])


@given(BATCHES | RESULTS, st.data())
def test_damaged_frames_raise_nothing_but_wire_errors(
    message: wire.Message, data: st.DataObject
) -> None:
    frames = [bytearray(frame) for frame in encode(message)]
    index = data.draw(st.sampled_from([i for i, frame in enumerate(frames) if frame]))
    frames[index][data.draw(st.integers(0, len(frames[index]) - 1))] ^= data.draw(
        st.integers(1, 255)
    )
    try:
        decode(frames)
    except WireError:
        return


@given(st.lists(st.binary(max_size=40), max_size=4))
def test_noise_raises_nothing_but_wire_errors(frames: list[bytes]) -> None:
    with pytest.raises(WireError):
        decode(frames)


@pytest.mark.parametrize(
    "header",
    [
        [1, 2],
        {"type": "nonsense"},
        {"type": ["join"]},
        {"type": "join", "protocol": 1},
        {"type": "join", "protocol": 1, "pid": -1},
        {"type": "join", "protocol": True, "pid": 1},
        {"type": "join", "protocol": 1, "pid": 2, "more": 3},
        {"type": "heartbeat", "generation": 1, "busy_batch": None, "busy_seconds": float("nan")},
        {"type": "start", "generation": 1, "engine_seed": 1, "limits": 3},
        {"type": "failed", "text": b"bytes"},
        {1: 2},
    ],
)
def test_a_header_that_breaks_the_schema_is_refused(header: object) -> None:
    with pytest.raises(WireError):
        decode([msgpack.packb(header)])


def test_an_index_pointer_that_wraps_around_is_refused() -> None:
    """The difference of the extremes overflows, which must not make a fall look like a rise."""
    frames = encode(Batch(1, 1, (), (Request((1,), (0,), (1,), 1, None, (), (), 0),) * 3))
    names = [name for name, _ in wire.arrays.BATCH_FRAMES]
    frames[1 + names.index("row_indptr")] = np.array([0, 2**31 - 1, -(2**31), 3], "<i4").tobytes()
    with pytest.raises(WireError, match="falls"):
        decode(frames)


@pytest.mark.parametrize(
    "request_",
    [
        Request((2**31,), (0,), (1,), 1, None, (), (), 0),
        Request((1,), (0, 1), (1,), 1, None, (), (), 0),
        Request((1,), (0,), (1,), 1, (), (), (), 0),
        Request((1,), (0,), (1,), 1, ((0,),), (), (), 0),
        Request((1,), (0,), (1,), 1, None, (), (), -1),
        Request((1,), (0,), (1,), 1, None, (OutputRow(0, HOT, 0.0, adjustments=b"cut"),), (), 0),
        Request(("a",), (0,), (1,), 1, None, (), (), 0),  # type: ignore[arg-type]
    ],
)
def test_a_request_that_does_not_fit_the_wire_is_refused_by_its_sender(request_: Request) -> None:
    with pytest.raises(WireError):
        encode(Batch(1, 1, (), (request_,)))
