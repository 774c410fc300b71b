#include "bench/runner/gguf/blocks.hpp"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <limits>
#include <string>
#include <string_view>
#include <vector>

namespace nibkv::llm {
namespace {

struct Vector {
  TensorType type;
  std::string_view bytes;    // two hexadecimal digits each
  std::string_view weights;  // their bits, eight hexadecimal digits each
};

// Decoded by another implementation; see make_block_vectors.py.
const Vector kVectors[] = {
#include "tests/runner/gguf/block_vectors.inc"
};

std::uint32_t parse_hex(std::string_view digits) {
  return static_cast<std::uint32_t>(std::strtoul(std::string(digits).c_str(), nullptr, 16));
}

std::vector<std::byte> parse_bytes(std::string_view digits) {
  std::vector<std::byte> bytes;
  for (std::size_t i = 0; i < digits.size(); i += 2) {
    bytes.push_back(static_cast<std::byte>(parse_hex(digits.substr(i, 2))));
  }
  return bytes;
}

// Every decoded weight has exactly one correct value (see dequantise), so the bits must be equal.
TEST(Blocks, DecodesEveryFormatToTheBitsOfAnotherImplementation) {
  for (const Vector& vector : kVectors) {
    const std::vector<std::byte> bytes = parse_bytes(vector.bytes);
    std::vector<float> weights(vector.weights.size() / 8);
    ASSERT_EQ(row_bytes(vector.type, weights.size()), bytes.size()) << type_name(vector.type);
    dequantise(vector.type, bytes.data(), weights.data(), weights.size());
    for (std::size_t i = 0; i < weights.size(); ++i) {
      ASSERT_EQ(std::bit_cast<std::uint32_t>(weights[i]), parse_hex(vector.weights.substr(i * 8, 8)))
          << type_name(vector.type) << " weight " << i;
    }
  }
}

TEST(Blocks, DecodesFromAnyAddress) {
  for (const Vector& vector : kVectors) {
    const std::vector<std::byte> bytes = parse_bytes(vector.bytes);
    std::vector<float> expected(vector.weights.size() / 8);
    dequantise(vector.type, bytes.data(), expected.data(), expected.size());
    for (std::size_t shift = 1; shift < 4; ++shift) {
      std::vector<std::byte> shifted(shift);
      shifted.insert(shifted.end(), bytes.begin(), bytes.end());
      std::vector<float> weights(expected.size());
      dequantise(vector.type, shifted.data() + shift, weights.data(), weights.size());
      ASSERT_EQ(weights, expected) << type_name(vector.type) << " shifted by " << shift;
    }
  }
}

TEST(Blocks, VectorsCoverEveryKnownType) {
  for (std::uint32_t number = 0; number < 64; ++number) {
    if (!is_known_type(number)) continue;
    bool covered = false;
    for (const Vector& vector : kVectors) covered = covered || vector.type == TensorType{number};
    EXPECT_TRUE(covered) << type_name(TensorType{number});
  }
}

TEST(Blocks, KnowsTheSizesOfTheFormats) {
  EXPECT_EQ(block_length(TensorType::kF32), 1u);
  EXPECT_EQ(block_bytes(TensorType::kF32), 4u);
  EXPECT_EQ(block_length(TensorType::kQ4_1), 32u);
  EXPECT_EQ(block_bytes(TensorType::kQ4_1), 20u);
  EXPECT_EQ(block_length(TensorType::kQ6_K), 256u);
  EXPECT_EQ(block_bytes(TensorType::kQ6_K), 210u);
  EXPECT_EQ(row_bytes(TensorType::kQ8_0, 576), 612u);
  EXPECT_EQ(row_bytes(TensorType::kQ8_0, 0), 0u);
}

TEST(Blocks, RefusesUnknownTypesPartialBlocksAndImpossibleRows) {
  float weight = 0;
  const std::byte source[4] = {};
  EXPECT_FALSE(is_known_type(4));
  EXPECT_THROW(block_length(TensorType{4}), Error);
  EXPECT_THROW(block_bytes(TensorType{0xffffffff}), Error);
  EXPECT_THROW(row_bytes(TensorType::kQ4_0, 33), Error);
  EXPECT_THROW(row_bytes(TensorType::kF32, std::numeric_limits<std::size_t>::max()), Error);
  EXPECT_THROW(dequantise(TensorType::kQ4_K, source, &weight, 32), Error);
  EXPECT_THROW(dequantise(TensorType{99}, source, &weight, 1), Error);
}

// The value of half-precision bits by the definition of the format, in double precision.
double half_value(std::uint32_t bits) {
  const int exponent = static_cast<int>(bits >> 10 & 31);
  const int fraction = static_cast<int>(bits & 1023);
  const double size = exponent == 0 ? std::ldexp(fraction, -24) : std::ldexp(fraction + 1024, exponent - 25);
  return bits >> 15 == 1 ? -size : size;
}

TEST(Blocks, ConvertsAllHalfPrecisionNumbers) {
  for (std::uint32_t bits = 0; bits < 0x10000; ++bits) {
    const float value = f16_to_f32(static_cast<std::uint16_t>(bits));
    ASSERT_EQ(std::signbit(value), bits >> 15 == 1) << bits;
    if ((bits & 0x7c00) != 0x7c00) {
      ASSERT_EQ(static_cast<double>(value), half_value(bits)) << bits;
    } else if ((bits & 0x3ff) == 0) {
      ASSERT_TRUE(std::isinf(value)) << bits;
    } else {
      ASSERT_TRUE(std::isnan(value)) << bits;
    }
  }
}

TEST(Blocks, ConvertsBrainFloatsByTheirUpperBits) {
  EXPECT_EQ(bf16_to_f32(0x3f80), 1.0f);
  EXPECT_EQ(bf16_to_f32(0xc0a0), -5.0f);
  EXPECT_EQ(bf16_to_f32(0x0001), 0x1p-133f);
  EXPECT_TRUE(std::isinf(bf16_to_f32(0x7f80)));
  EXPECT_TRUE(std::isnan(bf16_to_f32(0x7fc0)));
}

}  // namespace
}  // namespace nibkv::llm
