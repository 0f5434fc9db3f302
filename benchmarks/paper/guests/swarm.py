"""swarm: one of four writers who go on with each other's story, round after round.

Every writer keeps his own conversation. What is handed on is kept before it is told, and who waits
listens before he looks, so nothing is lost however they start.
"""

from inferlet import ArgumentParser, Context, broadcast, get_model, kvs, send, subscribe

ROLES = {
    "concept": "Invent ideas for a story.",
    "plot": "Write the plot of a story.",
    "characters": "Describe the people of a story.",
    "dialogue": "Write what people say in a story.",
}


async def main(args: list[str]) -> None:
    parser = ArgumentParser("swarm", "one of four writers")
    parser.add_argument("role", choices=list(ROLES))
    parser.add_argument("--group", default="0")
    parser.add_argument("--idea", default="A lighthouse.")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--max-tokens", type=int, default=12)
    wanted = parser.parse_args(args)
    place = list(ROLES).index(wanted.role)
    context = Context(get_model())
    context.fill_system(ROLES[wanted.role])
    with subscribe(f"swarm/{wanted.group}/{place}") as messages:
        for turn in range(wanted.rounds):
            key = f"swarm/{wanted.group}/{place}/{turn}"
            text = wanted.idea if place == turn == 0 else kvs.get(key)
            while text is None:
                await messages.get()
                text = kvs.get(key)
            context.fill_user(text)
            text = await context.generate(wanted.max_tokens).collect()
            heir = (place + 1) % len(ROLES)
            kvs.put(f"swarm/{wanted.group}/{heir}/{turn + (heir == 0)}", text)
            broadcast(f"swarm/{wanted.group}/{heir}", text)
    if place == len(ROLES) - 1:
        send(text)
