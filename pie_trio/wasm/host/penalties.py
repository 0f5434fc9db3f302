"""The penalties and biases of a stream, from a guest's request: checked, and told of its text.

What a guest leaves out changes nothing; a number out of bounds is refused by its name. Cancelled:
nothing has happened. It must never take a text that is longer than its sequence may adjust.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import trio

from pie_trio.config import Limits
from pie_trio.penalties import Adjusting, Penalties
from pie_trio.wasm.host.faults import fault
from pie_trio.wasm.host.resources import Queue
from pie_trio.wasm.host.sampling import check_tokens

START = "generate.start"
TOKENS_BETWEEN_CHECKPOINTS = 1024


async def adjusting_of(
    request: Mapping[str, Any], queue: Queue, limits: Limits
) -> Adjusting | None:
    """None if nothing of its logits is changed."""
    vocab_size = queue.handle.model.facts.vocab_size
    penalties = _penalties(request["sampler"], vocab_size, limits)
    read: list[int] = [*request["earlier"], *request["tokens"]]
    written: list[int] = request["generated"]
    text = [*read, *written]
    if len(text) > limits.pass_rows_max:
        allowed = f"at most {limits.pass_rows_max} (pass_rows_max)"
        raise fault(START, "the number of tokens of the text", len(text), allowed)
    if text and max(text) >= vocab_size:
        raise fault(START, "a token", max(text), f"0 to {vocab_size - 1}, the vocabulary")
    if penalties.changes_nothing:
        return None
    _check_room(penalties, text, request["max-tokens"], vocab_size, limits)
    adjusting = Adjusting(penalties)
    for tell, tokens in ((adjusting.read, read), (adjusting.wrote, written)):
        for first in range(0, len(tokens), TOKENS_BETWEEN_CHECKPOINTS):
            if first:
                await trio.lowlevel.checkpoint()  # long texts take milliseconds
            tell(tokens[first : first + TOKENS_BETWEEN_CHECKPOINTS])
    return adjusting


def _penalties(sampler: Mapping[str, Any], vocab_size: int, limits: Limits) -> Penalties:
    bias = [(token, value) for token, value in sampler["logit-bias"]]
    check_tokens(START, [token for token, _ in bias], vocab_size)
    for _, value in bias:
        _check_size("a logit bias", value, limits.logit_bias_max, "logit_bias_max")
    found = Penalties(
        repetition=_given(sampler["repetition-penalty"], 1.0),
        frequency=_given(sampler["frequency-penalty"], 0.0),
        presence=_given(sampler["presence-penalty"], 0.0),
        bias=dict(bias),
    )
    bound = limits.penalty_max
    if not 1 / bound <= found.repetition <= bound:
        allowed = f"{1 / bound} to {bound} (penalty_max)"
        raise fault(START, "repetition-penalty", found.repetition, allowed)
    _check_size("frequency-penalty", found.frequency, bound, "penalty_max")
    _check_size("presence-penalty", found.presence, bound, "penalty_max")
    return found


def _given(value: float | None, otherwise: float) -> float:
    return otherwise if value is None else value


def _check_size(what: str, value: float, bound: float, name: str) -> None:
    if not abs(value) <= bound:
        raise fault(START, what, value, f"{-bound} to {bound} ({name})")


def _check_room(
    penalties: Penalties,
    text: Sequence[int],
    tokens_max: int,
    vocab_size: int,
    limits: Limits,
) -> None:
    most = len(penalties.bias)
    if penalties.counts_text:
        most = min(most + len(text) + tokens_max, vocab_size)
    if most > limits.pass_adjustments_max:
        allowed = f"at most {limits.pass_adjustments_max} (pass_adjustments_max)"
        raise fault(START, "the number of tokens to adjust", most, allowed)
