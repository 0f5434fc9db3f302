"""What every server says to its bench: one line of JSON, and then nothing more.

It owns the real stdout; whatever an engine prints goes to stderr instead. The process ends when its
stdin does, so it never outlives who started it. Standard library only: every environment runs it.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


def read_options() -> argparse.Namespace:
    """What a server of another engine is started with."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--lookup", action="store_true")
    return parser.parse_args()


def serve(open_server: Callable[[], tuple[str, dict[str, Any]]]) -> None:
    """Tells where it is served, by whom and how, and stays until stdin ends."""
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as out:
        os.dup2(2, 1)
        address, facts = open_server()
        out.write(json.dumps({"address": address, "pid": os.getpid(), **facts}) + "\n")
        out.flush()
        sys.stdin.read()
    os._exit(0)  # an engine's threads may not end by themselves
