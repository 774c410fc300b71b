#include "codec/basis.hpp"

#include "arena/band.hpp"
#include "profile/format.hpp"

namespace nibkv {

Basis::Basis(const ArenaView& to, std::uint32_t layer, std::uint32_t kv_head)
    : empty_(to.profile().empty() || to.shape().storage == Storage::kF32),
      centred_(is_centred(to, layer)),
      rotary_(to.profile().rotary()),
      turns_(key_turns(to, layer, kv_head)),
      head_dim_(to.shape().head_dim),
      channels_(to.shape().outlier_channels) {
  if (!empty_) head_ = to.profile().head(layer, kv_head);
  if (to.shape().basis != KeyBasis::kMeasured) return;
  measured_ = to.measured_tokens(layer) != 0;
  empty_ = !measured_ && channels_ == 0;
  centred_ = centred_ && measured_;
  const std::uint8_t* const record = to.measured(layer, kv_head) + sizeof(std::uint32_t);
  head_ = {record, record + kMaxOutlierChannels, record + 3 * kMaxOutlierChannels, nullptr, 0};
}

std::int8_t outlier_code(float channel, float scale) {
  if (!(scale > 0)) return 0;
  float steps = channel / scale;
  steps = steps < 127.0f ? steps : 127.0f;
  steps = steps > -127.0f ? steps : -127.0f;
  return static_cast<std::int8_t>(static_cast<std::int32_t>(steps + 127.5f) - 127);
}

void Basis::split_key(float* row, std::int8_t* outliers) const {
  if (empty_) return;
  for (std::uint32_t c = 0; centred_ && c < head_dim_; ++c) row[c] -= bf16_at(head_.key_means, c);
  for (std::uint32_t n = 0; n < channels_; ++n) {
    if (!measured_) {
      outliers[n] = 0;
      continue;
    }
    const float scale = from_scale16(u16_at(head_.outlier_scales, n));
    float& channel = row[head_.channels[n]];
    outliers[n] = outlier_code(channel, scale);
    channel = 0;
  }
  turn(row, false);
}

void Basis::turn(float* row, bool back) const {
  if (turns_ == nullptr) return;
  for (std::uint32_t pair = 0; pair < head_dim_ / 2; ++pair) {
    const auto [i, j] = channels_of(pair, rotary_);
    const float c = static_cast<float>(i16_at(turns_, 2 * pair)) * 0x1p-15f;
    const float sine = static_cast<float>(i16_at(turns_, 2 * pair + 1)) * 0x1p-15f;
    const float s = back ? -sine : sine;
    const float first = c * row[i] - s * row[j];
    row[j] = s * row[i] + c * row[j];
    row[i] = first;
  }
}

void Basis::join_key(float* row, const std::int8_t* outliers) const {
  if (empty_) return;
  join_outliers(row, outliers);
  for (std::uint32_t c = 0; centred_ && c < head_dim_; ++c) row[c] += bf16_at(head_.key_means, c);
}

void Basis::join_outliers(float* row, const std::int8_t* outliers) const {
  if (empty_) return;
  turn(row, true);
  for (std::uint32_t n = 0; n < channels_ && measured_; ++n) {
    row[head_.channels[n]] = static_cast<float>(outliers[n]) * from_scale16(u16_at(head_.outlier_scales, n));
  }
}

void Basis::outlier_scales(float* scales) const {
  for (std::uint32_t n = 0; n < channels_; ++n) scales[n] = from_scale16(u16_at(head_.outlier_scales, n));
}

void Basis::split_query(float* row, float* outliers) const {
  if (empty_) return;
  for (std::uint32_t n = 0; n < channels_; ++n) {
    if (!measured_) {
      outliers[n] = 0;
      continue;
    }
    float& channel = row[head_.channels[n]];
    outliers[n] = channel * from_scale16(u16_at(head_.outlier_scales, n));
    channel = 0;
  }
  turn(row, false);
}

float Basis::mean_product(const float* row) const {
  float sum = 0;
  for (std::uint32_t c = 0; !empty_ && centred_ && c < head_dim_; ++c) sum += row[c] * bf16_at(head_.key_means, c);
  return sum;
}

float Basis::outlier_unit() const {
  float unit = 0x1p-60f;
  for (std::uint32_t n = 0; n < channels_; ++n) {
    const float scale = from_scale16(u16_at(head_.outlier_scales, n));
    unit = unit < scale ? scale : unit;
  }
  float sum = 0;  // of magnitudes, which the norm is not above
  for (std::uint32_t c = 0; centred_ && c < head_dim_; ++c) {
    const float mean = bf16_at(head_.key_means, c);
    sum += mean < 0 ? -mean : mean;
  }
  sum *= 0x1p-12f;
  unit = unit < sum ? sum : unit;
  return unit < 0x1p40f ? unit : 0x1p40f;
}

bool Basis::weigh_errors(float* weights) const {
  if (empty_ || head_.query_squares == nullptr) return false;
  for (std::uint32_t c = 0; c < head_dim_; ++c) weights[c] = bf16_at(head_.query_squares, c);
  for (std::uint32_t n = 0; n < channels_; ++n) weights[head_.channels[n]] = 0;
  // For two channels that are rotated into each other, only their squares are
  // known, not their product.
  for (std::uint32_t pair = 0; turns_ != nullptr && pair < head_dim_ / 2; ++pair) {
    const auto [i, j] = channels_of(pair, rotary_);
    const float c = static_cast<float>(i16_at(turns_, 2 * pair)) * 0x1p-15f;
    const float s = static_cast<float>(i16_at(turns_, 2 * pair + 1)) * 0x1p-15f;
    const float first = c * c * weights[i] + s * s * weights[j];
    weights[j] = s * s * weights[i] + c * c * weights[j];
    weights[i] = first;
  }
  float mean = 0;
  for (std::uint32_t c = 0; c < head_dim_; ++c) mean += weights[c];
  mean = mean / static_cast<float>(head_dim_);
  if (!(mean >= 0x1p-60f && mean <= 0x1p60f)) return false;
  for (std::uint32_t c = 0; c < head_dim_; ++c) weights[c] = weights[c] / mean + 0.01f;
  return true;
}

}  // namespace nibkv
