"""The border in C: host calls without a line of Python around them.

The C sources here are compiled when the package is installed, else by `open_native`, which loads
them. Without a compiler the border in Python (`linker`, `codec`) does the same, more slowly; it is
also what the tests hold this one to.
"""

from pie_trio.wasm.native.library import Native, open_native
from pie_trio.wasm.native.ticker import open_native_ticker

__all__ = ["Native", "open_native", "open_native_ticker"]
