"""The messages of the client protocol, as types: what a client says and what a server says.

Pure data. The name of a field is its key on the wire, its type is what the codec
(`client_protocol.py`) checks; a field with a default may be absent.
"""

from __future__ import annotations

from typing import ClassVar

import attrs


@attrs.frozen(kw_only=True)
class Request:
    """A message that gets exactly one `Response` with its `corr_id`."""

    type: ClassVar[str]
    corr_id: int


@attrs.frozen(kw_only=True)
class AuthIdentify(Request):
    type = "auth_identify"
    username: str


@attrs.frozen(kw_only=True)
class Ping(Request):
    type = "ping"


@attrs.frozen(kw_only=True)
class Query(Request):
    type = "query"
    subject: str
    record: str


@attrs.frozen(kw_only=True)
class CheckProgram(Request):
    type = "check_program"
    name: str
    version: str
    wasm_hash: str | None = None
    manifest_hash: str | None = None


@attrs.frozen(kw_only=True)
class AddProgram(Request):
    """One chunk of an upload; all its chunks have the same `corr_id`."""

    type = "add_program"
    program_hash: str
    manifest: str
    force_overwrite: bool
    total_chunks: int
    chunk_index: int
    chunk_data: bytes


@attrs.frozen(kw_only=True)
class LaunchProcess(Request):
    type = "launch_process"
    inferlet: str
    input: str
    capture_outputs: bool
    token_budget: int | None = None


@attrs.frozen(kw_only=True)
class LaunchProcesses(Request):
    type = "launch_processes"
    inferlet: str
    inputs: tuple[str, ...]
    capture_outputs: bool
    token_budgets: tuple[int | None, ...] | None = None


@attrs.frozen(kw_only=True)
class RunProcesses(Request):
    type = "run_processes"
    inferlet: str
    inputs: tuple[str, ...]
    token_budgets: tuple[int | None, ...] | None = None


@attrs.frozen(kw_only=True)
class AttachProcess(Request):
    type = "attach_process"
    process_id: str


@attrs.frozen(kw_only=True)
class TerminateProcess(Request):
    type = "terminate_process"
    process_id: str


@attrs.frozen(kw_only=True)
class ListProcesses(Request):
    type = "list_processes"


@attrs.frozen(kw_only=True)
class SignalProcess:
    """A message for the program. Nobody waits for an answer."""

    type: ClassVar[str] = "signal_process"
    process_id: str
    message: str


@attrs.frozen(kw_only=True)
class TransferFile:
    """One chunk of a blob for the program. Nobody waits for an answer."""

    type: ClassVar[str] = "transfer_file"
    process_id: str
    file_hash: str
    chunk_index: int
    total_chunks: int
    chunk_data: bytes


@attrs.frozen(kw_only=True)
class Response:
    type: ClassVar[str] = "response"
    corr_id: int
    ok: bool
    result: str


@attrs.frozen(kw_only=True)
class ProcessEvent:
    type: ClassVar[str] = "process_event"
    process_id: str
    event: str
    value: str = ""


@attrs.frozen(kw_only=True)
class FileChunk:
    """One chunk of a blob from the program."""

    type: ClassVar[str] = "file"
    process_id: str
    file_hash: str
    chunk_index: int
    total_chunks: int
    chunk_data: bytes
    name: str | None = None


ClientMessage = (
    AuthIdentify
    | Ping
    | Query
    | CheckProgram
    | AddProgram
    | LaunchProcess
    | LaunchProcesses
    | RunProcesses
    | AttachProcess
    | TerminateProcess
    | ListProcesses
    | SignalProcess
    | TransferFile
)
ServerMessage = Response | ProcessEvent | FileChunk
# What official clients or servers of some version know and we do not serve.
NOT_SERVED = (
    "auth_prove",
    "auth_by_token",
    "launch_daemon",
    "register_mcp_server",
    "mcp_response",
    "submit_workflow",
    "cancel_workflow",
    "attach_workflow",
    "detach_workflow",
)
