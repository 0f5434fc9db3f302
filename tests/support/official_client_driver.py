"""Drives one unmodified official client against a server, in a process of its own.

`python official_client_driver.py URL VERSION`, with the client's packages and this
folder on PYTHONPATH. It writes
the name of each step that held to its standard output; the first that does not hold ends it.
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

MAGIC = b"\0asm\x0d\0\x01\0"
MANIFEST = '[package]\nname = "{name}"\nversion = "1.2.3"\n[runtime]\nlanguage = "{language}"\n'
SECONDS_MAX = 60


async def basics(client: Any) -> None:
    await client.ping()
    held("ping")
    ok, status = await client.query("model_status", "")
    assert ok
    assert isinstance(json.loads(status), dict)
    held("query")
    ok, text = await client.query("weather", "")
    assert not ok
    assert "weather" in text
    held("query of an unknown subject")
    assert await client.list_processes() == []
    held("empty list")


async def programs(client: Any, version: str) -> None:
    folder = Path(tempfile.mkdtemp())
    wasm, toml = folder / "p.wasm", folder / "Pie.toml"
    wasm.write_bytes(MAGIC + bytes(600_000))
    toml.write_text(MANIFEST.format(name="fresh", language="wasm"))
    assert not await client.check_program("fresh@1.2.3")
    await client.install_program(wasm, toml)
    assert await client.check_program("fresh@1.2.3")
    held("install and check")
    if version.startswith("0.4"):
        assert await client.check_program("fresh@1.2.3", wasm, toml)
        toml.write_text(MANIFEST.format(name="fresh", language="python"))
        assert not await client.check_program("fresh@1.2.3", wasm, toml)
        held("check of hashes")
    wasm.write_bytes(b"junk")
    toml.write_text(MANIFEST.format(name="junk", language="wasm"))
    assert "not a wasm component" in await refused(client.install_program(wasm, toml))
    toml.write_text("[package")
    assert "Invalid manifest" in await refused(client.install_program(wasm, toml))
    held("refused installs")


async def launches(client: Any) -> None:
    talker = await client.launch_process("talker@0.1.0")
    assert await until_end(talker) == [
        (Event.Stdout, "out"),
        (Event.Stderr, "err"),
        (Event.Message, "told"),
        (Event.Return, '{"answer": 42}'),
    ]
    held("launch and stream")
    echo = await client.launch_process("echo@0.1.0", input={"max_tokens": 3, "verbose": True})
    assert await echo.recv() == (Event.Stdout, "--max-tokens 3 --verbose")
    await echo.signal("hello")
    assert await until_end(echo) == [(Event.Return, "hello")]
    held("input and signal")
    failing = await client.launch_process("failing@0.1.0")
    [(kind, text)] = await until_end(failing)
    assert (kind, "unreachable" in text) == (Event.Error, True)
    assert "not found" in await refused(client.launch_process("absent@1.0.0"))
    held("errors")
    sleeper = await client.launch_process("sleeper@0.1.0")
    await sleeper.terminate()
    assert await until_end(sleeper) == [(Event.Error, "Signal")]
    assert "not found" in await refused(sleeper.terminate())
    held("terminate")
    several = [await client.launch_process("talker@0.1.0") for _ in range(50)]
    endings = [(await until_end(process))[-1] for process in several]
    assert endings == [(Event.Return, '{"answer": 42}')] * 50
    held("fifty launches")


async def files(client: Any) -> None:
    blob = bytes(range(256)) * 2500
    for _ in range(5):
        process = await client.launch_process("file-echo@0.1.0")
        await process.transfer_file(blob)
        events = await until_end(process)
        assert [kind for kind, _ in events] == [Event.File, Event.File, Event.Return]
        assert (bytes(events[0][1]), bytes(events[1][1])) == (b"hello", blob)
    held("files both ways")


async def attaching(client: Any, url: str) -> None:
    async with PieClient(url) as first:
        await first.authenticate("ann")
        process = await first.launch_process("echo@0.1.0", input={"args": ["before"]})
        assert await process.recv() == (Event.Stdout, "before")
        [row] = await first.list_processes()
        assert (row["id"], row["username"]) == (process.process_id, "ann")
        assert row["program"] == "echo@0.1.0"
        assert json.loads(row["input"]) == {"args": ["before"]}
        held("list")
        assert "attached" in await refused(client.attach_process(process.process_id))
    again = await client.attach_process(process.process_id)
    await again.signal("after")
    assert await until_end(again) == [(Event.Return, "after")]
    assert "not found" in await refused(client.attach_process(process.process_id))
    held("attach")
    async with PieClient(url) as stranger:
        await stranger.authenticate("bob")
        mine = await client.launch_process("sleeper@0.1.0")
        assert "Permission denied" in await refused(stranger.attach_process(mine.process_id))
        assert await stranger.list_processes() == []
        await mine.terminate()
        await until_end(mine)
    held("strangers")


async def of_0_4(client: Any, url: str) -> None:
    inputs = [{"args": [str(number)]} for number in range(10)]
    assert await client.run_processes("arguments@0.1.0", inputs) == [str(n) for n in range(10)]
    assert "unreachable" in await refused(client.run_processes("failing@0.1.0", [{}]))
    processes = await client.launch_processes("arguments@0.1.0", inputs)
    endings = [(await until_end(process))[-1] for process in processes]
    assert endings == [(Event.Return, str(number)) for number in range(10)]
    held("many processes")
    for call in (
        client.auth_by_token("x"),
        client.launch_daemon(1, "echo@0.1.0"),
        client.launch_process("talker@0.1.0", token_budget=5),
    ):
        assert "not served" in await refused(call)
    held("what is not served")


async def of_0_5(client: Any, url: str) -> None:
    from pie_client import inferlet

    @inferlet
    async def add_numbers(first: int, second: int = 2) -> int:
        """Adds."""
        return first + second

    process = await client.run(add_numbers, first=40)
    await process.result()
    held("run of a decorated function")
    answer = await (await client.run("talker@0.1.0")).result()
    assert answer == {"answer": 42}
    process = await client.run("file-echo")
    assert (await process.recv())[1].name == "greeting.bin"
    await process.terminate()
    held("run by name")


async def main(url: str, version: str) -> None:
    async with asyncio.timeout(SECONDS_MAX), PieClient(url) as client:
        await client.authenticate("ann")
        held("authenticate")
        await basics(client)
        await programs(client, version)
        await launches(client)
        await files(client)
        await attaching(client, url)
        await (of_0_4 if version.startswith("0.4") else of_0_5)(client, url)


asyncio.run(main(*sys.argv[1:]))
