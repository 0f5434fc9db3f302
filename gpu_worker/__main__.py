"""`python -m gpu_worker`: the command line of the worker process.

Owns the start: settings, signals, the watch thread, and the choice of the executor. The process
ignores Ctrl-C, because the controller decides when it ends, and dies at once when that one does.
It must never import torch for a pretend model or compiled kernels, and never transformers.
"""

import argparse
import contextlib
import gc
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

from gpu_worker.interface import NUMERICS, Executor
from gpu_worker.life import held, life_path
from gpu_worker.serve import Seat, serve
from gpu_worker.watch import Busy, start_watch
from gpu_worker.wire import WorkerLimits


def main(arguments: list[str]) -> int:
    options = _parser().parse_args(arguments)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    busy = Busy()
    start_watch(options.endpoint, options.generation, options.parent, busy)

    def load(limits: WorkerLimits) -> Executor:
        with _nothing_collected():
            return _load(options, limits)

    seat = Seat(options.endpoint, options.generation, os.getpid())
    with held(life_path(options.endpoint)):
        return serve(seat, load, busy, _report)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="gpu_worker", description="Serve one model's pages.")
    parser.add_argument("--endpoint", required=True, help="where the controller listens")
    parser.add_argument("--generation", type=int, required=True)
    parser.add_argument("--model", type=Path, required=True, help="a model directory")
    parser.add_argument("--parent", type=int, required=True, help="the controller's process")
    parser.add_argument("--threads", type=int, default=0, help="0: as many as there are cores")
    parser.add_argument("--kernels", choices=("auto", "native", "torch"), default="auto")
    parser.add_argument(
        "--kernel-cache", type=Path, help="compiled kernels; default: beside the model store"
    )
    parser.add_argument("--numeric", choices=NUMERICS, default="bf16")
    parser.add_argument("--pretend", action="store_true", help="checksums instead of a model")
    parser.add_argument("--step-seconds", type=float, default=0.0, help="pretend: a step's length")
    parser.add_argument("--step-row-seconds", type=float, default=0.0, help="pretend: a row's")
    parser.add_argument("--end-every", type=int, default=0, help="pretend: 1 in N tokens ends")
    return parser


@contextlib.contextmanager
def _nothing_collected() -> Iterator[None]:
    """What is made here lives as long as the process: looking for garbage in it, while modules
    are imported and at each collection after that, would only take time.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def _load(options: argparse.Namespace, limits: WorkerLimits) -> Executor:
    if options.pretend:
        from gpu_worker.pretend import Pace, PretendExecutor, PretendModel

        pace = Pace(options.step_seconds, options.step_row_seconds, options.end_every)
        return PretendExecutor(PretendModel.read(options.model), limits, pace)
    # Threads that spin at a barrier starve the guests beside them, and each other: on a busy
    # machine a step takes ten times as long. OpenMP reads this when it is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from gpu_worker.executor import load_executor
    from gpu_worker.kernel_choice import KernelChoice

    cache = options.kernel_cache or options.model.resolve().parent.parent / "kernels"
    choice = KernelChoice(
        options.kernels, cache, _report, options.numeric, options.model, options.threads
    )
    return load_executor(options.model, limits, choice)


def _report(text: str) -> None:
    sys.stderr.write(text.rstrip() + "\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
