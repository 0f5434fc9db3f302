"""What can go wrong for a client: the server is gone, it refused, or the program failed.

Each name says whose situation it is. All are `PieError`, so that a caller may catch them together.
"""

from __future__ import annotations

from pie_trio.errors import PieError


class ServerGone(PieError):
    """The server cannot be reached, or the connection ended before the answer came."""


class RequestRefused(PieError):
    """The server answered, and the answer is no; the text is the server's."""


class RemoteError(PieError):
    """The program ended with an error; the text is its own, or `Signal` if it was terminated."""
