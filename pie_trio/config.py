"""Every setting and every bound of the system, parsed once, frozen, handed on by parameter.

A bound that is not named here does not exist. The worker gets its own bounds in the handshake.
Sizes are in bytes, times in seconds, unless the name says otherwise.
"""

from __future__ import annotations

from enum import Enum

import attrs

MIB = 1024 * 1024


@attrs.frozen
class Limits:
    """Every bound of the controller and its guests."""

    # Instances and guests
    instances_max: int = 1024
    memory_guest_bytes: int = 256 * MIB
    resources_per_guest: int = 16_384  # live host resources one guest may hold
    host_call_bytes: int = 128 * MIB  # host memory for one call's values; a list element takes 32
    slice_seconds: float = 0.001  # CPU slice of a guest before others get their turn
    async_stack_bytes: int = 8 * MIB  # native stack of one fiber
    guest_table_elements: int = 50_000  # of each table
    guest_tables: int = 16
    guest_memories: int = 1  # so that the memory limit is the guest's, not each memory's
    wasi_random_bytes: int = MIB  # of one call
    guest_core_instances: int = 128
    compile_seconds: float = 300.0
    compile_memory_bytes: int = 6144 * MIB
    queues_per_instance: int = 1024
    arguments_bytes: int = 4 * MIB
    guest_held_bytes: int = 256 * MIB  # blobs, passes and results that the host holds for one guest
    tokenize_bytes: int = 4 * MIB  # text, or bytes of a list of tokens, of one tokenizer call
    tokenize_inline_bytes: int = 16 * 1024  # longer texts go to a thread
    children_max: int = 512  # instances that other instances have started, in all
    children_per_instance: int = 64  # that one instance holds
    children_depth: int = 4  # generations below an instance that a client has launched
    child_mailbox_bytes: int = 512 * 1024  # unread messages of a child, each way
    return_bytes: int = 900 * 1024  # official clients read at most 1 MiB a message

    # Mailboxes and queues
    mailbox: int = 16
    passes_waiting_max: int = 4096  # forward passes waiting in one model's inbox
    pass_rows_max: int = 65_536  # rows of one forward pass
    pass_outputs_max: int = 4096
    pass_adjustments_max: int = 131_072  # logits that one pass, or a stream, may change
    penalty_max: float = 100.0  # of each kind, either way
    logit_bias_max: float = 1e6
    logprobs_max: int = 20  # log-probabilities beside that of a token itself
    pass_values_waiting: int = 4 * MIB  # numbers in the unsettled passes of one instance
    mask_runs_max: int = 1 << 20  # runs of all masks of one pass

    # Messaging
    topic_messages: int = 1024
    topic_bytes: int = 1 * MIB  # unread messages of one subscriber
    topics_max: int = 4096  # of one tenant
    name_bytes: int = 1024  # name of a topic or an export
    message_bytes: int = 512 * 1024
    kvs_keys_max: int = 65_536
    kvs_bytes_max: int = 256 * MIB
    blobs_waiting: int = 64

    # Grammars
    grammar_bytes: int = 64 * 1024  # of the text of one
    grammar_held_bytes: int = 256 * 1024  # what a constraint or a matcher counts as held
    grammars_remembered: int = 64  # compiled ones of a model that nobody may use any more
    grammars_per_worker: int = 256  # that a worker keeps, but for those of the batch at hand
    grammar_seconds: float = 0.25  # the processor's time, to compile one and find a first token
    grammar_compile_fuel: int = 400_000  # the library's own measures: to compile,
    grammar_step_fuel: int = 100_000  # and for each token
    grammar_step_items: int = 25_000
    grammar_states: int = 20_000
    grammar_symbols: int = 100_000
    grammar_multiple_max: int = 10_000  # of `multipleOf`, as a whole number
    grammar_error_characters: int = 500

    # Requests to other hosts
    fetches_max: int = 256  # on their way at once
    fetches_per_instance: int = 16
    fetch_body_bytes: int = 8 * MIB  # of a request, and of an answer
    fetch_header_bytes: int = 64 * 1024  # of an answer
    fetch_seconds: float = 60.0
    fetch_connect_seconds: float = 5.0  # to one of several addresses
    fetch_redirects: int = 5

    # Clients
    clients_max: int = 1024
    handshake_seconds: float = 5.0
    upload_bytes: int = 64 * MIB
    upload_chunk_bytes: int = 256 * 1024
    uploads_per_client: int = 4
    frame_bytes: int = 8 * MIB  # one message from a client
    outbox_bytes: int = 1 * MIB  # waiting to be written to one client
    outbox_flush_seconds: float = 0.002
    client_stall_seconds: float = 30.0  # a client that reads nothing for so long is cut off
    detached_output_bytes: int = 1 * MIB
    detached_write_seconds: float = 600.0  # a writer waits so long for somebody to attach
    finished_seconds: float = 600.0  # how long a finished detached instance is remembered
    finished_max: int = 1024  # finished instances that are remembered at once
    signals_waiting: int = 1024  # messages to an instance that it has not received yet
    signals_bytes: int = 16 * MIB  # of those messages
    blobs_bytes: int = 256 * MIB  # blobs to an instance that it has not received yet
    manifest_bytes: int = 64 * 1024
    requests_per_client: int = 2048  # being answered at the same time
    requests_bytes: int = 64 * MIB  # of those requests
    file_hold_seconds: float = 0.15  # official clients lose a file that comes with the first reply
    client_events_bytes: int = 16 * MIB  # unread output of one instance, at our own client
    close_seconds: float = 1.0  # closing handshake with a client
    reply_bytes: int = 1 * MIB - 1024  # official clients read at most 1 MiB a message
    program_name_length: int = 64
    user_name_length: int = 256

    # Journals
    journal_bytes: int = 1024 * MIB  # a recording that reaches it ends there
    journal_argument_bytes: int = 4096  # longer arguments are kept as a digest

    # Pages
    page_wait_seconds: float = 30.0
    exports_max: int = 16_384
    page_handles_max: int = 262_144  # of one instance: imports give handles without end

    # Batches
    batch_tokens: int = 2048
    batch_tokens_unmeasured: int = 512  # rows of a batch before the first long one was timed
    batch_tokens_min: int = 256  # rows of a batch however slow the worker is: shorter ones waste it
    step_seconds_max: float = 0.5  # a batch takes so many rows as this lasts; decodes wait so long
    batch_passes: int = 512
    batch_values: int = 2 * MIB  # pages, mask intervals and answers of one batch, in numbers
    gather_share: float = 0.05  # of the last step's duration
    gather_seconds_min: float = 0.05  # a starved machine must not split the cohort
    gather_prompt_seconds: float = 0.0002  # who waits so soon after a pass need not stand back
    gather_slices: int = 5  # a guest that computes for so long between passes is not waited for
    decode_chunk_tokens: int = 48  # a guest is woken for so many tokens of a stream,
    decode_chunk_seconds: float = 0.5  # or for those that came in so long a time
    decode_steps_max: int = 256  # that a worker executes without asking
    decode_stops_max: int = 64  # tokens that it looks for meanwhile; with more it asks after each
    priority_ageing_seconds: float = 1.0  # so long a wait lifts a pass by one priority

    # Worker
    heartbeat_seconds: float = 1.0
    heartbeat_lost_seconds: float = 5.0
    worker_dying_seconds: float = 0.02  # one that begins to exit is waited for, to tell how
    batch_seconds_max: float = 300.0
    worker_start_seconds: float = 120.0
    worker_restarts_max: int = 5  # in a row, without a batch and without lasting
    worker_steady_seconds: float = 60.0  # a worker that lasts so long has started well
    worker_restart_backoff_seconds: float = 0.2
    worker_frame_bytes: int = 256 * MIB
    grace_seconds: float = 5.0

    # KV memory that the worker may take
    page_tokens: int = 16
    kv_bytes_max: int = 4096 * MIB
    embeddings: int = 128
    distribution_max: int = 256


class BatchTrigger(Enum):
    """When a batch leaves: the policies of the paper, `adaptive` being the default."""

    ADAPTIVE = "adaptive"
    EAGER = "eager"
    K_ONLY = "k"
    T_ONLY = "t"
    K_OR_T = "k-or-t"


@attrs.frozen
class Batching:
    """The batching policy and its two parameters."""

    trigger: BatchTrigger = BatchTrigger.ADAPTIVE
    k: int = 8
    t_seconds: float = 0.016


class Numeric(Enum):
    """What a model is computed with."""

    BF16 = "bf16"  # weights as they are stored, fp32 arithmetic
    INT8 = "int8"  # weights and rows in eight bits by blocks, sums in fp32: faster, less exact


@attrs.frozen
class ModelSettings:
    """One model that the engine serves."""

    name: str
    numeric: Numeric = Numeric.BF16
    pretend: bool = False  # the worker without a model, for tests and demonstrations
    pretend_step_seconds: float = 0.0
    pretend_row_seconds: float = 0.0
    pages_max: int | None = None  # fewer pages than memory would allow


@attrs.frozen
class Settings:
    """All that one engine needs to know."""

    host: str = "127.0.0.1"
    port: int = 8080
    models: tuple[ModelSettings, ...] = (ModelSettings("smollm2-135m"),)
    batching: Batching = Batching()
    limits: Limits = Limits()
    seed: int | None = None  # None: drawn once when the engine starts
    fetch_allow: tuple[str, ...] = ()  # hosts that guests may talk to: HOST or HOST:PORT
    log: str = "console"  # or "json", or "off"
