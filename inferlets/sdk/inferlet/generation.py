"""Generation: text that is being written, piece by piece. Pure: it drives a step function.

Iterate its `chunks` to get text as it comes, itself to look at the context after each token, or
`collect` it to get the whole; after any of them, `text` and `tokens` are what was written, and
`logprobs` tells of each token, if the sampler wants it to. Abandoned or cancelled, it leaves its
context usable, with the tokens written so far in it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from inferlet.stop import StopCondition
from inferlet.text import TextStream

if TYPE_CHECKING:
    from inferlet.forward import Logprobs

CHUNK_TOKENS = 64  # that are taken at once, if they are there
# Guesses what comes after these tokens; a wrong guess costs a row of a pass and changes nothing.
Drafter = Callable[[Sequence[int]], Sequence[int]]


@dataclass(frozen=True)
class Verified:
    """What a pass over guesses gave: the new tokens, and what it said after wrong guesses; the
    log-probabilities of the new ones, if the sampler wants them; and whether the engine would have
    stopped before the last one, if it were to."""

    tokens: list[int]
    rest: list[int] = field(default_factory=list)
    logprobs: list[Logprobs] = field(default_factory=list)
    is_checked: bool = False


class Generation:
    """One run from a filled context to a stop condition.

    `step` continues the tokens that it is given by one, or by as many as are there up to a number.
    """

    def __init__(
        self,
        step: Callable[[Sequence[int], int], Awaitable[Verified]],
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
        async for _ in self.chunks():
            pass
        return self.text

    def __aiter__(self) -> AsyncIterator[str]:
        """Token by token: with each piece the context is as if no more had been asked for."""
        return self._pieces(1)

    def chunks(self) -> AsyncIterator[str]:
        """The same text in fewer pieces: what the model wrote meanwhile is one, and the context is
        at its end. How much that is depends on the time; the text does not."""
        return self._pieces(CHUNK_TOKENS)

    async def _pieces(self, tokens_most: int) -> AsyncIterator[str]:
        held_back = max(self._stop.hidden_tokens_max - 1, 0)
        fed = 0
        try:
            unused = self._stop.ask(self.tokens)
            while unused is None:
                unused = self._take(await self._step(self.tokens, tokens_most))
                end = len(self.tokens) - (held_back if unused is None else 0)
                while fed < end:
                    new = self.tokens[fed : min(fed + tokens_most, end)]
                    fed += len(new)
                    piece = self._stream.feed(*new)
                    if piece:
                        yield piece
            last_piece = self._stream.finish()
            self._on_end(unused, self.text)
            if last_piece:
                yield last_piece
        finally:
            self._on_close()

    def _take(self, new: Verified) -> int | None:
        """Adds what is text; at the end, says how many of the newest tokens are not."""
        self.logprobs += new.logprobs
        checked = len(new.tokens) - 1 if new.is_checked and self._stop.is_told else 0
        self.tokens += new.tokens[:checked]
        for place, token in enumerate(new.tokens[checked:], checked):
            self.tokens.append(token)
            hidden = self._stop.ask(self.tokens)
            if hidden is not None:
                del self.tokens[len(self.tokens) - hidden :], self.logprobs[len(self.tokens) :]
                return hidden + len(new.tokens) - place - 1
        return None
