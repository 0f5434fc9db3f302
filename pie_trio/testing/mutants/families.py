"""Defects of families: children that outlive, outcomes told early, hosts that are not allowed."""

from __future__ import annotations

from typing import Final

from pie_trio.testing.mutants.mutant import Mutant

_CHILDREN: Final = "pie_trio/children.py"
_FETCHING: Final = "pie_trio/services/fetching.py"

FAMILIES: Final = (
    Mutant(
        "child_outlives_parent",
        "pie_trio/engine.py",
        before="family, request), family.nursery)",
        after="family, request), self._nursery)",
        why="a child runs beside its parent instead of inside of it",
        source="contract 9.17 (instances that nobody can stop)",
    ),
    Mutant(
        "let_go_lives_on",
        _CHILDREN,
        before='        self._instance.terminate("its parent let go of it")\n',
        after="",
        why="a child whose handle was dropped goes on and keeps its pages",
        source="contract 9.19 (what nobody holds keeps its pages)",
    ),
    Mutant(
        "outcome_before_pages",
        "pie_trio/wasm/host/child.py",
        before="    if not child.ended.is_filled:\n        return None\n",
        after="    cause = child._instance._cause\n"
        "    if not child.ended.is_filled and cause is not None:\n"
        "        return Err(error_value(cause))\n"
        "    if not child.ended.is_filled:\n        return None\n",
        why="a child's end is told when it is decided, and its pages come back later",
        source="contract 9.18 (terminate is asynchronous)",
    ),
    Mutant(
        "redirect_unchecked",
        _FETCHING,
        before="        entry = self.allowed.entry_of(place)\n",
        after="        entry = self.allowed.entries[0]\n",
        why="a redirect leads to a host that is not on the allow list",
        source="OWASP, server-side request forgery",
    ),
    Mutant(
        "private_address",
        _FETCHING,
        before="[address for address in found if entry.permits_address(address)]",
        after="[address for address in found if entry]",
        why="a public name leads into the private network",
        source="OWASP, server-side request forgery (DNS rebinding)",
    ),
    Mutant(
        "connection_left",
        _FETCHING,
        before="            yield stream\n        finally:\n"
        "            await trio.aclose_forcefully(stream)",
        after="            yield stream\n        except FetchFailed:\n"
        "            await trio.aclose_forcefully(stream)\n            raise\n"
        "        else:\n            await trio.aclose_forcefully(stream)",
        why="a request that is cancelled leaves its connection open",
        source="contract 9.17 (listeners that cannot be stopped)",
    ),
)
