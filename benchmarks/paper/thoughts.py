"""The programs of figure 8 as scripts of a client: the same prompts, in the same order.

Each asks for plain completions only, as many at a time as the program has branches at a time; the
last three ask for what only some servers can do beyond that.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from itertools import product

import trio

from benchmarks.paper.completions import Completions, constant, value_of
from benchmarks.paper.neighbours import PeerTalk
from benchmarks.paper.prompts import Part

TOKENS = 24
QUESTION = "Tell me about the number 7."
BEAMS = 3
JSON_GRAMMAR = r"""
root ::= object
value ::= object | array | string | number | "true" | "false" | "null"
object ::= "{" (pair (", " pair)*)? "}"
pair ::= string ": " value
array ::= "[" (value (", " value)*)? "]"
string ::= "\"" [a-zA-Z0-9 .,'!?-]* "\""
number ::= "-"? ("0" | [1-9] [0-9]*) ("." [0-9]+)?
"""  # that of `constrained-decoding`, as other engines write it
Job = Callable[[], Awaitable[str]]


async def together(*jobs: Job) -> list[str]:
    """What they answer, in their order."""
    answers = [""] * len(jobs)

    async def work(place: int, job: Job) -> None:
        answers[place] = await job()

    async with trio.open_nursery() as nursery:
        for place, job in enumerate(jobs):
            nursery.start_soon(work, place, job)
    return answers


async def text_completion(talk: Completions) -> str:
    return await talk.complete([("user", QUESTION)], 2 * TOKENS)


async def prefix_tree(talk: Completions) -> list[str]:
    root, levels = constant("prefix-tree", "ROOT"), value_of("prefix-tree", "LEVELS")
    await talk.remember([("text", f"{root} ")])

    def leaf(path: Sequence[str]) -> Job:
        parts: list[Part] = [("text", f"{text} ") for text in (root, *path)]
        return lambda: talk.complete(parts, TOKENS)

    return await together(*(leaf(path) for path in product(*levels)))


async def tree_of_thought(talk: Completions) -> str:
    steps = value_of("tree-of-thought", "STEPS")

    async def think(parts: Sequence[Part], level: int) -> str:
        if level == len(steps):
            return parts[-1][1]
        asked = (*parts, ("user", steps[level].format(question="What is 17 + 25?")))

        async def branch() -> str:
            thought = await talk.complete(asked, TOKENS)
            return await think((*asked, ("text", thought)), level + 1)

        return max(await together(branch, branch))

    return await think((("system", constant("tree-of-thought", "SYSTEM")),), 0)


async def recursion_of_thought(talk: Completions) -> str:
    program = "recursion-of-thought"
    system = constant(program, "SYSTEM")

    async def say(prompt: str) -> str:
        return await talk.complete([("system", system), ("user", prompt)], TOKENS)

    async def solve(problem: str, depth: int) -> str:
        if depth == 0:
            return await say(f"Solve this: {problem}")
        first = await say(f"What is the first half of this problem? {problem}")
        second = await say(f"What is the second half of this problem? {problem}")
        halves = await together(lambda: solve(first, depth - 1), lambda: solve(second, depth - 1))
        return await say(f"{problem} We know: {' '.join(halves)} Merge the two.")

    return await solve(constant(program, "QUESTION"), 2)


async def graph_of_thought(talk: Completions) -> str:
    program = "graph-of-thought"
    system = constant(program, "SYSTEM")
    lengths = [int(length) for length in constant(program, "LENGTHS").split(",")]

    text: list[Part] = [
        ("system", system),
        ("user", f"Summarise: {constant(program, 'TEXT')}"),
    ]

    async def ask(parts: Sequence[Part], tokens: int, hand_on: trio.MemorySendChannel[str]) -> None:
        await hand_on.send(await talk.complete(parts, tokens))

    await talk.remember(text)

    async with trio.open_nursery() as nursery:
        send, receive = trio.open_memory_channel[str](len(lengths))
        for length in lengths:
            nursery.start_soon(ask, text, length, send)
        count = len(lengths)
        while count > 1:
            send, above = trio.open_memory_channel[str](count)
            for _ in range(count // 2):
                listed = f"- {await receive.receive()}\n- {await receive.receive()}"
                joined = ("user", f"Join these summaries into one sentence:\n{listed}")
                nursery.start_soon(ask, [("system", system), joined], TOKENS, send)
            receive, count = above, count // 2
        return await receive.receive()


async def skeleton_of_thought(talk: Completions) -> list[str]:
    program = "skeleton-of-thought"
    system, question = constant(program, "SYSTEM"), constant(program, "QUESTION")

    async def ask(prompt: str, tokens: int) -> str:
        return await talk.complete([("system", system), ("user", prompt)], tokens)

    text = await ask(f"{question} List 3 points, a few words each.", 40)
    lines = [line.strip(" -*0123456789.") for line in text.splitlines()]
    points = list(dict.fromkeys(line for line in lines if line))[:3]

    def write(point: str) -> Job:
        prompt = f"{question} Write one or two sentences about this point only: {point}"
        return lambda: ask(prompt, TOKENS)

    return await together(*(write(point) for point in points))


def library() -> list[Part]:
    """The long beginning that every question to it has."""
    return [("system", constant("prefix-caching", "SYSTEM"))]


async def prefix_caching(talk: Completions) -> str:
    return await talk.complete([*library(), ("user", "How many books may I borrow?")], TOKENS)


async def beam_search(talk: PeerTalk) -> str:
    parts: list[Part] = [("user", "What is the capital of France?")]
    return await talk.wishing(beams=BEAMS).complete(parts, TOKENS)


async def constrained_decoding(talk: PeerTalk) -> str:
    parts: list[Part] = [("user", "Describe yourself as a JSON object.")]
    return await talk.wishing(grammar=JSON_GRAMMAR).complete(parts, 2 * TOKENS)


async def speculative_decoding(talk: PeerTalk) -> str:
    parts: list[Part] = [("user", constant("speculative-decoding", "PROMPT"))]
    return await talk.complete(parts, 2 * TOKENS)
