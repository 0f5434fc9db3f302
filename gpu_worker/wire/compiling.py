"""How a grammar is compiled: alike in both processes, so that neither refuses what the other takes.

Owns nothing. A grammar that is malformed or beyond its bounds is a matcher in an error state, never
an exception. It must never be imported by who has no grammar at hand: the library takes a moment.
"""

from collections.abc import Sequence

from llguidance import LLMatcher, LLParserLimits, LLTokenizer

from gpu_worker.wire.grammars import GrammarBounds


def open_vocabulary(tokenizer: str, vocab_size: int, ends: Sequence[int]) -> LLTokenizer:
    """From the text of a `tokenizer.json`. Raises `ValueError`."""
    return LLTokenizer(tokenizer, n_vocab=vocab_size, eos_token=list(ends))


def compile_grammar(vocabulary: LLTokenizer, text: str, bounds: GrammarBounds) -> LLMatcher:
    """At its start. Other threads of Python run meanwhile."""
    limits = LLParserLimits(
        initial_lexer_fuel=bounds.compile_fuel,
        step_lexer_fuel=bounds.step_fuel,
        step_max_items=bounds.step_items,
        max_lexer_states=bounds.states,
        max_grammar_size=bounds.symbols,
        verbose_errors=False,
    )
    return LLMatcher(vocabulary, text, log_level=0, limits=limits)
