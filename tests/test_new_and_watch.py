"""`pie-trio new` and `run --watch`: a program of one's own, from nothing to the next change."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.command import COMMAND, SECONDS, environment

CALM = "import asyncio\n\nasync def main(args):\n    print({said!r}, flush=True)\n    {then}\n"


def pie_in(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments],
        cwd=folder,
        env=environment(folder),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


@pytest.mark.parametrize("flags", [[], ["--c"]], ids=["python", "c"])
def test_what_new_writes_runs_at_once_and_says_what_it_does(
    tmp_path: Path, flags: list[str]
) -> None:
    made = pie_in(tmp_path, "new", "mine", *flags)
    assert made.returncode == 0, made.stderr
    assert "run it with: pie-trio run mine" in made.stdout
    (case, *_) = json.loads((tmp_path / "mine" / "expected.json").read_text())
    ran = pie_in(tmp_path, "run", "--pretend", "mine", "--", *case["arguments"])
    assert ran.returncode == 0, ran.stderr
    assert bool(ran.stdout.strip()), "it says something"
    if flags:
        assert ran.stdout.strip() == case["says"]
    help_text = pie_in(tmp_path, "run", "--pretend", "mine", "--", "--help")
    assert "mine" in help_text.stdout
    assert "--" in help_text.stdout
    names = sorted(path.name for path in (tmp_path / "mine").iterdir())
    wanted = {"Pie.toml", "README.md", "expected.json", *(["main.c"] if flags else ["main.py"])}
    assert wanted <= set(names)


@pytest.mark.model
@pytest.mark.slow
def test_the_model_says_what_the_new_program_expects(tmp_path: Path) -> None:
    assert pie_in(tmp_path, "new", "mine").returncode == 0
    (case,) = json.loads((tmp_path / "mine" / "expected.json").read_text())
    ran = pie_in(tmp_path, "run", "mine", "--", *case["arguments"])
    assert (ran.returncode, ran.stdout.strip()) == (0, case["says"]), ran.stderr


def test_a_name_that_is_taken_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "main.py").write_text("precious")
    refused = pie_in(tmp_path, "new", "mine")
    assert (refused.returncode, "is there already" in refused.stderr) == (2, True)
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["main.py"]
    assert (tmp_path / "mine" / "main.py").read_text() == "precious"


@pytest.mark.parametrize("name", ["a/b", "..", "-x y", "", "a" * 200])
def test_what_is_no_name_of_a_program_makes_no_folder(tmp_path: Path, name: str) -> None:
    assert pie_in(tmp_path, "new", "--", name).returncode == 2
    assert not list(tmp_path.iterdir())


@contextmanager
def watching(folder: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Ctrl-C ends it with 130, whatever was happening."""
    process = subprocess.Popen(
        [*COMMAND, "run", "--pretend", "--watch", *arguments],
        cwd=folder,
        env=environment(folder),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        bufsize=1,
    )
    try:
        yield process
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=SECONDS)
        assert process.returncode == 130, errors
        assert "Traceback" not in errors
    finally:
        process.kill()
        process.communicate()


def heard(process: subprocess.Popen[str], what: str) -> None:
    """Reads stderr until it says this."""
    assert process.stderr is not None
    for line in process.stderr:
        if what in line:
            return
    raise AssertionError(f"it ended without saying {what!r}")


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_a_file_that_changes_is_run_again_and_errors_end_nothing(tmp_path: Path) -> None:
    program = tmp_path / "mine.py"
    program.write_text(CALM.format(said="one", then="return"))
    with watching(tmp_path, "mine.py") as process:
        assert said(process) == "one"
        heard(process, "watching mine.py")
        program.write_text("this is no Python\n")
        heard(process, "SyntaxError")
        heard(process, "watching mine.py")
        program.unlink()
        heard(process, "does not exist")
        program.write_text(CALM.format(said="two", then="return"))
        assert said(process) == "two"
        heard(process, "watching mine.py")


def test_the_instance_that_runs_is_ended_when_its_file_changes(tmp_path: Path) -> None:
    program = tmp_path / "mine.py"
    program.write_text(CALM.format(said="one", then="await asyncio.sleep(3600)"))
    with watching(tmp_path, "mine.py") as process:
        assert said(process) == "one"
        program.write_text(CALM.format(said="two", then="await asyncio.sleep(3600)"))
        heard(process, "its file has changed")
        assert said(process) == "two"


def test_a_folder_in_c_is_built_again_when_its_source_changes(tmp_path: Path) -> None:
    assert pie_in(tmp_path, "new", "mine", "--c").returncode == 0
    source = tmp_path / "mine" / "main.c"
    with watching(tmp_path, "mine") as process:
        assert said(process) == "Hello, world!"
        heard(process, "watching mine")
        source.write_text(source.read_text().replace("Hello", "Goodbye"))
        assert said(process) == "Goodbye, world!"
        heard(process, "watching mine")


@pytest.mark.parametrize("other", [["--server", "ws://127.0.0.1:1"], ["--record", "journal"]])
def test_watching_is_for_an_engine_of_our_own(tmp_path: Path, other: list[str]) -> None:
    ended = pie_in(tmp_path, "run", "--watch", *other, "helloworld")
    assert (ended.returncode, "--watch" in ended.stderr) == (2, True)


def test_there_must_be_something_to_watch(tmp_path: Path) -> None:
    ended = pie_in(tmp_path, "run", "--pretend", "--watch", "helloworld")
    assert (ended.returncode, "--watch: helloworld is no file" in ended.stderr) == (4, True)
