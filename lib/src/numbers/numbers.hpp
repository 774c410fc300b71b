#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "nibkv/shape.hpp"

namespace nibkv {

/// The `T`, or the array of them, that begins at `memory`, which the layout aligns for it.
template <typename T>
T* in_place(void* memory) {
  return static_cast<T*>(memory);
}

inline float float_from_bits(std::uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

inline std::uint32_t bits_from_float(float value) {
  std::uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

/// A positive float's bits 30..15: see lib/FORMAT.md.
inline float from_scale16(std::uint16_t scale) {
  return float_from_bits(static_cast<std::uint32_t>(scale) << 15);
}
inline std::uint16_t to_scale16(float value) {
  return static_cast<std::uint16_t>((bits_from_float(value) + 0x4000u) >> 15);
}

/// Scales saturate here, so that no logit and no sum leaves the range of a float: those of queries
/// at 2^40, and, as scale16, those of keys at 2^50 and of values at 2^80. Sums over 2^24 slots, in
/// units of 2^-16 of a weight, then stay below 2^127.
inline constexpr float kMostQueryScale = 0x1p40f;
inline constexpr std::uint16_t kMostKeyScale16 = (127 + 50) << 8;
inline constexpr std::uint16_t kMostValueScale16 = (127 + 80) << 8;
/// Whether a scale16 is one that rows have.
/// @param most  kMostKeyScale16 or kMostValueScale16
inline bool sound_scale(std::uint16_t scale, std::uint16_t most) {
  return scale == 0 || (scale >= 256 && scale <= most);
}
/// Whether codes of 8 bits are ones that rows have: any but -128, which ports multiply differently.
inline bool sound_bytes(const std::uint8_t* codes, std::size_t count) {
  bool sound = true;
  for (std::size_t i = 0; i < count; ++i) sound = sound && codes[i] != 0x80;
  return sound;
}
inline float bounded_query_scale(float scale) {
  return scale < kMostQueryScale ? scale : kMostQueryScale;
}

/// The sum of a row of int8 codes, which key_dots and outlier_dots need along with the row.
inline std::int32_t sum_of_codes(const std::int8_t* codes, std::uint32_t count) {
  std::int32_t sum = 0;
  for (std::uint32_t c = 0; c < count; ++c) sum += codes[c];
  return sum;
}

/// The dot product of two rows of levels or int8 codes.
inline std::int32_t dot_of_codes(const std::int8_t* a, const std::int8_t* b, std::uint32_t count) {
  std::int32_t sum = 0;
  for (std::uint32_t c = 0; c < count; ++c) sum += a[c] * b[c];
  return sum;
}

/// @param count  a multiple of 16
bool all_finite(const float* numbers, std::size_t count);

/// The same for f16 and bf16.
/// @param exponent  the bits of the format's exponent
bool halves_finite(const std::uint16_t* numbers, std::size_t count, std::uint16_t exponent);

/// The largest number for which `holds` is true. It must be true for 0, and monotonic: true for all
/// numbers below one for which it is true.
template <typename Holds>
std::uint32_t largest_that(Holds holds) {
  std::uint32_t found = 0;
  for (std::uint32_t bit = 0x80000000; bit != 0; bit >>= 1) {
    if (holds(found | bit)) found |= bit;
  }
  return found;
}

inline float from_bf16(std::uint16_t half) {
  return float_from_bits(static_cast<std::uint32_t>(half) << 16);
}
inline std::uint16_t to_bf16(float value) {
  return static_cast<std::uint16_t>((bits_from_float(value) + 0x8000u) >> 16);
}

/// @param x  0, or a normal number above 0. The result has a relative error of 2^-51, and is
///           the same on every machine.
inline double square_root(double x) {
  if (x == 0) return 0;
  std::uint64_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  bits = (bits >> 1) + 0x1ff8000000000000u;  // within 6 %
  double root;
  std::memcpy(&root, &bits, sizeof root);
  for (int step = 0; step < 4; ++step) root = 0.5 * (root + x / root);
  return root;
}

/// The square root of a number that is 0 or normal, to two units in the last place.
float square_root(float x);

/// log2(x) for a normal x of 1 or more, to 1/1000.
float binary_logarithm(float x);

/// @param exponent  [-126, 127]
inline float power_of_two(int exponent) {
  return float_from_bits(static_cast<std::uint32_t>(127 + exponent) << 23);
}

namespace detail {
struct OctaveTable {
  float at[kMaxHeadDim / 16];
};
constexpr OctaveTable make_octave_table() {
  OctaveTable table{};
  for (std::uint32_t i = 0; i < kMaxHeadDim / 16; ++i) {
    const double dim = 16.0 * (i + 1);
    double root = 16;
    for (int step = 0; step < 20; ++step) root = (root + dim / root) / 2;
    table.at[i] = static_cast<float>(1.4426950408889634 / root);
  }
  return table;
}
inline constexpr OctaveTable kOctaves = make_octave_table();
}  // namespace detail

/// log2(e) / sqrt(head_dim): the factor from a dot product to the binary logarithm of its weight.
inline float octaves_per_logit(std::uint32_t head_dim) {
  return detail::kOctaves.at[head_dim / 16 - 1];
}

}  // namespace nibkv
