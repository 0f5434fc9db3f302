"""agent-react: thinks, calls a tool, reads what it says, thinks on; its context stays."""

import asyncio
from argparse import Namespace

from inferlet import ArgumentParser, Context, send

SYSTEM = "You answer questions with the help of a search tool. Think, then name what to search."
REPLIES = (
    "The Danube rises in the Black Forest.",
    "It flows through ten countries.",
    "It ends in the Black Sea.",
)


def read_arguments(args: list[str]) -> Namespace:
    parser = ArgumentParser("agent-react", "reasons and acts in turn, with a scripted tool")
    parser.add_argument("--question", default="Where does the Danube end?", help="the task")
    parser.add_number("--calls", 3, "so many calls of the tool")
    parser.add_argument("--reply", action="append", help="what the tool says; taken in turn")
    parser.add_number("--delay-ms", 100, "how long the tool takes")
    parser.add_number("--max-tokens", 50, "so many tokens a thought")
    parser.add_model("which model thinks")
    return parser.parse_args(args)


async def search(wanted: Namespace, call: int) -> str:
    await asyncio.sleep(wanted.delay_ms / 1000)
    replies = wanted.reply or REPLIES
    return str(replies[call % len(replies)])


async def main(args: list[str]) -> dict[str, object]:
    wanted = read_arguments(args)
    context = Context(wanted.model)
    context.fill_system(SYSTEM)
    context.fill_user(wanted.question)
    thoughts = []
    for call in range(wanted.calls):
        context.fill("\nThought:")
        thoughts.append(await context.generate(wanted.max_tokens).collect())
        reply = await search(wanted, call)
        context.fill(f"\nObservation: {reply}")
    context.fill("\nAnswer:")
    answer = await context.generate(wanted.max_tokens).collect()
    send(answer)
    return {"calls": wanted.calls, "thoughts": thoughts, "answer": answer}
