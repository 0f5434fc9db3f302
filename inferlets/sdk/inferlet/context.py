"""Context: a sequence of tokens and the KV pages that hold it, on one queue.

Its tokens are either *held* (computed into pages) or *pending* (read by the next pass). The last
token always stays pending, because the pass that reads it is the one that says what comes next.
A page that two contexts share is full and is never written again: `fork` and `truncate` compute the
tokens of a partial page anew. Dropping a context gives its pages back. Cancelled: a pass that was
under way counts as not run, so the context can go on from where it was.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from inferlet.chat import Chat
from inferlet.forward import Distribution, ForwardPass, PassResult
from inferlet.generation import Generation
from inferlet.model import Model
from inferlet.queue import KvPage
from inferlet.sampler import Sampler
from inferlet.stop import StopCondition, any_of, max_tokens, stop_tokens

GREEDY = Sampler.greedy()


class Context:
    """One conversation or branch of one. It runs one pass at a time; `fork` it to run two."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.queue = model.create_queue()
        self.tokens: list[int] = []
        self._tokens_held = 0
        self._pages: list[KvPage] = []
        self._chat = Chat()
        self._is_running = False

    # What the model is to read next

    def fill(self, text: str) -> None:
        """Adds text as it stands."""
        self.fill_tokens(self.model.tokenizer.encode(text))

    def fill_tokens(self, tokens: Sequence[int]) -> None:
        self.tokens.extend(tokens)

    def fill_system(self, content: str) -> None:
        """Adds a system message, in the form of the model's chat template."""
        self._chat.say("system", content)

    def fill_user(self, content: str) -> None:
        """Adds a user's message and opens the model's turn."""
        self._chat.say("user", content)

    def fill_assistant(self, content: str) -> None:
        """Adds a message as if the model had written it."""
        self._chat.say("assistant", content)

    # Branching

    def fork(self) -> Context:
        """A twin on a queue of its own. Full pages are shared, a partial one is computed anew."""
        twin = Context(self.model)
        pages_full = self._tokens_held // self.model.page_size
        twin.tokens = list(self.tokens)
        twin._pages = self._pages[:pages_full]
        twin._tokens_held = pages_full * self.model.page_size
        twin._chat = self._chat.copy()
        return twin

    def truncate(self, length: int) -> None:
        """Forgets the tokens from `length` on."""
        del self.tokens[length:]
        if length < self._tokens_held:
            pages_full = length // self.model.page_size
            del self._pages[pages_full:]
            self._tokens_held = pages_full * self.model.page_size

    # Prefixes that outlive the program

    async def export_prefix(self, label: str) -> int:
        """Shares the full pages of what is filled so far; returns how many tokens they hold."""
        await self.flush()
        pages_full = self._tokens_held // self.model.page_size
        name = self._prefix_name(label, pages_full)
        if pages_full and name not in self.queue.exports():
            self.queue.export_pages(self._pages[:pages_full], name)
            await self.queue.synchronize()
        return pages_full * self.model.page_size

    async def import_prefix(self, label: str) -> int:
        """Takes what is filled so far from an export, if there is one; returns how many tokens."""
        await self._render_chat()
        if self._tokens_held:
            raise RuntimeError("a prefix is imported before anything is computed")
        pages_full = max(len(self.tokens) - 1, 0) // self.model.page_size
        name = self._prefix_name(label, pages_full)
        if self.queue.exports().get(name) != pages_full:
            return 0
        self._pages = self.queue.import_pages(name)
        self._tokens_held = pages_full * self.model.page_size
        return self._tokens_held

    async def release_prefix(self, label: str) -> bool:
        """Forgets the export that `import_prefix` would take; says whether there was one."""
        await self._render_chat()
        name = self._prefix_name(label, max(len(self.tokens) - 1, 0) // self.model.page_size)
        if name not in self.queue.exports():
            return False
        self.queue.release_export(name)
        await self.queue.synchronize()
        return True

    def _prefix_name(self, label: str, pages: int) -> str:
        """The name says what the pages hold, so that nobody imports other tokens than his own."""
        tokens = self.tokens[: pages * self.model.page_size]
        digest = hashlib.blake2b(repr(tokens).encode(), digest_size=16).hexdigest()
        return f"{label}-{digest}"

    # Running the model

    async def flush(self) -> None:
        """Computes all pending tokens but the last."""
        await self._render_chat()
        end = len(self.tokens) - 1
        if end > self._tokens_held:
            await self._run(end, lambda forward_pass, last: None)

    async def decode_step(self, sampler: Sampler = GREEDY) -> int:
        """Reads all pending tokens; the token that comes next is added and returned."""
        await self._render_chat()
        result = await self._run(
            len(self.tokens), lambda forward_pass, last: forward_pass.output_tokens([last], sampler)
        )
        self.tokens.append(result.tokens[0])
        return result.tokens[0]

    async def decode_step_dist(
        self, temperature: float = 1.0, top_k: int | None = None
    ) -> Distribution:
        """Reads all pending tokens and says what may come next; add your choice yourself."""
        await self._render_chat()
        result = await self._run(
            len(self.tokens),
            lambda forward_pass, last: forward_pass.output_distributions(
                [last], temperature, top_k
            ),
        )
        return result.distributions[0]

    def generate(
        self,
        tokens_max: int = 256,
        sampler: Sampler = GREEDY,
        stop: StopCondition | None = None,
    ) -> Generation:
        """Text until `stop` (by default, the model's stop tokens) or so many tokens."""
        if stop is None:
            stop = stop_tokens(self.model.stop_tokens())
        return Generation(
            step=lambda: self.decode_step(sampler),
            stop=any_of(stop, max_tokens(tokens_max)),
            detokenize=self.model.tokenizer.decode,
            on_end=self._end_generation,
        )

    def _end_generation(self, hidden: int, text: str) -> None:
        self.truncate(len(self.tokens) - hidden)
        self._chat.hear(text)

    async def _render_chat(self) -> None:
        if self._chat.is_complete:
            return
        rendered = await self.queue.query(f"render-chat {self._chat.request()}")
        if rendered.startswith("error: "):
            raise ValueError(rendered.removeprefix("error: "))
        self.fill(self._chat.take_new(rendered))

    async def _run(self, end: int, ask: Callable[[ForwardPass, int], None]) -> PassResult:
        """One pass over the pending tokens before `end`; `ask` says what to ask of the last."""
        with self._only_one_pass():
            start = self._tokens_held
            if end <= start:
                raise RuntimeError("nothing is pending: fill the context first")
            page_size = self.model.page_size
            pages_needed = -(-end // page_size)
            if pages_needed > len(self._pages):
                self._pages += self.queue.allocate_pages(pages_needed - len(self._pages))
            forward_pass = self.queue.forward_pass()
            forward_pass.kv_cache(self._pages[:pages_needed], (end - 1) % page_size + 1)
            forward_pass.input_tokens(self.tokens[start:end], range(start, end))
            ask(forward_pass, end - start - 1)
            result = await forward_pass.execute()
            if not result.tokens and not result.distributions:
                await self.queue.synchronize()
            self._tokens_held = end
            return result

    @contextmanager
    def _only_one_pass(self) -> Iterator[None]:
        if self._is_running:
            raise RuntimeError("this context is running a pass already; fork it to run two")
        self._is_running = True
        try:
            yield
        finally:
            self._is_running = False
