"""Model and Tokenizer: what a program can know of a model before it runs anything on it."""

from __future__ import annotations

from collections.abc import Sequence

from wit_world.imports import inferlet_core_common as common
from wit_world.imports import runtime, tokenize

from inferlet.host import utf8
from inferlet.queue import Queue


class Tokenizer:
    """Text to tokens and back."""

    def __init__(self, raw: tokenize.Tokenizer) -> None:
        self._raw = raw

    def encode(self, text: str) -> list[int]:
        """Special tokens written in the text are recognised."""
        return list(self._raw.tokenize(utf8(text)))

    def decode(self, tokens: Sequence[int]) -> str:
        """Bytes that are not UTF-8, or not yet, become U+FFFD."""
        return self._raw.detokenize(list(tokens)) if tokens else ""

    def vocabulary(self) -> dict[int, bytes]:
        """Every ordinary token and its bytes."""
        ids, texts = self._raw.get_vocabs()
        return {number: bytes(text) for number, text in zip(ids, texts, strict=True)}


class Model:
    """A model that this engine serves."""

    def __init__(self, raw: common.Model) -> None:
        self.raw = raw
        self.name = raw.get_name()
        self.page_size = raw.get_kv_page_size()
        self.tokenizer = Tokenizer(tokenize.get_tokenizer(raw))

    @property
    def traits(self) -> list[str]:
        return list(self.raw.get_traits())

    @property
    def description(self) -> str:
        return self.raw.get_description()

    @property
    def prompt_template(self) -> str:
        return self.raw.get_prompt_template()

    def stop_tokens(self) -> list[int]:
        """The tokens that end the model's turn."""
        encoded = [self.tokenizer.encode(text) for text in self.raw.get_stop_tokens()]
        return [tokens[0] for tokens in encoded if len(tokens) == 1]

    def create_queue(self) -> Queue:
        return Queue(self.raw.create_queue())


def get_models(traits: Sequence[str] = ()) -> list[str]:
    """The names of the models that have all these traits."""
    if traits:
        return list(runtime.get_all_models_with_traits(list(traits)))
    return list(runtime.get_all_models())


def get_model(name: str | None = None) -> Model:
    """The model of that name, or the first one."""
    names = [name] if name else get_models()
    raw = runtime.get_model(names[0]) if names else None
    if raw is None:
        raise LookupError(f"there is no such model: {name}" if name else "there is no model")
    return Model(raw)
