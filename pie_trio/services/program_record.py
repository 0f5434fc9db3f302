"""One program: what is known of it, and how it is read from a file or a folder.

Pure but for reading what it is told to read. A record is a fact about bytes on disk; making one
checks the manifest and the first bytes, and never executes anything.
"""

from __future__ import annotations

import re
from pathlib import Path

import attrs
from blake3 import blake3

from pie_trio.config import Limits
from pie_trio.errors import BadProgram
from pie_trio.services.manifest import Manifest, check_identity, parse_manifest

COMPONENT_MAGIC = b"\0asm\x0d\0\x01\0"
CORE_MODULE_MAGIC = b"\0asm\x01\0\0\0"
SUFFIXES = (("wasm", ".wasm"), ("python", ".py"))
MANIFEST_NAME = "Pie.toml"
ENTRY = """
_entry = {entry}


async def main(args):
    import inspect, json

    value = _entry({given})
    return await value if inspect.isawaitable(value) else value
"""


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

    def python_source(self) -> str:
        """The source with a `main(args)`, whatever the program calls its entry.

        What is added comes last, so that the lines of a traceback are the program's own.
        """
        source = self.artifact.read_text("utf-8")
        if self.entry == "main" and self.call == "args":
            return source
        given = "args" if self.call == "args" else "**json.loads(args[0] if args else '{}')"
        return f"{source}\n\n{ENTRY.format(entry=self.entry, given=given)}"


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
    artifact = folder / artifact_name(manifest)
    if not artifact.is_file():
        raise BadProgram(f"{folder} has no {artifact.name}; build the program first")
    return make_record(manifest, artifact, hash_bytes(artifact.read_bytes()))


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
    return make_record(parse_manifest(text, limits), path, hash_bytes(artifact))


def make_record(manifest: Manifest, artifact: Path, artifact_hash: str) -> ProgramRecord:
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


def stored_name(artifact_hash: str, language: str) -> str:
    return artifact_hash + dict(SUFFIXES)[language]


def artifact_name(manifest: Manifest) -> str:
    """The file beside the manifest that is run, if it does not name one itself."""
    default = "main.py" if manifest.language == "python" else f"{manifest.name}.wasm"
    return manifest.artifact or default
