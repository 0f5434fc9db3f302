"""The installed programs on disk, addressed by the BLAKE3 of their bytes.

It owns one folder: `artifacts/` holds the bytes under their hash, `programs/` one entry for each
`name@version`. An install is two atomic renames, the entry last; if it fails, what it wrote is gone
again. The programs of the `inferlets` package are found too, read-only, behind the installed ones.
No name from outside becomes a path without having been checked. Never compiles, never executes.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from pie_trio.config import Limits
from pie_trio.errors import BadProgram, NotStored
from pie_trio.services.manifest import (
    NAME,
    VERSION,
    Manifest,
    parse_manifest,
    version_key,
)
from pie_trio.services.program_record import (
    MANIFEST_NAME,
    ProgramRecord,
    artifact_name,
    check_artifact,
    hash_bytes,
    make_record,
    read_program,
    stored_name,
)

__all__ = ["ProgramRecord", "ProgramStore", "hash_bytes", "read_program"]
Stamp = tuple[tuple[int, int, int], ...]  # when and what a file was, so that a change is seen


class ProgramStore:
    """Programs by `name@version`, or by bare name: then the newest version."""

    def __init__(
        self,
        root: Path,
        limits: Limits,
        *,
        shipped: Path | None = None,
        hit: Callable[[str], None] = lambda _name: None,  # fault points: see `ports`
    ) -> None:
        self._limits = limits
        self._hit = hit
        self._artifacts = root / "artifacts"
        self._entries = root / "programs"
        self._shipped = shipped if shipped is not None else _shipped_programs()
        self._one_install = threading.Lock()  # installs run in threads
        self._read: dict[tuple[Path, ...], tuple[Stamp, ProgramRecord]] = {}
        for folder in (self._artifacts, self._entries):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def install(self, manifest: str, artifact: bytes, *, overwrite: bool) -> ProgramRecord:
        """Raises `BadProgram` or `NotStored` and leaves nothing behind.

        The same bytes again are no fault.
        """
        parsed = parse_manifest(manifest, self._limits)
        check_artifact(parsed.language, artifact)
        record = self._record(parsed, self._artifacts, hash_bytes(artifact))
        with self._one_install:
            present = self._installed(parsed.identity)
            if present is not None and not overwrite:
                return _same_program(present, record)
            self._write(record, artifact)
        return record

    def find(self, text: str) -> ProgramRecord | None:
        name, at, version = text.partition("@")
        if not NAME.fullmatch(name) or (at and not VERSION.fullmatch(version)):
            return None
        shipped = self._shipped_program(self._shipped / name)
        if at:
            installed = self._installed(text)
            is_shipped = shipped is not None and shipped.identity == text
            return installed or (shipped if is_shipped else None)
        return _newest([*self._all_installed(name), *([shipped] if shipped else [])])

    def check(
        self,
        name: str,
        version: str,
        artifact_hash: str | None = None,
        manifest_hash: str | None = None,
    ) -> bool:
        """Is this program here, and with these contents?"""
        record = self.find(f"{name}@{version}")
        if record is None:
            return False
        return artifact_hash in (None, record.artifact_hash) and manifest_hash in (
            None,
            record.manifest_hash,
        )

    def list(self) -> list[ProgramRecord]:
        """By name, then version; an installed program hides a shipped one of the same identity."""
        folders = [path.parent for path in self._shipped.glob(f"*/{MANIFEST_NAME}")]
        shipped = [record for folder in folders if (record := self._shipped_program(folder))]
        everything = {record.identity: record for record in (*shipped, *self._all_installed("*"))}
        return sorted(everything.values(), key=lambda r: (r.name, version_key(r.version)))

    def from_file(self, path: Path) -> ProgramRecord:
        """A program that is not installed: a `.py` or `.wasm` file, or a folder with a manifest."""
        return read_program(path, self._limits)

    def _record(self, manifest: Manifest, folder: Path, artifact_hash: str) -> ProgramRecord:
        return make_record(
            manifest, folder / stored_name(artifact_hash, manifest.language), artifact_hash
        )

    def _entry_path(self, identity: str) -> Path:
        return self._entries / f"{identity}.json"

    def _installed(self, identity: str) -> ProgramRecord | None:
        path = self._entry_path(identity)
        return self._remembered((path,), lambda: self._read_entry(path))

    def _read_entry(self, path: Path) -> ProgramRecord:
        entry = json.loads(path.read_text("utf-8"))
        manifest = parse_manifest(entry["manifest"], self._limits)
        return self._record(manifest, self._artifacts, entry["artifact_hash"])

    def _all_installed(self, name: str) -> Iterator[ProgramRecord]:
        for path in sorted(self._entries.glob(f"{name}@*.json")):
            record = self._installed(path.stem)
            if record is not None:
                yield record

    def _remembered(
        self, paths: tuple[Path, ...], read: Callable[[], ProgramRecord]
    ) -> ProgramRecord | None:
        """What `read` makes of these files, read again only when one of them has changed."""
        try:
            stamp = tuple((file.st_mtime_ns, file.st_size, file.st_ino) for file in _stats(paths))
        except FileNotFoundError:
            return None
        known = self._read.get(paths)
        if known is None or known[0] != stamp:
            known = (stamp, read())
            self._read[paths] = known
        return known[1]

    def _write(self, record: ProgramRecord, artifact: bytes) -> None:
        is_new = not record.artifact.exists()
        entry = {"manifest": record.manifest, "artifact_hash": record.artifact_hash}
        try:
            self._hit("program_store.artifact")
            if is_new:
                write_atomically(record.artifact, artifact)
            self._hit("program_store.entry")
            write_atomically(self._entry_path(record.identity), json.dumps(entry).encode())
        except BaseException as error:
            if is_new:
                record.artifact.unlink(missing_ok=True)
            if isinstance(error, OSError):
                raise NotStored(f"{record.identity} cannot be stored: {error.strerror}") from error
            raise

    def _shipped_program(self, folder: Path) -> ProgramRecord | None:
        """None: there is no such folder, or its artifact has not been built yet."""
        path = folder / MANIFEST_NAME
        if not path.is_file():
            return None
        artifact = folder / artifact_name(parse_manifest(path.read_text("utf-8"), self._limits))
        return self._remembered((path, artifact), lambda: read_program(folder, self._limits))


def write_atomically(path: Path, data: bytes) -> None:
    """All of `data` is at `path`, or nothing is; also when the machine stops in the middle."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _same_program(present: ProgramRecord, wanted: ProgramRecord) -> ProgramRecord:
    same_bytes = present.artifact_hash == wanted.artifact_hash
    if same_bytes and present.manifest_hash == wanted.manifest_hash:
        return present
    raise BadProgram(
        f"{present.identity} is installed with other contents; raise its version, or overwrite it"
    )


def _stats(paths: tuple[Path, ...]) -> list[os.stat_result]:
    return [path.stat() for path in paths]


def _newest(records: list[ProgramRecord]) -> ProgramRecord | None:
    return max(records, key=lambda record: version_key(record.version), default=None)


def _shipped_programs() -> Path:
    """The `inferlets` package: beside `pie_trio` in a checkout and in an installation alike."""
    return Path(__file__).resolve().parents[2] / "inferlets"
