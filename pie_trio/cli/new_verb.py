"""`pie-trio new`: a folder with a small program that runs at once, to be changed into another.

It writes into a folder that it has made itself, and into no other: what is there already is
refused and stays as it is. A failure on the way leaves no folder behind.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final

import typer

from pie_trio.cli.exit_codes import Usage
from pie_trio.cli.fresh_build import build_if_missing
from pie_trio.cli.output import Output
from pie_trio.cli.progress import open_steps
from pie_trio.config import Limits
from pie_trio.errors import BadProgram
from pie_trio.services.guest_build.toolchain import MissingToolchain
from pie_trio.services.manifest import check_identity

VERSION: Final = "0.1.0"
PLACE: Final = "@name@"  # what stands in the templates for the program's name

MANIFEST: Final = """\
[package]
name = "@name@"
version = "0.1.0"
description = "Answers one prompt"

[runtime]
language = "{language}"
source = "{source}"
artifact = "{artifact}"

[parameters]
{parameter}
"""
README: Final = """\
@name@: answers one prompt.

`pie-trio run @name@ -- --help` lists its arguments; `pie-trio run @name@ --watch` runs it again
whenever a file here changes.
"""
PYTHON_PARAMETER: Final = (
    'prompt = { type = "string", optional = true, description = "what the user asks" }'
)
PYTHON: Final = '''\
"""@name@: answers one prompt, streaming the text as the model writes it."""

from inferlet import ArgumentParser, Context, get_model, send


async def main(args: list[str]) -> str:
    parser = ArgumentParser("@name@", "answers one prompt")
    parser.add_argument("--prompt", default="What is the capital of France?", help="the question")
    parser.add_number("--max-tokens", 64, "at most so many tokens")
    wanted = parser.parse_args(args)

    context = Context(get_model())
    context.fill_user(wanted.prompt)
    answer = context.generate(wanted.max_tokens)
    async for piece in answer.chunks():
        send(piece)
    return answer.text
'''
PYTHON_EXPECTED: Final = """\
[
  {
    "arguments": ["--prompt", "What is the capital of France?"],
    "says": "The capital of France is Paris.",
    "returns": "The capital of France is Paris."
  }
]
"""
C_PARAMETER: Final = (
    'name = { type = "string", optional = true, description = "who is greeted (default: world)" }'
)
C: Final = """\
/* @name@: greets somebody. */
#include "pie.h"

result_void_string *run(void) {
  arguments all = read_arguments();
  if (take_flag(&all, TEXT("--help"))) {
    send(TEXT("@name@: greets somebody\\n  --name WHO    who it is (default: world)\\n"));
    return succeed();
  }
  string greeting = text_begin();
  text_append(&greeting, TEXT("Hello, "));
  text_append(&greeting, take_option(&all, TEXT("--name"), TEXT("world")));
  text_append(&greeting, TEXT("!"));
  send(greeting);
  set_return(greeting);
  return succeed();
}
"""
C_EXPECTED: Final = """\
[
  {
    "arguments": ["--name", "Ada"],
    "says": "Hello, Ada!",
    "returns": "Hello, Ada!"
  }
]
"""


def new(
    name: Annotated[str, typer.Argument(help="The program's name; its folder is made here.")],
    c: Annotated[bool, typer.Option("--c", help="A program in C; otherwise in Python.")] = False,
) -> None:
    """Make a folder with a program that runs at once.

    Example: pie-trio new my-program
    """
    output, folder = Output.of_process(), Path(name)
    _check_name(name)
    write_folder(folder, c_files(name) if c else python_files(name))
    output.line(f"wrote {', '.join(sorted(path.name for path in folder.iterdir()))} in {name}/")
    try:
        with open_steps(output) as steps:
            build_if_missing(folder, steps.say)
    except MissingToolchain as missing:
        output.say(f"not built yet: {missing}")
    output.line(f"run it with: pie-trio run {name}")


def _check_name(name: str) -> None:
    try:
        check_identity(name, VERSION, Limits())
    except BadProgram as error:
        raise Usage(str(error)) from None


def write_folder(folder: Path, files: Mapping[str, str]) -> None:
    """All of it or nothing. Raises `Usage` when something has that name already."""
    try:
        folder.mkdir()
    except FileExistsError:
        raise Usage(f"{folder} is there already; nothing was changed") from None
    except OSError as error:
        raise Usage(f"{folder} cannot be made: {error.strerror}") from None
    try:
        for name, text in files.items():
            (folder / name).write_text(text, encoding="utf-8")
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def python_files(name: str) -> dict[str, str]:
    manifest = MANIFEST.format(
        language="python", source="main.py", artifact="main.py", parameter=PYTHON_PARAMETER
    )
    return _named(name, manifest, {"main.py": PYTHON, "expected.json": PYTHON_EXPECTED})


def c_files(name: str) -> dict[str, str]:
    manifest = MANIFEST.format(
        language="c", source="main.c", artifact=f"{PLACE}.wasm", parameter=C_PARAMETER
    ).replace("Answers one prompt", "Greets somebody")
    files = _named(name, manifest, {"main.c": C, "expected.json": C_EXPECTED})
    return {
        **files,
        "README.md": files["README.md"].replace("answers one prompt", "greets somebody"),
    }


def _named(name: str, manifest: str, files: Mapping[str, str]) -> dict[str, str]:
    everything = {"Pie.toml": manifest, "README.md": README, **files}
    return {file: text.replace(PLACE, name) for file, text in everything.items()}
