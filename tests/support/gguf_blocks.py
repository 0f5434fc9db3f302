"""Blocks of the quantisations that GGUF files use: drawn at random, and decoded number by number.

The decoders follow the definition of each block in plain loops. They share nothing with what is
tested, so that a wrong order of bits or of scales cannot be the same mistake twice.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Mapping

import attrs

Decoder = Callable[[bytes], list[float]]


@attrs.frozen
class BlockKind:
    """`scales` are the offsets of the block's fp16 numbers."""

    length: int
    byte_count: int
    scales: tuple[int, ...]
    decode: Decoder

    def draw(self, chance: random.Random) -> bytes:
        """Any bits, but scales of a usual size."""
        block = bytearray(chance.randbytes(self.byte_count))
        for offset in self.scales:
            struct.pack_into("<e", block, offset, chance.uniform(0.0005, 0.01))
        return bytes(block)


def _half(block: bytes, offset: int) -> float:
    return float(struct.unpack_from("<e", block, offset)[0])


def _nibbles(packed: bytes) -> list[int]:
    return [byte & 15 for byte in packed] + [byte >> 4 for byte in packed]


def _q4_0(block: bytes) -> list[float]:
    return [_half(block, 0) * (value - 8) for value in _nibbles(block[2:])]


def _q4_1(block: bytes) -> list[float]:
    return [_half(block, 0) * value + _half(block, 2) for value in _nibbles(block[4:])]


def _fifth_bits(block: bytes, offset: int) -> list[int]:
    bits = int.from_bytes(block[offset : offset + 4], "little")
    return [(bits >> index & 1) << 4 for index in range(32)]


def _q5_0(block: bytes) -> list[float]:
    pairs = zip(_nibbles(block[6:]), _fifth_bits(block, 2), strict=True)
    return [_half(block, 0) * ((low | high) - 16) for low, high in pairs]


def _q5_1(block: bytes) -> list[float]:
    pairs = zip(_nibbles(block[8:]), _fifth_bits(block, 4), strict=True)
    return [_half(block, 0) * (low | high) + _half(block, 2) for low, high in pairs]


def _q8_0(block: bytes) -> list[float]:
    return [_half(block, 0) * value for value in struct.unpack_from("<32b", block, 2)]


def _q2_k(block: bytes) -> list[float]:
    scales, packed = block[:16], block[16:80]
    step, least = _half(block, 80), _half(block, 82)
    values = []
    for index in range(256):
        byte = packed[index // 128 * 32 + index % 32]
        value = byte >> (index % 128 // 32 * 2) & 3
        scale = scales[index // 16]
        values.append(step * (scale & 15) * value - least * (scale >> 4))
    return values


def _q3_k(block: bytes) -> list[float]:
    high, packed, scales, step = block[:32], block[32:96], block[96:108], _half(block, 108)
    values = []
    for index in range(256):
        low = packed[index // 128 * 32 + index % 32] >> (index % 128 // 32 * 2) & 3
        absent = 0 if high[index % 32] >> (index // 32) & 1 else 4
        group = index // 16
        scale = scales[group % 8] >> (group // 8 * 4) & 15
        scale |= (scales[8 + group % 4] >> (group // 4 * 2) & 3) << 4
        values.append(step * (scale - 32) * (low - absent))
    return values


def _scale_and_least(packed: bytes, group: int) -> tuple[int, int]:
    """Of eight groups: six bits each, the last four groups' upper bits lie in the first's."""
    if group < 4:
        return packed[group] & 63, packed[group + 4] & 63
    scale = packed[group + 4] & 15 | packed[group - 4] >> 6 << 4
    return scale, packed[group + 4] >> 4 | packed[group] >> 6 << 4


def _q4_k(block: bytes) -> list[float]:
    return _four_or_five(block, block[16:144], bytes(32))


def _q5_k(block: bytes) -> list[float]:
    return _four_or_five(block, block[48:176], block[16:48])


def _four_or_five(block: bytes, packed: bytes, high: bytes) -> list[float]:
    values = []
    for index in range(256):
        group = index // 32
        low = packed[index // 64 * 32 + index % 32] >> (group % 2 * 4) & 15
        value = low | (high[index % 32] >> group & 1) << 4
        scale, least = _scale_and_least(block[4:16], group)
        values.append(_half(block, 0) * scale * value - _half(block, 2) * least)
    return values


def _q6_k(block: bytes) -> list[float]:
    low, high, step = block[:128], block[128:192], _half(block, 208)
    scales = struct.unpack_from("<16b", block, 192)
    values = []
    for index in range(256):
        half, quarter = index // 128, index % 128 // 32
        four = low[half * 64 + quarter % 2 * 32 + index % 32] >> (quarter // 2 * 4) & 15
        two = high[half * 32 + index % 32] >> (quarter * 2) & 3
        values.append(step * scales[index // 16] * ((four | two << 4) - 32))
    return values


BLOCK_KINDS: Mapping[str, BlockKind] = {
    "Q4_0": BlockKind(32, 18, (0,), _q4_0),
    "Q4_1": BlockKind(32, 20, (0, 2), _q4_1),
    "Q5_0": BlockKind(32, 22, (0,), _q5_0),
    "Q5_1": BlockKind(32, 24, (0, 2), _q5_1),
    "Q8_0": BlockKind(32, 34, (0,), _q8_0),
    "Q2_K": BlockKind(256, 84, (80, 82), _q2_k),
    "Q3_K": BlockKind(256, 110, (108,), _q3_k),
    "Q4_K": BlockKind(256, 144, (0, 2), _q4_k),
    "Q5_K": BlockKind(256, 176, (0, 2), _q5_k),
    "Q6_K": BlockKind(256, 210, (208,), _q6_k),
}
