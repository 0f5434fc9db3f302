"""`pie:ext/sampling`: what a stream may be told of its samplers, for a pass of the core interface.

Owns nothing: it fills the builder of a pass, whose next `execute` takes all of it along.
A call that is refused has changed nothing. It must never end its guest for a number out of bounds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from gpu_worker.wire import ADDEND_MAX, FACTOR_MAX, pack_adjustments
from pie_trio.wasm.host.ext_errors import with_errors_now
from pie_trio.wasm.host.faults import each_once, fault
from pie_trio.wasm.host.passes import PassAnswer, PassBuilder, log_probability_count
from pie_trio.wasm.host.state import InstanceHost

if TYPE_CHECKING:
    from pie_trio.messages import Listed
    from pie_trio.wasm.linker import HostFunction

ADJUST = "sampling.adjust"


def set_seed(_host: InstanceHost, builder: PassBuilder, seed: int) -> None:
    builder.seed = seed


@with_errors_now
def adjust(
    _host: InstanceHost, builder: PassBuilder, row: int, adjustments: Sequence[Mapping[str, Any]]
) -> None:
    """Replaces those of this row."""
    entries = [(each["token"], each["factor"], each["addend"]) for each in adjustments]
    check_tokens(ADJUST, [token for token, _, _ in entries], builder.facts.vocab_size)
    for _, factor, addend in entries:
        if not 1 / FACTOR_MAX <= factor <= FACTOR_MAX:
            raise fault(ADJUST, "a factor", factor, f"{1 / FACTOR_MAX} to {FACTOR_MAX}")
        if not (isfinite(addend) and abs(addend) <= ADDEND_MAX):
            raise fault(ADJUST, "an addend", addend, f"{-ADDEND_MAX} to {ADDEND_MAX}")
    builder.adjust(ADJUST, row, pack_adjustments(entries))


@with_errors_now
def want_logprobs(host: InstanceHost, builder: PassBuilder, count: int) -> None:
    builder.logprobs = log_probability_count("sampling.want-logprobs", count, host.limits)


def get_logprobs(
    _host: InstanceHost, answer: PassAnswer
) -> Sequence[Sequence[tuple[int, float]]] | None:
    """None until ready, then those of each token once, then an empty list."""
    if not answer.reply.is_filled:
        return None
    result = answer.reply.take()
    if answer.logprobs_taken:
        return ()
    answer.logprobs_taken = True
    return paired(result.logprobs)


def paired(lists: Sequence[Listed]) -> list[list[tuple[int, float]]]:
    return [list(zip(ids, values, strict=True)) for ids, values in lists]


def check_tokens(function: str, tokens: Sequence[int], vocab_size: int) -> None:
    """Each is one of the vocabulary, and stands there once."""
    if tokens and max(tokens) >= vocab_size:
        raise fault(function, "a token", max(tokens), f"0 to {vocab_size - 1}, the vocabulary")
    each_once(function, "tokens", tokens)


SAMPLING: Mapping[str, HostFunction] = MappingProxyType(
    {
        "set-seed": set_seed,
        "adjust": adjust,
        "want-logprobs": want_logprobs,
        "get-logprobs": get_logprobs,
    }
)
