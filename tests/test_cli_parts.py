"""The parts of the command line that need no process: what is shown and which code ends it."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from pie_trio.cli.exit_codes import ExitCode, Unreachable, code_of, refusal_in
from pie_trio.cli.options import Flags, resolve
from pie_trio.cli.output import Output
from pie_trio.cli.progress import open_steps
from pie_trio.cli.transcript import Transcript
from pie_trio.client import RemoteError, RequestRefused, ServerGone
from pie_trio.config import ModelSettings, Numeric
from pie_trio.errors import BadConfig, BadModel, BadProgram, GuestFault, PieError, TooMany


class Terminal(io.StringIO):
    """A stream that says that somebody looks at it."""

    def isatty(self) -> bool:
        return True


def _output(stdout: io.StringIO | None = None) -> tuple[Output, io.StringIO, io.StringIO]:
    out, err = stdout or io.StringIO(), io.StringIO()
    return Output(out, err), out, err


def _transcript(times: list[float]) -> tuple[Transcript, io.StringIO, io.StringIO]:
    output, out, err = _output()
    left = iter(times)
    return Transcript(output, lambda: next(left), started_at=100.0), out, err


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (GuestFault("x"), ExitCode.INSTANCE_FAILED),
        (RemoteError("x"), ExitCode.INSTANCE_FAILED),
        (TooMany("x"), ExitCode.INSTANCE_FAILED),
        (BadConfig("x"), ExitCode.USAGE),
        (ServerGone("x"), ExitCode.UNREACHABLE),
        (RequestRefused("x"), ExitCode.UNREACHABLE),
        (Unreachable("x"), ExitCode.UNREACHABLE),
        (BadModel("x"), ExitCode.MISSING),
        (BadProgram("x"), ExitCode.MISSING),
    ],
)
def test_each_refusal_has_its_exit_code(error: PieError, code: ExitCode) -> None:
    assert code_of(error) == code


def test_a_group_of_refusals_is_a_refusal_and_one_bug_among_them_is_a_bug() -> None:
    refusals = ExceptionGroup("", [BadModel("a"), ExceptionGroup("", [GuestFault("b")])])
    assert str(refusal_in(refusals)) == "a"
    assert refusal_in(ExceptionGroup("", [BadModel("a"), ValueError("b")])) is None
    assert refusal_in(ValueError("b")) is None


def test_text_of_a_guest_cannot_steer_a_terminal() -> None:
    output, out, _ = _output(Terminal())
    output.piece("a\x1b[2Jb\x07\tc\n\x9b31m")
    assert out.getvalue() == "a\\x1b[2Jb\\x07\tc\n\\x9b31m"


def test_text_that_goes_into_a_file_stays_as_it_is() -> None:
    output, out, _ = _output()
    output.piece("a\x1b[2J")
    assert out.getvalue() == "a\x1b[2J"


def test_what_is_said_starts_on_a_line_of_its_own() -> None:
    output, out, err = _output()
    output.piece("no end")
    output.say("said")
    assert (out.getvalue(), err.getvalue()) == ("no end\n", "said\n")


def test_a_return_value_that_was_streamed_already_is_not_shown_twice() -> None:
    transcript, out, _ = _transcript([101.0, 102.0])
    transcript.show("message", "Par")
    transcript.show("message", "is.")
    transcript.show("return", "Paris.")
    assert out.getvalue() == "Paris.\n"


def test_a_return_value_of_its_own_is_shown() -> None:
    transcript, out, _ = _transcript([101.0])
    transcript.show("message", "working")
    transcript.show("return", "42")
    assert out.getvalue() == "working\n42\n"


def test_the_closing_line_counts_from_the_first_piece_to_the_last() -> None:
    transcript, _, _ = _transcript([102.0, 103.0, 104.0])
    for piece in ("one two ", "three ", "four"):
        transcript.show("message", piece)
    told = transcript.closing_line("returned", lambda text: len(text.split()))
    assert told == "first token after 2.00 s · 4 tokens · 1.0 tokens a second · returned"
    assert "3 pieces" in transcript.closing_line("returned")


def test_without_a_message_the_closing_line_says_so() -> None:
    transcript, _, _ = _transcript([103.0])
    assert transcript.closing_line("returned") == "no message · returned after 3.00 s"


def test_steps_are_plain_lines_where_nobody_looks() -> None:
    output, _, err = _output()
    with open_steps(output) as steps:
        steps.say("starting")
        steps.count("converting", 1, 10)
        steps.count("converting", 10, 10)
    assert err.getvalue() == "starting\nconverting\n"


def test_a_terminal_sees_a_bar_that_is_gone_afterwards() -> None:
    stderr = Terminal()
    with open_steps(Output(io.StringIO(), stderr)) as steps:
        steps.count("converting", 5, 10)
        steps.bars.refresh() if steps.bars else None
    assert "converting" in stderr.getvalue()
    before = stderr.getvalue()
    steps.say("later")
    assert stderr.getvalue() == before + "later\n"


def test_the_numeric_mode_of_a_flag_is_that_of_every_served_model(tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text('[[model]]\nname = "one"\n[[model]]\nname = "two"\nnumeric = "int8"\n')

    def models(**flags: object) -> list[ModelSettings]:
        return list(resolve(config, Flags(**flags)).settings.models)  # type: ignore[arg-type]

    assert [model.numeric for model in models()] == [Numeric.BF16, Numeric.INT8]
    assert [model.numeric for model in models(numeric=Numeric.INT8)] == [Numeric.INT8] * 2
    assert models(models=["two", "three"], numeric=Numeric.BF16) == [
        ModelSettings("two"),
        ModelSettings("three"),
    ]
    assert models(pretend=True, numeric=Numeric.INT8)[0].pretend
