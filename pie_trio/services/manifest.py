"""Reading a program's manifest (`Pie.toml`): who it is, and how it is run.

Pure: text in, a frozen `Manifest` out, or `BadProgram` with what is wrong and where. Names and
versions that pass here are safe as parts of a path; nothing else of a manifest ever becomes one.
"""

from __future__ import annotations

import keyword
import re
import tomllib
from typing import TypeGuard

import attrs

from pie_trio.config import Limits
from pie_trio.errors import BadProgram

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
VERSION = re.compile(r"(0|[1-9]\d{0,8})\.(0|[1-9]\d{0,8})\.(0|[1-9]\d{0,8})")
# What a manifest may call its language, and how we run that.
LANGUAGES = (("wasm", "wasm"), ("c", "wasm"), ("python", "python"))
CALLS = ("args", "kwargs")  # main(args), or the entry with the launch input's keys
PARAMETER_TYPES = ("string", "int", "float", "bool")


@attrs.frozen
class Manifest:
    """What we use of a manifest; `text` is the whole of it, as it came."""

    name: str
    version: str
    description: str
    language: str  # wasm or python: how it is run
    artifact: str | None  # file name beside the manifest, for programs in a folder
    entry: str  # the function that runs, in a Python program
    call: str  # "args": main(args); "kwargs": the launch input's keys are its parameters
    text: str

    @property
    def identity(self) -> str:
        return f"{self.name}@{self.version}"


def version_key(version: str) -> tuple[int, ...]:
    """Versions in their order: 0.10.0 is newer than 0.9.0."""
    return tuple(int(part) for part in version.split("."))


def check_identity(name: str, version: str, limits: Limits) -> None:
    if not NAME.fullmatch(name) or len(name) > limits.program_name_length:
        raise BadProgram(
            f"program name {name[:80]!r}: expected letters, digits, '_' and '-', a letter or digit "
            f"first, at most {limits.program_name_length}"
        )
    if not VERSION.fullmatch(version):
        raise BadProgram(f"version {version[:80]!r} of {name}: expected major.minor.patch")


def parse_manifest(text: str, limits: Limits) -> Manifest:
    """Raises `BadProgram`; the text of the error begins with `Invalid manifest`."""
    try:
        return _parse(text, limits)
    except (BadProgram, tomllib.TOMLDecodeError) as error:
        raise BadProgram(f"Invalid manifest: {error}") from None
    except RecursionError:
        raise BadProgram("Invalid manifest: nested too deeply") from None


def _parse(text: str, limits: Limits) -> Manifest:
    if len(text.encode(errors="replace")) > limits.manifest_bytes:
        raise BadProgram(f"larger than {limits.manifest_bytes} bytes")
    document = tomllib.loads(text)
    package = _table(document, "package")
    runtime = _table(document, "runtime")
    if _table(document, "dependencies"):
        raise BadProgram("[dependencies] are not served; build the program with them inside")
    _check_parameters(_table(document, "parameters"))
    name, version = _string(package, "name"), _string(package, "version")
    check_identity(name, version, limits)
    return Manifest(
        name=name,
        version=version,
        description=_string(package, "description", ""),
        language=_language(_string(runtime, "language", "wasm")),
        artifact=_file_name(runtime),
        entry=_entry(runtime),
        call=_one_of(runtime, "call", CALLS),
        text=text,
    )


def _table(document: dict[str, object], key: str) -> dict[str, object]:
    table = document.get(key, {})
    if not _is_table(table):
        raise BadProgram(f"[{key}] is not a table")
    return table


def _is_table(value: object) -> TypeGuard[dict[str, object]]:
    return isinstance(value, dict)


def _string(table: dict[str, object], key: str, default: str | None = None) -> str:
    value = table.get(key, default)
    if value is None:
        raise BadProgram(f"{key} is missing")
    if not isinstance(value, str):
        raise BadProgram(f"{key} is not a string")
    return value


def _language(name: str) -> str:
    for known, runs_as in LANGUAGES:
        if name == known:
            return runs_as
    known_names = ", ".join(known for known, _ in LANGUAGES)
    raise BadProgram(f"language {name[:80]!r} is not one of {known_names}")


def _file_name(runtime: dict[str, object]) -> str | None:
    name = _string(runtime, "artifact", "") or None
    if name is not None and ("/" in name or "\\" in name or name.startswith(".") or "\0" in name):
        raise BadProgram(f"artifact {name[:80]!r} is not the name of a file beside the manifest")
    return name


def _entry(runtime: dict[str, object]) -> str:
    name = _string(runtime, "entry", "main")
    if not name.isidentifier() or keyword.iskeyword(name):
        raise BadProgram(f"entry {name[:80]!r} is not the name of a function")
    return name


def _one_of(table: dict[str, object], key: str, known: tuple[str, ...]) -> str:
    value = _string(table, key, known[0])
    if value not in known:
        raise BadProgram(f"{key} {value[:80]!r} is not one of {', '.join(known)}")
    return value


def _check_parameters(parameters: dict[str, object]) -> None:
    for name, parameter in parameters.items():
        if not _is_table(parameter) or parameter.get("type") not in PARAMETER_TYPES:
            expected = ", ".join(PARAMETER_TYPES)
            raise BadProgram(f"parameter {name[:80]!r} needs a type, one of {expected}")
