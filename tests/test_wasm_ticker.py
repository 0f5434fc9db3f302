"""The thread that ends slices: awake only while guests run, and not there for counted slices."""

from __future__ import annotations

import threading
import time

from pie_trio.wasm import abi
from pie_trio.wasm.settings import new_engine
from pie_trio.wasm.ticker import EpochSlices, FuelSlices, Ticker, open_ticker


def _becomes(ticker: Ticker, asleep: bool) -> bool:
    end = time.monotonic() + 5
    while ticker.asleep is not asleep and time.monotonic() < end:
        time.sleep(0.005)
    return ticker.asleep is asleep


def test_the_ticker_sleeps_while_no_guest_runs_and_wakes_for_the_next() -> None:
    slicing = EpochSlices()
    engine = new_engine(slicing, stack_bytes=2**21)
    with open_ticker(abi.address(engine), slicing) as ticker:
        assert ticker is not None
        assert _becomes(ticker, asleep=True)
        ticker.start()
        assert _becomes(ticker, asleep=False)
        ticker.stop()
        assert _becomes(ticker, asleep=True)
    engine.close()


def test_no_ticker_runs_with_counted_slices() -> None:
    before = threading.active_count()
    with open_ticker(0, FuelSlices()) as ticker:
        assert ticker is None
        assert threading.active_count() == before
