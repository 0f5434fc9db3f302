"""Which functions a program may import and must export, by their exact types.

A component names its imports with types of its own making. Host functions trust the types of the
contract, so a program whose types differ is refused before it runs, with both signatures.
"""

from __future__ import annotations

from typing import Any, Final

from wasmtime import Engine
from wasmtime import component as wit
from wasmtime.component import Component

from pie_trio.errors import BadProgram
from pie_trio.wasm import abi

RUN_INTERFACE: Final = "inferlet:core/run"
RUN_FUNCTION: Final = "run"
RUN_SIGNATURE: Final = "func() -> result<_, string>"


def find_run(engine: Engine, component: Component) -> tuple[int, Any]:
    """The index and the type of the exported `run`; whoever gets the index deletes it."""
    kind = run_type(engine, component)
    outer = _export_index(component, None, RUN_INTERFACE)
    try:
        return _export_index(component, outer, RUN_FUNCTION), kind
    finally:
        abi.export_index_delete(outer)


def run_type(engine: Engine, component: Component) -> Any:
    """The type of the exported `run`, or a refusal."""
    exported = component.type.exports(engine).get(RUN_INTERFACE)
    if exported is None or not isinstance(exported.ty, wit.ComponentInstanceType):
        raise BadProgram(f"the program does not export {RUN_INTERFACE}")
    function = exported.ty.exports(engine).get(RUN_FUNCTION)
    if function is None or not isinstance(function.ty, wit.FuncType):
        raise BadProgram(f"the program's {RUN_INTERFACE} has no function `{RUN_FUNCTION}`")
    return function.ty


def _export_index(component: Component, parent: int | None, name: str) -> int:
    encoded = name.encode()
    index: int | None = abi.component_export_index(
        abi.address(component), parent, encoded, len(encoded)
    )
    assert index, f"{name} was found in the type, but not in the component"
    return index
