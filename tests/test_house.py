"""The rules of the house that a machine can check: sizes, layers, names of limits, forbidden calls.

Every test reports all offenders at once as `file:line: what`, so that one run is enough to tidy.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator

import attrs
import pytest

from pie_trio.config import Limits
from tests.source_tree import (
    ROOT,
    Module,
    chain_to,
    functions,
    import_graph,
    modules,
)

FILE_LINES_MAX = 300
FUNCTION_LINES_MAX = 60
FUNCTION_LINES_WITH_DOCSTRING_MAX = 70

# Longest prefix wins. A room may import itself and the rooms that its line names.
ROOMS = {
    "pie_trio.__main__": "cli",
    "pie_trio.cli": "cli",
    "pie_trio.cli.sim_bars": "sim",
    "pie_trio.cli.sim_cancel": "sim",
    "pie_trio.cli.sim_inferlet": "sim",
    "pie_trio.cli.sim_mutants": "sim",
    "pie_trio.cli.sim_seeds": "sim",
    "pie_trio.cli.sim_swarm": "sim",
    "pie_trio.client": "client",
    "pie_trio.children": "engine",
    "pie_trio.fetch_access": "engine",
    "pie_trio.engine": "engine",
    "pie_trio.instance_scope": "engine",
    "pie_trio.model_access": "engine",
    "pie_trio.model_table": "engine",
    "pie_trio.queue_access": "engine",
    "pie_trio.pass_plan": "engine",
    "pie_trio.interpreter": "engine",
    "pie_trio.launch": "engine",
    "pie_trio.program_loader": "engine",
    "pie_trio.recording": "engine",
    "pie_trio.replaying": "engine",
    "pie_trio.served_model": "engine",
    "pie_trio.status": "engine",
    "pie_trio.services.gateway": "gateway",
    "pie_trio.actors": "actors",
    "pie_trio.wasm": "wasm",
    "pie_trio.services": "services",
    "pie_trio.testing": "testing",
    "gpu_worker.wire": "wire",
    "gpu_worker.c_library": "compiling",
    "gpu_worker.bf16": "shared",
    "gpu_worker.weights": "shared",
    "gpu_worker.life": "shared",
    "gpu_worker": "worker",
    "inferlets": "inferlets",
    "pie_trio": "base",
}
BASE = {"base", "wire"}
MAY_IMPORT = {
    "base": {"wire"},
    "wire": set[str](),
    "compiling": set[str](),
    "shared": {"wire"},
    "worker": {"wire", "compiling", "shared"},
    "services": BASE | {"shared"},
    "wasm": BASE | {"services", "compiling"},
    "actors": BASE | {"services", "wasm"},
    "gateway": BASE | {"services", "wasm"},
    "engine": BASE | {"services", "wasm", "actors", "gateway"},
    "client": BASE | {"services"},
    "testing": BASE | {"services", "wasm", "actors", "engine", "gateway", "client", "worker"},
    "cli": BASE | {"services", "wasm", "engine", "gateway", "client", "inferlets", "sim"},
    "sim": BASE | {"services", "cli", "testing"},
    "inferlets": set[str](),
}

# Services that touch the outside or wait for a child process. All the others are pure.
WAITING_SERVICES = (
    "pie_trio.services.gateway",
    "pie_trio.services.fetching",
    "pie_trio.services.worker_link",
    "pie_trio.services.worker_process",
    "pie_trio.services.zmq_socket",
    "pie_trio.services.interpreter_build",
    "pie_trio.services.inferlet_build",
)

# Clean-up that may wait: the worker process, and closing a connection. Each is bounded.
SHIELDED = (
    "pie_trio/engine.py",
    "pie_trio/actors/model.py",
    "pie_trio/actors/worker.py",
    "pie_trio/services/worker_link.py",
    "pie_trio/services/worker_process.py",
    "pie_trio/services/gateway",
    "pie_trio/wasm/compile.py",
    "pie_trio/client",
)

UNREPEATABLE = {
    "time.time",
    "time.monotonic",
    "time.perf_counter",
    "uuid.uuid4",
    "uuid.uuid1",
    "random.random",
    "random.Random",
    "random.randint",
    "random.choice",
    "os.urandom",
    "secrets.token_hex",
    "secrets.randbits",
    "datetime.now",
}
MAY_BE_UNREPEATABLE = (
    "pie_trio/ports.py",
    "pie_trio/cli/",
    "pie_trio/testing/",  # every draw is from a seed; real time only ends what takes too long
    "pie_trio/services/chat_template.py",  # a template that never ends is stopped by the real clock
    "gpu_worker/",
)


def _report(findings: list[str]) -> None:
    assert not findings, "\n" + "\n".join(sorted(findings))


def _room(name: str) -> str | None:
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        room = ROOMS.get(".".join(parts[:length]))
        if room is not None:
            return room
    return None


def _docstring_lines(node: ast.AST) -> int:
    body: list[ast.stmt] = getattr(node, "body", [])
    if not body or not isinstance(body[0], ast.Expr):
        return 0
    value = body[0].value
    if not isinstance(value, ast.Constant) or not isinstance(value.value, str):
        return 0
    return (body[0].end_lineno or 0) - body[0].lineno + 1


def _calls(module: Module) -> Iterator[tuple[ast.Call, str]]:
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Call):
            yield node, ast.unparse(node.func)


def test_no_file_is_longer_than_a_reader_can_hold() -> None:
    everything = modules("pie_trio", "gpu_worker", "benchmarks", "inferlets")
    _report(
        [
            f"{module.label}: {len(module.text.splitlines())} lines"
            for module in everything
            if len(module.text.splitlines()) > FILE_LINES_MAX
        ]
    )


def test_no_function_is_longer_than_a_screen() -> None:
    findings = []
    for module in modules("pie_trio", "gpu_worker", "benchmarks", "inferlets"):
        for node in functions(module.tree):
            lines = (node.end_lineno or 0) - node.lineno + 1
            bare = lines - _docstring_lines(node)
            if lines > FUNCTION_LINES_WITH_DOCSTRING_MAX or bare > FUNCTION_LINES_MAX:
                findings.append(f"{module.label}:{node.lineno}: {node.name} has {lines} lines")
    _report(findings)


def test_every_module_says_what_it_is_for() -> None:
    findings = [
        f"{module.label}: no docstring"
        for module in modules("pie_trio", "gpu_worker", "benchmarks", "inferlets")
        if ast.get_docstring(module.tree) is None
    ]
    _report(findings)


def test_imports_follow_the_layers() -> None:
    findings = []
    for name, imported in import_graph().items():
        room = _room(name)
        assert room is not None, f"{name} belongs to no room"
        for target in imported:
            there = _room(target)
            if there is not None and there != room and there not in MAY_IMPORT[room]:
                findings.append(f"{name} ({room}) imports {target} ({there})")
    _report(findings)


def test_the_command_line_loads_the_harness_only_when_a_verb_of_it_runs() -> None:
    code = "import sys, pie_trio.cli.main; sys.exit('pie_trio.testing' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_no_actor_imports_another_actor() -> None:
    prefix = "pie_trio.actors."
    findings = [
        f"{name} imports {target}"
        for name, imported in import_graph().items()
        if name.startswith(prefix)
        for target in imported
        if target.startswith(prefix) and target != name
    ]
    _report(findings)


def test_pure_services_reach_trio_by_no_chain_of_imports() -> None:
    findings = []
    for name in import_graph():
        if not name.startswith("pie_trio.services.") or name.startswith(WAITING_SERVICES):
            continue
        chain = chain_to(name, "trio")
        if chain:
            findings.append(" -> ".join(chain))
    _report(findings)


@pytest.mark.parametrize("foreign", ["trio", "wasmtime", "pie_trio"])
def test_the_worker_reaches_nothing_of_the_controller(foreign: str) -> None:
    chains = [chain_to(name, foreign) for name in import_graph() if name.startswith("gpu_worker")]
    _report([" -> ".join(chain) for chain in chains if chain])


def test_the_controller_never_imports_torch() -> None:
    chains = [chain_to(name, "torch") for name in import_graph() if name.startswith("pie_trio")]
    _report([" -> ".join(chain) for chain in chains if chain])


def test_nothing_prints() -> None:
    _report(
        [
            f"{module.label}:{call.lineno}: print"
            for module in modules()
            for call, name in _calls(module)
            if name == "print"
        ]
    )


def test_no_state_lives_in_a_module() -> None:
    findings = []
    for module in modules():
        for node in module.tree.body:
            value = getattr(node, "value", None) if _is_assignment(node) else None
            if value is not None and _is_changeable(value) and not _is_constant_table(node):
                findings.append(f"{module.label}:{node.lineno}: {ast.unparse(node)[:60]}")
    for module in modules():
        findings += [
            f"{module.label}:{node.lineno}: global {', '.join(node.names)}"
            for node in ast.walk(module.tree)
            if isinstance(node, ast.Global)
        ]
    _report(findings)


def _is_assignment(node: ast.stmt) -> bool:
    return isinstance(node, ast.Assign | ast.AnnAssign)


def _is_changeable(value: ast.expr) -> bool:
    """A container that somebody could fill, or a call that makes one."""
    if isinstance(value, ast.List | ast.Dict | ast.Set | ast.ListComp | ast.DictComp | ast.SetComp):
        return True
    makers = {"dict", "list", "set", "defaultdict", "deque", "Counter", "OrderedDict"}
    return isinstance(value, ast.Call) and ast.unparse(value.func).split(".")[-1] in makers


def _is_constant_table(node: ast.stmt) -> bool:
    """A table that is written once: an upper-case name whose type or value cannot be changed."""
    target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
    name = ast.unparse(target) if target is not None else ""
    return name == "__all__" or (name.isupper() or name.lstrip("_").isupper()) or name == "app"


def test_tables_in_modules_are_never_changed() -> None:
    changing = {
        "append",
        "extend",
        "add",
        "update",
        "pop",
        "clear",
        "setdefault",
        "insert",
        "remove",
    }
    findings = []
    for module in modules():
        for call, name in _calls(module):
            holder, _, method = name.rpartition(".")
            if method in changing and re.fullmatch(r"_?[A-Z][A-Z0-9_]+", holder):
                findings.append(f"{module.label}:{call.lineno}: {name}")
    _report(findings)


def test_every_limit_is_used() -> None:
    text = "\n".join(module.text for module in modules() if module.name != "pie_trio.config")
    unused = [
        field.name
        for field in attrs.fields(Limits)
        if not re.search(rf"\b{re.escape(field.name)}\b", text)
    ]
    _report(unused)


def test_bounds_of_channels_have_names() -> None:
    findings = []
    for module in modules():
        for call, name in _calls(module):
            makes_channel = "open_memory_channel" in name or "open_mailbox" in name
            if makes_channel and call.args and _is_number(call.args[0]):
                findings.append(f"{module.label}:{call.lineno}: {ast.unparse(call)}")
    _report(findings)


def _is_number(node: ast.expr) -> bool:
    if isinstance(node, ast.Constant):
        return isinstance(node.value, int | float) and node.value not in (0, 1)
    return ast.unparse(node) == "math.inf"


def test_only_named_places_shield_themselves_from_cancellation() -> None:
    findings = []
    for module in modules("pie_trio"):
        if module.label.startswith(SHIELDED):
            continue
        findings += [
            f"{module.label}:{call.lineno}: shield"
            for call, _ in _calls(module)
            if any(keyword.arg == "shield" for keyword in call.keywords)
        ]
    _report(findings)


def test_time_and_chance_come_in_through_the_ports() -> None:
    findings = []
    for module in modules():
        if module.label.startswith(MAY_BE_UNREPEATABLE):
            continue
        findings += [
            f"{module.label}:{node.lineno}: {ast.unparse(node)}"
            for node in ast.walk(module.tree)
            if isinstance(node, ast.Attribute)
            and _is_unrepeatable(node)
            and not _is_annotation(node, module)
        ]
    _report(findings)


def _is_unrepeatable(node: ast.Attribute) -> bool:
    return ast.unparse(node) in UNREPEATABLE


def _is_annotation(node: ast.Attribute, module: Module) -> bool:
    """`random.Random` as a type is no draw."""
    called = {id(call.func) for call, _ in _calls(module)}
    return ast.unparse(node) == "random.Random" and id(node) not in called


def test_no_note_to_self_is_left() -> None:
    pattern = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b")
    findings = []
    for module in modules("pie_trio", "gpu_worker", "benchmarks", "inferlets"):
        for number, line in enumerate(module.text.splitlines(), start=1):
            if pattern.search(line):
                findings.append(f"{module.label}:{number}: {line.strip()}")
    _report(findings)


def test_errors_are_never_swallowed_whole() -> None:
    findings = []
    for module in modules():
        for call, name in _calls(module):
            if name.endswith("suppress") and any(
                ast.unparse(argument) in ("Exception", "BaseException") for argument in call.args
            ):
                findings.append(f"{module.label}:{call.lineno}: {ast.unparse(call)}")
        findings += [
            f"{module.label}:{node.lineno}: except without a name"
            for node in ast.walk(module.tree)
            if isinstance(node, ast.ExceptHandler) and node.type is None
        ]
    _report(findings)


def test_no_tracked_file_names_a_machine() -> None:
    """Paths of one machine, package indexes and hosts do not belong into the repository."""
    pattern = re.compile(r"(?<![\w.])/(work|root|home/\w+)/|index-url|extra-index|PIP_INDEX")
    suffixes = {".py", ".md", ".toml", ".c", ".h", ".wit", ".json", ".yml", ".wat", ""}
    findings = []
    for folder in ("pie_trio", "gpu_worker", "inferlets", "benchmarks", "docs", "tests", ".ci"):
        for path in sorted((ROOT / folder).rglob("*")):
            if path.is_file() and path.suffix in suffixes and path.name != "test_house.py":
                findings += _lines_matching(path.relative_to(ROOT).as_posix(), pattern)
    for name in ("README.md", "ARCHITECTURE.md", "Makefile", "pyproject.toml"):
        findings += _lines_matching(name, pattern)
    _report(findings)


def _lines_matching(label: str, pattern: re.Pattern[str]) -> list[str]:
    if "__pycache__" in label:
        return []
    text = (ROOT / label).read_text("utf-8", errors="replace")
    return [
        f"{label}:{number}: {line.strip()[:80]}"
        for number, line in enumerate(text.splitlines(), start=1)
        if pattern.search(line)
    ]
