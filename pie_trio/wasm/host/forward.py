"""`inferlet:core/forward`: describe a forward pass, execute it, read its answer.

Owns nothing: the description is `passes.PassBuilder`, its way is the queue. The setters
never cross anything; they check their own arguments, and `execute` checks the pass as a whole.
It must never let an answer out twice, nor lose the refusal of a pass that nobody asked about.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite
from types import MappingProxyType
from typing import TYPE_CHECKING

from gpu_worker.wire import OutputRow, SamplerKind
from pie_trio.wasm.host.faults import fault
from pie_trio.wasm.host.passes import (
    EXECUTE,
    PassAnswer,
    PassBuilder,
    answer_bytes,
    draft_of,
)
from pie_trio.wasm.host.resources import Queue
from pie_trio.wasm.host.state import InstanceHost, ReplyPollable

if TYPE_CHECKING:
    from pie_trio.wasm.linker import HostFunction

POSITION_MAX = 2**31 - 1  # what the worker's wire can carry
DISTRIBUTION_DEFAULT = 32  # ids of a distribution when the guest does not say how many
VALUES_PER_OUTPUT = 4


def create_forward_pass(host: InstanceHost, queue: Queue) -> PassBuilder:
    return PassBuilder(queue, host.held)


def attention_mask(host: InstanceHost, builder: PassBuilder, mask: Sequence[Sequence[int]]) -> None:
    """Replaces the mask: run lengths a row, the first run attends."""
    runs = sum(map(len, mask)) + len(mask)
    if runs > host.limits.mask_runs_max:
        allowed = f"at most {host.limits.mask_runs_max} (mask_runs_max)"
        raise fault("attention-mask", "the number of runs and rows", runs, allowed)
    builder.charge("attention-mask", runs)
    builder.refund(builder.mask_runs)
    builder.mask, builder.mask_runs = mask, runs


def kv_cache(
    _host: InstanceHost, builder: PassBuilder, handles: Sequence[int], last_page_length: int
) -> None:
    """Replaces the pages; the last length counts the inputs of this pass too."""
    builder.charge("kv-cache", len(handles))
    builder.refund(len(builder.pages))
    builder.pages = handles
    builder.last_page_length = last_page_length


def input_embeddings(
    host: InstanceHost, builder: PassBuilder, handles: Sequence[int], positions: Sequence[int]
) -> None:
    _append_rows(host, builder, "input-embeddings", [-1 - handle for handle in handles], positions)


def input_tokens(
    host: InstanceHost, builder: PassBuilder, tokens: Sequence[int], positions: Sequence[int]
) -> None:
    vocab_size = builder.facts.vocab_size
    if tokens and max(tokens) >= vocab_size:
        allowed = f"0 to {vocab_size - 1}, the vocabulary"
        raise fault("input-tokens", "a token", max(tokens), allowed)
    _append_rows(host, builder, "input-tokens", tokens, positions)


def _append_rows(
    host: InstanceHost,
    builder: PassBuilder,
    function: str,
    tokens: Sequence[int],
    positions: Sequence[int],
) -> None:
    if len(tokens) != len(positions):
        allowed = f"{len(tokens)}, one an input"
        raise fault(function, "the number of positions", len(positions), allowed)
    if positions and max(positions) > POSITION_MAX:
        raise fault(function, "a position", max(positions), f"0 to {POSITION_MAX}")
    rows = len(builder.tokens) + len(tokens)
    if rows > host.limits.pass_rows_max:
        allowed = f"at most {host.limits.pass_rows_max} (pass_rows_max)"
        raise fault(function, "the number of inputs of the pass", rows, allowed)
    builder.charge(function, 2 * len(tokens))
    builder.tokens += tokens
    builder.positions += positions


def output_embeddings(
    host: InstanceHost, builder: PassBuilder, handles: Sequence[int], indices: Sequence[int]
) -> None:
    if len(handles) != len(indices):
        allowed = f"{len(handles)}, one an embedding"
        raise fault("output-embeddings", "the number of indices", len(indices), allowed)
    _make_room_for_outputs(host, builder, "output-embeddings", len(indices))
    builder.embed_outputs += zip(indices, handles, strict=True)


def output_distributions(
    host: InstanceHost,
    builder: PassBuilder,
    indices: Sequence[int],
    temperature: float,
    top_k: int | None,
) -> None:
    function = "output-distributions"
    _check_temperature(function, temperature)
    _check_top_k(function, 1 if top_k is None else top_k)
    count = min(DISTRIBUTION_DEFAULT if top_k is None else top_k, builder.facts.distribution_max)
    _make_room_for_outputs(host, builder, function, len(indices))
    kind = SamplerKind.DISTRIBUTION
    builder.outputs += (OutputRow(row, kind, temperature, top_k=count) for row in indices)


def output_tokens(
    host: InstanceHost, builder: PassBuilder, indices: Sequence[int], temperature: float
) -> None:
    _check_temperature("output-tokens", temperature)
    _make_room_for_outputs(host, builder, "output-tokens", len(indices))
    builder.outputs += (OutputRow(row, SamplerKind.MULTINOMIAL, temperature) for row in indices)


def output_tokens_top_k(
    host: InstanceHost,
    builder: PassBuilder,
    indices: Sequence[int],
    temperature: float,
    top_k: int,
) -> None:
    function = "output-tokens-top-k"
    _check_temperature(function, temperature)
    _check_top_k(function, top_k)
    _make_room_for_outputs(host, builder, function, len(indices))
    count = min(top_k, builder.facts.vocab_size)
    kind = SamplerKind.TOP_K
    builder.outputs += (OutputRow(row, kind, temperature, top_k=count) for row in indices)


def output_tokens_top_p(
    host: InstanceHost,
    builder: PassBuilder,
    indices: Sequence[int],
    temperature: float,
    top_p: float,
) -> None:
    function = "output-tokens-top-p"
    _check_temperature(function, temperature)
    _check_top_p(function, top_p)
    _make_room_for_outputs(host, builder, function, len(indices))
    kind = SamplerKind.TOP_P
    builder.outputs += (OutputRow(row, kind, temperature, top_p=top_p) for row in indices)


def output_tokens_min_p(
    host: InstanceHost,
    builder: PassBuilder,
    indices: Sequence[int],
    temperature: float,
    min_p: float,
) -> None:
    function = "output-tokens-min-p"
    _check_temperature(function, temperature)
    if not 0.0 <= min_p <= 1.0:
        raise fault(function, "min-p", min_p, "0 to 1")
    _make_room_for_outputs(host, builder, function, len(indices))
    kind = SamplerKind.MIN_P
    builder.outputs += (OutputRow(row, kind, temperature, min_p=min_p) for row in indices)


def output_tokens_top_k_top_p(
    host: InstanceHost,
    builder: PassBuilder,
    indices: Sequence[int],
    temperature: float,
    top_k: int,
    top_p: float,
) -> None:
    function = "output-tokens-top-k-top-p"
    _check_temperature(function, temperature)
    _check_top_k(function, top_k)
    _check_top_p(function, top_p)
    _make_room_for_outputs(host, builder, function, len(indices))
    count = min(top_k, builder.facts.vocab_size)
    kind = SamplerKind.TOP_K_TOP_P
    builder.outputs += (
        OutputRow(row, kind, temperature, top_k=count, top_p=top_p) for row in indices
    )


def _check_temperature(function: str, temperature: float) -> None:
    if not (isfinite(temperature) and temperature >= 0.0):
        raise fault(function, "temperature", temperature, "a finite number, 0 (greedy) or more")


def _check_top_k(function: str, top_k: int) -> None:
    if top_k < 1:
        raise fault(function, "top-k", top_k, "1 or more")


def _check_top_p(function: str, top_p: float) -> None:
    if not 0.0 < top_p <= 1.0:
        raise fault(function, "top-p", top_p, "more than 0, at most 1")


def _make_room_for_outputs(
    host: InstanceHost, builder: PassBuilder, function: str, count: int
) -> None:
    outputs = len(builder.outputs) + len(builder.embed_outputs) + count
    if outputs > host.limits.pass_outputs_max:
        allowed = f"at most {host.limits.pass_outputs_max} (pass_outputs_max)"
        raise fault(function, "the number of outputs of the pass", outputs, allowed)
    builder.charge(function, VALUES_PER_OUTPUT * count)


async def execute(host: InstanceHost, builder: PassBuilder) -> PassAnswer | None:
    """Sends the pass on and empties the builder; none if no token or distribution was asked for.

    Cancelled: the pass may still run; its answer falls into an empty slot.
    """
    queue = builder.queue
    queue.check_unasked()
    draft = await draft_of(builder, host.limits)
    charge = answer_bytes(draft.outputs)
    host.held.charge(EXECUTE, charge)
    reply = await queue.handle.submit(draft)
    builder.clear()
    if draft.outputs:
        return PassAnswer(reply, host.held, charge)
    queue.unasked.append(reply)
    return None


def result_pollable(_host: InstanceHost, answer: PassAnswer) -> ReplyPollable:
    return ReplyPollable(answer.reply)


def get_distributions(
    _host: InstanceHost, answer: PassAnswer
) -> Sequence[tuple[list[int], list[float]]] | None:
    """None until ready, then the distributions once, then an empty list."""
    if not answer.reply.is_filled:
        return None
    result = answer.reply.take()
    if answer.distributions_taken:
        return ()
    answer.distributions_taken = True
    return result.distributions


def get_tokens(_host: InstanceHost, answer: PassAnswer) -> Sequence[int] | None:
    """None until ready, then the tokens once, then an empty list."""
    if not answer.reply.is_filled:
        return None
    result = answer.reply.take()
    if answer.tokens_taken:
        return ()
    answer.tokens_taken = True
    return result.tokens


FORWARD: Mapping[str, HostFunction] = MappingProxyType(
    {
        "create-forward-pass": create_forward_pass,
        "attention-mask": attention_mask,
        "kv-cache": kv_cache,
        "input-embeddings": input_embeddings,
        "input-tokens": input_tokens,
        "output-embeddings": output_embeddings,
        "output-distributions": output_distributions,
        "output-tokens": output_tokens,
        "output-tokens-top-k": output_tokens_top_k,
        "output-tokens-top-p": output_tokens_top_p,
        "output-tokens-min-p": output_tokens_min_p,
        "output-tokens-top-k-top-p": output_tokens_top_k_top_p,
        "[method]forward-pass.execute": execute,
        "[method]forward-pass-result.pollable": result_pollable,
        "[method]forward-pass-result.get-distributions": get_distributions,
        "[method]forward-pass-result.get-tokens": get_tokens,
    }
)
