"""`pie:ext/pages`: pages with errors that a program can handle, and their copies on the device.

Owns nothing: what a handle means, and who holds a page, is decided behind the queue.
It must never end its guest for a refusal that the program could handle.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

from pie_trio.errors import NoSuchExport
from pie_trio.messages import ResourceKind
from pie_trio.wasm.host.ext_errors import with_errors
from pie_trio.wasm.host.faults import fault
from pie_trio.wasm.host.resources import Queue
from pie_trio.wasm.host.state import InstanceHost

if TYPE_CHECKING:
    from pie_trio.wasm.linker import HostFunction


@with_errors
async def allocate(_host: InstanceHost, queue: Queue, count: int) -> list[int]:
    """Fresh pages. Cancelled: what was granted belongs to the lease all the same."""
    return await queue.handle.allocate(ResourceKind.KV_PAGE, count)


@with_errors
async def copy(_host: InstanceHost, queue: Queue, source: int, target: int, tokens: int) -> None:
    """The first slots of a page; returns when its turn has come."""
    page_size = queue.handle.model.facts.page_size
    if not 1 <= tokens <= page_size:
        raise fault("pages.copy", "tokens", tokens, f"1 to {page_size}, the page size")
    if source == target:
        raise fault("pages.copy", "target", target, "another page than the source")
    await queue.handle.copy_page(source, target, tokens)


@with_errors
async def import_pages(_host: InstanceHost, queue: Queue, name: str) -> list[int] | None:
    """The pages under a name; none if there is no such name."""
    try:
        return await queue.handle.import_exported(ResourceKind.KV_PAGE, name)
    except NoSuchExport:
        return None


PAGES: Mapping[str, HostFunction] = MappingProxyType(
    {
        "allocate": allocate,
        "copy": copy,
        "import-pages": import_pages,
    }
)
