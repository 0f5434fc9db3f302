"""The worker as a process of its own: how it joins, serves, is told to go, and never outlives.

A plain ROUTER socket plays the controller. The model is the pretend one, except where it says so.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import attrs
import psutil
import pytest
import zmq

from gpu_worker import wire
from gpu_worker.interface import Facts
from gpu_worker.pretend import Pace, PretendExecutor, PretendModel
from gpu_worker.serve import execute_or_explain
from gpu_worker.wire import (
    Batch,
    BatchArrays,
    BatchResult,
    Drain,
    Drained,
    Failed,
    Heartbeat,
    Hello,
    Join,
    OutputRow,
    Request,
    SamplerKind,
    Start,
    WorkerLimits,
    decode,
    encode,
    from_frame,
    to_frame,
)
from pie_trio.services.chat_template import ChatTemplate
from pie_trio.services.model_store import ModelStore, pretend_model
from pie_trio.services.tokenizer import Tokenizer
from tests.support.worker_models import default_model

LIMITS = WorkerLimits(16, 1 << 28, 64, 8, 256, 32)
GENERATION = 3
PATIENCE_MILLISECONDS = 60_000
GREEDY = OutputRow(0, SamplerKind.MULTINOMIAL, 0.0)
PASS = Request((72,), (0,), (5,), 1, None, (GREEDY,), (), 1)


@attrs.define
class Controller:
    """The other end of the link."""

    socket: zmq.Socket[bytes]
    endpoint: str
    workers: list[subprocess.Popen[str]] = attrs.Factory(list)
    heartbeats: list[Heartbeat] = attrs.Factory(list)

    def start(self, *options: str, model: Path | None = None) -> subprocess.Popen[str]:
        worker = subprocess.Popen(
            [
                *(sys.executable, "-m", "gpu_worker", "--endpoint", self.endpoint),
                *("--generation", str(GENERATION), "--model", str(model or pretend_model().path)),
                *("--parent", str(os.getpid())),
                *options,
            ],
            stderr=subprocess.PIPE,
            text=True,
        )
        self.workers.append(worker)
        return worker

    def receive(self) -> wire.Message:
        """The next message that is not a heartbeat; those are kept aside."""
        while True:
            assert self.socket.poll(PATIENCE_MILLISECONDS), "the worker is silent"
            identity, frame = self.socket.recv_multipart()
            message = from_frame(frame)
            if not isinstance(message, Heartbeat):
                assert identity == b"3:work"
                return message
            assert identity == b"3:heartbeat"
            self.heartbeats.append(message)

    def send(self, message: wire.Message) -> None:
        self.socket.send_multipart([b"3:work", to_frame(message)])

    def shake_hands(self) -> Hello:
        assert isinstance(self.receive(), Join)
        self.send(Start(GENERATION, 1, LIMITS))
        hello = self.receive()
        assert isinstance(hello, Hello)
        return hello

    def ask(self, *requests: Request) -> BatchResult:
        self.send(Batch(GENERATION, 1, (), requests))
        result = self.receive()
        assert isinstance(result, BatchResult)
        return result


@pytest.fixture
def controller(tmp_path: Path) -> Iterator[Controller]:
    endpoint = f"ipc://{tmp_path}/link"
    with zmq.Context() as context, context.socket(zmq.ROUTER) as socket:
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        socket.bind(endpoint)
        controller = Controller(socket, endpoint)
        try:
            yield controller
        finally:
            for worker in controller.workers:
                worker.kill()
                worker.communicate()


def test_a_worker_joins_serves_and_leaves_when_it_is_drained(controller: Controller) -> None:
    worker = controller.start("--pretend")
    hello = controller.shake_hands()
    assert (hello.pid, hello.pages, hello.page_size) == (worker.pid, 64, 16)
    bad = attrs.evolve(PASS, pages=(64,))
    refused, answered = controller.ask(bad, PASS).answers
    assert refused.error == "a page does not exist"
    assert len(answered.tokens) == 1
    controller.send(Drain())
    assert isinstance(controller.receive(), Drained)
    assert worker.wait(timeout=10) == 0
    assert worker.stderr is not None
    assert worker.stderr.read() == "", "a worker is silent unless it fails"


def test_heartbeats_go_on_while_a_batch_is_executed(controller: Controller) -> None:
    controller.start("--pretend", "--step-seconds", "2.5")
    controller.shake_hands()
    controller.ask(PASS)
    busy = [beat for beat in controller.heartbeats if beat.busy_batch == 1]
    assert busy
    assert busy[-1].busy_seconds > 0


def test_a_worker_that_answers_needs_no_heartbeats(controller: Controller) -> None:
    controller.start("--pretend")
    controller.shake_hands()
    controller.ask(PASS)
    controller.heartbeats.clear()
    end = time.monotonic() + 2.5
    while time.monotonic() < end:
        controller.ask(PASS)
        time.sleep(0.1)
    assert not controller.heartbeats
    assert controller.socket.poll(PATIENCE_MILLISECONDS), "silent, it tells that it lives"


def test_ctrl_c_is_left_to_the_controller(controller: Controller) -> None:
    worker = controller.start("--pretend")
    controller.shake_hands()
    worker.send_signal(signal.SIGINT)
    assert controller.ask(PASS).answers[0].error is None


def test_a_worker_that_cannot_load_says_why_and_leaves(
    controller: Controller, tmp_path: Path
) -> None:
    worker = controller.start("--pretend", model=tmp_path / "nothing")
    assert isinstance(controller.receive(), Join)
    controller.send(Start(GENERATION, 1, LIMITS))
    failed = controller.receive()
    assert isinstance(failed, Failed)
    assert "nothing" in failed.text
    assert worker.wait(timeout=10) == 1


def test_a_message_that_no_worker_can_serve_ends_it_with_a_reason(controller: Controller) -> None:
    worker = controller.start("--pretend")
    controller.shake_hands()
    controller.send(Join(1, 1))
    assert isinstance(controller.receive(), Failed)
    assert worker.wait(timeout=10) == 1


ORPHAN_MAKER = """
import os, subprocess, sys, threading
def start():
    global worker
    command = [sys.executable, "-m", "gpu_worker", "--parent", str(os.getpid()), *sys.argv[1:]]
    worker = subprocess.Popen(command)
thread = threading.Thread(target=start)
thread.start()
thread.join()
print(worker.pid, flush=True)
worker.wait()
"""


@pytest.mark.parametrize("when", ["before it joined", "while it serves"])
def test_a_worker_dies_with_a_killed_controller_and_not_with_the_thread_that_forked(
    controller: Controller, when: str
) -> None:
    """The worker is started from a thread that ends at once, as a Trio controller does."""
    arguments = ("--endpoint", controller.endpoint, "--generation", str(GENERATION))
    model = ("--pretend", "--model", str(pretend_model().path), "--step-seconds", "60")
    with subprocess.Popen(
        [sys.executable, "-c", ORPHAN_MAKER, *arguments, *model], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        worker = psutil.Process(int(parent.stdout.readline()))
        if when == "while it serves":
            controller.shake_hands()
            controller.send(Batch(GENERATION, 1, (), (PASS,)))
        parent.kill()
    _, alive = psutil.wait_procs([worker], timeout=10)
    assert not alive


def test_a_worker_imports_neither_trio_nor_transformers_and_torch_only_to_compute_with_it() -> None:
    check = (
        "import sys, gpu_worker.__main__, gpu_worker.pretend, gpu_worker.executor\n"
        "assert not {'torch', 'trio', 'transformers', 'pie_trio'} & set(sys.modules)\n"
        "import gpu_worker.torch_kernels\n"
        "assert not {'trio', 'transformers', 'pie_trio'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", check], check=True)


class _Failing:
    """An executor with a bug."""

    @property
    def facts(self) -> Facts:
        return PretendExecutor(PretendModel(), LIMITS, Pace()).facts

    def execute(self, batch: BatchArrays) -> BatchResult:
        raise RuntimeError("a bug")


def test_a_bug_costs_the_batch_and_not_the_worker() -> None:
    reports: list[str] = []
    batch = decode(encode(Batch(GENERATION, 9, (), (PASS, PASS))))
    assert isinstance(batch, BatchArrays)
    result = execute_or_explain(_Failing(), batch, reports.append)
    assert [answer.error for answer in result.answers] == ["RuntimeError: a bug"] * 2
    assert result.number == 9
    assert "Traceback" in reports[0]


@pytest.mark.model
@pytest.mark.slow
def test_the_real_worker_knows_the_capital_of_france(controller: Controller) -> None:
    model = ModelStore(default_model().parent).open(default_model().name)
    tokenizer = Tokenizer.from_file(model.path / "tokenizer.json")
    question = [{"role": "user", "content": "What is the capital of France?"}]
    prompt = ChatTemplate(model.facts.chat_template).render(question, add_generation_prompt=True)
    controller.start(model=model.path)
    controller.shake_hands()
    end = tokenizer.token_id(model.facts.stop_tokens[0])
    tokens, start, said = tokenizer.encode(prompt), 0, list[int]()
    while not said or said[-1] != end:
        total = start + len(tokens)
        output = attrs.evolve(GREEDY, row=len(tokens) - 1)
        pages = range(-(-total // 16))
        positions = range(start, total)
        asked = Request(tokens, positions, pages, (total - 1) % 16 + 1, None, (output,), (), 1)
        (answer,) = controller.ask(asked).answers
        assert answer.error is None
        tokens, start = list(answer.tokens), total
        said += tokens
        assert len(said) < 40
    assert tokenizer.decode(said) == "The capital of France is Paris.<|im_end|>"
