#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>

namespace nibkv::llm {

/// The value of an IEEE half-precision number given by its bits. Exact; infinities
/// and NaNs are preserved.
inline float f16_to_f32(std::uint16_t bits) {
  const std::uint32_t sign = (bits & 0x8000u) << 16;
  const std::uint32_t exponent = bits >> 10 & 31u;
  const std::uint32_t fraction = bits & 0x3ffu;
  if (exponent == 0) {  // zero or subnormal: fraction * 2^-24, a normal f32
    return std::bit_cast<float>(std::bit_cast<std::uint32_t>(static_cast<float>(fraction) * 0x1p-24f) | sign);
  }
  // The exponent's bias changes from 15 to 127; 31, for infinities and NaNs, becomes 255.
  const std::uint32_t wide = exponent == 31 ? 255 : exponent + 112;
  return std::bit_cast<float>(sign | wide << 23 | fraction << 13);
}

/// The nearest number that f16 can hold, ties to even; saturates.
inline float rounded_to_f16(float value) {
  constexpr float kLargest = 65504, kSmallestNormal = 0x1p-14f, kStep = 0x1p-24f;
  if (std::abs(value) < kSmallestNormal) return std::nearbyint(value / kStep) * kStep;
  std::uint32_t bits = std::bit_cast<std::uint32_t>(std::clamp(value, -kLargest, kLargest));
  bits += 0xfff + (bits >> 13 & 1);
  return std::bit_cast<float>(bits & ~std::uint32_t{0x1fff});
}

/// The value of a bfloat16 number given by its bits. Exact.
inline float bf16_to_f32(std::uint16_t bits) {
  return std::bit_cast<float>(std::uint32_t{bits} << 16);
}

}  // namespace nibkv::llm
