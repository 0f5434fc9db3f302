"""`inferlet:core/common`: blobs, models, queues, and the pages that a queue allocates.

Owns the guest's views of a model and of a queue; the pages themselves belong to the lease behind
the queue and come back without anything here when the instance dies.
It must never keep a page handle: what a number means is decided where the pages are kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING

from pie_trio.errors import TooMany
from pie_trio.messages import Priority
from pie_trio.wasm.host.faults import bounded_text, each_once, fault, resource_kind
from pie_trio.wasm.host.resources import (
    Blob,
    DebugQueryResult,
    Model,
    Queue,
    Receipt,
    ReceiptPollable,
    SynchronizationResult,
)
from pie_trio.wasm.host.state import InstanceHost, ReplyPollable

if TYPE_CHECKING:
    from pie_trio.wasm.linker import HostFunction


def new_blob(host: InstanceHost, init: bytes) -> Blob:
    host.held.charge("blob.constructor", len(init))
    return Blob(bytes(init), host.held)


def blob_read(_host: InstanceHost, blob: Blob, offset: int, n: int) -> bytes:
    """At most `n` bytes from `offset`; fewer at the end."""
    if offset > len(blob.data):
        raise fault("blob.read", "offset", offset, f"0 to {len(blob.data)}, the size of the blob")
    return blob.data[offset : offset + n]


def blob_size(_host: InstanceHost, blob: Blob) -> int:
    return len(blob.data)


def blob_result_pollable(_host: InstanceHost, result: Receipt[bytes]) -> ReceiptPollable:
    return ReceiptPollable(result)


def blob_result_get(host: InstanceHost, result: Receipt[bytes]) -> Blob | None:
    """None until it came; then a blob of the same bytes at every call."""
    data = result.read()
    if data is None:
        return None
    host.held.charge("blob-result.get", len(data))
    return Blob(data, host.held)


def model_name(_host: InstanceHost, model: Model) -> str:
    return model.handle.facts.name


def model_traits(_host: InstanceHost, model: Model) -> tuple[str, ...]:
    return model.handle.facts.traits


def model_description(_host: InstanceHost, model: Model) -> str:
    return model.handle.facts.description


def model_prompt_template(_host: InstanceHost, model: Model) -> str:
    return model.handle.facts.prompt_template


def model_stop_tokens(_host: InstanceHost, model: Model) -> tuple[str, ...]:
    return model.handle.facts.stop_tokens


def model_service_id(_host: InstanceHost, model: Model) -> int:
    return model.handle.facts.service_id


def model_kv_page_size(_host: InstanceHost, model: Model) -> int:
    return model.handle.facts.page_size


def create_queue(host: InstanceHost, model: Model) -> Queue:
    if host.queues_open >= host.limits.queues_per_instance:
        raise TooMany(
            f"model.create-queue: this instance has {host.queues_open} queues; at most "
            f"{host.limits.queues_per_instance} (queues_per_instance): drop those that are done"
        )
    queue = Queue(model.handle.create_queue(), host)
    host.queues_open += 1
    return queue


def queue_service_id(_host: InstanceHost, queue: Queue) -> int:
    return queue.handle.model.facts.service_id


async def synchronize(_host: InstanceHost, queue: Queue) -> SynchronizationResult:
    return SynchronizationResult(await queue.handle.synchronize(), queue)


def set_priority(_host: InstanceHost, queue: Queue, priority: str) -> None:
    """Holds for every pass that is executed from now on."""
    queue.handle.priority = Priority[priority.upper()]


async def queue_debug_query(host: InstanceHost, queue: Queue, query: str) -> DebugQueryResult:
    limit = host.limits.message_bytes
    bounded_text("queue.debug-query", "query", query, limit, "message_bytes")
    return DebugQueryResult(await queue.handle.debug_query(query))


def synchronization_pollable(_host: InstanceHost, result: SynchronizationResult) -> ReplyPollable:
    return ReplyPollable(result.reply)


def synchronization_get(_host: InstanceHost, result: SynchronizationResult) -> bool | None:
    """None until everything before it has completed; false if a pass among that failed."""
    if not result.reply.is_filled:
        return None
    succeeded = result.reply.take()
    if not succeeded:
        result.queue.forget_unasked()
    return succeeded


def debug_query_pollable(_host: InstanceHost, result: DebugQueryResult) -> ReplyPollable:
    return ReplyPollable(result.reply)


def debug_query_get(_host: InstanceHost, result: DebugQueryResult) -> str | None:
    return result.reply.take() if result.reply.is_filled else None


async def allocate(_host: InstanceHost, queue: Queue, resource_type: int, count: int) -> list[int]:
    kind = resource_kind("allocate-resources", resource_type)
    return await queue.handle.allocate(kind, count)


async def deallocate(
    _host: InstanceHost, queue: Queue, resource_type: int, handles: Sequence[int]
) -> None:
    kind = resource_kind("deallocate-resources", resource_type)
    each_once("deallocate-resources", "ptrs", handles)
    await queue.handle.deallocate(kind, handles)


async def all_exported(
    _host: InstanceHost, queue: Queue, resource_type: int
) -> list[tuple[str, int]]:
    """Name and number of pages of every export of the tenant."""
    kind = resource_kind("get-all-exported-resources", resource_type)
    return await queue.handle.all_exported(kind)


async def release_exported(
    _host: InstanceHost, queue: Queue, resource_type: int, name: str
) -> None:
    kind = resource_kind("release-exported-resources", resource_type)
    await queue.handle.release_exported(kind, name)


async def export(
    host: InstanceHost, queue: Queue, resource_type: int, handles: Sequence[int], name: str
) -> None:
    kind = resource_kind("export-resources", resource_type)
    bounded_text("export-resources", "name", name, host.limits.name_bytes, "name_bytes")
    each_once("export-resources", "ptrs", handles)
    await queue.handle.export(kind, handles, name)


async def import_exported(
    _host: InstanceHost, queue: Queue, resource_type: int, name: str
) -> list[int]:
    kind = resource_kind("import-resources", resource_type)
    return await queue.handle.import_exported(kind, name)


COMMON: Mapping[str, HostFunction] = MappingProxyType(
    {
        "[constructor]blob": new_blob,
        "[method]blob.read": blob_read,
        "[method]blob.size": blob_size,
        "[method]blob-result.pollable": blob_result_pollable,
        "[method]blob-result.get": blob_result_get,
        "[method]model.get-name": model_name,
        "[method]model.get-traits": model_traits,
        "[method]model.get-description": model_description,
        "[method]model.get-prompt-template": model_prompt_template,
        "[method]model.get-stop-tokens": model_stop_tokens,
        "[method]model.get-service-id": model_service_id,
        "[method]model.get-kv-page-size": model_kv_page_size,
        "[method]model.create-queue": create_queue,
        "[method]queue.get-service-id": queue_service_id,
        "[method]queue.synchronize": synchronize,
        "[method]queue.set-priority": set_priority,
        "[method]queue.debug-query": queue_debug_query,
        "[method]synchronization-result.pollable": synchronization_pollable,
        "[method]synchronization-result.get": synchronization_get,
        "[method]debug-query-result.pollable": debug_query_pollable,
        "[method]debug-query-result.get": debug_query_get,
        "allocate-resources": allocate,
        "deallocate-resources": deallocate,
        "get-all-exported-resources": all_exported,
        "release-exported-resources": release_exported,
        "export-resources": export,
        "import-resources": import_exported,
    }
)
