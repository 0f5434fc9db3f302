"""Which functions a program may import and must export, by their exact types.

A component brings the types of its imports along, and wasmtime takes a dynamic host function for
any of them. Host functions trust the types of the contract, so a program whose types differ is
refused before it runs, with both signatures. `signatures.txt` is the contract as text, one function
a line; a test derives it anew from the WIT.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from wasmtime import Engine
from wasmtime import component as wit
from wasmtime.component import Component

from pie_trio.errors import BadProgram
from pie_trio.wasm import abi

RUN_INTERFACE: Final = "inferlet:core/run"
RUN_FUNCTION: Final = "run"
RUN_SIGNATURE: Final = "func() -> result<_, string>"
SHOWN_CHARACTERS: Final = 300  # of a type that is wrong

# Tells the name of a resource type.
ResourceName = Callable[[Any], str]

_PLAIN: Final[dict[type, str]] = {
    wit.Bool: "bool",
    wit.S8: "s8",
    wit.U8: "u8",
    wit.S16: "s16",
    wit.U16: "u16",
    wit.S32: "s32",
    wit.U32: "u32",
    wit.S64: "s64",
    wit.U64: "u64",
    wit.F32: "f32",
    wit.F64: "f64",
    wit.Char: "char",
    wit.String: "string",
}


def read_contract() -> Mapping[str, str]:
    """`interface#function` -> its signature, of every function that hosts rely on."""
    text = Path(__file__).with_name("signatures.txt").read_text(encoding="utf-8")
    pairs = (line.split(" ", maxsplit=1) for line in text.splitlines())
    return dict(pairs)


def signature(kind: Any, name_of: ResourceName) -> str:
    """A function's type as text; parameter names do not matter."""
    parameters = ", ".join(describe(part, name_of) for _name, part in kind.params)
    if kind.result is None:
        return f"func({parameters})"
    return f"func({parameters}) -> {describe(kind.result, name_of)}"


def describe(kind: Any, name_of: ResourceName) -> str:
    """A value type as text."""
    match kind:
        case None:
            return "_"
        case wit.ListType():
            return f"list<{describe(kind.element, name_of)}>"
        case wit.OptionType():
            return f"option<{describe(kind.payload, name_of)}>"
        case wit.ResultType():
            return f"result<{describe(kind.ok, name_of)}, {describe(kind.err, name_of)}>"
        case wit.TupleType():
            return f"tuple<{', '.join(describe(part, name_of) for part in kind.elements)}>"
        case wit.OwnType():
            return name_of(kind.ty)
        case wit.BorrowType():
            return f"borrow<{name_of(kind.ty)}>"
        case _:
            return _PLAIN.get(type(kind)) or _describe_named(kind, name_of)


def _describe_named(kind: Any, name_of: ResourceName) -> str:
    match kind:
        case wit.RecordType():
            return _members("record", kind.fields, name_of)
        case wit.VariantType():
            return _members("variant", kind.cases, name_of)
        case wit.EnumType() | wit.FlagsType():
            word = "enum" if isinstance(kind, wit.EnumType) else "flags"
            return f"{word} {{{', '.join(kind.names)}}}"
        case _:
            return type(kind).__name__


def _members(word: str, members: list[tuple[str, Any]], name_of: ResourceName) -> str:
    inner = ", ".join(
        name if part is None else f"{name}: {describe(part, name_of)}" for name, part in members
    )
    return f"{word} {{{inner}}}"


def check_signature(function: str, found: str, contract: Mapping[str, str]) -> None:
    """Refuse a program that takes a function of the contract for something else."""
    promised = contract.get(function, found)
    if found != promised:
        shown = found if len(found) <= SHOWN_CHARACTERS else f"{found[:SHOWN_CHARACTERS]}..."
        raise BadProgram(f"the program imports {function} as `{shown}`; it is `{promised}`")


def check_imports(engine: Engine, component: Component) -> None:
    """Refuse a program with any wrong type; called where a type that explodes harms nobody."""
    contract = read_contract()
    resources: list[tuple[Any, str]] = []

    def name_of(kind: Any) -> str:
        return next(name for known, name in resources if known == kind)

    for interface, extern in component.type.imports(engine).items():
        if not isinstance(extern.ty, wit.ComponentInstanceType):
            raise BadProgram(f"the program imports {interface}, which is not an interface")
        items = [(name, item.ty) for name, item in extern.ty.exports(engine).items()]
        resources += [(kind, name) for name, kind in items if isinstance(kind, wit.ResourceType)]
        for name, kind in items:
            function = f"{interface.partition('@')[0]}#{name}"
            if isinstance(kind, wit.FuncType) and function in contract:
                check_signature(function, signature(kind, name_of), contract)


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
    found = signature(function.ty, lambda _kind: "resource")
    if found != RUN_SIGNATURE:
        raise BadProgram(f"the program's `run` is `{found}`, it must be `{RUN_SIGNATURE}`")
    return function.ty


def _export_index(component: Component, parent: int | None, name: str) -> int:
    encoded = name.encode()
    index: int | None = abi.component_export_index(
        abi.address(component), parent, encoded, len(encoded)
    )
    assert index, f"{name} was found in the type, but not in the component"
    return index
