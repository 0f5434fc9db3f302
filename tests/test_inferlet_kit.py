"""The pure parts of the Python kit: masks, samplers, stop conditions, text, chats, generations."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.kit import kit

Brle, causal_mask = kit("brle").Brle, kit("brle").causal_mask
Sampler = kit("sampler").Sampler
TextStream = kit("text").TextStream
Chat = kit("chat").Chat
Generation = kit("generation").Generation
Verified = kit("generation").Verified
Visibility = kit("visibility").Visibility
stop = kit("stop")

FLAGS = st.lists(st.booleans(), max_size=40)


def decode(tokens: Sequence[int]) -> str:
    """One token a byte: the hardest case for characters of several bytes."""
    return bytes(tokens).decode(errors="replace")


# --- masks


@given(FLAGS)
def test_a_mask_says_what_it_was_made_from(flags: list[bool]) -> None:
    mask = Brle.from_masked(flags)
    assert mask.to_masked() == flags
    assert len(mask) == len(flags)
    assert [mask.is_masked(index) for index in range(len(flags))] == flags


@given(FLAGS, st.data())
def test_masking_a_range_changes_that_range_only(flags: list[bool], data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(flags)))
    end = data.draw(st.integers(start, len(flags)))
    masked = data.draw(st.booleans())
    changed = Brle.from_masked(flags).mask_range(start, end, masked)
    assert changed.to_masked() == flags[:start] + [masked] * (end - start) + flags[end:]


@given(FLAGS, st.data())
def test_removing_a_range_removes_that_range_only(flags: list[bool], data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(flags)))
    end = data.draw(st.integers(start, len(flags)))
    assert (
        Brle.from_masked(flags).remove_range(start, end).to_masked() == flags[:start] + flags[end:]
    )


@given(FLAGS, st.integers(0, 9), st.booleans())
def test_extending_a_mask_adds_at_its_end(flags: list[bool], more: int, masked: bool) -> None:
    assert Brle.from_masked(flags).extend(more, masked).to_masked() == flags + [masked] * more


def test_the_first_run_is_attended() -> None:
    assert Brle.from_masked([True, True, False]).runs == (0, 2, 1)


def test_a_causal_mask_ends_at_its_own_row() -> None:
    assert [len(row) for row in causal_mask(total=5, rows=3)] == [3, 4, 5]


@pytest.mark.parametrize("call", ["mask_range", "remove_range"])
def test_a_range_outside_the_mask_is_refused(call: str) -> None:
    with pytest.raises(IndexError):
        getattr(Brle.attended(3), call)(2, 4)


# --- samplers


def test_greedy_is_temperature_zero() -> None:
    assert Sampler.greedy() == Sampler(0.0)


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature": -1.0},
        {"temperature": float("nan")},
        {"top_k": 0},
        {"top_p": 0.0},
        {"top_p": 1.1},
        {"min_p": 0.1, "top_k": 2},
    ],
)
def test_a_sampler_that_makes_no_sense_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError):
        Sampler(**wrong)


# --- stop conditions


def test_a_stop_token_is_not_part_of_the_text() -> None:
    condition = stop.stop_tokens([7, 8])
    assert [condition.ask([1, 2]), condition.ask([1, 8]), condition.ask([])] == [None, 1, None]


def test_a_stop_sequence_hides_itself_whole() -> None:
    condition = stop.ends_with([5, 6])
    assert [condition.ask([5]), condition.ask([6, 5]), condition.ask([4, 5, 6])] == [None, None, 2]


def test_the_token_limit_hides_nothing() -> None:
    condition = stop.max_tokens(2)
    assert [condition.ask([1]), condition.ask([1, 2])] == [None, 0]


def test_the_first_condition_that_hits_decides() -> None:
    both = stop.any_of(stop.stop_tokens([9]), stop.max_tokens(2))
    assert [both.ask([1]), both.ask([1, 9]), both.ask([1, 2])] == [None, 1, 0]
    assert both.hidden_tokens_max == 1


def test_an_empty_stop_sequence_is_refused() -> None:
    with pytest.raises(ValueError):
        stop.ends_with([])


# --- text


@given(st.text(st.characters(codec="utf-8", exclude_characters="\ufffd")))
def test_streamed_pieces_are_the_whole_text_and_split_no_character(text: str) -> None:
    stream = TextStream(decode)
    pieces = [stream.feed(token) for token in text.encode()]
    assert stream.finish() == ""
    assert "".join(pieces) == text
    assert stream.text == text
    assert all(piece.encode().decode() == piece for piece in pieces)


def test_a_character_that_is_never_finished_comes_at_the_end() -> None:
    stream = TextStream(decode)
    pieces = [stream.feed(token) for token in b"ab\xf0\x9f"]
    assert pieces == ["a", "b", "", ""]
    assert stream.finish() == "\ufffd"


def test_a_space_that_depends_on_the_token_before_is_kept() -> None:
    """A decoder that drops the first space, as sentence-piece ones do."""
    words = ["Hello", " big", " world"]
    stream = TextStream(lambda tokens: "".join(words[token] for token in tokens).lstrip())
    assert [stream.feed(token) for token in range(3)] == words


def test_several_tokens_are_shown_up_to_the_last_whole_character() -> None:
    stream = TextStream(decode)
    assert stream.feed(*"aü€".encode()[:-1]) == "aü"
    assert stream.feed(*"€b".encode()[2:3]) == "€"
    assert stream.feed(*"𝄞".encode()[:2]) == ""
    assert stream.feed(*"𝄞cd".encode()[2:]) == "𝄞cd"
    assert stream.text == "aü€𝄞cd"


# --- chats


def render(request: str) -> str:
    chat = json.loads(request)
    text = "".join(f"<{m['role']}>{m['content']}</>" for m in chat["messages"])
    return text + ("<assistant>" if chat["add_generation_prompt"] else "")


def test_a_chat_gives_out_only_what_is_new() -> None:
    chat = Chat()
    chat.say("system", "be kind")
    assert chat.take_new(render(chat.request())) == "<system>be kind</>"
    chat.say("user", "hello")
    assert chat.take_new(render(chat.request())) == "<user>hello</><assistant>"


def test_a_chat_knows_what_the_model_wrote() -> None:
    chat = Chat()
    chat.say("user", "hello")
    chat.take_new(render(chat.request()))
    chat.write("hi")
    chat.write("!")
    chat.say("user", "more")
    assert chat.take_new(render(chat.request())) == "</><user>more</><assistant>"


def test_the_start_of_an_answer_stands_behind_its_question() -> None:
    chat = Chat()
    chat.say("user", "hello")
    chat.write("Well, ")
    assert chat.take_new(render(chat.request())) == "<user>hello</><assistant>Well, "
    chat.write("hi!")
    assert chat.is_complete
    chat.say("user", "more")
    assert chat.take_new(render(chat.request())) == "</><user>more</><assistant>"


def test_text_outside_of_a_turn_is_nobodys_message() -> None:
    chat = Chat()
    chat.write("once upon a time")
    chat.say("user", "hello")
    assert chat.take_new(render(chat.request())) == "<user>hello</><assistant>"


def test_a_copy_of_a_chat_goes_its_own_way() -> None:
    chat = Chat()
    chat.say("user", "hello")
    twin = chat.copy()
    twin.say("user", "again")
    assert len(chat.messages) == 1


def test_a_template_that_rewrites_the_past_is_refused() -> None:
    chat = Chat()
    chat.say("user", "hello")
    chat.take_new("one two")
    chat.say("user", "again")
    with pytest.raises(ValueError, match="changes earlier messages"):
        chat.take_new("other")


# --- generations


class Script:
    """Tokens to be written, some at a time, and how the generation ended."""

    def __init__(self, tokens: Sequence[int], at_a_time: int = 1, is_checked: bool = False) -> None:
        self._steps = iter([tokens[n : n + at_a_time] for n in range(0, len(tokens), at_a_time)])
        self._is_checked = is_checked
        self.ended: tuple[int, str] | None = None

    async def step(self, _written: Sequence[int], _at_once: int) -> Any:
        return Verified(list(next(self._steps)), is_checked=self._is_checked)

    def end(self, hidden: int, text: str) -> None:
        self.ended = hidden, text


def pieces_of(script: Script, condition: object, by_chunks: bool = False) -> list[str]:
    async def collect() -> list[str]:
        generation = Generation(script.step, condition, decode, script.end)
        return [piece async for piece in (generation.chunks() if by_chunks else generation)]

    return asyncio.run(collect())


def test_a_stop_sequence_is_never_shown_not_even_its_start() -> None:
    script = Script(b"one##two###")
    pieces = pieces_of(script, stop.ends_with(b"###"))
    assert "".join(pieces) == "one##two"
    assert script.ended == (3, "one##two")


def test_a_stop_token_does_not_delay_the_text() -> None:
    script = Script(b"ab\0")
    assert pieces_of(script, stop.stop_tokens([0])) == ["a", "b"]


def test_a_limit_in_the_middle_of_a_character_shows_what_there_is() -> None:
    script = Script("aü".encode())
    assert pieces_of(script, stop.max_tokens(2)) == ["a", "\ufffd"]
    assert script.ended == (0, "a\ufffd")


@pytest.mark.parametrize("at_a_time", [1, 2, 3, 5, 20])
def test_several_tokens_at_a_time_are_the_same_text(at_a_time: int) -> None:
    script = Script(b"one##two###and more", at_a_time)
    assert "".join(pieces_of(script, stop.ends_with(b"###"))) == "one##two"
    unused = -(-len(b"one##two###") // at_a_time) * at_a_time - len(b"one##two")
    assert script.ended == (min(unused, len(b"###and more")), "one##two")


def test_what_comes_together_is_one_piece_for_who_wants_chunks() -> None:
    text = "one two\0three"
    pieces = pieces_of(Script(text.encode(), 4), stop.stop_tokens([0]), by_chunks=True)
    assert pieces == ["one ", "two"]
    script = Script("aü€".encode(), 2)
    assert pieces_of(script, stop.max_tokens(6), by_chunks=True) == ["a", "ü", "€"]
    assert script.ended == (0, "aü€")


def test_only_what_the_engine_does_not_know_is_asked_after_each_token() -> None:
    asked: list[int] = []

    def ask(tokens: Sequence[int]) -> int | None:
        asked.append(len(tokens))
        return 0 if len(tokens) >= 9 else None

    told = stop.StopCondition(ask, is_told=True)
    assert (
        "".join(pieces_of(Script(bytes(range(65, 80)), 4, is_checked=True), told)) == "ABCDEFGHIJKL"
    )
    assert asked == [0, 4, 8, 12]
    for condition, is_checked in ((stop.StopCondition(ask), True), (told, False)):
        asked.clear()
        script = Script(bytes(range(65, 80)), 4, is_checked)
        assert "".join(pieces_of(script, stop.any_of(condition))) == "ABCDEFGHI"
        assert asked == [*range(10)]
    assert stop.any_of(stop.stop_tokens([0]), stop.max_tokens(3)).is_told
    assert not stop.any_of(stop.max_tokens(3), stop.ends_with([1, 2])).is_told


# --- visibility


def test_nothing_hidden_needs_no_mask() -> None:
    seen = Visibility()
    seen.hide(1, 3)
    seen.hide(1, 3, is_hidden=False)
    assert seen.rows(0, 9) is None


def test_a_hidden_token_is_hidden_from_later_ones_and_never_from_itself() -> None:
    seen = Visibility()
    seen.hide(1, 3)
    rows = seen.rows(2, 5)
    assert [row.to_masked() for row in rows] == [
        [False, True, False],
        [False, True, True, False],
        [False, True, True, False, False],
    ]


def test_a_row_of_its_own_counts_for_its_token_only() -> None:
    seen = Visibility()
    seen.give_row(3, Brle([0, 2, 1]))
    assert [row.to_masked() for row in seen.rows(3, 5)] == [[True, True, False, False], [False] * 5]


@given(FLAGS, st.data())
def test_what_is_removed_takes_its_hiding_along(flags: list[bool], data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(flags)))
    end = data.draw(st.integers(start, len(flags) + 3))
    seen = Visibility(Brle.from_masked(flags))
    seen.remove(start, end)
    assert seen.mask.to_masked() == flags[:start] + flags[end:]


@given(FLAGS, st.integers(0, 50))
def test_a_cut_mask_is_the_same_up_to_the_cut(flags: list[bool], length: int) -> None:
    assert Brle.from_masked(flags).resize(length).to_masked() == (flags + [False] * 50)[:length]
