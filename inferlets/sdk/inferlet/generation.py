"""Generation: text that is being written, piece by piece. Pure: it drives a step function.

Iterate it to get the pieces as they come, or `collect` it to get the whole; after either, `text`
and `tokens` are what was written, and `logprobs` tells of each token, if the sampler wants it to.
Abandoned or cancelled, it leaves its context usable, with the
tokens written so far in it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from inferlet.stop import StopCondition
from inferlet.text import TextStream

if TYPE_CHECKING:
    from inferlet.forward import Logprobs

# Guesses what comes after these tokens; a wrong guess costs a row of a pass and changes nothing.
Drafter = Callable[[Sequence[int]], Sequence[int]]


@dataclass(frozen=True)
class Verified:
    """What a pass over guesses gave: the new tokens, and what it said after wrong guesses; and the
    log-probabilities of the new ones, if the sampler wants them."""

    tokens: list[int]
    rest: list[int] = field(default_factory=list)
    logprobs: list[Logprobs] = field(default_factory=list)


class Generation:
    """One run from a filled context to a stop condition."""

    def __init__(
        self,
        step: Callable[[Sequence[int]], Awaitable[Verified]],
        stop: StopCondition,
        detokenize: Callable[[Sequence[int]], str],
        on_end: Callable[[int, str], None],
        on_close: Callable[[], None] = lambda: None,
    ) -> None:
        self.tokens: list[int] = []
        self.logprobs: list[Logprobs] = []
        self._step = step
        self._stop = stop
        self._stream = TextStream(detokenize)
        self._on_end = on_end
        self._on_close = on_close

    @property
    def text(self) -> str:
        return self._stream.text

    async def collect(self) -> str:
        """The whole text."""
        async for _ in self:
            pass
        return self.text

    async def __aiter__(self) -> AsyncIterator[str]:
        try:
            async for piece in self._pieces():
                yield piece
        finally:
            self._on_close()

    async def _pieces(self) -> AsyncIterator[str]:
        held_back = max(self._stop.hidden_tokens_max - 1, 0)
        fed = 0
        unused = self._stop.ask(self.tokens)
        while unused is None:
            unused = self._take(await self._step(self.tokens))
            end = len(self.tokens) - (held_back if unused is None else 0)
            for token in self.tokens[fed:end]:
                fed += 1
                piece = self._stream.feed(token)
                if piece:
                    yield piece
        last_piece = self._stream.finish()
        self._on_end(unused, self.text)
        if last_piece:
            yield last_piece

    def _take(self, new: Verified) -> int | None:
        """Adds what is text; at the end, says how many of the newest tokens are not."""
        self.logprobs += new.logprobs
        for place, token in enumerate(new.tokens):
            self.tokens.append(token)
            hidden = self._stop.ask(self.tokens)
            if hidden is not None:
                del self.tokens[len(self.tokens) - hidden :], self.logprobs[len(self.tokens) :]
                return hidden + len(new.tokens) - place - 1
        return None
