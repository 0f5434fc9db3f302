"""The process that compiles one component: `... OUTPUT SLICING MEMORY SECONDS PARENT < WASM`.

It limits itself before it reads a byte, so a component that explodes takes nobody with it, and it
ends with the process that started it. A refusal is one text on standard error and exit status 1;
any other status means that the compiler itself died. It writes only to OUTPUT, and never runs what
it compiles.
"""

from __future__ import annotations

import resource
import sys
from pathlib import Path
from typing import Final

from wasmtime import WasmtimeError
from wasmtime.component import Component

from pie_trio.die_with_parent import die_with
from pie_trio.errors import BadProgram
from pie_trio.wasm.settings import new_engine
from pie_trio.wasm.signatures import check_imports, run_type
from pie_trio.wasm.ticker import EpochSlices, FuelSlices

REFUSED: Final = 1
STACK_BYTES: Final = 2 * 1024 * 1024  # any will do, nothing runs here


def compile_to(output: Path, wasm: bytes, slicing: EpochSlices | FuelSlices) -> None:
    """Compile, look at imports and exports, and write the machine code down."""
    engine = new_engine(slicing, STACK_BYTES)
    try:
        component = Component(engine, wasm)
    except WasmtimeError as error:
        raise BadProgram(" ".join(str(error).split())) from None
    run_type(engine, component)
    check_imports(engine, component)
    output.write_bytes(component.serialize())


def main(arguments: list[str]) -> int:
    """Compile what comes on standard input."""
    output, kind, memory_bytes, seconds, parent = arguments
    die_with(int(parent))
    resource.setrlimit(resource.RLIMIT_AS, (int(memory_bytes), int(memory_bytes)))
    resource.setrlimit(resource.RLIMIT_CPU, (int(seconds), int(seconds)))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    slicing = FuelSlices() if kind == "fuel" else EpochSlices()
    try:
        compile_to(Path(output), sys.stdin.buffer.read(), slicing)
    except BadProgram as refusal:
        sys.stderr.write(str(refusal))
        return REFUSED
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
