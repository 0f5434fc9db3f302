"""Text to token ids and back, as the model's own `tokenizer.json` defines it.

Owns nothing but the loaded vocabulary; every call is a pure function of its arguments.
Special tokens are recognised in text and shown in it, as the original system does.
It must never import a deep-learning library, nor go to the network.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from tokenizers import Tokenizer as FastTokenizer

from pie_trio.errors import BadModel

_BYTE_FALLBACK_LENGTH = len("<0x00>")


class UnknownToken(ValueError):
    """A token id that is not in the vocabulary."""


def _printable_bytes() -> dict[str, int]:
    """The alphabet of byte-level vocabularies: each byte has a printable character.

    Printable Latin-1 stands for itself, the other bytes follow from U+0100 on.
    """
    itself = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    alphabet = {chr(byte): byte for byte in itself}
    others = [byte for byte in range(256) if byte not in set(itself)]
    return alphabet | {chr(0x100 + rank): byte for rank, byte in enumerate(others)}


class Tokenizer:
    """One model's tokenizer."""

    def __init__(self, fast: FastTokenizer) -> None:
        self._fast = fast
        self._fast.no_padding()
        self._fast.no_truncation()

    @classmethod
    def from_file(cls, path: Path) -> Tokenizer:
        try:
            return cls(FastTokenizer.from_str(path.read_text(encoding="utf-8")))
        except Exception as error:  # the library raises a bare Exception for bad content
            raise BadModel(f"{path} is not a tokenizer that we can read: {error}") from error

    @property
    def vocab_size(self) -> int:
        """One more than the largest id."""
        return self._bound_and_gaps[0]

    @cached_property
    def _bound_and_gaps(self) -> tuple[int, frozenset[int]]:
        """One more than the largest id, and which below it are none: usually there are no such."""
        ids = self._fast.get_vocab(with_added_tokens=True).values()
        bound = max(ids) + 1
        return bound, frozenset(range(bound)).difference(ids)

    def encode(self, text: str) -> list[int]:
        ids: list[int] = self._fast.encode(text, add_special_tokens=False).ids
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """Bytes that are not UTF-8 (a character cut in two) become U+FFFD."""
        bound, gaps = self._bound_and_gaps
        if ids and not (0 <= min(ids) <= max(ids) < bound and gaps.isdisjoint(ids)):
            unknown = next(token for token in ids if not 0 <= token < bound or token in gaps)
            raise UnknownToken(f"token {unknown} is not in the vocabulary of {bound}")
        text: str = self._fast.decode(list(ids), skip_special_tokens=False)
        return text

    def token_id(self, token: str) -> int | None:
        """The id of one vocabulary entry as it is written there, such as `<|im_end|>`."""
        found: int | None = self._fast.token_to_id(token)
        return found

    def vocab(self) -> tuple[list[int], list[bytes]]:
        """All ids in rising order and the bytes that each stands for."""
        ids, texts = self._vocab
        return list(ids), list(texts)

    @cached_property
    def _vocab(self) -> tuple[tuple[int, ...], tuple[bytes, ...]]:
        added = self._fast.get_added_tokens_decoder()
        alphabet = _printable_bytes() if self._is_byte_level else None
        ordered = sorted(self._fast.get_vocab(with_added_tokens=True).items(), key=lambda e: e[1])
        ids = tuple(token for _, token in ordered)
        texts = tuple(
            text.encode() if token in added else _token_bytes(text, alphabet)
            for text, token in ordered
        )
        return ids, texts

    @cached_property
    def _is_byte_level(self) -> bool:
        return '"ByteLevel"' in self._fast.to_str(pretty=False)


def _token_bytes(text: str, alphabet: dict[str, int] | None) -> bytes:
    if alphabet is not None:
        if all(character in alphabet for character in text):
            return bytes(alphabet[character] for character in text)
        return text.encode()
    if len(text) == _BYTE_FALLBACK_LENGTH and text.startswith("<0x") and text.endswith(">"):
        return bytes([int(text[3:5], 16)])
    return text.replace("\u2581", " ").encode()
