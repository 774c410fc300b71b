#pragma once

#include <cstdint>

#include "numbers/numbers.hpp"
#include "ports/kernels.hpp"

namespace nibkv {

/// The angle between two rows of levels, in integers: the same on every CPU.
class Arc {
 public:
  /// @param a, b  i8[head_dim] in [-64, 64], neither all zero
  Arc(const std::int8_t* a, const std::int8_t* b, std::uint32_t head_dim);

  /// The angle in radians, Q16: [0, pi * 65536], with an error of at most 1/8192
  /// of itself plus 2^-14.
  std::uint32_t angle() const;

  /// The weights of both rows (not of their directions) for a direction between a and b:
  /// the weights of spherical interpolation (SLERP), up to a common factor, as integers
  /// of at most 2^17 - 1.
  /// @param t  how far the direction is from a to b, in 1/256
  void weigh(std::uint32_t t, std::int32_t& weight_a, std::int32_t& weight_b) const;

 private:
  static constexpr std::uint32_t kHalvings = 8;
  // A point on the unit circle, Q30.
  struct Point {
    std::int64_t cosine;
    std::int64_t sine;
  };
  Point part(std::uint32_t t) const;

  std::uint64_t norm_a_;  // Q20
  std::uint64_t norm_b_;
  bool in_line_;                 // one is a multiple of the other
  Point points_[kHalvings + 1];  // at the angle, its half, its quarter, ...
};

/// Two rows of codes and their scales.
struct RowPair {
  const std::uint8_t* codes[2];  ///< [head_dim]
  std::uint16_t scales[2];       ///< scale16; 0: the row is zero
};

/// Folds two rows into one row of codes: the direction `t` / 256 of the way from the first to the
/// second (MiniCache, arXiv 2405.14366, equation 3), and for each row the scale that restores its
/// norm. Rows of equal codes stay as they are. If one row is zero, the other stays as it is.
///
/// @param pair   its scales are replaced; they are not yet clamped to the limits of keys or values
/// @param row    f32[head_dim], workspace
/// @param codes  u8[head_dim], written; none of the pair's
void fold_row(const Kernels& kernels, RowPair& pair, std::uint32_t head_dim, std::uint32_t t, float* row,
              std::uint8_t* codes);

}  // namespace nibkv
