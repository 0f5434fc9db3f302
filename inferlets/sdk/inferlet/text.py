"""TextStream: turns tokens into text as they come, never splitting a character. Pure.

A character may span several tokens, and the spaces around a token depend on the token before it, so
text is always decoded from a little before what was shown last.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

UNFINISHED = "\ufffd"  # what decoding gives for a character whose last bytes are still to come
CHARACTER_TOKENS = 4  # as many bytes has the longest one


class TextStream:
    """Feeds on tokens, gives out text; `text` is all that was given out."""

    def __init__(self, detokenize: Callable[[Sequence[int]], str]) -> None:
        self._detokenize = detokenize
        self._tokens: list[int] = []
        self._context = 0  # decoding starts here
        self._shown = 0  # the text of the tokens before this place was given out
        self.text = ""

    def feed(self, *tokens: int) -> str:
        """The text that these tokens complete; "" while a character is unfinished."""
        self._tokens += tokens
        end, known = len(self._tokens), self._known()
        for place in range(end, end - min(len(tokens), CHARACTER_TOKENS), -1):
            piece = self._text_to(place)[known:]
            if not piece.endswith(UNFINISHED):
                return self._show(piece, place)
        return ""

    def finish(self) -> str:
        """What is left at the end, complete or not."""
        end = len(self._tokens)
        return self._show(self._text_to(end)[self._known() :], end)

    def _known(self) -> int:
        """How much of the text to any place was given out."""
        return len(self._text_to(self._shown))

    def _text_to(self, end: int) -> str:
        return self._detokenize(self._tokens[self._context : end])

    def _show(self, piece: str, end: int) -> str:
        if piece:
            self._context, self._shown = self._shown, end
            self.text += piece
        return piece
