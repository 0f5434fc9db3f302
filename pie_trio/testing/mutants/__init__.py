"""Defects that the simulator has to find: source patches, put in by an import hook.

Owns the catalogue. Production code knows nothing of it: a mutant lives in one fresh process, in
which one module is compiled from a patched text. Each of them survives the plain scenarios, so that
whoever finds it has found it by a fault, a limit, an order or a cancellation.
"""

from __future__ import annotations

from typing import Final

import attrs

from pie_trio.testing.mutants.clients import CLIENTS
from pie_trio.testing.mutants.families import FAMILIES
from pie_trio.testing.mutants.grammars import GRAMMARS
from pie_trio.testing.mutants.guests import GUESTS
from pie_trio.testing.mutants.lives import LIVES
from pie_trio.testing.mutants.mutant import Mutant, PatchDoesNotFit
from pie_trio.testing.mutants.pages import PAGES
from pie_trio.testing.mutants.passes import PASSES
from pie_trio.testing.mutants.queues import QUEUES
from pie_trio.testing.mutants.streams import STREAMS
from pie_trio.testing.mutants.workers import WORKERS

__all__ = ["MUTANTS", "Mutant", "PatchDoesNotFit"]


def _on(ground: str, mutants: tuple[Mutant, ...]) -> tuple[Mutant, ...]:
    return tuple(attrs.evolve(each, ground=each.ground or ground) for each in mutants)


MUTANTS: Final = (
    *_on("page-traffic", PAGES),
    *_on("pass-traffic", (*PASSES, *QUEUES)),
    *_on("choirs", STREAMS),
    *_on("lives", LIVES),
    *_on("links", WORKERS),
    *_on("constraints", GRAMMARS),
    *_on("airlock", GUESTS),
    *_on("front-door", CLIENTS),
    *_on("families", FAMILIES),
)
