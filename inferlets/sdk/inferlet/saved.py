"""Saved contexts: pages under a name in the engine, and what they mean in its key-value store.

Pages are exported whole; the tokens of a partial page are computed anew by whoever takes them. The
name of a prefix says what its pages hold, so that nobody imports other tokens than his own. What is
exported stays when its program ends; pages that the engine had to drop are computed anew.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

from inferlet import kvs
from inferlet.brle import Brle
from inferlet.chat import Chat
from inferlet.visibility import Visibility

if TYPE_CHECKING:
    from inferlet.context import Context


async def export_prefix(context: Context, label: str) -> int:
    pages_full = context.sequence.held // context.model.page_size
    name = _prefix_name(context, label, pages_full)
    if pages_full and name not in context.queue.exports():
        context.queue.export_pages(context.sequence.pages[:pages_full], name)
        await context.queue.synchronize()
    return pages_full * context.model.page_size


def import_prefix(context: Context, label: str) -> int:
    if context.sequence.held:
        raise RuntimeError("a prefix is imported before anything is computed")
    pages_full = max(len(context.tokens) - 1, 0) // context.model.page_size
    return _take_pages(context, _prefix_name(context, label, pages_full), pages_full)


async def release_prefix(context: Context, label: str) -> bool:
    pages_full = max(len(context.tokens) - 1, 0) // context.model.page_size
    return await _release(context, _prefix_name(context, label, pages_full))


async def save(context: Context, name: str) -> None:
    pages_full = context.sequence.held // context.model.page_size
    await _release(context, _pages_name(name))
    if pages_full:
        context.queue.export_pages(context.sequence.pages[:pages_full], _pages_name(name))
        await context.queue.synchronize()
    kvs.put(_key(context, name), json.dumps(_described(context, pages_full)))


async def open_into(context: Context, name: str) -> bool:
    text = kvs.get(_key(context, name))
    if text is None:
        return False
    found = json.loads(text)
    context.fill_tokens(found["tokens"], found["positions"])
    context.sequence.visibility = Visibility(
        Brle(found["hidden"]), {int(token): Brle(runs) for token, runs in found["rows"].items()}
    )
    context.chat = Chat(found["messages"], found["chat_held"], found["chat_written"])
    _take_pages(context, _pages_name(name), found["pages"])
    return True


def _described(context: Context, pages: int) -> dict[str, object]:
    own = context.sequence.visibility.own_rows
    return {
        "tokens": context.sequence.tokens,
        "positions": context.sequence.positions,
        "hidden": context.sequence.visibility.mask.runs,
        "rows": {token: row.runs for token, row in own.items()},
        "messages": context.chat.messages,
        "chat_held": context.chat.held,
        "chat_written": context.chat.written,
        "pages": pages,
    }


def _take_pages(context: Context, name: str, pages: int) -> int:
    """Imports so many pages, if they are there; returns how many tokens they hold."""
    found = context.queue.import_pages(name) if pages else None
    if found is None or len(found) != pages:
        return 0
    context.sequence.pages = found
    context.sequence.held = pages * context.model.page_size
    return context.sequence.held


async def _release(context: Context, name: str) -> bool:
    if name not in context.queue.exports():
        return False
    context.queue.release_export(name)
    await context.queue.synchronize()
    return True


def _prefix_name(context: Context, label: str, pages: int) -> str:
    """Names tokens, where they stand and what they saw."""
    end = pages * context.model.page_size
    rows = context.sequence.visibility.rows(0, end)
    seen = None if rows is None else [each.runs for each in rows]
    what = repr((context.tokens[:end], context.sequence.positions[:end], seen))
    return f"{label}-{hashlib.blake2b(what.encode(), digest_size=16).hexdigest()}"


def _pages_name(name: str) -> str:
    return f"context/{name}"


def _key(context: Context, name: str) -> str:
    return f"context/{context.model.name}/{name}"
