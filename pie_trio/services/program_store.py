"""The installed programs on disk, addressed by the BLAKE3 of their bytes.

It owns one folder: `artifacts/` holds the bytes under their hash, `programs/` one entry for each
`name@version`. An install is two atomic renames, the entry last; if it fails, what it wrote is gone
again. The programs of the `inferlets` package are found too, read-only, behind the installed ones.
No name from outside becomes a path without having been checked. Never compiles, never executes.
"""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import attrs
from blake3 import blake3

from pie_trio.config import Limits
from pie_trio.errors import BadProgram
from pie_trio.services.manifest import (
    NAME,
    VERSION,
    Manifest,
    check_identity,
    parse_manifest,
    version_key,
)

COMPONENT_MAGIC = b"\0asm\x0d\0\x01\0"
CORE_MODULE_MAGIC = b"\0asm\x01\0\0\0"
SUFFIXES = (("wasm", ".wasm"), ("python", ".py"))
MANIFEST_NAME = "Pie.toml"
Stamp = tuple[tuple[int, int, int], ...]  # when and what a file was, so that a change is seen


def hash_bytes(data: bytes) -> str:
    return str(blake3(data).hexdigest())


@attrs.frozen
class ProgramRecord:
    """One program that can be launched."""

    name: str
    version: str
    description: str
    language: str  # "wasm" or "python"
    artifact: Path
    artifact_hash: str
    manifest_hash: str
    manifest: str
    entry: str = "main"  # the function that runs, in a Python program
    call: str = "args"  # or "kwargs": the launch input's keys are its parameters

    @property
    def identity(self) -> str:
        return f"{self.name}@{self.version}"


class ProgramStore:
    """Programs by `name@version`, or by bare name: then the newest version."""

    def __init__(self, root: Path, limits: Limits, *, shipped: Path | None = None) -> None:
        self._limits = limits
        self._artifacts = root / "artifacts"
        self._entries = root / "programs"
        self._shipped = shipped if shipped is not None else _shipped_programs()
        self._one_install = threading.Lock()  # installs run in threads
        self._read: dict[tuple[Path, ...], tuple[Stamp, ProgramRecord]] = {}
        for folder in (self._artifacts, self._entries):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def install(self, manifest: str, artifact: bytes, *, overwrite: bool) -> ProgramRecord:
        """Raises `BadProgram` and leaves nothing behind. The same bytes again are no fault."""
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
        return _record(
            manifest, folder / _file_name(artifact_hash, manifest.language), artifact_hash
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
            if is_new:
                write_atomically(record.artifact, artifact)
            write_atomically(self._entry_path(record.identity), json.dumps(entry).encode())
        except BaseException:
            if is_new:
                record.artifact.unlink(missing_ok=True)
            raise

    def _shipped_program(self, folder: Path) -> ProgramRecord | None:
        """None: there is no such folder, or its artifact has not been built yet."""
        path = folder / MANIFEST_NAME
        if not path.is_file():
            return None
        artifact = folder / _artifact_name(parse_manifest(path.read_text("utf-8"), self._limits))
        return self._remembered((path, artifact), lambda: _from_folder(folder, self._limits))


def read_program(path: Path, limits: Limits) -> ProgramRecord:
    """Raises `BadProgram` with the path in its text."""
    return _from_folder(path, limits) if path.is_dir() else _from_single_file(path, limits)


def check_artifact(language: str, artifact: bytes) -> None:
    """A cheap look at the first bytes; the compiler looks at the others."""
    if language == "python":
        _check_source(artifact)
    elif artifact.startswith(CORE_MODULE_MAGIC):
        raise BadProgram("this is a core wasm module, not a component")
    elif not artifact.startswith(COMPONENT_MAGIC):
        raise BadProgram("this is not a wasm component")


def _check_source(artifact: bytes) -> None:
    try:
        source = artifact.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadProgram(f"the Python source is not UTF-8: {error}") from None
    if not source.strip() or "\0" in source:
        raise BadProgram("the Python source is empty or has a NUL character")


def _from_folder(folder: Path, limits: Limits) -> ProgramRecord:
    path = folder / MANIFEST_NAME
    if not path.is_file():
        raise BadProgram(f"{folder} has no {MANIFEST_NAME}")
    manifest = parse_manifest(path.read_text("utf-8"), limits)
    artifact = folder / _artifact_name(manifest)
    if not artifact.is_file():
        raise BadProgram(f"{folder} has no {artifact.name}; build the program first")
    return _record(manifest, artifact, hash_bytes(artifact.read_bytes()))


def _from_single_file(path: Path, limits: Limits) -> ProgramRecord:
    languages = {suffix: language for language, suffix in SUFFIXES}
    language = languages.get(path.suffix)
    if language is None:
        raise BadProgram(f"{path} is neither a .wasm nor a .py file nor a folder")
    if not path.is_file():
        raise BadProgram(f"{path} does not exist")
    artifact = path.read_bytes()
    check_artifact(language, artifact)
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", path.stem).lstrip("-_") or "program"
    name = name[: limits.program_name_length]
    check_identity(name, "0.0.0", limits)
    text = f'[package]\nname = "{name}"\nversion = "0.0.0"\n[runtime]\nlanguage = "{language}"\n'
    return _record(parse_manifest(text, limits), path, hash_bytes(artifact))


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


def _record(manifest: Manifest, artifact: Path, artifact_hash: str) -> ProgramRecord:
    return ProgramRecord(
        name=manifest.name,
        version=manifest.version,
        description=manifest.description,
        language=manifest.language,
        artifact=artifact,
        artifact_hash=artifact_hash,
        manifest_hash=hash_bytes(manifest.text.encode()),
        manifest=manifest.text,
        entry=manifest.entry,
        call=manifest.call,
    )


def _same_program(present: ProgramRecord, wanted: ProgramRecord) -> ProgramRecord:
    same_bytes = present.artifact_hash == wanted.artifact_hash
    if same_bytes and present.manifest_hash == wanted.manifest_hash:
        return present
    raise BadProgram(
        f"{present.identity} is installed with other contents; raise its version, or overwrite it"
    )


def _file_name(artifact_hash: str, language: str) -> str:
    return artifact_hash + dict(SUFFIXES)[language]


def _artifact_name(manifest: Manifest) -> str:
    """The file beside the manifest that is run, if it does not name one itself."""
    default = "main.py" if manifest.language == "python" else f"{manifest.name}.wasm"
    return manifest.artifact or default


def _stats(paths: tuple[Path, ...]) -> list[os.stat_result]:
    return [path.stat() for path in paths]


def _newest(records: list[ProgramRecord]) -> ProgramRecord | None:
    return max(records, key=lambda record: version_key(record.version), default=None)


def _shipped_programs() -> Path:
    """The `inferlets` package: beside `pie_trio` in a checkout and in an installation alike."""
    return Path(__file__).resolve().parents[2] / "inferlets"
