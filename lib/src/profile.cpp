#include "nibkv/profile.hpp"

#include <bit>
#include <cstring>
#include <limits>

#include "profile_format.hpp"

namespace nibkv {

static_assert(std::endian::native == std::endian::little, "profiles are read in place");

namespace {

bool finite_bf16(const std::uint8_t* bytes) {
  return (bytes[1] & 0x7f) != 0x7f || (bytes[0] & 0x80) == 0;
}

bool good_head(const HeadProfile& head, std::uint32_t head_dim) {
  std::uint8_t taken[kMaxHeadDim / 8] = {};
  for (std::uint32_t n = 0; n < kMaxOutlierChannels; ++n) {
    const std::uint32_t channel = head.channels[n];
    if (channel >= head_dim || (taken[channel / 8] >> channel % 8 & 1) != 0) return false;
    taken[channel / 8] = static_cast<std::uint8_t>(taken[channel / 8] | 1u << channel % 8);
    // Zero, or a normal number: the exponent is bits 15..8 of a scale16.
    const std::uint16_t scale = u16_at(head.outlier_scales, n);
    if (scale != 0 && (scale >> 8 == 0 || scale >> 8 == 0xff)) return false;
  }
  for (std::uint32_t c = 0; c < head_dim; ++c) {
    if (!finite_bf16(head.key_means + 2 * c) || !finite_bf16(head.query_squares + 2 * c)) return false;
    if ((head.query_squares[2 * c + 1] & 0x80) != 0) return false;  // negative
  }
  return true;
}

}  // namespace

Status ProfileView::open(std::span<const std::byte> bytes, const Shape& shape) {
  if (!valid(shape)) return Status::kBadProfile;
  if (bytes.size() != profile_bytes(shape)) return Status::kBadProfile;
  ProfileHeader header;
  std::memcpy(&header, bytes.data(), sizeof header);
  if (header.magic != kProfileMagic || header.version != kProfileVersion || header.header_bytes != sizeof header) {
    return Status::kBadProfile;
  }
  if (header.total_bytes != bytes.size() || header.layers != shape.layers || header.kv_heads != shape.kv_heads ||
      header.head_dim != shape.head_dim || header.channels != kMaxOutlierChannels || header.reserved[0] != 0 ||
      header.reserved[1] != 0) {
    return Status::kBadProfile;
  }
  if (header.crc != profile_crc(bytes.data(), bytes.size())) return Status::kBadProfile;
  const std::size_t heads = std::size_t{shape.layers} * shape.kv_heads;
  for (std::size_t i = 0; i < heads; ++i) {
    if (!good_head(head_profile_at(bytes.data(), i, shape.head_dim), shape.head_dim)) return Status::kBadProfile;
  }
  data_ = bytes.data();
  kv_heads_ = shape.kv_heads;
  head_dim_ = shape.head_dim;
  return Status::kOk;
}

HeadProfile ProfileView::head(std::uint32_t layer, std::uint32_t kv_head) const {
  return head_profile_at(data_, std::size_t{layer} * kv_heads_ + kv_head, head_dim_);
}

Status set_head_scores(std::span<std::byte> profile, const Shape& shape, std::span<const float> scores) {
  ProfileView checked;
  if (checked.open(profile, shape) != Status::kOk) return Status::kBadProfile;
  if (scores.size() != std::size_t{shape.layers} * shape.kv_heads) return Status::kBadArgument;
  float largest = 0;
  for (const float score : scores) {
    if (!(score >= 0 && score <= std::numeric_limits<float>::max())) return Status::kBadArgument;
    if (score > largest) largest = score;
  }
  for (std::size_t i = 0; i < scores.size(); ++i) {
    // In double, where no quotient of two floats overflows or vanishes on the way.
    const double share = largest > 0 ? static_cast<double>(scores[i]) / static_cast<double>(largest) : 0;
    put_u16(head_profile_at(profile.data(), i, shape.head_dim).head_score, 0,
            static_cast<std::uint16_t>(share * 65535 + 0.5));
  }
  const std::uint32_t crc = profile_crc(profile.data(), profile.size());
  std::memcpy(profile.data() + offsetof(ProfileHeader, crc), &crc, sizeof crc);
  return Status::kOk;
}

}  // namespace nibkv
