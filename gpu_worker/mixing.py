"""A counter-based random function: the same seed and row give the same number in any batch.

Owns the 64-bit mixer (the finaliser of splitmix64 over a Weyl sequence). It keeps no state, so
nothing that dies, restarts or is batched differently can shift a draw.
It must never depend on order: only on its arguments.
"""

_MASK = (1 << 64) - 1
_WEYL = 0x9E3779B97F4A7C15
_FIRST = 0xBF58476D1CE4E5B9
_SECOND = 0x94D049BB133111EB


def mix(seed: int, row: int) -> int:
    """64 well-mixed bits of the row-th draw of this seed."""
    bits = (seed + _WEYL * (row + 1)) & _MASK
    bits = ((bits ^ (bits >> 30)) * _FIRST) & _MASK
    bits = ((bits ^ (bits >> 27)) * _SECOND) & _MASK
    return bits ^ (bits >> 31)


def uniform(seed: int, row: int) -> float:
    """A number in [0, 1) with 53 random bits."""
    return (mix(seed, row) >> 11) * 2.0**-53
