"""Defects of lifetimes: instances, generations of a worker, the engine's own tables."""

from __future__ import annotations

from typing import Final

from pie_trio.testing.mutants.mutant import Mutant

_ENGINE: Final = "pie_trio/engine.py"
_SERVED: Final = "pie_trio/served_model.py"

LIVES: Final = (
    Mutant(
        "counter_leak",
        _ENGINE,
        before="            loaded = await self._loader.load(program)\n"
        "        finally:\n            self._launching -= 1",
        after="            loaded = await self._loader.load(program)\n"
        "        except PieError:\n            raise\n"
        "        else:\n            self._launching -= 1",
        why="a launch that is cancelled while it loads counts for ever",
        source="prototype counter_leak; Ray 64348, 37943, TGI 1877",
        ground="partings",
    ),
    Mutant(
        "aborted_never_ends",
        _ENGINE,
        before="            self._finished[instance.id] = self._running.pop(instance.id)",
        after="            self._finished[instance.id] = self._running[instance.id]\n"
        "            if instance.ended.take().error is None:\n"
        "                del self._running[instance.id]",
        why="an aborted instance is never taken off the table of the running ones",
        source="contract 9.22; TGI 1877 (the permit limit is broken)",
    ),
    Mutant(
        "stop_waits",
        _ENGINE,
        before="            instances.cancel_scope.cancel()\n        models_nursery",
        after="        models_nursery",
        why="a stop waits for every guest to end by itself",
        source="contract 9.17",
    ),
    Mutant(
        "zombie",
        _SERVED,
        before="                del generation.residents[number]\n"
        "                generation.loop.drop_owner(resident.owner)",
        after="                del generation.residents[number]",
        why="what an instance had waiting is executed after its death",
        source="prototype zombie; SGLang 36876, 36333, 35255; contract 9.6",
    ),
    Mutant(
        "lost_worker_untold",
        _SERVED,
        before="        for resident in list(generation.residents.values()):\n"
        "            resident.end_with(cause)",
        after="        for resident in list(generation.residents.values())[1:]:\n"
        "            resident.end_with(cause)",
        why="one instance is never told that its worker and its pages are gone",
        source="contract 9.11; vLLM 39863",
    ),
    Mutant(
        "exports_outlive_the_worker",
        _SERVED,
        before="self._remember_lost(export.tenant, kind,",
        after='self._remember_lost("", kind,',
        why="who imports what died with a worker is told that it never was",
        source="contract 9.11",
    ),
)
