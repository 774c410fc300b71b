#pragma once

#include <cstdint>

#include "arena/view.hpp"
#include "codec/basis.hpp"

namespace nibkv {

/// Improves the codes of keys for the queries that will meet them.
///
/// The error e of a rotated key costs e^T M e in squared logits, with M the second moment of the
/// rotated queries. Only the mean square of each query channel is known (from the profile), so
/// M = H diag(w) H with H the orthonormal Hadamard transform, and M[i][j] depends only on i xor j.
/// One row of M, which is a transform of w, therefore determines all of it. In a few sweeps, codes
/// are changed one at a time, each to the level that costs least while the others stay. After each
/// sweep the scale is fitted again. Codes of 8 bits stay as they are.
class KeyRefiner {
 public:
  static constexpr std::uint32_t kBuffers = kRefinerRows;  ///< f32[head_dim] each

  /// @param buffers  f32[kBuffers * head_dim], kept
  KeyRefiner(const ArenaView& to, const Basis& basis, float* buffers);

  /// @param bits   of the codes
  /// @param row    f32[head_dim]: the rotated key
  /// @param codes  u8[head_dim], those of encode_row; improved in place
  /// @param scale  of encode_row, not 0
  /// @returns the scale for the new codes
  std::uint16_t refine(std::uint32_t bits, const float* row, std::uint8_t* codes, std::uint16_t scale) const;

 private:
  void apply(float* row) const;
  void add_row(std::uint32_t start, std::uint32_t block, std::uint32_t i, float move) const;
  float fit(const float* row, const float* levels, const float* weighed) const;

  const Kernels& kernels_;
  std::uint32_t head_dim_;
  bool known_;
  float* weights_;      // w
  float* moments_;      // the row of M, block by block of the transform; [4][head_dim]: channel c xor 0, 1, 2, 3
  float* levels_;       // of the codes
  float* weighed_row_;  // M row
  float* weighed_;      // M levels
};

}  // namespace nibkv
