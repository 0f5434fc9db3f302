"""A server with the default model, started as a user starts it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.command import start


@contextmanager
def serving(folder: Path, *flags: str) -> Iterator[str]:
    """Where it listens. Its configuration is in `folder`; it ends well when the block does."""
    server = start(folder, "serve", "--port", "0", "--seed", "1", "--log", "off", *flags)
    assert server.stdout is not None
    try:
        found = re.search(r"ws://\S+", server.stdout.readline())
        assert found, "the server says where it listens"
        yield found[0]
    finally:
        server.terminate()
        _, complaints = server.communicate(timeout=60)
    assert server.returncode == 0, complaints
