"""Exit codes, as the README documents them, and which error ends with which.

The codes are part of the interface: scripts branch on them. What has no code here is a bug of ours
and ends with `BUG` and its traceback, never with somebody else's code.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntEnum

from pie_trio.client import RequestRefused, ServerGone
from pie_trio.errors import BadConfig, BadJournal, BadModel, BadProgram, PieError


class ExitCode(IntEnum):
    OK = 0
    INSTANCE_FAILED = 1  # the program trapped, was refused something, or its worker died
    USAGE = 2  # wrong arguments or a wrong configuration
    UNREACHABLE = 3  # no server there, or it refused the connection or the request
    MISSING = 4  # no such program or model here, or not one that can be served
    CHECK_FAILED = 5  # a replay diverged, a simulation found something, a bar does not hold
    BUG = 70
    INTERRUPTED = 130  # Ctrl-C


class Unreachable(PieError):
    """No server answers at this address, or it does not serve this request."""


class Missing(PieError):
    """What was named is not there."""


class Usage(PieError):
    """The arguments contradict each other or name nothing."""


CODES: tuple[tuple[type[PieError], ExitCode], ...] = (
    (Usage, ExitCode.USAGE),
    (BadConfig, ExitCode.USAGE),
    (Unreachable, ExitCode.UNREACHABLE),
    (ServerGone, ExitCode.UNREACHABLE),
    (RequestRefused, ExitCode.UNREACHABLE),
    (Missing, ExitCode.MISSING),
    (BadJournal, ExitCode.MISSING),
    (BadModel, ExitCode.MISSING),
    (BadProgram, ExitCode.MISSING),
    (PieError, ExitCode.INSTANCE_FAILED),
)


def code_of(error: PieError) -> ExitCode:
    return next(code for kind, code in CODES if isinstance(error, kind))


def refusal_in(error: BaseException) -> PieError | None:
    """The refusal that this is, alone or in a group of nothing but refusals; None: a bug."""
    leaves = list(leaves_of(error))
    refusals = [leaf for leaf in leaves if isinstance(leaf, PieError)]
    return refusals[0] if refusals and len(refusals) == len(leaves) else None


def leaves_of(error: BaseException) -> Iterator[BaseException]:
    """The exceptions inside groups of groups."""
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from leaves_of(inner)
    else:
        yield error
