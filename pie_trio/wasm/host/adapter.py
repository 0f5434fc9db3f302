"""`inferlet:adapter/common`: low-rank adapters, which are not served yet.

Owns nothing. The functions link, so that every program of the `inferlet:exec` world starts; whoever
calls one ends with the reason.
It must never pretend to have done something.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

from pie_trio.wasm.host.faults import not_served
from pie_trio.wasm.host.passes import PassBuilder
from pie_trio.wasm.host.resources import Blob, Queue, Receipt
from pie_trio.wasm.host.state import InstanceHost

if TYPE_CHECKING:
    from pie_trio.wasm.linker import HostFunction


def set_adapter(_host: InstanceHost, _builder: PassBuilder, _adapter: int) -> None:
    raise not_served("set-adapter", "adapters")


def download_adapter(
    _host: InstanceHost, _queue: Queue, _adapter: int, _name: str
) -> Receipt[bytes]:
    raise not_served("download-adapter", "adapters")


def upload_adapter(
    _host: InstanceHost, _queue: Queue, _adapter: int, _name: str, blob: Blob
) -> None:
    blob.close()
    raise not_served("upload-adapter", "adapters")


ADAPTER: Mapping[str, HostFunction] = MappingProxyType(
    {
        "set-adapter": set_adapter,
        "download-adapter": download_adapter,
        "upload-adapter": upload_adapter,
    }
)
