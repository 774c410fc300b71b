#include "bench/runner/gguf/blocks.hpp"

#include <bit>
#include <cstring>
#include <limits>
#include <string>

namespace nibkv::llm {
namespace {

static_assert(std::endian::native == std::endian::little, "model files are read in place, as little-endian numbers");

using DecodeBlock = void (*)(const std::byte* block, float* target);

struct Format {
  TensorType type;
  std::string_view name;
  std::size_t length;  // weights of one block
  std::size_t bytes;   // bytes of one block
  DecodeBlock decode;
};

std::uint32_t byte_at(const std::byte* source, std::size_t index) {
  return std::to_integer<std::uint32_t>(source[index]);
}

template <typename T>
T load(const std::byte* source) {
  T value;
  std::memcpy(&value, source, sizeof(value));
  return value;
}

float load_f16(const std::byte* source) {
  return f16_to_f32(load<std::uint16_t>(source));
}

// F32, F16, BF16: one number is one block.
void decode_f32(const std::byte* block, float* target) {
  *target = load<float>(block);
}
void decode_f16(const std::byte* block, float* target) {
  *target = load_f16(block);
}
void decode_bf16(const std::byte* block, float* target) {
  *target = bf16_to_f32(load<std::uint16_t>(block));
}

// The 32-weight formats below store weight i in the low half of nibble byte i, and weight
// i + 16 in its high half.
constexpr std::size_t kHalf = 16;

// Q8_0: f16 scale | 32 x int8.   weight = q * scale
void decode_q8_0(const std::byte* block, float* target) {
  const float scale = load_f16(block);
  for (std::size_t i = 0; i < 2 * kHalf; ++i) target[i] = static_cast<float>(load<std::int8_t>(block + 2 + i)) * scale;
}

// Q4_0: f16 scale | 16 nibble bytes.   weight = (q - 8) * scale
void decode_q4_0(const std::byte* block, float* target) {
  const float scale = load_f16(block);
  for (std::size_t i = 0; i < kHalf; ++i) {
    const std::uint32_t pair = byte_at(block, 2 + i);
    target[i] = static_cast<float>(static_cast<int>(pair & 15) - 8) * scale;
    target[i + kHalf] = static_cast<float>(static_cast<int>(pair >> 4) - 8) * scale;
  }
}

// Q4_1: f16 scale | f16 offset | 16 nibble bytes.   weight = q * scale + offset
void decode_q4_1(const std::byte* block, float* target) {
  const float scale = load_f16(block);
  const float offset = load_f16(block + 2);
  for (std::size_t i = 0; i < kHalf; ++i) {
    const std::uint32_t pair = byte_at(block, 4 + i);
    target[i] = static_cast<float>(pair & 15) * scale + offset;
    target[i + kHalf] = static_cast<float>(pair >> 4) * scale + offset;
  }
}

// Q5_0: f16 scale | u32, bit i = fifth bit of weight i | 16 nibble bytes.   weight = (q - 16) * scale
void decode_q5_0(const std::byte* block, float* target) {
  const float scale = load_f16(block);
  const auto fifth = load<std::uint32_t>(block + 2);
  for (std::size_t i = 0; i < kHalf; ++i) {
    const std::uint32_t pair = byte_at(block, 6 + i);
    const std::uint32_t low = (pair & 15) | (fifth >> i & 1) << 4;
    const std::uint32_t high = pair >> 4 | (fifth >> (i + kHalf) & 1) << 4;
    target[i] = static_cast<float>(static_cast<int>(low) - 16) * scale;
    target[i + kHalf] = static_cast<float>(static_cast<int>(high) - 16) * scale;
  }
}

// Q5_1: f16 scale | f16 offset | u32, bit i = fifth bit of weight i | 16 nibble bytes.   weight = q * scale + offset
void decode_q5_1(const std::byte* block, float* target) {
  const float scale = load_f16(block);
  const float offset = load_f16(block + 2);
  const auto fifth = load<std::uint32_t>(block + 4);
  for (std::size_t i = 0; i < kHalf; ++i) {
    const std::uint32_t pair = byte_at(block, 8 + i);
    const std::uint32_t low = (pair & 15) | (fifth >> i & 1) << 4;
    const std::uint32_t high = pair >> 4 | (fifth >> (i + kHalf) & 1) << 4;
    target[i] = static_cast<float>(low) * scale + offset;
    target[i + kHalf] = static_cast<float>(high) * scale + offset;
  }
}

// The 256-weight formats Q4_K and Q5_K have 8 parts of 32 weights, each with a 6-bit scale and a 6-bit minimum, packed
// in 12 bytes: bytes 0-3 hold the scales of parts 0-3 in their low six bits, bytes 4-7 the minima of parts 0-3, bytes
// 8-11 the low four bits of scale (low half) and minimum (high half) of parts 4-7, whose upper two bits are the upper
// two bits of bytes 0-3 (scales) and 4-7 (minima).
struct PartScale {
  float scale;
  float minimum;
};

PartScale part_scale(const std::byte* packed, std::size_t part) {
  if (part < 4) {
    return {static_cast<float>(byte_at(packed, part) & 63), static_cast<float>(byte_at(packed, part + 4) & 63)};
  }
  const std::uint32_t low = byte_at(packed, part + 4);
  return {static_cast<float>((low & 15) | byte_at(packed, part - 4) >> 6 << 4),
          static_cast<float>(low >> 4 | byte_at(packed, part) >> 6 << 4)};
}

// Shared by Q4_K and Q5_K: two neighbouring parts share 32 nibble bytes, the even part in the low halves. Bit `part` of
// byte i of `fifth_bits` is the fifth bit of weight i of that part; without `fifth_bits` there is none.
void decode_parts(const std::byte* block, const std::byte* fifth_bits, const std::byte* nibbles, float* target) {
  const float scale = load_f16(block);
  const float minimum = load_f16(block + 2);
  for (std::size_t part = 0; part < 8; ++part) {
    const PartScale own = part_scale(block + 4, part);
    const float part_step = scale * own.scale;
    const float part_minimum = minimum * own.minimum;
    for (std::size_t i = 0; i < 32; ++i) {
      const std::uint32_t fifth = fifth_bits == nullptr ? 0 : byte_at(fifth_bits, i) >> part & 1;
      const std::uint32_t nibble = byte_at(nibbles, part / 2 * 32 + i) >> part % 2 * 4 & 15;
      target[part * 32 + i] = part_step * static_cast<float>(nibble | fifth << 4) - part_minimum;
    }
  }
}

// Q4_K: f16 scale | f16 minimum | 12 bytes of part scales and minima | 128 nibble bytes.
// weight = q * (scale * part scale) - minimum * part minimum
void decode_q4_k(const std::byte* block, float* target) {
  decode_parts(block, nullptr, block + 16, target);
}

// Q5_K: like Q4_K, with 32 bytes of fifth bits before the nibble bytes.
void decode_q5_k(const std::byte* block, float* target) {
  decode_parts(block, block + 16, block + 48, target);
}

// Q6_K: 128 nibble bytes | 64 bytes of upper bit pairs | 16 x int8 part scales, of 16 weights each | f16 scale.
// weight = (q - 32) * (scale * part scale). Each half block of 128 weights is four runs of 32: runs 0 and 1 in the low
// halves of its 64 nibble bytes, runs 2 and 3 in the high halves; bit pair r of its 32 upper bytes belongs to run r.
void decode_q6_k(const std::byte* block, float* target) {
  const float scale = load_f16(block + 208);
  for (std::size_t index = 0; index < 256; ++index) {
    const std::size_t half = index / 128;
    const std::size_t run = index / 32 % 4;
    const std::size_t i = index % 32;
    const std::uint32_t low = byte_at(block, half * 64 + run % 2 * 32 + i) >> run / 2 * 4 & 15;
    const std::uint32_t high = byte_at(block, 128 + half * 32 + i) >> run * 2 & 3;
    const float step = scale * static_cast<float>(load<std::int8_t>(block + 192 + index / 16));
    target[index] = step * static_cast<float>(static_cast<int>(low | high << 4) - 32);
  }
}

constexpr Format kFormats[] = {
    {TensorType::kF32, "F32", 1, 4, decode_f32},        {TensorType::kF16, "F16", 1, 2, decode_f16},
    {TensorType::kQ4_0, "Q4_0", 32, 18, decode_q4_0},   {TensorType::kQ4_1, "Q4_1", 32, 20, decode_q4_1},
    {TensorType::kQ5_0, "Q5_0", 32, 22, decode_q5_0},   {TensorType::kQ5_1, "Q5_1", 32, 24, decode_q5_1},
    {TensorType::kQ8_0, "Q8_0", 32, 34, decode_q8_0},   {TensorType::kQ4_K, "Q4_K", 256, 144, decode_q4_k},
    {TensorType::kQ5_K, "Q5_K", 256, 176, decode_q5_k}, {TensorType::kQ6_K, "Q6_K", 256, 210, decode_q6_k},
    {TensorType::kBF16, "BF16", 1, 2, decode_bf16},
};

const Format* find_format(std::uint32_t number) {
  for (const Format& format : kFormats) {
    if (static_cast<std::uint32_t>(format.type) == number) return &format;
  }
  return nullptr;
}

const Format& format_of(TensorType type) {
  const auto number = static_cast<std::uint32_t>(type);
  const Format* format = find_format(number);
  if (format == nullptr) throw Error("unknown tensor type " + std::to_string(number));
  return *format;
}

// The number of blocks in `count` weights.
std::size_t whole_blocks(const Format& format, std::size_t count) {
  if (count % format.length != 0) {
    throw Error(std::to_string(count) + " weights are not a whole number of " + std::string(format.name) +
                " blocks of " + std::to_string(format.length));
  }
  return count / format.length;
}

}  // namespace

bool is_known_type(std::uint32_t number) {
  return find_format(number) != nullptr;
}

std::string_view type_name(TensorType type) {
  return format_of(type).name;
}

std::size_t block_length(TensorType type) {
  return format_of(type).length;
}

std::size_t block_bytes(TensorType type) {
  return format_of(type).bytes;
}

std::size_t row_bytes(TensorType type, std::size_t columns) {
  const Format& format = format_of(type);
  const std::size_t blocks = whole_blocks(format, columns);
  if (blocks > std::numeric_limits<std::size_t>::max() / format.bytes) {
    throw Error("a row of " + std::to_string(columns) + " weights is larger than the address space");
  }
  return blocks * format.bytes;
}

void dequantise(TensorType type, const std::byte* source, float* target, std::size_t count) {
  const Format& format = format_of(type);
  const std::size_t blocks = whole_blocks(format, count);
  for (std::size_t block = 0; block < blocks; ++block) {
    format.decode(source + block * format.bytes, target + block * format.length);
  }
}

}  // namespace nibkv::llm
