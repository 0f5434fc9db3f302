"""Which `await`, `async with` and `async for` of the package can suspend on an instance's path.

Reads the sources, imports nothing of them. On the path is what can be reached, by any mention of
its name, from the task of an instance or from that of a client's connection; the rooms that are
never entered from there are left out by name. Where the parser cannot know, it says yes: a site
that is listed wrongly shows as missing, one that is left out would never show.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import Final

import attrs

from pie_trio.testing.await_sites import PACKAGE, Site

ROOTS: Final = (
    "engine.py:Engine._run",
    "services/gateway/server.py:_Door.serve",
    "wasm/fiber.py:follow",  # what a guest that is no component waits in
)
OTHER_ROOMS: Final = ("cli/", "client/", "testing/")
# What waits, whoever it belongs to; every other name is looked up in the package.
WAITS: Final = frozenset(("send", "receive", "wait", "acquire", "checkpoint", "send_all", "aclose"))
NEVER_WAIT: Final = frozenset(("AsyncExitStack", "receive"))  # as contexts: to enter or to leave
LOCKS: Final = frozenset(("_turn", "lock", "_building", "file_turn"))  # to enter, not to leave
CANCELLED: Final = frozenset(("BaseException", "trio.Cancelled"))

AsyncNode = ast.Await | ast.AsyncWith | ast.AsyncFor
Function = ast.FunctionDef | ast.AsyncFunctionDef


@attrs.frozen(eq=False)
class Body:
    """A function, a class or a table of a module: what is mentioned in it, and what it awaits."""

    file: str  # below the package
    name: str  # qualified
    node: ast.AST
    mentions: frozenset[str]
    awaits: tuple[AsyncNode, ...]

    @property
    def key(self) -> str:
        return f"{self.file}:{self.name}"

    @property
    def simple_name(self) -> str:
        return self.name.rpartition(".")[2]

    @property
    def is_context(self) -> bool:
        decorators = getattr(self.node, "decorator_list", [])
        return any("asynccontextmanager" in ast.unparse(each) for each in decorators)


@attrs.frozen
class PathSite:
    """A site that can suspend on the path, and whether a clean-up can stand there."""

    site: Site
    function: str  # its file below the package and its qualified name
    text: str
    in_clean_up: bool


class AwaitGraph:
    """The whole package, parsed once."""

    def __init__(self) -> None:
        self._bodies = [body for file in _files() for body in _bodies(file)]
        self._by_name: dict[str, list[Body]] = {}
        for body in self._bodies:
            self._by_name.setdefault(body.simple_name, []).append(body)
        self._waiting = self._those_that_wait()

    def sites_on_path(self) -> list[PathSite]:
        path = self._reachable()
        cleaning = self._awaited_by_clean_ups(path)
        found = [
            PathSite(
                Site(f"pie_trio/{body.file}", node.lineno, node.col_offset, part),
                body.key,
                ast.unparse(node).splitlines()[0],
                part == "exit" or body in cleaning or node in _clean_up_awaits(body),
            )
            for body in path
            for node in body.awaits
            for part in self._parts(node)
        ]
        return sorted(found, key=lambda each: each.site)

    def _reachable(self) -> list[Body]:
        """From the roots, by any mention of a name; other rooms are never entered."""
        here = [body for body in self._bodies if not body.file.startswith(OTHER_ROOMS)]
        reached = [body for body in here if body.key in ROOTS]
        assert len(reached) == len(ROOTS), "a root of the path has another name now"
        seen = set(reached)
        for body in reached:
            for other in (each for name in body.mentions for each in self._by_name.get(name, ())):
                if other not in seen and not other.file.startswith(OTHER_ROOMS):
                    seen.add(other)
                    reached.append(other)
        return reached

    def _those_that_wait(self) -> frozenset[Body]:
        """By iteration: at first nobody waits but at what waits by its name, or is unknown."""
        self._waiting = frozenset[Body]()
        while True:
            waiting = frozenset(
                body
                for body in self._bodies
                if body in self._waiting or any(self._parts(node) for node in body.awaits)
            )
            if waiting == self._waiting:
                return waiting
            self._waiting = waiting

    def _parts(self, node: AsyncNode) -> list[str]:
        """The parts of a site at which it can suspend."""
        if isinstance(node, ast.Await):
            return ["await"] if self._can_wait(node.value) else []
        if isinstance(node, ast.AsyncFor):
            return ["next"]
        contexts = [self._context(item.context_expr) for item in node.items]
        enters, exits = (any(parts) for parts in zip(*contexts, strict=True))
        return ["enter"] * enters + ["exit"] * exits

    def _can_wait(self, awaited: ast.expr) -> bool:
        name = _called_name(awaited)
        known = [body for body in self._by_name.get(name, []) if _is_async(body)]
        if not known or name in WAITS:
            return True
        return any(body in self._waiting or _is_protocol(body) for body in known)

    def _context(self, manager: ast.expr) -> tuple[bool, bool]:
        """Whether entering it and leaving it can wait."""
        name = _called_name(manager)
        if name == "open_nursery":
            return False, True
        if name in NEVER_WAIT:
            return False, False
        if name in LOCKS:
            return True, False
        known = [body for body in self._by_name.get(name, []) if body.is_context]
        if not known:
            return True, True
        parts = [
            (_is_after_yield(body, node), part)
            for body in known
            for node in body.awaits
            for part in self._parts(node)
        ]
        return (
            any(not after and part != "exit" for after, part in parts),
            any(after or part == "exit" for after, part in parts),
        )

    def _awaited_by_clean_ups(self, path: list[Body]) -> set[Body]:
        """What clean-ups await, and what that awaits."""
        waiting = [node for body in path for node in _clean_up_awaits(body)]
        found: set[Body] = set()
        while waiting:
            node = waiting.pop()
            name = _called_name(node.value) if isinstance(node, ast.Await) else ""
            for body in self._by_name.get(name, ()):
                if body in path and body not in found and _is_async(body):
                    found.add(body)
                    waiting.extend(body.awaits)
        return found


def _files() -> list[str]:
    return sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))


def _bodies(file: str) -> Iterator[Body]:
    tree = ast.parse((PACKAGE / file).read_text("utf-8"))
    yield from _bodies_in(file, "", tree)


def _bodies_in(file: str, prefix: str, parent: ast.AST) -> Iterator[Body]:
    """Functions and classes at any depth; of a module's own statements, the tables."""
    for node in ast.iter_child_nodes(parent):
        if isinstance(node, Function):
            mentions = _names(node, into_functions=False) | _nested_names(node)
            yield Body(file, prefix + node.name, node, mentions, tuple(_own_awaits(node)))
            yield from _bodies_in(file, f"{prefix}{node.name}.", node)
        elif isinstance(node, ast.ClassDef):
            yield Body(file, prefix + node.name, node, _made_with(node), ())
            yield from _bodies_in(file, f"{prefix}{node.name}.", node)
        elif isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(parent, ast.Module):
            target = node.targets[0] if isinstance(node, ast.Assign) else node.target
            names = _names(node, into_functions=True)
            yield Body(file, ast.unparse(target), node, names, ())
        else:
            yield from _bodies_in(file, prefix, node)


def _own_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """What is in a body, without the functions that are defined in it."""
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, Function):
            yield child
            yield from _own_nodes(child)


def _own_awaits(node: ast.AST) -> Iterator[AsyncNode]:
    return (each for each in _own_nodes(node) if isinstance(each, AsyncNode))


def _names(node: ast.AST, *, into_functions: bool) -> frozenset[str]:
    nodes = ast.walk(node) if into_functions else _own_nodes(node)
    return frozenset(
        each.attr if isinstance(each, ast.Attribute) else each.id
        for each in nodes
        if isinstance(each, ast.Attribute | ast.Name)
    )


def _nested_names(node: ast.AST) -> frozenset[str]:
    return frozenset(each.name for each in ast.walk(node) if isinstance(each, Function)) - {
        getattr(node, "name", "")
    }


def _made_with(node: ast.ClassDef) -> frozenset[str]:
    """What runs when somebody makes one of a class; of Trio's own kinds, others call anything."""
    makers = {"__init__", "__attrs_post_init__", "__aiter__", "__anext__"}
    is_trios = any(ast.unparse(base).startswith("trio.abc.") for base in node.bases)
    return frozenset(
        each.name
        for each in node.body
        if isinstance(each, Function) and (is_trios or each.name in makers)
    )


def _called_name(node: ast.expr) -> str:
    target = node.func if isinstance(node, ast.Call) else node
    if isinstance(target, ast.Attribute):
        return target.attr
    return target.id if isinstance(target, ast.Name) else ""


def _is_async(body: Body) -> bool:
    return isinstance(body.node, ast.AsyncFunctionDef)


def _is_protocol(body: Body) -> bool:
    """An empty body: somebody else's function is meant, and nobody knows whose."""
    statements = getattr(body.node, "body", [])
    return isinstance(statements[-1], ast.Expr) and not body.awaits


def _clean_up_awaits(body: Body) -> list[AsyncNode]:
    """Those in a `finally`, or where a cancellation is caught on its way."""
    found: list[AsyncNode] = []
    for node in _own_nodes(body.node):
        if isinstance(node, ast.Try | ast.TryStar):
            for statement in node.finalbody:
                found += _awaits_in(statement)
            for handler in node.handlers:
                if handler.type is None or ast.unparse(handler.type) in CANCELLED:
                    found += _awaits_in(handler)
    return found


def _awaits_in(node: ast.AST) -> list[AsyncNode]:
    own = [node] if isinstance(node, AsyncNode) else []
    return [*own, *_own_awaits(node)]


def _is_after_yield(body: Body, node: AsyncNode) -> bool:
    yields = [each.lineno for each in _own_nodes(body.node) if isinstance(each, ast.Yield)]
    return bool(yields) and node.lineno > yields[0]
