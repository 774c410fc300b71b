#!/usr/bin/env python3
"""Writes block_vectors.inc: seeded pseudo-random blocks of every tensor type, and the weights that the package `gguf`
(pip install gguf) decodes from them. Usage: make_block_vectors.py [blocks per type] > block_vectors.inc"""

import sys

import numpy as np
from gguf import GGMLQuantizationType as Type
from gguf import GGML_QUANT_SIZES
from gguf.quants import dequantize

# Byte offsets of the f16 scales in a block. Random bytes there could be an infinity or a NaN.
SCALE_OFFSETS = {
    Type.Q4_0: [0], Type.Q4_1: [0, 2], Type.Q5_0: [0], Type.Q5_1: [0, 2], Type.Q8_0: [0],
    Type.Q4_K: [0, 2], Type.Q5_K: [0, 2], Type.Q6_K: [208],
}


def finite_numbers(random, count, bits, exponent_mask):
    numbers = random.integers(0, 1 << bits, count, dtype=np.uint64)
    return np.where(numbers & exponent_mask == exponent_mask, numbers ^ exponent_mask, numbers)


def make_blocks(random, kind, count):
    """Bytes of `count` blocks; for the one-number types, 32 numbers for each block."""
    if kind == Type.F32:
        return finite_numbers(random, 32 * count, 32, 0x7f800000).astype("<u4").view(np.uint8)
    if kind == Type.F16:
        return finite_numbers(random, 32 * count, 16, 0x7c00).astype("<u2").view(np.uint8)
    if kind == Type.BF16:
        return finite_numbers(random, 32 * count, 16, 0x7f80).astype("<u2").view(np.uint8)
    size = GGML_QUANT_SIZES[kind][1]
    blocks = random.integers(0, 256, (count, size), dtype=np.uint8)
    for offset in SCALE_OFFSETS[kind]:
        scales = finite_numbers(random, count, 16, 0x7c00).astype("<u2")
        scales[0] &= 0x83ff  # subnormal
        blocks[:, offset:offset + 2] = scales.view(np.uint8).reshape(count, 2)
    return blocks.reshape(-1)


def print_hex(text):
    for start in range(0, len(text), 112):
        print(f'     "{text[start:start + 112]}"', end="")
        print("," if start + 112 >= len(text) else "")


def main():
    random = np.random.default_rng(7)
    kinds = [Type.F32, Type.F16, Type.BF16] + list(SCALE_OFFSETS)
    print("// Made by make_block_vectors.py; do not edit. Type, bytes, and the bits of the weights.")
    for kind in kinds:
        count = int(sys.argv[1]) if len(sys.argv) > 1 else 2 if GGML_QUANT_SIZES[kind][0] == 256 else 4
        blocks = make_blocks(random, kind, count)
        weights = dequantize(blocks, kind).astype(np.float32)
        assert np.isfinite(weights).all()
        print(f"    {{TensorType::k{kind.name},")
        print_hex(blocks.tobytes().hex())
        print_hex("".join(f"{bits:08x}" for bits in weights.view(np.uint32).reshape(-1)))
        print("    },")


main()
