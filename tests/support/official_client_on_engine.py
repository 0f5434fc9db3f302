"""Drives one unmodified official client against a whole engine: real guests, a pretend worker.

`python official_client_on_engine.py URL VERSION COMPONENT`, with the client's packages and this
folder on PYTHONPATH; COMPONENT is the path of the helloworld program.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from official_steps import held, refused, until_end  # type: ignore[import-not-found]
from pie_client import Event, PieClient  # type: ignore[import-not-found]

MANIFEST = '[package]\nname = "{name}"\nversion = "1.2.3"\n[runtime]\nlanguage = "{language}"\n'
SOURCE = "async def main(args):\n    return ' '.join(args)\n"
SECONDS_MAX = 240


async def install(client: Any, name: str, language: str, artifact: bytes) -> None:
    folder = Path(tempfile.mkdtemp())
    (folder / "artifact").write_bytes(artifact)
    (folder / "Pie.toml").write_text(MANIFEST.format(name=name, language=language))
    await client.install_program(folder / "artifact", folder / "Pie.toml")


async def common(client: Any, url: str, component: bytes) -> None:
    await client.ping()
    ok, status = await client.query("model_status", "")
    assert ok
    assert json.loads(status)["pretend.kv_pages_used"] == 0
    held("query")

    assert not await client.check_program("mine@1.2.3")
    await install(client, "mine", "wasm", component)
    assert await client.check_program("mine@1.2.3")
    events = await until_end(await client.launch_process("mine@1.2.3"))
    assert events[-1][0] is Event.Return
    held("install and launch")

    prompt = {"prompt": "What is the capital of France?", "max_tokens": 8}
    events = await until_end(await client.launch_process("text-completion@0.1.0", input=prompt))
    said = "".join(value for kind, value in events if kind is Event.Message)
    assert events[-1] == (Event.Return, said)
    assert said
    held("streamed text")

    await install(client, "joined", "python", SOURCE.encode())
    process = await client.launch_process("joined@1.2.3", input={"args": ["a", "b"]})
    assert await until_end(process) == [(Event.Return, "a b")]
    held("Python source")

    async with PieClient(url) as first:
        await first.authenticate("ann")
        process = await first.launch_process("echo@0.1.0", input={"count": 2})
        await process.signal("one")
        assert await process.recv() == (Event.Message, "one")
        [row] = await first.list_processes()
        assert (row["id"], row["program"]) == (process.process_id, "echo@0.1.0")
    again = await client.attach_process(process.process_id)
    await again.signal("two")
    events = await until_end(again)
    assert events[0] == (Event.Message, "two")
    assert events[-1][0] is Event.Return
    held("signal, list, attach")

    waiting = await client.launch_process("echo@0.1.0")
    await waiting.terminate()
    assert await until_end(waiting) == [(Event.Error, "Signal")]
    assert await client.list_processes() == []
    assert "not found" in await refused(client.terminate_process(waiting.process_id))
    held("terminate")


async def of_0_4(client: Any) -> None:
    inputs: list[dict[str, Any]] = [{"args": [str(number)]} for number in range(8)]
    assert await client.run_processes("joined@1.2.3", inputs) == [str(n) for n in range(8)]
    held("many processes")


async def of_0_5(client: Any) -> None:
    from pie_client import inferlet

    @inferlet
    async def add_numbers(first: int, second: int = 2) -> int:
        """Adds."""
        return first + second

    process = await client.run(add_numbers, first=40)
    assert await process.result() == 42
    held("a decorated function")


async def main(url: str, version: str, component: bytes) -> None:
    async with asyncio.timeout(SECONDS_MAX), PieClient(url) as client:
        await client.authenticate("ann")
        held("authenticate")
        await common(client, url, component)
        await (of_0_4 if version.startswith("0.4") else of_0_5)(client)


URL, VERSION, COMPONENT = sys.argv[1:]
asyncio.run(main(URL, VERSION, Path(COMPONENT).read_bytes()))
