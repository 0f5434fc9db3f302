"""`inferlet:core/tokenize`: text to tokens and back, by the model's own tokenizer.

Owns nothing. Short texts are done at once; long ones go to a thread, so that no other instance
waits for them. An instance that dies meanwhile is gone when its thread returns, which is soon:
one call is bounded by `tokenize_bytes`.
It must never hand a tokenizer a token that its model does not have.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeVar

import trio

from pie_trio.errors import GuestFault
from pie_trio.handles import TokenizerLike
from pie_trio.services.tokenizer import UnknownToken
from pie_trio.wasm.host.faults import bounded_text, fault
from pie_trio.wasm.host.resources import Model
from pie_trio.wasm.host.state import InstanceHost

if TYPE_CHECKING:
    from pie_trio.wasm.linker import HostFunction

T = TypeVar("T")
TOKEN_BYTES = 4


def get_tokenizer(_host: InstanceHost, model: Model) -> TokenizerLike:
    return model.handle.tokenizer


async def tokenize(host: InstanceHost, tokenizer: TokenizerLike, text: str) -> list[int]:
    function, limit = "tokenizer.tokenize", host.limits.tokenize_bytes
    bounded_text(function, "text", text, limit, "tokenize_bytes")
    return await _worked(host, len(text), lambda: tokenizer.encode(text))


async def detokenize(host: InstanceHost, tokenizer: TokenizerLike, tokens: Sequence[int]) -> str:
    """Bytes that are no UTF-8 become U+FFFD."""
    function, limit = "tokenizer.detokenize", host.limits.tokenize_bytes
    size = TOKEN_BYTES * len(tokens)
    if size > limit:
        raise fault(function, "the bytes of tokens", size, f"at most {limit} (tokenize_bytes)")
    try:
        return await _worked(host, size, lambda: tokenizer.decode(tokens))
    except UnknownToken as error:
        raise GuestFault(f"{function}: {error}") from error


async def get_vocabs(host: InstanceHost, tokenizer: TokenizerLike) -> tuple[list[int], list[bytes]]:
    """Ids in rising order, and the bytes of each."""
    size = TOKEN_BYTES * tokenizer.vocab_size
    return await _worked(host, size, lambda: _sorted_vocab(tokenizer))


def _sorted_vocab(tokenizer: TokenizerLike) -> tuple[list[int], list[bytes]]:
    tokens, texts = tokenizer.vocab()
    pairs = sorted(zip(tokens, texts, strict=True))
    return [token for token, _ in pairs], [text for _, text in pairs]


async def _worked(host: InstanceHost, size: int, work: Callable[[], T]) -> T:
    if size <= host.limits.tokenize_inline_bytes:
        return work()
    return await trio.to_thread.run_sync(work)


TOKENIZE: Mapping[str, HostFunction] = MappingProxyType(
    {
        "get-tokenizer": get_tokenizer,
        "[method]tokenizer.tokenize": tokenize,
        "[method]tokenizer.detokenize": detokenize,
        "[method]tokenizer.get-vocabs": get_vocabs,
    }
)
