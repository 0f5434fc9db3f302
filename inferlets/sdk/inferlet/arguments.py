"""ArgumentParser: argparse for programs whose terminal is a client.

Usage goes to the client as a message; a wrong argument ends the program with that reason. Numbers
have bounds, so that a value that makes no sense is refused by name before anything is run.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from functools import partial
from typing import NoReturn

from inferlet.messaging import send
from inferlet.model import Model, get_model

HELP_WIDTH = 96  # a program has no terminal to ask
WHOLE_MAX = 1_000_000  # of a whole number that nobody has bounded: more would never end


class ArgumentParser(argparse.ArgumentParser):
    """`parse_args(args)` as usual; `--help` sends the usage and ends the program well."""

    def __init__(self, name: str, description: str) -> None:
        super().__init__(
            prog=name,
            description=description,
            formatter_class=partial(argparse.HelpFormatter, width=HELP_WIDTH),
        )

    def add_number(
        self,
        name: str,
        default: float | None,
        help_text: str,
        least: float = 0,
        most: float | None = None,
    ) -> None:
        """An argument that is a number in these bounds, whole if `default` and `least` are."""
        kind = float if isinstance(default, float) or isinstance(least, float) else int
        if most is None:
            most = WHOLE_MAX if kind is int else math.inf
        if default is not None:
            help_text = f"{help_text} (default: {default})"
        self.add_argument(
            name, type=_number(kind, least, most), default=default, help=help_text, metavar="N"
        )

    def add_list(
        self, name: str, default: str | None, help_text: str, read: Callable[[str], object]
    ) -> None:
        """An argument that is several values, with commas between them; `read` refuses a wrong one
        by a `ValueError` or a `LookupError`."""

        def read_all(text: str) -> list[object]:
            return [read_one(part) for part in text.split(",")]

        def read_one(part: str) -> object:
            try:
                return read(part)
            except (ValueError, LookupError):
                raise argparse.ArgumentTypeError(f"{part!r} makes no sense there") from None

        self.add_argument(name, type=read_all, default=default, help=help_text)

    def add_model(self, help_text: str) -> None:
        """`--model NAME`, by default the first one; its value is the `Model`."""

        def read(name: str) -> Model:
            try:
                return get_model(name)
            except LookupError as missing:
                raise argparse.ArgumentTypeError(str(missing)) from None

        help_text = f"{help_text} (default: the first)"
        self.add_argument("--model", type=read, default="", help=help_text, metavar="NAME")

    def _print_message(self, message: str, file: object = None) -> None:
        send(message)

    def error(self, message: str) -> NoReturn:
        raise SystemExit(f"bad argument, see --help: {message}")


def _number(kind: type[int | float], least: float, most: float) -> Callable[[str], float]:
    what = "whole number" if kind is int else "number"
    bounds = f"of {least} or more" if most == math.inf else f"from {least} to {most}"

    def read(text: str) -> float:
        try:
            number = kind(text)
        except ValueError:
            number = math.nan
        if not least <= number <= most or number == math.inf:
            raise argparse.ArgumentTypeError(f"{text!r} is no {what} {bounds}")
        return number

    return read
