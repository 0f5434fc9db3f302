"""Defects of the front door and of our own client: who may, who waits, who is told, and once."""

from __future__ import annotations

from typing import Final

from pie_trio.testing.mutants.mutant import Mutant

_SESSION: Final = "pie_trio/services/gateway/session.py"
_OUTBOX: Final = "pie_trio/services/gateway/outbox.py"
_STREAM: Final = "pie_trio/services/gateway/stream.py"
_CONNECTION: Final = "pie_trio/services/gateway/connection.py"
_REQUESTS: Final = "pie_trio/services/gateway/requests.py"
_UPLOADS: Final = "pie_trio/services/gateway/uploads.py"
_OUTLET: Final = "pie_trio/outlet.py"
_LINK: Final = "pie_trio/client/link.py"
_PARTINGS: Final = "partings"  # where the ground is the end of connections

CLIENTS: Final = (
    Mutant(
        "attached_by_a_ghost",
        _SESSION,
        before="                feed.reader.detach()\n            raise",
        after="                feed.answered()\n            raise",
        why="a client that goes while its launch is answered stays attached for ever",
        source="SGLang 34894; contract 9.22",
        ground=_PARTINGS,
    ),
    Mutant(
        "delivered_before_written",
        _OUTBOX,
        before="        self._parcels.append(parcel)\n",
        after="        parcel.left()\n"
        "        parcel = attrs.evolve(parcel, left=_nobody)\n"
        "        self._parcels.append(parcel)\n",
        why="output counts as delivered that was never written, and is lost with the connection",
        source="contract 9.22",
        ground=_PARTINGS,
    ),
    Mutant(
        "terminal_twice",
        _OUTLET,
        before="        if events and terminal is not None:\n"
        "            self._shown_terminal = True\n",
        after="        if events and terminal is not None:\n",
        why="an end that comes together with output is told twice",
        source="Triton 8034",
    ),
    Mutant(
        "detached_output_lost",
        _OUTLET,
        before="            self._detached = True\n            self._buffer._release()",
        after="            self._buffer._acknowledge(self._shown)\n"
        "            self._detached = True\n            self._buffer._release()",
        why="what a lost client had not read is not there for the next one",
        source="contract 9.22",
        ground=_PARTINGS,
    ),
    Mutant(
        "stalled_client_kept",
        _STREAM,
        before="        with trio.move_on_after(self._stall_seconds) as patience:",
        after='        with trio.move_on_after(float("inf")) as patience:',
        why="a client that reads nothing holds up its instance for ever",
        source="contract 9.23",
    ),
    Mutant(
        "slow_handshake_kept",
        _CONNECTION,
        before="        with trio.move_on_after(self._limits.handshake_seconds):",
        after='        with trio.move_on_after(float("inf")):',
        why="a client that never finishes its handshake keeps its place for ever",
        source="contract 9.25",
    ),
    Mutant(
        "somebody_elses_instance",
        _REQUESTS,
        before="    if instance.user != user:",
        after="    if not user:",
        why="a user may end, attach to and write to the instances of another one",
        source="contract 9.26",
    ),
    Mutant(
        "list_of_everybody",
        _SESSION,
        before="            if instance.user == user and not",
        after="            if user and not",
        why="a user sees the instances and inputs of another one",
        source="contract 9.26",
    ),
    Mutant(
        "nobody_asked_who",
        _SESSION,
        before="        if self._user is None:\n            raise BadRequest(",
        after='        if self._user is None:\n            return ""\n'
        "        if not self._user:\n            raise BadRequest(",
        why="who has not said who he is is served",
        source="contract 9.26",
    ),
    Mutant(
        "refusal_to_nobody",
        _SESSION,
        before="            await self._answer(corr_id, False, str(error))\n        finally:",
        after="            await self._answer(NO_REQUEST, False, str(error))\n        finally:",
        why="a refusal has no request's number, so that the asker waits for ever",
        source="contract 9.25 (an unknown subject is never answered)",
    ),
    Mutant(
        "requests_never_done",
        _SESSION,
        before="            await self._answer(corr_id, False, str(error))\n"
        "        finally:\n            self._requests -= 1",
        after="            await self._answer(corr_id, False, str(error))\n"
        "        else:\n            self._requests -= 1",
        why="a refused request counts as under way for ever",
        source="Ray 37943",
    ),
    Mutant(
        "events_before_the_answer",
        _OUTBOX,
        before="        parcels = list(self._parcels)\n",
        after="        parcels = sorted(self._parcels, key=lambda parcel: parcel.is_reply)\n",
        why="an instance's events reach a client that does not know the instance yet",
        source="contract 9.22",
    ),
    Mutant(
        "unknown_program_climbs",
        _REQUESTS,
        before="    if program is None:\n        raise BadRequest(",
        after="    if program is None and not text:\n        raise BadRequest(",
        why="the launch of an unknown program stops the engine",
        source="contract 9.21",
    ),
    Mutant(
        "uploads_mixed",
        _UPLOADS,
        before='        return self._add(("program", chunk.corr_id), chunk.program_hash, chunk)',
        after='        return self._add(("program",), chunk.program_hash, chunk)',
        why="two uploads at once over one connection are put together as one",
        source="contract 9.25",
    ),
    Mutant(
        "some_of_many",
        _REQUESTS,
        before="        for instance in launched:\n            instance.terminate()\n        raise",
        after="        raise",
        why="when one of many launches is refused, the others run on for nobody",
        source="SGLang 35255",
    ),
    Mutant(
        "requests_of_a_dead_connection",
        _LINK,
        before="            pending.reply.refuse(self._gone)\n",
        after="            pending.is_abandoned = True\n",
        why="who waits for an answer when the connection dies waits for ever",
        source="contract 9.43",
        ground=_PARTINGS,
    ),
    Mutant(
        "abandoned_launch_runs_on",
        _LINK,
        before="            if not was_sent:\n                self._pending.pop(number, None)",
        after="            self._pending.pop(number, None)",
        why="a launch whose caller gave up runs on, and nobody knows of it",
        source="SGLang 36876, 34894",
        ground=_PARTINGS,
    ),
    Mutant(
        "unknown_answer_taken",
        _LINK,
        before="            pending = self._pending.pop(message.corr_id, None)",
        after="            pending = self._pending.pop(next(iter(self._pending), 0), None)",
        why="an answer goes to whoever has waited longest",
        source="contract 9.10",
    ),
)
