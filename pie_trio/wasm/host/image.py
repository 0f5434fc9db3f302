"""`inferlet:image/image`: images as embeddings, which are not served yet.

Owns nothing. The functions link, so that every program of the `inferlet:exec` world starts; whoever
calls one ends with the reason.
It must never pretend to have done something.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING

from pie_trio.wasm.host.faults import not_served
from pie_trio.wasm.host.resources import Queue
from pie_trio.wasm.host.state import InstanceHost

if TYPE_CHECKING:
    from pie_trio.wasm.linker import HostFunction


def embed_image(
    _host: InstanceHost, _queue: Queue, _handles: Sequence[int], _image: bytes, _offset: int
) -> None:
    raise not_served("embed-image", "images")


def calculate_embed_size(_host: InstanceHost, _queue: Queue, _width: int, _height: int) -> int:
    raise not_served("calculate-embed-size", "images")


IMAGE: Mapping[str, HostFunction] = MappingProxyType(
    {
        "embed-image": embed_image,
        "calculate-embed-size": calculate_embed_size,
    }
)
