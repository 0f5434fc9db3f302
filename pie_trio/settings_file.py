"""The configuration file: TOML to `config.Settings` and back, with the origin of every value.

A flag outranks the environment, which outranks the file, which outranks the default. What is not a
known key, not of the right type or out of range is refused with the file, the key and what would
be right; nothing is guessed and nothing is half applied. It never writes a file.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from enum import Enum
from pathlib import Path
from typing import Any

import attrs
import cattrs
from cattrs.errors import ClassValidationError, ForbiddenExtraKeysError, IterableValidationError

from gpu_worker import wire
from pie_trio.config import Batching, Limits, ModelSettings, Settings
from pie_trio.errors import BadConfig


@attrs.frozen
class ServerTable:
    """`[server]`: where it listens and how it logs."""

    host: str = Settings().host
    port: int = Settings().port
    log: str = Settings().log


@attrs.frozen
class RuntimeTable:
    """`[runtime]`: what makes one run repeat another."""

    seed: int | None = None


@attrs.frozen
class FetchTable:
    """`[fetch]`: the hosts that programs may talk to."""

    allow: tuple[str, ...] = Settings().fetch_allow


@attrs.frozen
class ConfigFile:
    """The file as it is written; `[[model]]` may repeat."""

    server: ServerTable = ServerTable()
    runtime: RuntimeTable = RuntimeTable()
    batching: Batching = Settings().batching
    fetch: FetchTable = FetchTable()
    limits: Limits = Settings().limits
    model: tuple[ModelSettings, ...] = Settings().models

    def to_settings(self) -> Settings:
        return Settings(
            host=self.server.host,
            port=self.server.port,
            models=self.model,
            batching=self.batching,
            limits=self.limits,
            seed=self.runtime.seed,
            fetch_allow=self.fetch.allow,
            log=self.server.log,
        )


@attrs.frozen
class Loaded:
    """The settings, the file that they are written like, and where each changed value is from."""

    file: ConfigFile
    origins: Mapping[str, str]  # dotted key -> "file ...", "environment ..."; default if absent

    @property
    def settings(self) -> Settings:
        return self.file.to_settings()


# Values that a shell may set without a file: environment variable -> dotted key.
FROM_ENVIRONMENT = {
    "PIE_TRIO_HOST": "server.host",
    "PIE_TRIO_PORT": "server.port",
    "PIE_TRIO_LOG": "server.log",
    "PIE_TRIO_SEED": "runtime.seed",
}


def load_settings(path: Path | None, environment: Mapping[str, str]) -> Loaded:
    """Settings from the file, if one is given, under the environment. Raises `BadConfig`."""
    document = _read(path) if path is not None else {}
    origins = {key: f"file {path}" for key, _ in _leaves(document)}
    for variable, key in FROM_ENVIRONMENT.items():
        if variable in environment:
            table, _, name = key.partition(".")
            value = _parse_variable(variable, key, environment[variable])
            document[table] = {**document.get(table, {}), name: value}
            origins[key] = f"environment {variable}"
    return Loaded(_structure(document, str(path or "environment")), origins)


def dump_settings(file: ConfigFile) -> list[tuple[str, str]]:
    """Every dotted key with its value as TOML, in the order of the file."""
    return [(key, to_toml(value)) for key, value in _leaves(attrs.asdict(file))]


def to_toml(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Enum):
        return to_toml(value.value)
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
        return f'"{escaped}"'
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(to_toml, value))}]"
    return "none" if value is None else str(value)


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise BadConfig(f"{path} cannot be read: {error}") from error
    except tomllib.TOMLDecodeError as error:
        raise BadConfig(f"{path} is not TOML: {error}") from error


def _parse_variable(variable: str, key: str, text: str) -> str | int:
    if key in ("server.host", "server.log"):
        return text
    try:
        return int(text)
    except ValueError as error:
        raise BadConfig(f"{variable} must be a whole number, got {text!r}") from error


def _leaves(table: object, prefix: str = "") -> Iterator[tuple[str, object]]:
    if isinstance(table, Mapping):
        for name, value in table.items():
            yield from _leaves(value, f"{prefix}.{name}" if prefix else name)
    elif isinstance(table, list | tuple) and any(isinstance(each, Mapping) for each in table):
        for number, value in enumerate(table):
            yield from _leaves(value, f"{prefix}[{number}]")
    else:
        yield prefix, table


def _structure(document: Mapping[str, Any], source: str) -> ConfigFile:
    try:
        file = strict_converter(forbid_extra_keys=True).structure(document, ConfigFile)
    except ClassValidationError as error:
        raise BadConfig(f"{source}: {'; '.join(complaints(error))}") from error
    problems = list(_out_of_range(file))
    if problems:
        raise BadConfig(f"{source}: {'; '.join(problems)}")
    return file


def strict_converter(*, forbid_extra_keys: bool) -> cattrs.Converter:
    """Makes no value of another kind fit."""
    converter = cattrs.Converter(forbid_extra_keys=forbid_extra_keys)
    for kind in (int, str, bool):
        converter.register_structure_hook(kind, _exactly)
    converter.register_structure_hook(float, _a_number)
    converter.register_structure_hook_func(lambda kind: kind == tuple[str, ...], _texts)
    return converter


def _exactly(value: Any, kind: type) -> Any:
    """No silent conversion: "8080" is not a port, 1 is not true."""
    if type(value) is not kind:
        raise TypeError(f"must be {_kind_name(kind)}, got {value!r}")
    return value


def _a_number(value: Any, _kind: type) -> float:
    if type(value) not in (int, float):
        raise TypeError(f"must be a number, got {value!r}")
    return float(value)


def _texts(value: Any, _kind: object) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or not all(type(text) is str for text in value):
        raise TypeError(f"must be a list of texts, got {value!r}")
    return tuple(value)


def _kind_name(kind: type) -> str:
    names: dict[type, str] = {int: "a whole number", str: "a text", bool: "true or false"}
    return names[kind]


def complaints(error: BaseException, where: str = "") -> Iterator[str]:
    """One sentence for each thing that is wrong, with its dotted key."""
    if isinstance(error, ClassValidationError | IterableValidationError):
        grouped, loose = error.group_exceptions()
        for inner, note in grouped:
            name = getattr(note, "name", None)
            place = f"{where}.{name}" if name else f"{where}[{getattr(note, 'index', '?')}]"
            yield from complaints(inner, place.lstrip("."))
        for inner in loose:
            yield from complaints(inner, where)
    elif isinstance(error, ForbiddenExtraKeysError):
        for key in sorted(error.extra_fields):
            yield _unknown(f"{where}.{key}".lstrip("."), key, error.cl)
    elif isinstance(error, KeyError):
        yield f"{where or 'the file'}: {error.args[0]} is missing"
    else:
        yield f"{where}: {error}"


def _unknown(place: str, key: str, table: type) -> str:
    known = [field.name for field in attrs.fields(table)]
    near = get_close_matches(key, known, n=1)
    hint = f"did you mean {near[0]}?" if near else f"known here: {', '.join(known)}"
    return f"{place} is not a setting; {hint}"


def _out_of_range(file: ConfigFile) -> Iterator[str]:
    if not 0 <= file.server.port <= 65_535:
        yield f"server.port must be 0 to 65535, got {file.server.port}"
    if file.server.log not in ("console", "json", "off"):
        yield f'server.log must be "console", "json" or "off", got {file.server.log!r}'
    for name, value in attrs.asdict(file.limits).items():
        if value <= 0:
            yield f"limits.{name} must be greater than 0, got {value}"
    if (steps := file.limits.decode_steps_max) > wire.STEPS_MAX:
        yield f"limits.decode_steps_max must be at most {wire.STEPS_MAX}, got {steps}"
    if not file.model:
        yield "model: at least one [[model]] is needed"
    names = [model.name for model in file.model]
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield f"model: {name} is listed twice"
    if file.batching.k < 1 or file.batching.t_seconds < 0:
        yield "batching: k must be at least 1 and t_seconds not negative"
