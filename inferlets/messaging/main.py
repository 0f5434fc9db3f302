"""messaging: talks to the client and to other programs by topic."""

import asyncio
from argparse import Namespace

from inferlet import ArgumentParser, Subscription, broadcast, receive, send, subscribe


def read_arguments(args: list[str]) -> Namespace:
    parser = ArgumentParser("messaging", "talks to the client and to other programs by topic")
    parser.add_argument("--topic", default="messaging", help="which topic (default: messaging)")
    parser.add_number("--count", 3, "how many messages")
    role = parser.add_mutually_exclusive_group()
    role.add_argument("--listen", action="store_true", help="send on what the topic says")
    role.add_argument("--say", metavar="TEXT", help="say this on the topic and end")
    role.add_argument("--relay", action="store_true", help="say on the topic what the client says")
    return parser.parse_args(args)


async def listen(topic: Subscription, count: int) -> list[str]:
    heard = []
    for _ in range(count):
        heard.append(await topic.get())
        send(heard[-1])
    return heard


async def talk_to_itself(topic: Subscription, name: str, count: int) -> list[str]:
    """Says and hears at the same time: the listener waits before anything is said."""
    listener = asyncio.create_task(listen(topic, count))
    await asyncio.sleep(0)
    for number in range(1, count + 1):
        broadcast(name, f"message {number} of {count}")
    return await listener


async def main(args: list[str]) -> list[str] | None:
    wanted = read_arguments(args)
    if wanted.say is not None:
        broadcast(wanted.topic, wanted.say)
        return None
    if wanted.relay:
        for _ in range(wanted.count):
            broadcast(wanted.topic, await receive())
        return None
    with subscribe(wanted.topic) as topic:
        if wanted.listen:
            return await listen(topic, wanted.count)
        return await talk_to_itself(topic, wanted.topic, wanted.count)
