"""Our own WASI 0.2: just what the toolchains' libraries need, on Trio's clock and our streams.

Everything that mentions a pollable has to be ours, because the host's own results are pollables
too. What is missing here traps when it is called, and the trap names it. State is per guest, in
`state.WasiState`; nothing here outlives a call.
"""

from __future__ import annotations

from pie_trio.wasm.linker import HostInterfaces
from pie_trio.wasm.wasi import cli, clocks, poll, randomness, streams
from pie_trio.wasm.wasi.state import WasiState

__all__ = ["WasiState", "wasi_interfaces"]


def wasi_interfaces() -> HostInterfaces:
    """Everything of WASI that a guest can call; host objects carry a `WasiState` as `wasi`."""
    return {
        "wasi:io/poll": poll.POLL,
        "wasi:io/error": streams.ERROR,
        "wasi:io/streams": streams.STREAMS,
        "wasi:clocks/monotonic-clock": clocks.MONOTONIC,
        "wasi:clocks/wall-clock": clocks.WALL,
        "wasi:random/random": randomness.RANDOM,
        "wasi:random/insecure": randomness.INSECURE,
        "wasi:random/insecure-seed": randomness.INSECURE_SEED,
        "wasi:cli/environment": cli.ENVIRONMENT,
        "wasi:cli/exit": cli.EXIT,
        "wasi:cli/stdin": cli.STDIN,
        "wasi:cli/stdout": cli.STDOUT,
        "wasi:cli/stderr": cli.STDERR,
        "wasi:cli/terminal-stdin": cli.TERMINAL_STDIN,
        "wasi:cli/terminal-stdout": cli.TERMINAL_STDOUT,
        "wasi:cli/terminal-stderr": cli.TERMINAL_STDERR,
        "wasi:filesystem/preopens": cli.PREOPENS,
    }
