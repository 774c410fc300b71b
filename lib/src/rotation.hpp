#pragma once

#include "numbers.hpp"
#include "ports/kernels.hpp"

namespace nibkv {

namespace detail {
/// Sign bits of 16 channels, of a block whose own sign is + or -: (-1)^(c0 c1 + c2 c3), where c0 is the lowest bit of
/// c.
struct SignTable {
  alignas(16) std::uint32_t at[2][16];
};
constexpr SignTable make_sign_table() {
  SignTable table{};
  for (std::uint32_t c = 0; c < 16; ++c) {
    const std::uint32_t odd = (c & c >> 1 & 1) ^ (c >> 2 & c >> 3 & 1);
    table.at[0][c] = odd << 31;
    table.at[1][c] = (odd ^ 1) << 31;
  }
  return table;
}
inline constexpr SignTable kSigns = make_sign_table();
}  // namespace detail

/// Gives each channel its sign, a fixed pattern: (-1)^(c0 c1 + c2 c3 + c4 c5 + c6 c7). Rows that the transform alone
/// would make one spike of (all ones, every pattern of period 2, 4, 8, ...) come out of both flat (lib/DESIGN.md).
/// @param to  may be `from`
inline void copy_with_signs(const float* from, std::uint32_t head_dim, float* to) {
  for (std::uint32_t start = 0; start < head_dim; start += 16) {
    const std::uint32_t* signs = detail::kSigns.at[detail::kSigns.at[0][start / 16] >> 31];
    std::uint32_t words[16];  // between the two, so that compilers need not ask whether they are the same
    std::memcpy(words, from + start, sizeof words);
    for (std::uint32_t c = 0; c < 16; ++c) words[c] ^= signs[c];
    std::memcpy(to + start, words, sizeof words);
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
