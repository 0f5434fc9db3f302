"""What each request of a client does: one function a message, its answer as text.

Functions here own nothing. They refuse by raising `PieError`, whose text the client gets. Users see
and touch their own instances only. A request that is cancelled because its client has gone leaves
instances running, detached.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from typing import TypeVar

import trio

from pie_trio.config import Limits
from pie_trio.errors import BadRequest, PieError
from pie_trio.services.client_messages import (
    AddProgram,
    CheckProgram,
    LaunchProcess,
    LaunchProcesses,
    Query,
    RunProcesses,
)
from pie_trio.services.gateway.engine_port import EngineLike, InstanceLike
from pie_trio.services.launch_input import launch_arguments
from pie_trio.services.program_store import ProgramRecord

I = TypeVar("I", bound=InstanceLike)  # noqa: E741
INPUT_CUTS = (None, 1024, 128, 0)  # characters of each input that a list may show, the widest first


def own_instance(engine: EngineLike[I], user: str, process_id: str) -> I:
    instance = engine.find(process_id)
    if instance is None:
        raise BadRequest("Process not found")
    if instance.user != user:
        raise BadRequest("Permission denied")
    return instance


def query(engine: EngineLike[I], request: Query) -> str:
    if request.subject != "model_status":
        raise BadRequest(f"unknown subject {request.subject[:80]!r}; known: model_status")
    return json.dumps(dict(engine.model_status()))


def check_program(engine: EngineLike[I], request: CheckProgram) -> str:
    present = engine.programs.check(
        request.name, request.version, request.wasm_hash, request.manifest_hash
    )
    return "true" if present else "false"


async def install(engine: EngineLike[I], request: AddProgram, artifact: bytes) -> ProgramRecord:
    """Cancelled: the program is installed or is not, as a whole."""
    write = partial(
        engine.programs.install, request.manifest, artifact, overwrite=request.force_overwrite
    )
    return await trio.to_thread.run_sync(write)


async def launch(engine: EngineLike[I], limits: Limits, user: str, request: LaunchProcess) -> I:
    _refuse_budget(request.token_budget)
    program = _find_program(engine, request.inferlet)
    return await _launch(engine, limits, user, program, request.input, request.capture_outputs)


async def launch_all(
    engine: EngineLike[I],
    limits: Limits,
    user: str,
    request: LaunchProcesses | RunProcesses,
    *,
    capture: bool,
) -> list[I]:
    """All or none: if one cannot be launched, the others are ended."""
    _refuse_budget(request.token_budgets)
    program = _find_program(engine, request.inferlet)
    if len(request.inputs) > limits.instances_max:
        raise BadRequest(f"more than {limits.instances_max} inputs in one request")
    launched: list[I] = []
    try:
        for text in request.inputs:
            instance = await _launch(engine, limits, user, program, text, capture)
            launched.append(instance)
    except PieError:
        for instance in launched:
            instance.terminate()
        raise
    return launched


async def run_all(engine: EngineLike[I], limits: Limits, user: str, request: RunProcesses) -> str:
    """What all of them return, in the order of the inputs; the first failure fails the request."""
    instances = await launch_all(engine, limits, user, request, capture=False)
    values = []
    failure: str | None = None
    for instance in instances:
        ended = await instance.ended.answer()
        engine.forget(instance)
        values.append(ended.value)
        failure = ended.error if failure is None else failure
    if failure is not None:
        raise BadRequest(failure)
    return json.dumps(values, ensure_ascii=False)


def list_processes(instances: Sequence[InstanceLike], now: float, bytes_max: int) -> str:
    """As much of each input as the answer has room for."""
    for characters in INPUT_CUTS:
        rows = [_row(instance, now, characters) for instance in instances]
        text = json.dumps(rows, ensure_ascii=False)
        if len(text.encode(errors="replace")) <= bytes_max:
            return text
    raise BadRequest(f"{len(instances)} instances are too many for one answer")


def _row(instance: InstanceLike, now: float, characters: int | None) -> dict[str, str | int]:
    return {
        "id": instance.id,
        "username": instance.user,
        "program": instance.program,
        "input": instance.input_text[:characters],
        "elapsed_secs": int(now - instance.started_at),
        "status": "finished" if instance.is_finished else "running",
    }


def _refuse_budget(budget: object) -> None:
    if budget is not None:
        raise BadRequest("token budgets are not served")


def _find_program(engine: EngineLike[I], text: str) -> ProgramRecord:
    program = engine.programs.find(text)
    if program is None:
        raise BadRequest(f"Program {text[:120]!r} not found; install it first")
    return program


async def _launch(
    engine: EngineLike[I],
    limits: Limits,
    user: str,
    program: ProgramRecord,
    text: str,
    capture: bool,
) -> I:
    arguments = launch_arguments(text, limits, call=program.call)
    return await engine.launch(program, arguments, user=user, input_text=text, capture=capture)
