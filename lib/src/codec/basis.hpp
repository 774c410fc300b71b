#pragma once

#include <cstdint>

#include "arena/view.hpp"

namespace nibkv {

/// The 8-bit code of an outlier channel; 0 when the scale is 0.
std::int8_t outlier_code(float channel, float scale);

/// Transforms rows of one KV head to the form in which tiles hold them, except for the rotation:
/// it handles the profile's mean key and outlier channels, and the lower layer's basis where keys
/// are aligned. The product of a key with a query is the product of their outlier channels plus
/// that of the rest; the mean key's product is left out.
class Basis {
 public:
  Basis(const ArenaView& to, std::uint32_t layer, std::uint32_t kv_head);

  /// Whether there is anything to do.
  bool empty() const { return empty_; }

  /// Subtracts the mean from a key and moves its outlier channels out.
  /// @param row       f32[head_dim], changed: what is left to quantise to 4 bits, 0 at the
  ///                  outlier channels
  /// @param outliers  i8[outlier_channels], written
  void split_key(float* row, std::int8_t* outliers) const;

  /// Undoes split_key: puts the outlier channels back and adds the mean.
  void join_key(float* row, const std::int8_t* outliers) const;

  /// The same without the mean.
  void join_outliers(float* row, const std::int8_t* outliers) const;

  /// The scales of the outlier channels' codes.
  /// @param scales  f32[outlier_channels], written
  void outlier_scales(float* scales) const;

  /// Moves the outlier channels out of a query, each multiplied by the scale of the keys' codes.
  /// @param row       f32[head_dim], changed: 0 at the outlier channels
  /// @param outliers  f32[outlier_channels], written
  void split_query(float* row, float* outliers) const;

  /// The product of a query with the mean key, which the products of split rows lack. 0 if no mean is subtracted.
  /// @param row  f32[head_dim], before split_query
  float mean_product(const float* row) const;

  /// A unit in which products of a query of norm 1 with outlier codes, and with the mean key, are below 2^13.
  float outlier_unit() const;

  /// The mean square of what split_query leaves in each query channel, at least a hundredth
  /// of their mean, scaled to a mean of about 1.
  /// @returns false when the queries are unknown or all zero: nothing is written then
  bool weigh_errors(float* weights) const;

  /// Rotates keys of a layer that is aligned to the one below, or queries.
  /// @param back  whether to undo the rotation
  void turn(float* row, bool back) const;

 private:
  bool empty_;
  bool centred_;  // whether the mean is subtracted
  RotaryPairs rotary_;
  const std::uint8_t* turns_;  // the rotation of each rotary pair, or null
  std::uint32_t head_dim_;
  std::uint32_t channels_;
  bool measured_ = true;  // false: what is to be measured is not known, and outlier codes are 0
  HeadProfile head_{};
};

}  // namespace nibkv
