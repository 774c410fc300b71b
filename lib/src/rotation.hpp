#pragma once

#include "numbers.hpp"
#include "ports/kernels.hpp"

namespace nibkv {

namespace detail {
/// The sign bit of channel c, for c below 16: that of (-1)^(c0 c1 + c2 c3), where c0 is the lowest bit of c.
inline constexpr std::uint32_t kNegative = 0x80000000;
inline constexpr std::uint32_t kSigns[16] = {0, 0, 0, kNegative, 0,         0,         0,         kNegative,
                                             0, 0, 0, kNegative, kNegative, kNegative, kNegative, 0};
}  // namespace detail

/// Gives each channel its sign, a fixed pattern: (-1)^(c0 c1 + c2 c3 + c4 c5 + c6 c7). Rows that the transform alone
/// would make one spike of (all ones, every pattern of period 2, 4, 8, ...) come out of both flat (lib/DESIGN.md).
/// @param to  may be `from`
inline void copy_with_signs(const float* from, std::uint32_t head_dim, float* to) {
  for (std::uint32_t start = 0; start < head_dim; start += 16) {
    const std::uint32_t block = detail::kSigns[start / 16];
    for (std::uint32_t c = 0; c < 16; ++c) {
      to[start + c] = float_from_bits(bits_from_float(from[start + c]) ^ detail::kSigns[c] ^ block);
    }
  }
}

/// From channels as they come to those of tiles: signs, then the port's transform.
/// @param rotated  f32[head_dim], written; may be `row`
inline void rotate_in(const Kernels& kernels, const float* row, std::uint32_t head_dim, float* rotated) {
  copy_with_signs(row, head_dim, rotated);
  kernels.rotate(rotated, static_cast<int>(head_dim));
}

/// The way back.
/// @param rotated  f32[head_dim], changed
/// @param row      f32[head_dim], written; may be `rotated`
inline void rotate_out(const Kernels& kernels, float* rotated, std::uint32_t head_dim, float* row) {
  kernels.rotate(rotated, static_cast<int>(head_dim));
  copy_with_signs(rotated, head_dim, row);
}

}  // namespace nibkv
