"""The terminal: results on stdout, everything that is said about them on stderr.

Text of a guest is written as it comes; what could move the cursor or change the terminal is shown
as an escape when stdout is a terminal. A reader that has gone away ends the program quietly.
"""

from __future__ import annotations

import re
import sys
from typing import TextIO

import attrs


class ReaderGoneError(Exception):
    """Whoever read our output has closed it; there is nobody left to tell anything."""


CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\x80-\x9f]")


@attrs.define(eq=False)
class Output:
    """Both streams of one command; `column_is_zero`: stdout stands at the start of a line."""

    stdout: TextIO
    stderr: TextIO
    column_is_zero: bool = True

    @classmethod
    def of_process(cls) -> Output:
        return cls(sys.stdout, sys.stderr)

    def piece(self, text: str) -> None:
        """A piece of a guest's text, shown at once."""
        if not text:
            return
        self._write(self.stdout, self._shown(text, self.stdout))
        self.column_is_zero = text.endswith("\n")

    def line(self, text: str) -> None:
        """A line of a result."""
        self.end_line()
        self._write(self.stdout, self._shown(text, self.stdout) + "\n")

    def end_line(self) -> None:
        if not self.column_is_zero:
            self._write(self.stdout, "\n")
            self.column_is_zero = True

    def say(self, text: str) -> None:
        """A line about what happens."""
        self.end_line()
        self._write(self.stderr, self._shown(text, self.stderr) + "\n")

    def complaint_of_guest(self, text: str) -> None:
        """A piece of a guest's stderr, as it comes."""
        self._write(self.stderr, self._shown(text, self.stderr))

    def complain(self, text: str) -> None:
        self.say(f"pie-trio: {text}")

    @staticmethod
    def _write(stream: TextIO, text: str) -> None:
        try:
            stream.write(text)
            stream.flush()
        except BrokenPipeError as error:
            raise ReaderGoneError from error

    @staticmethod
    def _shown(text: str, stream: TextIO) -> str:
        if not stream.isatty():
            return text
        return CONTROL.sub(lambda match: f"\\x{ord(match.group()):02x}", text)
