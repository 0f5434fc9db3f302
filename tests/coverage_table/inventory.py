"""What must have a row: read from the sources of truth, never from a list kept by hand.

The WIT texts, the program folders, the command line's own tree of verbs, the message classes of
both protocols. It reads; it never changes anything.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import get_args

import attrs
import typer

from gpu_worker import wire
from pie_trio.cli.main import app
from pie_trio.services.client_messages import NOT_SERVED, ClientMessage, ServerMessage
from pie_trio.wasm.host.interfaces import host_interfaces
from tests.source_tree import ROOT

WIT_ROOT = ROOT / "pie_trio" / "wasm" / "wit" / "deps"
WIT_FOLDERS = ("core", "adapter", "image", "zo", "io", "clocks", "ext")
WIRE_MESSAGES = tuple(kind for kind in get_args(wire.Message) if kind is not wire.BatchArrays)


@attrs.frozen
class Item:
    """One thing that exists. `body`: where its body is, when that can be told from the item."""

    kind: str  # "WIT function", "WIT resource", "program", "CLI verb", "client message", ...
    name: str
    body: str | None = None

    @property
    def key(self) -> str:
        return f"{self.kind}: {self.name}"


def inventory() -> list[Item]:
    """Every item, in the order of the document."""
    return [*_wit(), *_programs(), *_verbs(), *_client_messages(), *_wire_messages()]


def _wit() -> Iterator[Item]:
    tables = host_interfaces()
    for folder in WIT_FOLDERS:
        for path in sorted((WIT_ROOT / folder).glob("*.wit")):
            yield from _wit_file(path.read_text("utf-8"), _package_of(folder), tables)


def _package_of(folder: str) -> str:
    if folder == "ext":
        return "pie:ext"
    return f"wasi:{folder}" if folder in ("io", "clocks") else f"inferlet:{folder}"


def _wit_file(text: str, package: str, tables: object) -> Iterator[Item]:
    interface = resource = ""
    for line in re.sub(r"//.*", "", text).splitlines():
        if match := re.match(r"\s*interface ([\w-]+)", line):
            interface = f"{package}/{match[1]}"
        elif match := re.match(r"\s*resource ([\w-]+)", line):
            resource = match[1]
            yield Item("WIT resource", f"{interface} {resource}")
        elif re.match(r"\s*constructor\(", line):
            yield _function(interface, f"[constructor]{resource}", tables)
        elif match := re.match(r"\s*([\w-]+): (static )?func\(", line):
            of_resource = "[static]" if match[2] else "[method]"
            name = f"{of_resource}{resource}.{match[1]}" if resource else match[1]
            yield _function(interface, name, tables)
        if re.match(r"\s*}", line) and resource:
            resource = ""


def _function(interface: str, name: str, tables: object) -> Item:
    table = tables.get(interface, {}) if isinstance(tables, dict) else {}
    return Item("WIT function", f"{interface} {name}", _place(table.get(name)))


def _place(function: Callable[..., object] | None) -> str | None:
    """`module:qualname`, unless it is a closure that many share."""
    if function is None or "<" in function.__qualname__:
        return None
    return f"{function.__module__}:{function.__qualname__}"


def _programs() -> Iterator[Item]:
    for manifest in sorted((ROOT / "inferlets").glob("*/Pie.toml")):
        text = manifest.read_text("utf-8")
        found = re.search(r'^artifact = "(.+)"', text, re.MULTILINE)
        body = f"file:inferlets/{manifest.parent.name}/{found[1]}" if found else None
        yield Item("program", manifest.parent.name, body)


def _verbs() -> Iterator[Item]:
    yield from _verbs_below(typer.main.get_command(app), "")


def _verbs_below(command: object, path: str) -> Iterator[Item]:
    inner = getattr(command, "commands", None)
    if inner is None:
        yield Item("CLI verb", path, _place(getattr(command, "callback", None)))
        return
    for name in sorted(inner):
        yield from _verbs_below(inner[name], f"{path} {name}".strip())


def _client_messages() -> Iterator[Item]:
    for kind in (*get_args(ClientMessage), *get_args(ServerMessage)):
        yield Item("client message", kind.type)
    for name in NOT_SERVED:
        yield Item("client message", name)


def _wire_messages() -> Iterator[Item]:
    for kind in WIRE_MESSAGES:
        yield Item("worker message", kind.__name__)
