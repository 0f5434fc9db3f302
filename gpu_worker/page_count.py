"""How many pages a worker has.

Owns the reading of the machine's free memory. Pages are in fp32, whatever computes with them.
It must never take more than its share: the controller and others live on the machine, too.
"""

from pathlib import Path

from gpu_worker.wire import WorkerLimits

FREE_SHARE = 4  # a worker takes at most one part in so many of the free memory
BYTES_PER_VALUE = 4


def pages_within(limits: WorkerLimits, layers: int, heads: int, width: int) -> int:
    """As many pages as the limits name, else as many as fit in the memory that may be taken."""
    if limits.pages_max is not None:
        return limits.pages_max
    page_bytes = 2 * layers * limits.page_size * heads * width * BYTES_PER_VALUE
    memory = min(limits.kv_bytes_max, free_memory_bytes() // FREE_SHARE)
    if memory < page_bytes:
        raise MemoryError(f"{memory} bytes are not enough for one page of {page_bytes}")
    return memory // page_bytes


def free_memory_bytes() -> int:
    for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    raise OSError("the system does not tell how much memory is available")
