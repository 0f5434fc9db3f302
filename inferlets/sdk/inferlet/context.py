"""Context: a sequence of tokens and the KV pages that hold it, on one queue.

Its tokens are either *held* (computed into pages) or *pending* (read by the next pass). The last
token always stays pending, because the pass that reads it is the one that says what comes next.
A page that two contexts share is full and is never written again: `fork` copies a partial page.
Dropping a context gives its pages back. Cancelled: a pass that was under way counts as not run.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

from inferlet import beam, saved
from inferlet.beam import Beam
from inferlet.brle import Brle
from inferlet.chat import Chat
from inferlet.constraint import Constraint
from inferlet.decoding import Decoder, can_decode, end_after
from inferlet.forward import Distribution, ForwardPass, PassResult
from inferlet.generation import Drafter, Generation, Verified
from inferlet.host import OnlyOne
from inferlet.model import Model
from inferlet.passes import run_pass
from inferlet.sampler import Sampler
from inferlet.sequence import Tokens, TokenSequence
from inferlet.stop import StopCondition, any_of, max_tokens, stop_tokens

GREEDY = Sampler.greedy()


class Context:
    """One conversation or branch of one. It runs one pass at a time; `fork` it to run two.

    `sequence` has the tokens with their places and pages. The methods keep these in step; so does
    whoever changes it himself.
    """

    def __init__(self, model: Model) -> None:
        self.model = model
        self.queue = model.create_queue()
        self.sequence = TokenSequence(model.page_size)
        self.chat = Chat()
        self._decoder = Decoder(self.queue)
        self._pass: ForwardPass | None = None  # the last one, empty again, if it came to its end
        self._one_pass = OnlyOne("this context is running a pass already; fork it to run two")

    @property
    def tokens(self) -> Sequence[int]:
        """All tokens, held and pending."""
        return self.sequence.tokens

    # What the model is to read next

    def fill(self, text: str) -> None:
        """Adds text as it stands; behind a user's message, it is the start of the answer."""
        if self.chat.is_complete or self.chat.written is None:
            self.fill_tokens(self.model.tokenizer.encode(text))
        self.chat.write(text)

    def fill_tokens(
        self, tokens: Tokens, positions: Tokens | None = None, rows: Sequence[Brle] | None = None
    ) -> None:
        """Adds tokens: where they are thought to stand, by default after the last one, and which
        tokens before itself each one sees, by default all that are not hidden."""
        if not self.chat.is_complete:
            raise RuntimeError("await flush() first: there are messages before these tokens")
        self.sequence.fill(tokens, positions, rows)

    def fill_system(self, content: str) -> None:
        """Adds a system message, in the form of the model's chat template."""
        self.chat.say("system", content)

    def fill_user(self, content: str) -> None:
        """Adds a user's message and opens the model's turn."""
        self.chat.say("user", content)

    def fill_assistant(self, content: str) -> None:
        """Adds a message as if the model had written it."""
        self.chat.say("assistant", content)

    # What it may still see of what it has read

    def mask_tokens(self, start: int, stop: int, is_hidden: bool = True) -> None:
        """Hides `tokens[start:stop]` from all that are still to be read, or shows them again."""
        self.sequence.hide(start, stop, is_hidden)

    def drop_masked_pages(self) -> int:
        """Gives back the full pages that nobody may see any more; returns how many.

        Their tokens leave the context, and the others keep their positions.
        """
        return self.sequence.drop_hidden_pages()

    # Branching

    def fork(self) -> Context:
        """A twin on a queue of its own. Full pages are shared, a partial one is copied."""
        twin = Context(self.model)
        twin.sequence, twin.chat = self.sequence.twin(), self.chat.copy()
        partial = self.sequence.held - twin.sequence.held
        if partial:
            page = self.sequence.pages[len(twin.sequence.pages)]
            twin.sequence.pages.append(twin.queue.copy_of(page, partial))
            twin.sequence.held += partial
        return twin

    def truncate(self, length: int) -> None:
        """Forgets the tokens from `length` on; the last one left is read again."""
        self.sequence.truncate(length)
        self.sequence.hold_at_most(max(len(self.tokens) - 1, 0))

    # Contexts that outlive the program

    async def export_prefix(self, label: str) -> int:
        """Shares the full pages of what is filled so far; returns how many tokens they hold."""
        await self.flush()
        return await saved.export_prefix(self, label)

    async def import_prefix(self, label: str) -> int:
        """Takes what is filled so far from an export, if there is one; returns how many tokens."""
        await self._render_chat()
        return saved.import_prefix(self, label)

    async def release_prefix(self, label: str) -> bool:
        """Forgets the export that `import_prefix` would take; says whether there was one."""
        await self._render_chat()
        return await saved.release_prefix(self, label)

    async def save(self, name: str) -> None:
        """Keeps this context under a name, in place of what was there; `open` gives it back."""
        await self.flush()
        await saved.save(self, name)

    @classmethod
    async def open(cls, model: Model, name: str) -> Context | None:
        """What was saved under that name. Pages that are gone meanwhile are computed anew."""
        context = cls(model)
        return context if await saved.open_into(context, name) else None

    # Running the model

    async def flush(self) -> None:
        """Computes all pending tokens but the last."""
        await self._render_chat()
        end = len(self.tokens) - 1
        if end > self.sequence.held:
            await self._run(end, lambda forward_pass, last: None)

    async def decode_step(self, sampler: Sampler = GREEDY, generated: Tokens = ()) -> int:
        """Reads all pending tokens; the token that comes next is added and returned."""
        return (await self.verify((), sampler, generated)).tokens[0]

    async def verify(
        self, guesses: Tokens, sampler: Sampler = GREEDY, generated: Tokens = ()
    ) -> Verified:
        """Reads all pending tokens and guesses of what comes next, in one pass.

        Adds the guesses that `sampler` agrees with, and then one token of its own: the same tokens
        as by so many calls of `decode_step`. `generated` are those that penalties count.
        """
        await self._render_chat()
        if end := end_after(sampler.constraint, generated):
            self.fill_tokens(end)
            return Verified(end)
        text = list(self.tokens)
        self.fill_tokens(guesses)
        agreed = -1
        try:
            result = await self._run(
                len(self.tokens),
                lambda one, last: one.output_next(last, sampler, text, generated, guesses),
            )
            pairs = zip(guesses, result.tokens, strict=False)
            agreed = next((place for place, (a, b) in enumerate(pairs) if a != b), len(guesses))
        finally:
            self.sequence.truncate(len(text) + max(agreed, 0))
        self.fill_tokens(result.tokens[agreed : agreed + 1])
        new = slice(agreed + 1)
        return Verified(result.tokens[new], result.tokens[agreed + 1 :], result.logprobs[new])

    async def decode_step_dist(
        self,
        temperature: float = 1.0,
        top_k: int | None = None,
        constraint: Constraint | None = None,
        generated: Tokens = (),
    ) -> Distribution:
        """Reads all pending tokens and says what may come next; add your choice yourself.

        With a constraint, only what may follow `generated` is possible.
        """
        await self._render_chat()
        if end := end_after(constraint, generated):
            return Distribution(end, [1.0])

        def ask(one: ForwardPass, last: int) -> None:
            one.output_distributions([last], temperature, top_k)
            if constraint is not None:
                one.restrict([last], constraint.after(generated))

        return (await self._run(len(self.tokens), ask)).distributions[0]

    async def score(self, tokens: Sequence[int]) -> list[float]:
        """Adds these tokens; returns ln p of each one. A token that is not among the likeliest
        counts as the least likely of those."""
        await self._render_chat()
        self.fill_tokens(tokens)
        end = len(self.tokens) - 1
        result = await self._run(
            end,
            lambda forward_pass, last: forward_pass.output_distributions(
                range(last - len(tokens) + 1, last + 1)
            ),
        )
        shares = zip(tokens, result.distributions, strict=True)
        return [
            math.log(each.probability(token) or each.probabilities[-1]) for token, each in shares
        ]

    def generate(
        self,
        tokens_max: int = 256,
        sampler: Sampler = GREEDY,
        stop: StopCondition | None = None,
        drafter: Drafter | None = None,
        before_step: Callable[[], object] | None = None,
        constraint: Constraint | None = None,
    ) -> Generation:
        """Text until `stop` (by default, the model's stop tokens) or so many tokens.

        `before_step` is called before each pass; there the context may hide and drop. With a
        constraint, the text also ends where that is complete.
        """
        until = self._until(tokens_max, stop, constraint)
        sampler = replace(sampler, constraint=constraint or sampler.constraint)
        by_itself = can_decode(sampler, drafter is None and before_step is None)

        async def step(written: Tokens, at_once: int) -> Verified:
            if by_itself:
                await self._render_chat()
                return await self._decoder.next_tokens(
                    self.sequence, sampler, until, written, at_once
                )
            if before_step is not None:
                before_step()
            return await self.verify(drafter(self.tokens) if drafter else (), sampler, written)

        return Generation(
            step=step,
            stop=until,
            detokenize=self.model.tokenizer.decode,
            on_end=self._end_generation,
            on_close=lambda: self._decoder.end(self.sequence),
        )

    async def beam_search(
        self,
        width: int,
        tokens_max: int = 256,
        stop: StopCondition | None = None,
        constraint: Constraint | None = None,
    ) -> Beam:
        """The likeliest continuation among the `width` best at every step, in a fork of its own."""
        return await beam.search(self, width, self._until(tokens_max, stop, constraint), constraint)

    def _until(
        self, tokens_max: int, stop: StopCondition | None, constraint: Constraint | None
    ) -> StopCondition:
        """A text under a constraint always ends where the model ends it."""
        own, limit = stop_tokens(self.model.stop_tokens()), max_tokens(tokens_max)
        if stop is None:
            return any_of(own, limit)
        return any_of(stop, limit) if constraint is None else any_of(own, stop, limit)

    def _end_generation(self, hidden: int, text: str) -> None:
        self.truncate(len(self.tokens) - hidden)
        self.chat.write(text)

    async def _render_chat(self) -> None:
        if not self.chat.is_complete:
            text = self.chat.take_new(await self.queue.render_chat(self.chat.request()))
            self.fill_tokens(self.model.tokenizer.encode(text))

    async def _run(self, end: int, ask: Callable[[ForwardPass, int], None]) -> PassResult:
        """One pass over the pending tokens before `end`; `ask` says what to ask of the last."""
        with self._one_pass:
            self._decoder.end(self.sequence)
            one, self._pass = self._pass or self.queue.forward_pass(), None
            result = await run_pass(one, self.queue, self.sequence, end, ask)
            self._pass = one
            return result
