"""Everything that a guest may import, joined: the inferlet interfaces and our WASI.

Owns nothing and keeps nothing; a function that is missing here makes a program that needs it fail
to link, by name.
It must never choose by guest: what a guest may do is decided by the handles of its `InstanceHost`.
"""

from __future__ import annotations

from pie_trio.wasm.host.adapter import ADAPTER
from pie_trio.wasm.host.child import CHILD
from pie_trio.wasm.host.common import COMMON
from pie_trio.wasm.host.constraint import CONSTRAINTS
from pie_trio.wasm.host.evolve import EVOLVE
from pie_trio.wasm.host.fetch import FETCH
from pie_trio.wasm.host.forward import FORWARD
from pie_trio.wasm.host.generate import GENERATE
from pie_trio.wasm.host.image import IMAGE
from pie_trio.wasm.host.kvs import KVS
from pie_trio.wasm.host.message import MESSAGE
from pie_trio.wasm.host.pages import PAGES
from pie_trio.wasm.host.runtime import RUNTIME
from pie_trio.wasm.host.sampling import SAMPLING
from pie_trio.wasm.host.tokenize import TOKENIZE
from pie_trio.wasm.linker import HostInterfaces
from pie_trio.wasm.wasi import wasi_interfaces


def inferlet_interfaces() -> HostInterfaces:
    """The tables of the `inferlet:` packages and of our own, by interface."""
    return {
        "inferlet:core/common": COMMON,
        "inferlet:core/runtime": RUNTIME,
        "inferlet:core/forward": FORWARD,
        "inferlet:core/tokenize": TOKENIZE,
        "inferlet:core/kvs": KVS,
        "inferlet:core/message": MESSAGE,
        "inferlet:adapter/common": ADAPTER,
        "inferlet:image/image": IMAGE,
        "inferlet:zo/evolve": EVOLVE,
        "pie:ext/constraints": CONSTRAINTS,
        "pie:ext/errors": {},
        "pie:ext/child": CHILD,
        "pie:ext/fetch": FETCH,
        "pie:ext/generate": GENERATE,
        "pie:ext/pages": PAGES,
        "pie:ext/sampling": SAMPLING,
    }


def host_interfaces() -> HostInterfaces:
    """What `Sandbox.load` links a component against."""
    return {**wasi_interfaces(), **inferlet_interfaces()}
