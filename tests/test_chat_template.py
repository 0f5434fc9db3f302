"""Chat templates: what they render, and what neither a template nor a message can do."""

from __future__ import annotations

import time
from typing import Any

import pytest

from pie_trio.services.chat_template import (
    LOOP_ROUNDS_MAX,
    RENDERED_CHARACTERS_MAX,
    SOURCE_CHARACTERS_MAX,
    BadTemplate,
    ChatTemplate,
)
from pie_trio.services.model_store import pretend_model

CHATML = pretend_model().facts.chat_template
HELLO = [{"role": "user", "content": "Hello"}]


def test_chatml_renders_roles_and_the_generation_prompt() -> None:
    template = ChatTemplate(CHATML)
    asked = "<|im_start|>user\nHello<|im_end|>\n"
    assert template.render(HELLO, add_generation_prompt=False) == asked
    assert template.render(HELLO, add_generation_prompt=True) == asked + "<|im_start|>assistant\n"


def test_a_template_sees_the_variables_that_are_given() -> None:
    template = ChatTemplate("{{ bos_token }}{% if deep %}{{ deep }}{% endif %}")
    assert template.render([], add_generation_prompt=False, bos_token="<s>", deep="x") == "<s>x"
    assert template.render([], add_generation_prompt=False) == ""


@pytest.mark.parametrize(
    "source, reason",
    [
        ("{% for %}", "does not compile"),
        ("{{ raise_exception('roles must alternate') }}", "roles must alternate"),
        ("{{ messages[7]['content'] + 1 }}", "failed"),
        ("{{ 'a' * 1000000000 }}", "small numbers"),
        ("{{ '%1000000000d' % 1 }}", "small numbers"),
        ("{{ 9 ** 99999999 }}", "so high a power"),
        ("{{ messages.append(1) }}", "failed"),
        ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "failed"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "failed"),
    ],
)
def test_a_bad_template_is_refused_with_the_reason(source: str, reason: str) -> None:
    with pytest.raises(BadTemplate, match=reason):
        ChatTemplate(source).render(HELLO, add_generation_prompt=True)


def test_a_template_that_never_ends_is_stopped() -> None:
    """The loops print nothing, so nothing but the count of their rounds can end them."""
    source = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
    template = ChatTemplate(source)
    for _ in range(2):  # a rendering that was stopped owes the next one nothing
        with pytest.raises(BadTemplate, match=f"loop {LOOP_ROUNDS_MAX} times"):
            template.render([], add_generation_prompt=False)


def test_a_template_that_prints_without_end_is_stopped() -> None:
    loud = "{% for i in range(99999) %}" + "x" * 1000 + "{% endfor %}"
    assert RENDERED_CHARACTERS_MAX < 99999 * 1000
    with pytest.raises(BadTemplate, match="too long"):
        ChatTemplate(loud).render([], add_generation_prompt=False)


def test_a_source_beyond_the_limit_is_refused() -> None:
    with pytest.raises(BadTemplate, match="too long"):
        ChatTemplate("x" * (SOURCE_CHARACTERS_MAX + 1))


@pytest.mark.parametrize("message", [{"content": "x"}, {"role": 3}, "user"])
def test_a_message_without_a_role_is_refused(message: Any) -> None:
    with pytest.raises(BadTemplate, match="message"):
        ChatTemplate(CHATML).render([message], add_generation_prompt=True)


def test_a_message_is_text_and_never_a_template() -> None:
    sly = [{"role": "user", "content": "{{ raise_exception('x') }}"}]
    assert "{{ raise_exception('x') }}" in ChatTemplate(CHATML).render(
        sly, add_generation_prompt=False
    )


class _OfABusyMachine(dict[str, str]):
    """A message at which this thread is kept busy by others: a collection of all garbage, say."""

    def __getitem__(self, key: str) -> str:
        until = time.thread_time() + 0.6
        while time.thread_time() < until:
            pass
        return super().__getitem__(key)


def test_a_rendering_is_judged_by_what_it_does_and_never_by_the_clock() -> None:
    template = ChatTemplate("{% for message in messages %}{{ message['role'] }}{% endfor %}")
    messages = [_OfABusyMachine(role=role, content="") for role in ("a", "b", "c")]
    assert template.render(messages, add_generation_prompt=False) == "abc"


def test_each_rendering_has_all_its_rounds() -> None:
    template = ChatTemplate("{% for message in messages %}{{ message['role'] }}{% endfor %}")
    messages = HELLO * (LOOP_ROUNDS_MAX // 2 + 1)
    for _ in range(2):
        rendered = template.render(messages, add_generation_prompt=False)
        assert len(rendered) == len("user") * len(messages)
