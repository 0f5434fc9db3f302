"""Facts about the engine and this instance."""

from __future__ import annotations

from wit_world.imports import runtime

from inferlet.host import settled, utf8


def get_version() -> str:
    """The engine's version."""
    return runtime.get_version()


def get_instance_id() -> str:
    """This instance's id, which is also what clients know it by."""
    return runtime.get_instance_id()


def set_return(text: str) -> None:
    """The program's result, if `main` itself returns nothing."""
    runtime.set_return(utf8(text))


async def query(question: str) -> str:
    """What the runtime answers to a debug query, such as "ping"."""
    answer = runtime.debug_query(question)
    await settled(answer)
    return answer.get() or ""
