"""agent-swarm: four writers, one a program, hand a story from each to the next by messages.

Run it four times with the four roles, in any order. What is handed on is kept before it is told,
and who waits listens before he looks, so no message is lost however they start.
"""

from argparse import Namespace

from inferlet import ArgumentParser, Context, broadcast, kvs, receive, send, subscribe

ROLES = {
    "concept": "Invent the idea of a story, in one sentence.",
    "plot": "Write the plot of this story in two sentences.",
    "characters": "Name two characters of this story, with a few words about each.",
    "dialogue": "Write a short dialogue from this story.",
}
NAMES = list(ROLES)


def read_arguments(args: list[str]) -> Namespace:
    parser = ArgumentParser("agent-swarm", "one of four writers who pass a story on")
    parser.add_argument("--role", required=True, choices=NAMES, help="which of the writers")
    parser.add_argument("--group", default="0", help="writers of a group work on one story")
    parser.add_argument("--idea", help="what the first one starts from (default: the client says)")
    parser.add_number("--max-tokens", 96, "at most so many tokens")
    parser.add_model("which model writes")
    return parser.parse_args(args)


def topic(group: str, role: str) -> str:
    return f"swarm/{group}/{role}"


def hand_on(group: str, role: str, text: str) -> None:
    kvs.put(topic(group, role), text)
    broadcast(topic(group, role), text)


async def take_over(group: str, role: str) -> str:
    """What was kept, or what comes; it is taken only once."""
    with subscribe(topic(group, role)) as messages:
        text = kvs.get(topic(group, role)) or await messages.get()
    kvs.delete(topic(group, role))
    return text


async def main(args: list[str]) -> str:
    wanted = read_arguments(args)
    place = NAMES.index(wanted.role)
    if place == 0:
        before = await receive() if wanted.idea is None else wanted.idea
    else:
        before = await take_over(wanted.group, NAMES[place - 1])
    context = Context(wanted.model)
    context.fill_system(ROLES[wanted.role])
    context.fill_user(before)
    text = await context.generate(wanted.max_tokens).collect()
    if place == len(NAMES) - 1:
        send(text)
    else:
        hand_on(wanted.group, wanted.role, f"{before}\n{text}")
    return text
