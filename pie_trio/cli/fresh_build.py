"""Programs in folders whose component is built when it is not there, or older than its source.

What is there is replaced as a whole or not at all. Python needs no building. It never builds what
nobody asked to run.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pie_trio.config import Limits
from pie_trio.services.guest_build.inferlet import build_inferlet, read_recipe
from pie_trio.services.manifest import parse_manifest
from pie_trio.services.program_record import MANIFEST_NAME, artifact_name

SOURCES = ("*.c", "*.h")


def build_if_missing(folder: Path, say: Callable[[str], None]) -> None:
    """Raises `BadProgram` if it cannot be built."""
    artifact = artifact_of(folder)
    if artifact is not None and not artifact.exists():
        build_inferlet(folder, artifact, say)


def build_if_older(folder: Path, say: Callable[[str], None]) -> None:
    """Raises `BadProgram` if it cannot be built."""
    artifact = artifact_of(folder)
    if artifact is None:
        return
    written = [path.stat().st_mtime_ns for glob in SOURCES for path in folder.glob(glob)]
    if not artifact.exists() or max(written, default=0) > artifact.stat().st_mtime_ns:
        build_inferlet(folder, artifact, say)


def artifact_of(folder: Path) -> Path | None:
    """What is built in this folder; none where nothing has to be built."""
    manifest = folder / MANIFEST_NAME
    if not manifest.is_file() or read_recipe(folder).language == "python":
        return None
    return folder / artifact_name(parse_manifest(manifest.read_text("utf-8"), Limits()))
