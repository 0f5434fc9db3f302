"""Ctrl-C, Ctrl-D and SIGTERM: what they end, how fast, and that nothing is left."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from tests.support.command import (
    COMMAND,
    SECONDS,
    Serving,
    environment,
    pie,
    serving,
    slow_config,
    start,
)

ENDLESS = ("text-completion", "--", "--prompt", "hello", "--max-tokens", "4000")
GRACE_SECONDS = 5.0


def _read_some(process: subprocess.Popen[str]) -> str:
    """Waits until it has said something: then the instance runs."""
    assert process.stdout is not None, "stdout is a pipe"
    return process.stdout.read(1)


def _end(process: subprocess.Popen[str]) -> str:
    _, errors = process.communicate(timeout=SECONDS)
    return errors


def test_the_first_ctrl_c_aborts_the_instance_and_says_so(tmp_path: Path) -> None:
    process = start(tmp_path, "run", "--config", str(slow_config(tmp_path)), *ENDLESS)
    assert _read_some(process)
    process.send_signal(signal.SIGINT)
    errors = _end(process)
    assert process.returncode == 130
    assert "ended with Terminated" in errors
    assert "Traceback" not in errors


def test_ctrl_c_while_the_engine_starts_ends_with_130(tmp_path: Path) -> None:
    process = start(tmp_path, "run", "--config", str(slow_config(tmp_path)), *ENDLESS)
    assert process.stderr is not None, "stderr is a pipe"
    assert "starting the worker" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    errors = _end(process)
    assert (process.returncode, "Traceback" in errors) == (130, False), errors


def test_the_second_ctrl_c_ends_the_command_and_its_worker_at_once(tmp_path: Path) -> None:
    process = start(tmp_path, "serve", "--port", "0", "--pretend")
    assert _read_some(process)
    workers = psutil.Process(process.pid).children(recursive=True)
    assert workers, "the worker is a process"
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGINT)
    _end(process)
    assert process.returncode in (0, 130), "signals that come together may be one"
    _, alive = psutil.wait_procs(workers, timeout=GRACE_SECONDS)
    assert not alive


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_server_in_order_within_the_grace_time(
    tmp_path: Path, number: signal.Signals
) -> None:
    with serving(tmp_path, "--config", str(slow_config(tmp_path))) as server:
        workers = psutil.Process(server.process.pid).children(recursive=True)
        pie(tmp_path, "submit", "--server", server.address, "--detached", *ENDLESS)
        started = time.monotonic()
        server.process.send_signal(number)
        errors = _end(server.process)
        assert time.monotonic() - started < GRACE_SECONDS
        assert (server.process.returncode, "Traceback" in errors) == (0, False), errors
        _, alive = psutil.wait_procs(workers, timeout=1.0)
        assert not alive


def test_ctrl_c_aborts_the_instance_at_the_server(tmp_path: Path) -> None:
    with serving(tmp_path, "--config", str(slow_config(tmp_path))) as server:
        process = start(tmp_path, "submit", "--server", server.address, *ENDLESS)
        assert _read_some(process)
        process.send_signal(signal.SIGINT)
        errors = _end(process)
        assert process.returncode == 130, errors
        assert "ended with an error" in errors
        listed = pie(tmp_path, "list", "--server", server.address).stdout
        assert "text-completion" not in listed or "finished" in listed


def test_ctrl_d_on_a_terminal_leaves_the_instance_running(tmp_path: Path) -> None:
    with serving(tmp_path, "--config", str(slow_config(tmp_path))) as server:
        code, said = _submit_on_a_terminal(tmp_path, server)
        assert (code, "come back with: pie-trio attach" in said) == (0, True), said
        listed = pie(tmp_path, "list", "--server", server.address).stdout
        assert "text-completion" in listed
        assert "finished" not in listed


def _submit_on_a_terminal(folder: Path, server: Serving) -> tuple[int, str]:
    ours, theirs = pty.openpty()
    command = [*COMMAND, "submit", "--server", server.address, *ENDLESS]
    process = subprocess.Popen(
        command,
        env=environment(folder),
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert _read_some(process)
        os.write(ours, b"\x04")
        errors = _end(process)
    finally:
        process.kill()
        os.close(ours)
        os.close(theirs)
    return process.returncode, errors


def test_a_client_that_has_stopped_reading_does_not_delay_the_end_of_a_server(
    tmp_path: Path,
) -> None:
    with serving(tmp_path, "--pretend") as server:
        client = start(tmp_path, "submit", "--server", server.address, *ENDLESS)
        try:
            assert _read_some(client)
            client.send_signal(signal.SIGSTOP)
            started = time.monotonic()
            server.process.send_signal(signal.SIGTERM)
            errors = _end(server.process)
            assert time.monotonic() - started < GRACE_SECONDS
            assert server.process.returncode == 0, errors
        finally:
            client.kill()
            client.communicate()


def test_clients_are_told_that_the_server_stops(tmp_path: Path) -> None:
    with serving(tmp_path, "--config", str(slow_config(tmp_path))) as server:
        client = start(tmp_path, "submit", "--server", server.address, *ENDLESS)
        assert _read_some(client)
        server.process.send_signal(signal.SIGTERM)
        errors = _end(client)
        _end(server.process)
        assert client.returncode == 1, errors
        assert "the server is stopping" in errors
