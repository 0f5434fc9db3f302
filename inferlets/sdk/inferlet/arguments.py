"""ArgumentParser: argparse for programs whose terminal is a client.

Usage goes to the client as a message; a wrong argument ends the program with that reason.
"""

from __future__ import annotations

import argparse
from functools import partial
from typing import NoReturn

from inferlet.messaging import send

HELP_WIDTH = 96  # a program has no terminal to ask


class ArgumentParser(argparse.ArgumentParser):
    """`parse_args(args)` as usual; `--help` sends the usage and ends the program well."""

    def __init__(self, name: str, description: str) -> None:
        super().__init__(
            prog=name,
            description=description,
            formatter_class=partial(argparse.HelpFormatter, width=HELP_WIDTH),
        )

    def _print_message(self, message: str, file: object = None) -> None:
        send(message)

    def error(self, message: str) -> NoReturn:
        raise SystemExit(f"bad argument, see --help: {message}")
