#pragma once

#include <cstdint>

#include "arena/view.hpp"
#include "codec/basis.hpp"
#include "codec/refine.hpp"
#include "codec/rotary.hpp"

namespace nibkv {

/// Adds up the rows of a class of slots for its centre: weighted sums of rotated rows.
class Merger {
 public:
  Merger(const ArenaView& to, const Basis& basis)
      : to_(to),
        basis_(basis),
        dim_(to.shape().head_dim),
        channels_(to.shape().outlier_channels),
        turner_(to.policy().rephase ? to.shape().rotary : Rotary{}, to.rotary_steps()) {
    const MergeSpace at = merge_space_of(dim_);
    key_ = in_place<float>(to.merging() + at.key);
    value_ = in_place<float>(to.merging() + at.value);
    row_ = in_place<float>(to.merging() + at.row);
    if (channels_ != 0) basis.outlier_scales(outlier_scales_);
  }

  void start();
  /// @param positions  from the slot to its centre
  void add(const Place& slot, float weight, std::int64_t positions);
  /// Quantises the sum to codes of the centre's width, u8[head_dim].
  /// @returns the scale
  std::uint16_t encode_value(const Place& centre, std::uint8_t* codes);
  /// The same for keys; their outlier channels are written into the centre. `refiner` may be null.
  /// @returns false when they cancel out: the centre keeps its key
  bool encode_key(const Place& centre, const KeyRefiner* refiner, std::uint8_t* codes, std::uint16_t& scale);
  /// Quantises the sums into the centre, except into codes that another layer shares.
  void finish(const Place& centre, const KeyRefiner& refiner);

 private:
  float read_key(const Place& slot, std::int64_t positions, float* outliers);

  const ArenaView& to_;
  const Basis& basis_;
  std::uint32_t dim_;
  std::uint32_t channels_;
  KeyTurner turner_;
  float* key_;    // sum of weight * direction
  float* value_;  // sum of weight * value
  float* row_;
  float outliers_[kMaxOutlierChannels];  // the direction's outlier channels
  float outlier_scales_[kMaxOutlierChannels] = {};
  float norms_ = 0;  // sum of weight * norm
  float weights_ = 0;
};

}  // namespace nibkv
