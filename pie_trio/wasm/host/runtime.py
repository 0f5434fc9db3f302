"""`inferlet:core/runtime`: who the instance is, what it was given, which models there are.

Owns nothing but the return value, which lives in `InstanceHost` and dies unread if the guest fails.
A guest learns of instances and programs of its own tenant only.
It must never tell a guest anything about other tenants or about the machine.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING

from pie_trio.mailbox import Reply
from pie_trio.wasm.host.faults import bounded_text
from pie_trio.wasm.host.resources import DebugQueryResult, Model
from pie_trio.wasm.host.state import InstanceHost

if TYPE_CHECKING:
    from pie_trio.wasm.linker import HostFunction


def get_version(host: InstanceHost) -> str:
    return host.facts.version


def get_instance_id(host: InstanceHost) -> str:
    return host.owner.instance


def get_arguments(host: InstanceHost) -> tuple[str, ...]:
    return host.arguments


def set_return(host: InstanceHost, value: str) -> None:
    """The last call wins."""
    bounded_text("set-return", "value", value, host.limits.return_bytes, "return_bytes")
    host.return_value = value


def get_model(host: InstanceHost, name: str) -> Model | None:
    handle = host.models.get(name)
    return None if handle is None else Model(handle)


def get_all_models(host: InstanceHost) -> list[str]:
    return list(host.models)


def get_all_models_with_traits(host: InstanceHost, traits: Sequence[str]) -> list[str]:
    """The models that have every one of the traits."""
    wanted = set(traits)
    return [name for name, model in host.models.items() if wanted.issubset(model.facts.traits)]


async def debug_query(host: InstanceHost, query: str) -> DebugQueryResult:
    """Lists are JSON arrays; an unknown query is answered, not refused."""
    reply: Reply[str] = Reply()
    reply.fill(_answer(host, query))
    return DebugQueryResult(reply)


def _answer(host: InstanceHost, query: str) -> str:
    match query:
        case "ping":
            return "pong"
        case "get_instance_count":
            return str(host.facts.instance_count())
        case "get_server_instance_count":
            return "0"
        case "list_running_instances":
            return json.dumps(host.facts.running_instances(host.owner.tenant))
        case "list_in_memory_programs":
            return json.dumps(host.facts.programs(host.owner.tenant))
        case _:
            return f"Unknown query: {query:.200}"


RUNTIME: Mapping[str, HostFunction] = MappingProxyType(
    {
        "get-version": get_version,
        "get-instance-id": get_instance_id,
        "get-arguments": get_arguments,
        "set-return": set_return,
        "get-model": get_model,
        "get-all-models": get_all_models,
        "get-all-models-with-traits": get_all_models_with_traits,
        "debug-query": debug_query,
    }
)
