"""Options that several verbs share, and how they become settings: flag, environment, file, default.

It owns the order of precedence on the command line and nothing else. What contradicts itself is
refused before anything is started. It never reads the configuration of another place than it says.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import attrs
import platformdirs
import typer

from pie_trio.config import ModelSettings, Numeric
from pie_trio.services.fetch_rules import AllowList
from pie_trio.settings_file import FetchTable, Loaded, RuntimeTable, ServerTable, load_settings

CONFIG_VARIABLE = "PIE_TRIO_CONFIG"
DEFAULT_SERVER = "ws://127.0.0.1:8080"
PRETEND_MODEL = "pretend"

ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", help="Configuration file (TOML); see `pie-trio config init`."),
]
PretendOption = Annotated[
    bool, typer.Option("--pretend", help="Serve a pretend model: no weights, made-up tokens.")
]
NumericOption = Annotated[
    Numeric | None,
    typer.Option("--numeric", help="Compute the models so: exactly (bf16) or faster (int8)."),
]
SeedOption = Annotated[
    int | None, typer.Option("--seed", help="Make every random choice repeat an earlier run.")
]
FetchOption = Annotated[
    list[str] | None,
    typer.Option("--allow-fetch", help="Let programs fetch from this HOST or HOST:PORT; repeat."),
]
ServerOption = Annotated[
    str, typer.Option("--server", envvar="PIE_TRIO_SERVER", help="Address of the server.")
]
UserOption = Annotated[
    str, typer.Option("--user", envvar="PIE_TRIO_USER", help="Whose instances these are.")
]


def config_path(given: Path | None) -> Path | None:
    """The file that counts: the flag's, the environment's, or the user's own if it exists."""
    if given is not None:
        return given
    if CONFIG_VARIABLE in os.environ:
        return Path(os.environ[CONFIG_VARIABLE])
    usual = usual_config_path()
    return usual if usual.is_file() else None


def usual_config_path() -> Path:
    return platformdirs.user_config_path("pie-trio") / "config.toml"


@attrs.frozen
class Flags:
    """What was said on the command line; None: nothing was."""

    host: str | None = None
    port: int | None = None
    models: Sequence[str] = ()
    pretend: bool = False
    seed: int | None = None
    log: str | None = None
    numeric: Numeric | None = None
    fetch: Sequence[str] = ()


def resolve(config: Path | None, flags: Flags) -> Loaded:
    """Raises `BadConfig`."""
    loaded = load_settings(config_path(config), os.environ)
    models = _models(flags, loaded.file.model)
    said = {
        "server.host": flags.host,
        "server.port": flags.port,
        "server.log": flags.log,
        "runtime.seed": flags.seed,
        "model": models,
        "fetch.allow": flags.fetch or None,
    }
    from_flags = dict.fromkeys((key for key, value in said.items() if value is not None), "flag")
    file = attrs.evolve(
        loaded.file,
        server=_server(flags, loaded.file.server),
        runtime=RuntimeTable(loaded.file.runtime.seed if flags.seed is None else flags.seed),
        fetch=FetchTable(tuple(flags.fetch)) if flags.fetch else loaded.file.fetch,
        model=loaded.file.model if models is None else models,
    )
    AllowList.parse(file.fetch.allow)
    return attrs.evolve(loaded, file=file, origins={**loaded.origins, **from_flags})


def _server(flags: Flags, table: ServerTable) -> ServerTable:
    return ServerTable(
        host=table.host if flags.host is None else flags.host,
        port=table.port if flags.port is None else flags.port,
        log=table.log if flags.log is None else flags.log,
    )


def _models(flags: Flags, configured: Sequence[ModelSettings]) -> tuple[ModelSettings, ...] | None:
    """The models that the flags ask for; a configured one of that name keeps its settings."""
    if flags.models:
        known = {model.name: model for model in configured}
        named = (known.get(name, ModelSettings(name)) for name in flags.models)
        chosen = tuple(attrs.evolve(m, pretend=m.pretend or flags.pretend) for m in named)
    elif flags.pretend:
        chosen = (ModelSettings(PRETEND_MODEL, pretend=True),)
    elif flags.numeric is not None:
        chosen = tuple(configured)
    else:
        return None
    if flags.numeric is None:
        return chosen
    return tuple(attrs.evolve(model, numeric=flags.numeric) for model in chosen)
