"""The other sides of the evaluation: requests of plain completions, with a cache and elsewhere."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import trio

from benchmarks.paper import thoughts
from benchmarks.paper.neighbours import GRAMMAR, NAMES, PLAIN, PeerTalk, open_neighbours
from benchmarks.paper.prompts import Part, prompt_of
from benchmarks.paper.record import Run, Sizes
from benchmarks.paper.report import BASELINES
from benchmarks.paper.served import GUESTS
from benchmarks.paper.techniques import TECHNIQUES
from pie_trio.config import ModelSettings
from pie_trio.services.chat_template import ChatTemplate
from tests.world import World, open_world, values

TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}</>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
LIBRARY: Part = ("system", "The library is open from nine to six, and closed on Sundays. " * 8)
TALK: list[Part] = [LIBRARY, ("user", "When may I come?")]


async def completed(world: World, parts: list[Part], *arguments: str, tokens: int = 4) -> str:
    told = ("--parts", json.dumps(parts), "--max-tokens", str(tokens), "--no-stop")
    [answer] = values([await world.run(GUESTS / "complete.py", *told, *arguments)])
    return answer


def rows(world: World) -> int:
    """Read by the model since this was asked last."""
    count = sum(len(each.tokens) for batch in world.script.batches for each in batch.requests)
    world.script.batches.clear()
    return count


async def test_a_cache_changes_no_answer_and_what_it_keeps_is_not_read_again(
    tmp_path: Path,
) -> None:
    async with open_world(tmp_path) as world:
        first = await completed(world, TALK)
        anew = rows(world)
        longer: list[Part] = [*TALK, ("text", first), ("user", "And on Mondays?")]
        second = await completed(world, longer)
        rows(world)
        assert await completed(world, TALK, "--cache", "a") == first
        assert rows(world) >= anew
        assert await completed(world, longer, "--cache", "a") == second
        assert rows(world) < anew / 2


async def test_a_beginning_that_was_remembered_is_found_and_only_under_its_own_name(
    tmp_path: Path,
) -> None:
    async with open_world(tmp_path) as world:
        expected = await completed(world, TALK)
        anew = rows(world)
        await completed(world, [LIBRARY], "--cache", "a", tokens=0)
        rows(world)
        assert await completed(world, TALK, "--cache", "b") == expected
        assert rows(world) >= anew
        assert await completed(world, TALK, "--cache", "a") == expected
        assert rows(world) < anew / 2


async def test_two_that_keep_the_same_at_once_do_not_meet(tmp_path: Path) -> None:
    async with open_world(tmp_path) as world, trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(partial(completed, world, TALK, "--cache", "a"))


@pytest.mark.parametrize(
    ("parts", "prompt"),
    [
        ([("text", "Once "), ("text", "upon")], "Once upon"),
        ([("system", "Be kind.")], "<system>Be kind.</>"),
        ([("user", "Why?")], "<user>Why?</><assistant>"),
        ([("user", "Why?"), ("text", "So"), ("text", ".")], "<user>Why?</><assistant>So."),
        (
            [("user", "Why?"), ("text", "So."), ("user", "And?")],
            "<user>Why?</><assistant>So.</><user>And?</><assistant>",
        ),
    ],
)
def test_a_transcript_is_what_a_context_would_hold_of_it(parts: list[Part], prompt: str) -> None:
    assert prompt_of(parts, ChatTemplate(TEMPLATE)) == prompt


def test_every_baseline_has_every_technique_or_a_reason_why_not() -> None:
    for technique in TECHNIQUES:
        for way in BASELINES:
            assert (way in technique.ways) != (way in technique.reasons), (technique.name, way)


def test_other_engines_are_told_of_with_a_reason_where_they_are_not_measured(
    tmp_path: Path,
) -> None:
    run = Run(ModelSettings("pretend", pretend=True), Sizes(), tmp_path, lambda text: None)
    with open_neighbours(run, frozenset({PLAIN, GRAMMAR})) as found:
        assert found == []
    assert set(run.facts["peers"]) == set(NAMES)
    assert all(told.startswith("not measured: ") for told in run.facts["peers"].values())


@contextmanager
def listening(heard: list[dict[str, Any]]) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            heard.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b'{"content": "{}", "tokens_predicted": 2}')

        def log_message(self, *arguments: Any) -> None: ...

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


async def test_another_engine_is_asked_for_the_same_text_behind_a_line_of_this_round() -> None:
    heard: list[dict[str, Any]] = []
    with listening(heard) as address:
        talk = PeerTalk(address, ChatTemplate(TEMPLATE), "Case 1.\n")
        assert await thoughts.constrained_decoding(talk) == "{}"
        assert talk.counts == [2]
        await talk.remember([("text", "Once")])
        assert talk.counts == []
    asked, remembered = heard
    assert asked["prompt"].startswith("Case 1.\n<user>Describe yourself")
    assert asked["grammar"] == thoughts.JSON_GRAMMAR
    assert (asked["n_predict"], asked["ignore_eos"]) == (2 * thoughts.TOKENS, False)
    assert (remembered["prompt"], remembered["n_predict"]) == ("Case 1.\nOnce", 1)
    assert "grammar" not in remembered
