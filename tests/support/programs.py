"""Small programs for tests: manifests and artifacts that a store accepts.

They are never run here; the scripted engine of `support/scripted_engine.py` only looks them up.
"""

from __future__ import annotations

from pie_trio.services.program_record import COMPONENT_MAGIC


def manifest(name: str, version: str = "0.1.0", language: str = "wasm", **runtime: str) -> str:
    """The text of a `Pie.toml`."""
    lines = "".join(f'{key} = "{value}"\n' for key, value in runtime.items())
    return (
        f'[package]\nname = "{name}"\nversion = "{version}"\n'
        f'[runtime]\nlanguage = "{language}"\n{lines}'
    )


def component(padding: int = 0) -> bytes:
    """Bytes that begin like a component."""
    return COMPONENT_MAGIC + bytes(padding)
