#include "bench/runner/matmul/pack.hpp"

#include <cstring>

#include "bench/runner/gguf/blocks.hpp"
#include "bench/runner/matmul/kernels.hpp"

namespace nibkv::llm {
namespace {

// blocks.cpp describes the layouts of the blocks. Here they are read one group at a time, and
// the codes are not decoded.

std::uint32_t byte_at(const std::byte* bytes, std::size_t index) {
  return std::to_integer<std::uint32_t>(bytes[index]);
}

std::uint8_t code(std::uint32_t value) {
  return static_cast<std::uint8_t>(value);
}

std::uint16_t f16_at(const std::byte* bytes) {
  std::uint16_t bits;
  std::memcpy(&bits, bytes, sizeof(bits));
  return bits;
}

/// Q4_0, Q4_1, Q5_0, Q5_1: an optional minimum, and optional fifth bits, between the scale and the nibbles.
CodeGroup read_nibble_block(const std::byte* block, bool has_minimum, bool has_fifth_bits) {
  CodeGroup group;
  group.scale = f16_at(block);
  const std::byte* next = block + 2;
  if (has_minimum) {
    group.minimum = f16_at(next);
    next += 2;
  }
  std::uint32_t fifth = 0;
  if (has_fifth_bits) {
    for (std::size_t i = 0; i < 4; ++i) fifth |= byte_at(next, i) << (8 * i);
    next += 4;
  }
  for (std::size_t i = 0; i < 16; ++i) {
    const std::uint32_t pair = byte_at(next, i);
    group.codes[i] = code((pair & 15) | (fifth >> i & 1) << 4);
    group.codes[i + 16] = code((pair >> 4) | (fifth >> (i + 16) & 1) << 4);
  }
  return group;
}

CodeGroup read_q8_0(const std::byte* block) {
  CodeGroup group;
  group.scale = f16_at(block);
  for (std::size_t i = 0; i < 32; ++i) group.codes[i] = code(byte_at(block, 2 + i) ^ 0x80);  // q + 128
  return group;
}

/// Q4_K and Q5_K: part `part` of 8.
CodeGroup read_part(const std::byte* block, std::size_t part, bool has_fifth_bits) {
  const std::byte* packed = block + 4;
  std::uint32_t scale, minimum;
  if (part < 4) {
    scale = byte_at(packed, part) & 63;
    minimum = byte_at(packed, part + 4) & 63;
  } else {
    scale = (byte_at(packed, part + 4) & 15) | (byte_at(packed, part - 4) >> 6) << 4;
    minimum = byte_at(packed, part + 4) >> 4 | (byte_at(packed, part) >> 6) << 4;
  }
  CodeGroup group;
  group.scale = f16_at(block);
  group.scale_factor = static_cast<std::int8_t>(scale);
  group.minimum = f16_at(block + 2) ^ 0x8000;  // it is subtracted
  group.minimum_factor = static_cast<std::int8_t>(minimum);
  const std::byte* fifth_bits = block + 16;
  const std::byte* nibbles = fifth_bits + (has_fifth_bits ? 32 : 0) + part / 2 * 32;
  for (std::size_t i = 0; i < 32; ++i) {
    const std::uint32_t fifth = has_fifth_bits ? byte_at(fifth_bits, i) >> part & 1 : 0;
    group.codes[i] = code((byte_at(nibbles, i) >> (part % 2 * 4) & 15) | fifth << 4);
  }
  return group;
}

/// Q6_K: part `part` of 16, of 16 weights each. Halves of 128 weights have 64 bytes of low nibbles and 32 bytes of two
/// upper bits; in a half, rows of 32 weights use low halves of nibble bytes 0-31 and 32-63, then their high halves.
CodeGroup read_q6_k(const std::byte* block, std::size_t part) {
  const std::size_t half = part / 8, row = part % 8 / 2, start = part % 2 * 16;
  const std::byte* low = block + half * 64 + row % 2 * 32 + start;
  const std::byte* upper = block + 128 + half * 32 + start;
  CodeGroup group;
  group.scale = f16_at(block + 208);
  group.scale_factor = static_cast<std::int8_t>(byte_at(block, 192 + part));
  for (std::size_t i = 0; i < 16; ++i) {
    const std::uint32_t nibble = byte_at(low, i) >> (row / 2 * 4) & 15;
    group.codes[i] = code(nibble | (byte_at(upper, i) >> (2 * row) & 3) << 4);
  }
  return group;
}

}  // namespace

bool is_code_format(TensorType type) {
  return type != TensorType::kF32 && type != TensorType::kF16 && type != TensorType::kBF16;
}

CodeFormat code_format(TensorType type) {
  switch (type) {
    case TensorType::kQ4_0:
      return {.bits = 4, .offset = 8, .in_blocks = false, .has_minimum = false};
    case TensorType::kQ4_1:
      return {.bits = 4, .offset = 0, .in_blocks = false, .has_minimum = true};
    case TensorType::kQ5_0:
      return {.bits = 5, .offset = 16, .in_blocks = false, .has_minimum = false};
    case TensorType::kQ5_1:
      return {.bits = 5, .offset = 0, .in_blocks = false, .has_minimum = true};
    case TensorType::kQ8_0:
      return {.bits = 8, .offset = 128, .in_blocks = false, .has_minimum = false};
    case TensorType::kQ4_K:
      return {.bits = 4, .offset = 0, .in_blocks = true, .has_minimum = true};
    case TensorType::kQ5_K:
      return {.bits = 5, .offset = 0, .in_blocks = true, .has_minimum = true};
    case TensorType::kQ6_K:
      return {.bits = 6, .offset = 32, .in_blocks = true, .has_minimum = false};
    default:
      throw Error("a matrix cannot be made from this tensor type");
  }
}

CodeGroup read_code_group(TensorType type, const std::byte* row, std::size_t group) {
  const std::size_t groups_per_block = block_length(type) / group_length(code_format(type).bits);
  const std::byte* block = row + group / groups_per_block * block_bytes(type);
  const std::size_t part = group % groups_per_block;
  switch (type) {
    case TensorType::kQ4_0:
      return read_nibble_block(block, false, false);
    case TensorType::kQ4_1:
      return read_nibble_block(block, true, false);
    case TensorType::kQ5_0:
      return read_nibble_block(block, false, true);
    case TensorType::kQ5_1:
      return read_nibble_block(block, true, true);
    case TensorType::kQ8_0:
      return read_q8_0(block);
    case TensorType::kQ4_K:
      return read_part(block, part, false);
    case TensorType::kQ5_K:
      return read_part(block, part, true);
    case TensorType::kQ6_K:
      return read_q6_k(block, part);
    default:
      throw Error("a matrix cannot be made from this tensor type");
  }
}

}  // namespace nibkv::llm
