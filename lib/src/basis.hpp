#pragma once

#include <cstdint>

#include "access.hpp"

namespace nibkv {

/// Brings rows of one KV head to the form in which tiles hold them, and back: the profile's means, gains and outlier channels, but not the
/// rotation.
class Basis {
 public:
  Basis(const ProfileView& profile, const Shape& shape, std::uint32_t layer, std::uint32_t kv_head);

  /// Takes the mean off a key, applies the gains, and takes the outlier channels out.
  /// @param row       f32[head_dim], changed: what is left to code at 4 bits
  /// @param outliers  i8[outlier_channels], written
  void split_key(float* row, std::int8_t* outliers) const;

  /// Undoes the gains on a query and gathers its outlier channels, each times the scale of its codes.
  /// @param outliers  f32[outlier_channels], written
  void split_query(float* row, float* outliers) const;

  void center_value(float* row) const;
  void restore_output(float* row) const;

 private:
  bool empty_;
  std::uint32_t head_dim_;
  std::uint32_t channels_;
  HeadProfile head_{};
};

}  // namespace nibkv
