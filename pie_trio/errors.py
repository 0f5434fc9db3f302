"""The small tree of exceptions: each name says whose situation it is.

`PieError` and what derives from it may be told to a guest or a client. Everything else that is
raised is a bug of ours and must climb to the engine; it is never turned into somebody's error.
"""


class PieError(Exception):
    """Somebody's request cannot be served; the text says what, where and what to do."""


class GuestFault(PieError):
    """The guest broke a rule or failed by itself; it ends, and nobody else notices."""


class NoSuchExport(GuestFault):
    """There are no pages under this name."""


class BadProgram(PieError):
    """These bytes or this manifest are not a program that we can run."""


class NotStored(PieError):
    """The disk did not take what was to be kept; what was there before is there still."""


class BadRequest(PieError):
    """A client's message cannot be served as it stands."""


class BadConfig(PieError):
    """A setting is unknown, out of range or of the wrong type."""


class BadModel(PieError):
    """These files are not a model that we can serve."""


class BadJournal(PieError):
    """This file is no journal that can be read or replayed."""


class OutOfPages(PieError):
    """No room now, and waiting did not help. Nothing was allocated."""

    def __init__(
        self, text: str, needed: int = 0, free: int = 0, held_by_you: int = 0, capacity: int = 0
    ) -> None:
        super().__init__(text, needed, free, held_by_you, capacity)
        self.needed = needed
        self.free = free
        self.held_by_you = held_by_you
        self.capacity = capacity

    def __str__(self) -> str:
        return str(self.args[0])


class WorkerLost(PieError):
    """The worker died; what its pages held is gone."""


class PassFailed(PieError):
    """The worker refused or failed this one forward pass; the others went on."""


class FetchFailed(PieError):
    """Another host, or the way to it, failed."""


class Terminated(PieError):
    """The instance was ended from outside: by a client, by its parent or by the shutdown."""


class TooMany(PieError):
    """A named bound of `config.Limits` is reached; the text names it."""


def retold(error: PieError) -> PieError:
    """The same error without a history.

    An exception that several tasks raise gathers the frames of all of them, with all that these
    hold; so what is told more than once is raised anew.
    """
    return type(error)(*error.args)
