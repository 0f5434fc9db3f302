"""TextStream: turns tokens into text as they come, never splitting a character. Pure.

A character may span several tokens, and the spaces around a token depend on the token before it, so
text is always decoded from a little before what was shown last.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

UNFINISHED = "\ufffd"  # what decoding gives for a character whose last bytes are still to come


class TextStream:
    """Feeds on tokens, gives out text; `text` is all that was given out."""

    def __init__(self, detokenize: Callable[[Sequence[int]], str]) -> None:
        self._detokenize = detokenize
        self._tokens: list[int] = []
        self._context = 0  # decoding starts here
        self._shown = 0  # the text of the tokens before this place was given out
        self.text = ""

    def feed(self, token: int) -> str:
        """The text that this token completes; "" while a character is unfinished."""
        self._tokens.append(token)
        piece = self._new_text()
        return "" if piece.endswith(UNFINISHED) else self._show(piece)

    def finish(self) -> str:
        """What is left at the end, complete or not."""
        return self._show(self._new_text())

    def _new_text(self) -> str:
        old = self._detokenize(self._tokens[self._context : self._shown])
        return self._detokenize(self._tokens[self._context :])[len(old) :]

    def _show(self, piece: str) -> str:
        if piece:
            self._context, self._shown = self._shown, len(self._tokens)
            self.text += piece
        return piece
