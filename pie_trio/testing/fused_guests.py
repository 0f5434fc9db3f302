"""Scripted guests that have a text written by a stream and by passes, and fall when they differ.

A stream is read to its end, stopped, cut or dropped at some moment, and another goes on from there;
penalties, biases, seeds and log-probabilities are counted here anew for the passes. What differs
is an `AssertionError`; errors by name are part of life and end a script as they end a guest.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import attrs

from pie_trio.config import Limits
from pie_trio.errors import PassFailed
from pie_trio.testing.checked_guests import PROMPT, tidy
from pie_trio.testing.deeds import PLAIN_SAMPLER, stream_request
from pie_trio.testing.guests import Script, ScriptHost, refuse
from pie_trio.wasm.codec import Err
from pie_trio.wasm.host.forward import FORWARD
from pie_trio.wasm.host.generate import GENERATE
from pie_trio.wasm.host.resources import Queue
from pie_trio.wasm.host.sampling import SAMPLING
from pie_trio.wasm.wasi.poll import POLL

# Numbers that fp32 has exactly.
SAMPLERS: tuple[Mapping[str, Any], ...] = (
    {"seed": 3, "temperature": 1.0, "repetition-penalty": 2.0},
    {"seed": 4, "temperature": 0.5, "frequency-penalty": 0.5, "presence-penalty": 0.25},
    {"logprobs": 2, "repetition-penalty": 1.5, "presence-penalty": -0.5},
    {"logprobs": 0, "logit-bias": [(60, 2.5), (61, -8.0)], "frequency-penalty": 0.25},
    {},
    {"seed": 5, "temperature": 1.0},
    {"seed": 6, "temperature": 0.5, "logprobs": 1},
)
CARRIED_ON: frozenset[str] = frozenset({"seed", "temperature", "logprobs"})  # by the worker alone
Told = list[tuple[int, float]]


@attrs.define
class Writing:
    """One text over its own pages: what is known of it, and where it is to end."""

    guest: ScriptHost
    queue: Queue
    pages: list[int]
    prompt: list[int]
    count: int
    sampler: Mapping[str, Any]
    tokens: list[int] = attrs.field(factory=list)
    told: list[Told] = attrs.field(factory=list)

    @property
    def text(self) -> list[int]:
        return self.prompt + self.tokens

    async def by_passes(self) -> None:
        while len(self.tokens) < self.count:
            await self._one_pass(len(self.text) - 1 if self.tokens else 0)

    async def _one_pass(self, start: int) -> None:
        call, text = self.guest.call, self.text
        row = len(text) - start - 1
        builder = await call(FORWARD["create-forward-pass"], self.queue)
        used = self.guest.pages_for(len(text))
        last = (len(text) - 1) % self.guest.page_tokens + 1
        await call(FORWARD["kv-cache"], builder, self.pages[:used], last)
        await call(FORWARD["input-tokens"], builder, text[start:], list(range(start, len(text))))
        heat = self.sampler.get("temperature", 0.0)
        await call(FORWARD["output-tokens"], builder, [row], heat)
        if "seed" in self.sampler:
            await call(SAMPLING["set-seed"], builder, self.sampler["seed"])
        if "logprobs" in self.sampler:
            await call(SAMPLING["want-logprobs"], builder, self.sampler["logprobs"])
        refused = await call(SAMPLING["adjust"], builder, row, self._adjustments())
        assert refused is None, "an adjustment within bounds was refused"
        answer = await call(FORWARD["[method]forward-pass.execute"], builder)
        await answer.reply.wait()
        try:
            self.tokens += await call(FORWARD["[method]forward-pass-result.get-tokens"], answer)
        except PassFailed:
            raise refuse("its pass failed") from None
        self.told += await call(SAMPLING["get-logprobs"], answer)
        answer.close()

    def _adjustments(self) -> list[dict[str, Any]]:
        """By the definition, from the whole text."""
        found: dict[int, tuple[float, float]] = {}
        bias = dict(self.sampler.get("logit-bias", ()))
        for token in {*self.text, *bias}:
            times = self.tokens.count(token)
            factor = self.sampler.get("repetition-penalty", 1.0) if token in self.text else 1.0
            addend = bias.get(token, 0.0) - self.sampler.get("frequency-penalty", 0.0) * times
            addend -= self.sampler.get("presence-penalty", 0.0) if times else 0.0
            if (factor, addend) != (1.0, 0.0) or token in self._counted():
                found[token] = (factor, addend)
        return [
            {"token": token, "factor": factor, "addend": addend}
            for token, (factor, addend) in found.items()
        ]

    def _counted(self) -> set[int]:
        """The pretend worker tells records that change nothing from none: these have them."""
        rules = self.sampler.keys()
        read = set(self.text) if "repetition-penalty" in rules else set[int]()
        if rules & {"repetition-penalty", "frequency-penalty", "presence-penalty"}:
            read |= {*self.tokens}
        return read

    async def open_stream(self) -> Any:
        start = len(self.text) - 1 if self.tokens else 0
        used = self.guest.pages_for(len(self.text))
        request = dict(stream_request(self.pages[:used], self.pages[used:], 1)) | {
            "tokens": self.text[start:],
            "positions": list(range(start, len(self.text))),
            "last-page-len": (len(self.text) - 1) % self.guest.page_tokens + 1,
            "sampler": {**PLAIN_SAMPLER, **self.sampler},
            "max-tokens": self.count - len(self.tokens),
            "earlier": self.text[:start],
            "generated": self.tokens,
        }
        stream = await self.guest.call(GENERATE["start"], self.queue, request)
        if isinstance(stream, Err):
            assert stream.payload.tag != "invalid", f"a stream may not go on: {stream.payload}"
            raise refuse("its stream was refused")
        return stream

    async def hear(self, stream: Any, enough: int) -> None:
        """Reads until there are so many tokens, or the stream has ended."""
        call, before = self.guest.call, len(self.tokens)
        pollable = await call(GENERATE["[method]token-stream.pollable"], stream)
        while len(self.tokens) < enough:
            reason = await call(GENERATE["[method]token-stream.finished"], stream)
            await call(POLL["[method]pollable.block"], pollable)
            found = await call(GENERATE["[method]token-stream.read"], stream, 4)
            if isinstance(found, Err):
                raise refuse("its stream failed")
            if reason is not None:
                break
            self.tokens += found
        count = len(self.tokens) - before
        self.told += await call(GENERATE["[method]token-stream.logprobs"], stream, 0, count)


async def _whole(writing: Writing, _some: int) -> None:
    stream = await writing.open_stream()
    await writing.hear(stream, writing.count)
    stream.close()


async def _stopped(writing: Writing, some: int) -> None:
    """What came by then is right, and there is at most what was under way."""
    stream, call = await writing.open_stream(), writing.guest.call
    await writing.hear(stream, some)
    so_far = await call(GENERATE["[method]token-stream.stop"], stream)
    heard = len(writing.tokens)
    rest = Writing(**{**attrs.asdict(writing, recurse=False), "tokens": [], "told": []})
    await rest.hear(stream, writing.count - heard)
    writing.tokens += rest.tokens
    under_way = Limits().decode_chunk_tokens if CARRIED_ON.issuperset(writing.sampler) else 1
    assert so_far <= len(writing.tokens) <= so_far + under_way, "a stopped stream went on"
    told = await call(GENERATE["[method]token-stream.logprobs"], stream, heard, writing.count)
    writing.told += told
    stream.close()


async def _cut(writing: Writing, some: int) -> None:
    """Then another goes on from there."""
    stream = await writing.open_stream()
    await writing.hear(stream, writing.count)
    refused = await writing.guest.call(GENERATE["[method]token-stream.truncate"], stream, some)
    assert refused is None, "a stream that has ended was not cut"
    told = GENERATE["[method]token-stream.logprobs"]
    left = await writing.guest.call(told, stream, some, writing.count)
    assert not left, "a stream tells of tokens that were cut"
    stream.close()
    del writing.tokens[some:], writing.told[some:]
    if some < writing.count:
        await _whole(writing, 0)


async def _dropped(writing: Writing, some: int) -> None:
    """In the middle; another goes on from what was heard."""
    stream = await writing.open_stream()
    await writing.hear(stream, some)
    stream.close()
    if len(writing.tokens) < writing.count:
        await _whole(writing, 0)


WAYS = MappingProxyType({"whole": _whole, "stop": _stopped, "cut": _cut, "drop": _dropped})


@tidy
async def fused(guest: ScriptHost) -> str:
    """Which prompt and sampler, how many tokens, what becomes of the stream, and when."""
    number, count, way = guest.number(0, 0), guest.number(1, 12), guest.text(2, "whole")
    queue = Queue(guest.queue, guest.host)
    guest.host.queues_open += 1
    prompt = [*PROMPT, *PROMPT][: 1 + 5 * number % 17]
    pages = await guest.allocate(guest.pages_for(len(prompt) + count))
    sampler = SAMPLERS[number % len(SAMPLERS)]
    texts = [Writing(guest, queue, pages, prompt, count, sampler) for _ in range(2)]
    await WAYS[way](texts[0], min(guest.number(3, 5), count))
    await texts[1].by_passes()
    _compare(*texts)
    await guest.free(pages)
    return json.dumps([texts[1].tokens, len(texts[1].told)])


def _compare(streamed: Writing, passed: Writing) -> None:
    length = len(streamed.tokens)
    assert streamed.tokens == passed.tokens[:length], "a stream says what passes do not"
    told = passed.told[: length if "logprobs" in passed.sampler else 0]
    assert _told(streamed.told) == _told(told), "a stream tells what passes do not"


def _told(told: Sequence[Sequence[tuple[int, float]]]) -> list[list[tuple[int, float]]]:
    return [[(token, value) for token, value in each] for each in told]


FUSED: Mapping[str, Script] = MappingProxyType({"fused": fused})
