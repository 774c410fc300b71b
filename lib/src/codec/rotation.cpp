#include "codec/rotation.hpp"

namespace nibkv {
namespace {

// The sign bits of 16 channels, for a block whose own sign is + or -: (-1)^(c0 c1 + c2 c3), where
// c0 is the lowest bit of c.
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
constexpr SignTable kSigns = make_sign_table();

// `to` may be `from`.
void copy_with_signs(const float* from, std::uint32_t head_dim, float* to) {
  for (std::uint32_t start = 0; start < head_dim; start += 16) {
    const std::uint32_t* signs = kSigns.at[kSigns.at[0][start / 16] >> 31];
    std::uint32_t words[16];  // a buffer, so that compilers need not check whether the two overlap
    std::memcpy(words, from + start, sizeof words);
    for (std::uint32_t c = 0; c < 16; ++c) words[c] ^= signs[c];
    std::memcpy(to + start, words, sizeof words);
  }
}

}  // namespace

void rotate_in(const Kernels& kernels, const float* row, std::uint32_t head_dim, float* rotated) {
  copy_with_signs(row, head_dim, rotated);
  kernels.rotate(rotated, static_cast<int>(head_dim));
}

void rotate_out(const Kernels& kernels, float* rotated, std::uint32_t head_dim, float* row) {
  kernels.rotate(rotated, static_cast<int>(head_dim));
  copy_with_signs(rotated, head_dim, row);
}

}  // namespace nibkv
