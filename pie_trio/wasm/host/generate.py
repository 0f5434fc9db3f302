"""`pie:ext/generate`: sequences that the model decodes by itself, read in chunks.

Owns the guest's view of a stream. Dropping it, or dying, stops the sequence: a step in flight
still settles, nothing more is computed. What the host keeps of it is charged to the guest.
It must never wake its guest but when a chunk is due or the sequence has ended.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import attrs

from gpu_worker.wire import ADJUSTMENT, OutputRow
from pie_trio.decode import Decode, DecodeDraft, DecodeRules
from pie_trio.messages import PageHandle
from pie_trio.penalties import Adjusting
from pie_trio.services.grammar import Matcher
from pie_trio.wasm.codec import Err
from pie_trio.wasm.host import forward
from pie_trio.wasm.host.ext_errors import error_value, with_errors, with_errors_now
from pie_trio.wasm.host.faults import fault
from pie_trio.wasm.host.message import Arrivals
from pie_trio.wasm.host.passes import (
    VALUE_BYTES,
    PassBuilder,
    draft_of,
    log_probability_count,
)
from pie_trio.wasm.host.penalties import adjusting_of
from pie_trio.wasm.host.resources import Queue
from pie_trio.wasm.host.sampling import paired
from pie_trio.wasm.host.state import HeldMemory, InstanceHost

if TYPE_CHECKING:
    from pie_trio.wasm.linker import HostFunction

START = "generate.start"
ADJUSTED_VALUES = 8  # that a token with a record takes


@attrs.define(eq=False)
class TokenStream:
    """The guest's view of a sequence that is being decoded."""

    decode: Decode
    arrivals: Arrivals
    queue: Queue
    _held: HeldMemory
    _charge: int

    def close(self) -> None:
        self.decode.stop()
        self._held.refund(self._charge)
        self._charge = 0


@attrs.frozen(eq=False)
class StreamPollable:
    """Ready when a chunk is due, and for ever after the end."""

    stream: TokenStream
    from_client: bool = attrs.field(default=False, init=False)

    def ready(self) -> bool:
        return self.stream.decode.is_ready

    async def wait(self) -> None:
        while not self.ready():
            await self.stream.arrivals.wait()


@with_errors
async def start(host: InstanceHost, queue: Queue, request: Mapping[str, Any]) -> TokenStream:
    """Hands the first pass on. Cancelled: the sequence ends with its instance."""
    return await begin(host, queue, request)


async def begin(
    host: InstanceHost, queue: Queue, request: Mapping[str, Any], under: Matcher | None = None
) -> TokenStream:
    """The same, maybe under a grammar; raises its refusals."""
    queue.check_unasked()
    rules, adjusting = _rules(request), await adjusting_of(request, queue, host.limits)
    builder = PassBuilder(queue, host.held)
    try:
        _describe(host, builder, request)
        _control(host, builder, request["sampler"], adjusting)
        if under is not None:
            builder.restrict(START, builder.outputs[0].row, under.grammar, under.written)
        draft = await draft_of(builder, host.limits)
    finally:
        builder.close()
    charge = _size_of(request, draft.outputs, adjusting, queue) * VALUE_BYTES
    arrivals = Arrivals()
    with host.held.charged(START, charge):
        reserve = tuple(map(PageHandle, request["reserve"]))
        goes_on = bool(request["generated"])
        sequence = DecodeDraft(reserve, rules, arrivals.tell, adjusting, goes_on)
        decode = await queue.handle.start(draft, sequence)
    return TokenStream(decode, arrivals, queue, host.held, charge)


def _describe(host: InstanceHost, builder: PassBuilder, request: Mapping[str, Any]) -> None:
    """The first pass, by the setters that check their arguments."""
    forward.input_tokens(host, builder, request["tokens"], request["positions"])
    forward.kv_cache(host, builder, request["pages"], request["last-page-len"])
    if request["mask"] is not None:
        forward.attention_mask(host, builder, request["mask"])
    sampler, row = request["sampler"], [max(len(builder.tokens) - 1, 0)]
    heat, top_k, top_p = sampler["temperature"], sampler["top-k"], sampler["top-p"]
    if sampler["min-p"] is not None:
        if top_k is not None or top_p is not None:
            raise fault(START, "min-p", sampler["min-p"], "alone, without top-k and top-p")
        forward.output_tokens_min_p(host, builder, row, heat, sampler["min-p"])
    elif top_k is not None and top_p is not None:
        forward.output_tokens_top_k_top_p(host, builder, row, heat, top_k, top_p)
    elif top_k is not None:
        forward.output_tokens_top_k(host, builder, row, heat, top_k)
    elif top_p is not None:
        forward.output_tokens_top_p(host, builder, row, heat, top_p)
    else:
        forward.output_tokens(host, builder, row, heat)


def _control(
    host: InstanceHost,
    builder: PassBuilder,
    sampler: Mapping[str, Any],
    adjusting: Adjusting | None,
) -> None:
    builder.seed = sampler["seed"]
    if sampler["logprobs"] is not None:
        builder.logprobs = log_probability_count(START, sampler["logprobs"], host.limits)
    if adjusting is not None:
        builder.adjust(START, builder.outputs[0].row, bytes(adjusting.records))


def _size_of(
    request: Mapping[str, Any],
    outputs: Sequence[OutputRow],
    adjusting: Adjusting | None,
    queue: Queue,
) -> int:
    """How many values the host keeps of a stream at most."""
    (output,) = outputs
    tokens = request["max-tokens"]
    size: int = tokens * (1 + 2 * output.logprobs) + len(request["reserve"])
    if adjusting is not None:
        vocab_size = queue.handle.model.facts.vocab_size
        known = len(adjusting.records) // ADJUSTMENT.size
        size += ADJUSTED_VALUES * min(known + tokens, vocab_size)
    return size


def _rules(request: Mapping[str, Any]) -> DecodeRules:
    if request["max-tokens"] < 1:
        raise fault(START, "max-tokens", request["max-tokens"], "1 or more")
    sequences = tuple(map(tuple, request["stop-sequences"]))
    if not all(sequences):
        raise fault(START, "a stop sequence", (), "at least one token")
    return DecodeRules(
        stop_tokens=frozenset(request["stop-tokens"]),
        stop_sequences=sequences,
        tokens_max=request["max-tokens"],
    )


def pollable(_host: InstanceHost, stream: TokenStream) -> StreamPollable:
    return StreamPollable(stream)


def read(_host: InstanceHost, stream: TokenStream, count: int) -> list[int] | Err:
    """The next tokens; when all are read and the sequence failed, why."""
    found = stream.decode.read(count)
    if not found and stream.decode.failure is not None:
        return Err(error_value(stream.decode.failure))
    return found


def finished(_host: InstanceHost, stream: TokenStream) -> str | None:
    """None while it runs, or while tokens are unread."""
    decode = stream.decode
    if decode.reason is None or decode.unread:
        return None
    return decode.reason.value


def logprobs(
    _host: InstanceHost, stream: TokenStream, first: int, count: int
) -> list[list[tuple[int, float]]]:
    """Of so many tokens from there on, read or not."""
    return paired(stream.decode.logprobs[first : first + count])


def stop(_host: InstanceHost, stream: TokenStream) -> int:
    return stream.decode.stop()


@with_errors_now
def truncate(_host: InstanceHost, stream: TokenStream, keep: int) -> None:
    """Afterwards, what came later is neither read nor seen by a pass."""
    decode = stream.decode
    if decode.reason is None or keep > len(decode.tokens):
        allowed = f"0 to {len(decode.tokens)}, after the end"
        raise fault("token-stream.truncate", "keep", keep, allowed)
    stream.queue.handle.truncate(decode, keep)


GENERATE: Mapping[str, HostFunction] = MappingProxyType(
    {
        "start": start,
        "[method]token-stream.pollable": pollable,
        "[method]token-stream.read": read,
        "[method]token-stream.finished": finished,
        "[method]token-stream.logprobs": logprobs,
        "[method]token-stream.stop": stop,
        "[method]token-stream.truncate": truncate,
    }
)
