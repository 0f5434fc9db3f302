"""Generation: text that is being written, piece by piece. Pure: it drives a step function.

Iterate it to get the pieces as they come, or `collect` it to get the whole; after either, `text`
and `tokens` are what was written. Abandoned or cancelled, it leaves its context usable, with the
tokens written so far in it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

from inferlet.stop import StopCondition
from inferlet.text import TextStream


class Generation:
    """One run from a filled context to a stop condition."""

    def __init__(
        self,
        step: Callable[[], Awaitable[int]],
        stop: StopCondition,
        detokenize: Callable[[Sequence[int]], str],
        on_end: Callable[[int, str], None],
    ) -> None:
        self.tokens: list[int] = []
        self._step = step
        self._stop = stop
        self._stream = TextStream(detokenize)
        self._on_end = on_end

    @property
    def text(self) -> str:
        return self._stream.text

    async def collect(self) -> str:
        """The whole text."""
        async for _ in self:
            pass
        return self.text

    async def __aiter__(self) -> AsyncIterator[str]:
        held_back = max(self._stop.hidden_tokens_max - 1, 0)
        fed = 0
        hidden: int | None = None
        while hidden is None:
            self.tokens.append(await self._step())
            hidden = self._stop.ask(self.tokens)
            end = len(self.tokens) - (held_back if hidden is None else hidden)
            for token in self.tokens[fed:end]:
                fed += 1
                piece = self._stream.feed(token)
                if piece:
                    yield piece
        del self.tokens[len(self.tokens) - hidden :]
        last_piece = self._stream.finish()
        self._on_end(hidden, self.text)
        if last_piece:
            yield last_piece
