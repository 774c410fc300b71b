#include "basis.hpp"

#include "profile_format.hpp"

namespace nibkv {
namespace {

std::uint16_t u16_at(const std::uint8_t* bytes, std::uint32_t index) {
  return static_cast<std::uint16_t>(bytes[2 * index] | bytes[2 * index + 1] << 8);
}

float bf16_at(const std::uint8_t* bytes, std::uint32_t index) { return from_bf16(u16_at(bytes, index)); }

}  // namespace

Basis::Basis(const ProfileView& profile, const Shape& shape, std::uint32_t layer, std::uint32_t kv_head)
    : empty_(profile.empty()), head_dim_(shape.head_dim), channels_(shape.outlier_channels) {
  if (!empty_) head_ = profile.head(layer, kv_head);
}

void Basis::split_key(float* row, std::int8_t* outliers) const {
  if (empty_) return;
  for (std::uint32_t c = 0; c < head_dim_; ++c) row[c] = (row[c] - bf16_at(head_.key_means, c)) * power_of_two(head_.gains[c]);
  for (std::uint32_t n = 0; n < channels_; ++n) {
    const float scale = from_scale16(u16_at(head_.outlier_scales, n));
    float& channel = row[head_.channels[n]];
    std::int32_t code = 0;
    if (scale > 0) {
      float steps = channel / scale;
      steps = steps < 127.0f ? steps : 127.0f;
      steps = steps > -127.0f ? steps : -127.0f;
      code = static_cast<std::int32_t>(steps + 127.5f) - 127;
    }
    outliers[n] = static_cast<std::int8_t>(code);
    channel -= static_cast<float>(code) * scale;
  }
}

void Basis::split_query(float* row, float* outliers) const {
  if (empty_) return;
  for (std::uint32_t c = 0; c < head_dim_; ++c) row[c] *= power_of_two(-head_.gains[c]);
  for (std::uint32_t n = 0; n < channels_; ++n) outliers[n] = row[head_.channels[n]] * from_scale16(u16_at(head_.outlier_scales, n));
}

void Basis::center_value(float* row) const {
  if (empty_) return;
  for (std::uint32_t c = 0; c < head_dim_; ++c) row[c] -= bf16_at(head_.value_means, c);
}

void Basis::restore_output(float* row) const {
  if (empty_) return;
  for (std::uint32_t c = 0; c < head_dim_; ++c) row[c] += bf16_at(head_.value_means, c);
}

}  // namespace nibkv
