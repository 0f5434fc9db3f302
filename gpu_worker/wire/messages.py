"""Every message of the worker link, as frozen data.

Owns the vocabulary that `docs/worker-wire.md` tabulates. Every message that concerns a batch
carries the generation of the worker, so that an answer of a dead generation is recognised and
dropped. It must never hold behaviour: how a message becomes frames is in `codec`, `arrays` and
`fragments`; a request only remembers what became of it.
"""

from collections.abc import Sequence

import attrs

from gpu_worker.wire.fragments import Fragment, fragment_of
from gpu_worker.wire.grammars import Lesson
from gpu_worker.wire.multi_step import MultiStep
from gpu_worker.wire.outputs import OutputRow

PROTOCOL = 1


@attrs.frozen
class Request:
    """One forward pass, or a chunk of one.

    A negative token -1-s reads embedding slot s. `last_page_length` counts the rows of this
    request, so with kv_total = (len(pages) - 1) * page_size + last_page_length, row i is written to
    KV slot kv_total - len(tokens) + i. A mask has one flat list a0, b0, a1, b1, ... of attended
    half-open slot intervals for each row; without one every row attends to all slots up to its own.
    """

    tokens: Sequence[int]
    positions: Sequence[int]
    pages: Sequence[int]
    last_page_length: int
    mask: Sequence[Sequence[int]] | None
    outputs: Sequence[OutputRow]
    embed_outputs: Sequence[tuple[int, int]]
    seed: int
    prepared: Fragment | None = attrs.field(default=None, eq=False, repr=False)
    # Never an argument: what is evolved from this request is encoded anew.
    _made: Fragment | None = attrs.field(default=None, init=False, eq=False, repr=False)

    @property
    def fragment(self) -> Fragment:
        """Its columns as bytes, made when they are first asked for. Raises `WireError`."""
        made = self.prepared or self._made
        if made is None:
            made = fragment_of(self)
            object.__setattr__(self, "_made", made)
        return made


@attrs.frozen
class Batch:
    """What is new about grammars, page copies (source, destination), executed in order, the
    passes, and how they go on.
    """

    generation: int
    number: int
    copies: Sequence[tuple[int, int]]
    requests: Sequence[Request]
    lesson: Lesson | None = None
    multi_step: MultiStep | None = None


@attrs.frozen
class Answer:
    """The result of one request: sampled tokens and distributions, each in the order of its
    outputs. A token whose log-probabilities are wanted has them in place of a distribution.
    Closed: after its last token, its grammar lets nothing follow but an end.
    """

    tokens: tuple[int, ...]
    distributions: tuple[tuple[list[int], list[float]], ...]
    error: str | None
    is_closed: bool = False


@attrs.frozen
class BatchResult:
    """The answers in the order of the requests; of several steps, step by step. Of many steps the
    answers come in parts: this one begins behind `first_step` of them, and the worker goes on.
    """

    generation: int
    number: int
    step_seconds: float
    answers: tuple[Answer, ...]
    first_step: int = 0
    goes_on: bool = False


@attrs.frozen
class WorkerLimits:
    """What the controller grants a worker; `pages_max` none means as many as `kv_bytes_max`
    holds.
    """

    page_size: int
    kv_bytes_max: int
    pages_max: int | None
    embeddings: int
    batch_tokens_max: int
    distribution_max: int


@attrs.frozen
class Join:
    """The worker's first word, before it has loaded anything."""

    protocol: int
    pid: int


@attrs.frozen
class Start:
    """The controller's answer to `Join`."""

    generation: int
    engine_seed: int
    limits: WorkerLimits


@attrs.frozen
class Hello:
    """The worker is ready: what it serves, and the limits as they were allocated."""

    protocol: int
    generation: int
    pid: int
    model: str
    vocab_size: int
    hidden_size: int
    layers: int
    page_size: int
    pages: int
    embeddings: int
    batch_tokens_max: int
    distribution_max: int
    numeric: str


@attrs.frozen
class Heartbeat:
    generation: int
    busy_batch: int | None
    busy_seconds: float


@attrs.frozen
class Halt:
    """A batch of several steps ends with the step under way; means nothing to any other."""


@attrs.frozen
class Drain:
    """Finish what has arrived, answer `Drained` and leave."""


@attrs.frozen
class Drained:
    """The last message of a worker that was drained."""


@attrs.frozen
class Failed:
    """The worker cannot start or go on, and leaves."""

    text: str
