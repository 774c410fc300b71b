#include "codec/merger.hpp"

#include "arena/band.hpp"
#include "codec/rotation.hpp"
#include "codec/row.hpp"
#include "codec/slot.hpp"

namespace nibkv {

void Merger::start() {
  for (std::uint32_t c = 0; c < dim_; ++c) key_[c] = value_[c] = 0;
  for (float& outlier : outliers_) outlier = 0;
  norms_ = 0;
  weights_ = 0;
}

// Loads a key, in the form in which tiles hold it, into row_, in units of the returned scale, and its
// outlier channels into `outliers`. A key that is rotated to another position must be restored first,
// because the mean key does not rotate, and the two channels of a pair may be held separately.
float Merger::read_key(const Place& at, std::int64_t positions, float* outliers) {
  std::int8_t outlier_codes[kMaxOutlierChannels];
  float scale = 1;
  if (to_.policy().rephase && positions != 0) {
    restore_key(to_, basis_, at.tile, at.lane, row_);
    turner_.turn(row_, positions);
    basis_.split_key(row_, outlier_codes);
    rotate_in(to_.kernels(), row_, dim_, row_);
  } else {
    std::int8_t levels[kMaxHeadDim];
    key_levels(to_, at.tile, at.lane, levels);
    for (std::uint32_t c = 0; c < dim_; ++c) row_[c] = static_cast<float>(levels[c]);
    for (std::uint32_t n = 0; n < channels_; ++n) outlier_codes[n] = to_.outliers(at.tile)[outlier_byte(at.lane, n)];
    scale = from_scale16(to_.key_scales(at.tile)[at.lane]);
  }
  for (std::uint32_t n = 0; n < channels_; ++n) outliers[n] = static_cast<float>(outlier_codes[n]) * outlier_scales_[n];
  return scale;
}

void Merger::add(const Place& at, float weight, std::int64_t positions) {
  std::int8_t levels[kMaxHeadDim];
  weights_ += weight;
  value_levels(to_, at.tile, at.lane, levels);
  const float value_scale = from_scale16(to_.value_scales(at.tile)[at.lane]) * weight;
  for (std::uint32_t c = 0; c < dim_; ++c) value_[c] += static_cast<float>(levels[c]) * value_scale;
  if (to_.policy().merge != Merge::kBoth) return;
  float outliers[kMaxOutlierChannels];
  const float scale = read_key(at, positions, outliers);
  float energy = 0;
  for (std::uint32_t c = 0; c < dim_; ++c) {
    const float channel = row_[c] * scale;
    energy += channel * channel;
  }
  for (std::uint32_t n = 0; n < channels_; ++n) energy += outliers[n] * outliers[n];
  const float norm = square_root(energy);
  if (!(norm >= ports::kSmallest)) return;
  norms_ += weight * norm;
  const float share = weight / norm;
  for (std::uint32_t c = 0; c < dim_; ++c) key_[c] += row_[c] * (scale * share);
  for (std::uint32_t n = 0; n < channels_; ++n) outliers_[n] += outliers[n] * share;
}

std::uint16_t Merger::encode_value(const Place& centre, std::uint8_t* codes) {
  const float share = 1.0f / weights_;
  for (std::uint32_t c = 0; c < dim_; ++c) value_[c] *= share;
  return to_.value_kernels(centre.tile).encode_row(value_, static_cast<int>(dim_), codes);
}

// The average of directions is shorter than 1; the average of the norms compensates for that.
bool Merger::encode_key(const Place& centre, const KeyRefiner* refiner, std::uint8_t* codes, std::uint16_t& scale) {
  float energy = 0;
  for (std::uint32_t c = 0; c < dim_; ++c) energy += key_[c] * key_[c];
  for (std::uint32_t n = 0; n < channels_; ++n) energy += outliers_[n] * outliers_[n];
  const float length = square_root(energy);
  if (!(length >= ports::kSmallest)) return false;
  const float stretch = norms_ / weights_ / length;
  for (std::uint32_t c = 0; c < dim_; ++c) row_[c] = key_[c] * stretch;
  scale = to_.key_kernels(centre.tile).encode_row(row_, static_cast<int>(dim_), codes);
  if (refiner != nullptr && scale != 0) scale = refiner->refine(key_plane(to_, centre.tile).bits, row_, codes, scale);
  for (std::uint32_t n = 0; n < channels_; ++n) {
    to_.outliers(centre.tile)[outlier_byte(centre.lane, n)] = outlier_code(outliers_[n] * stretch, outlier_scales_[n]);
  }
  return true;
}

void Merger::finish(const Place& centre, const KeyRefiner& refiner) {
  std::uint8_t codes[kMaxHeadDim];
  if (!shares_values(to_, centre.tile)) {
    put_value(to_, centre.tile, centre.lane, codes, encode_value(centre, codes));
  }
  std::uint16_t scale = 0;
  if (to_.policy().merge != Merge::kBoth || shares_keys(to_, centre.tile)) return;
  if (encode_key(centre, &refiner, codes, scale)) put_key(to_, centre.tile, centre.lane, codes, scale);
}

}  // namespace nibkv
