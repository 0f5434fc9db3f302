"""`pie-trio model list|add|show|remove`: the models in the cache.

It owns nothing; the store does. A model appears whole or not at all. Nothing is ever downloaded:
what is added lies on this machine already.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import attrs
import typer

from pie_trio.cli.output import Output
from pie_trio.cli.progress import open_steps
from pie_trio.home import Home
from pie_trio.services.model_store import ModelStore
from pie_trio.settings_file import to_toml

app = typer.Typer(no_args_is_help=True, help="List, add, show and remove models.")

NameArgument = Annotated[str, typer.Argument(help="A name from `pie-trio model list`.")]


def _store() -> ModelStore:
    return ModelStore(Home.default().models)


@app.command("list")
def list_models() -> None:
    """List the models that can be served.

    Example: pie-trio model list
    """
    output = Output.of_process()
    for model in _store().list():
        output.line(f"{model.name}\t{model.description}")


@app.command()
def add(
    path: Annotated[
        Path | None,
        typer.Argument(
            help="A Hugging Face folder of the Llama family, or a .gguf; left out: the default."
        ),
    ] = None,
    name: Annotated[str | None, typer.Option("--name", help="Under this name.")] = None,
) -> None:
    """Copy a model into the cache, converted; without PATH the default model.

    Example: pie-trio model add ./my-llama --name mine
    """
    output = Output.of_process()
    store = _store()
    with open_steps(output) as steps:
        if path is None:
            added = store.ensure_default(steps.count).facts.name
        else:
            added = store.add(path, name, steps.count)
    output.line(added)


@app.command()
def show(
    name: NameArgument,
    verify: Annotated[bool, typer.Option("--verify", help="Read every byte again.")] = False,
) -> None:
    """Show what is known of a model.

    Example: pie-trio model show smollm2-135m --verify
    """
    output = Output.of_process()
    for key, value in attrs.asdict(_store().show(name, verify=verify)).items():
        output.line(f"{key} = {to_toml(value)}")


@app.command()
def remove(name: NameArgument) -> None:
    """Remove a model from the cache.

    Example: pie-trio model remove mine
    """
    _store().remove(name)
    Output.of_process().say(f"removed {name}")
