"""What a helper process of ours calls first: from then on it does not outlive who started it.

Owns a daemon thread that waits for the parent's end through a pidfd and then ends this process at
once, with all that it started itself if it leads a group of its own. A server that is killed can
tell nobody; so its helpers must see it. (The parent-death signal of the kernel is of no use: it
follows the *thread* that forked, and Trio's threads end.) It must never wait for the main thread.
"""

from __future__ import annotations

import os
import select
import signal
import threading


def die_with(parent: int) -> None:
    """The parent tells its number: who asks the system may already get that of an orphanage."""
    try:
        parent_fd = os.pidfd_open(parent)
    except ProcessLookupError:
        os._exit(1)
    if os.getppid() != parent:
        os._exit(1)
    threading.Thread(target=_watch, args=(parent_fd,), name="parent", daemon=True).start()


def _watch(parent_fd: int) -> None:
    poll = select.poll()
    poll.register(parent_fd, select.POLLIN)
    poll.poll()
    if os.getpgrp() == os.getpid():
        os.killpg(os.getpid(), signal.SIGKILL)
    os._exit(1)
