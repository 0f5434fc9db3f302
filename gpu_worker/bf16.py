"""Numbers in bf16 as numpy has them: the upper halves of floats, in unsigned words of 16 bits.

Owns the one rounding that weights ever get: to the nearest bf16, ties to even. Widening is exact.
Words stand for bf16 wherever numbers come from a file; it must never meet another kind of them.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

Bf16 = npt.NDArray[np.uint16]
Wide = npt.NDArray[np.float32]


def in_bf16(stored: npt.NDArray[Any]) -> Bf16:
    """Words as they are, floats rounded."""
    return stored if stored.dtype == np.uint16 else round_to_bf16(stored)


def in_fp32(stored: npt.NDArray[Any]) -> Wide:
    """Words widened, floats without a rounding."""
    if stored.dtype == np.uint16:
        return widened(stored)
    return stored.astype(np.float32, copy=False)


def round_to_bf16(values: npt.NDArray[Any]) -> Bf16:
    """The upper halves of the nearest values that have no lower half."""
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    odd = (bits >> np.uint32(16)) & np.uint32(1)
    rounded = (bits + np.uint32(0x7FFF) + odd) >> np.uint32(16)
    quiet_nan = (bits >> np.uint32(16)) | np.uint32(0x0040)
    return np.where(np.isnan(values), quiet_nan, rounded).astype(np.uint16)


def widened(values: Bf16) -> Wide:
    return (values.astype(np.uint32) << np.uint32(16)).view(np.float32)
