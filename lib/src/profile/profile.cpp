#include "nibkv/profile.hpp"

#include <bit>
#include <cstring>
#include <limits>

#include "profile/format.hpp"

namespace nibkv {

static_assert(std::endian::native == std::endian::little, "profiles are read in place");

namespace {

bool finite_bf16(const std::uint8_t* bytes) {
  return (bytes[1] & 0x7f) != 0x7f || (bytes[0] & 0x80) == 0;
}

}  // namespace

bool good_channels(const std::uint8_t* record, std::uint32_t head_dim) {
  const HeadProfile head{record, record + kMaxOutlierChannels, record + 3 * kMaxOutlierChannels, nullptr, 0};
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
    if (!finite_bf16(head.key_means + 2 * c)) return false;
  }
  return true;
}

namespace {

bool good_head(const HeadProfile& head, std::uint32_t head_dim) {
  if (!good_channels(head.channels, head_dim)) return false;
  for (std::uint32_t c = 0; c < head_dim; ++c) {
    if (!finite_bf16(head.query_squares + 2 * c)) return false;
    if ((head.query_squares[2 * c + 1] & 0x80) != 0) return false;  // negative
  }
  return true;
}

/// Whether rows of numbers in Q15 have a length of 1, up to rounding.
bool good_rows(const std::uint8_t* rows, std::size_t count, std::size_t length) {
  // Rounding an element changes it by 2^-16 at most, and the square of a row's length by sqrt(256) * 2^-15 = 2^-11; an
  // element of 1 becomes 32767, which is 2^-14 less.
  constexpr std::int64_t kOne = 1 << 30, kOff = kOne >> 10;
  for (std::size_t row = 0; row < count; ++row) {
    std::int64_t energy = 0;
    for (std::size_t c = 0; c < length; ++c) {
      const std::int32_t element = i16_at(rows, row * length + c);
      if (element == -32768) return false;
      energy += element * element;
    }
    if (energy < kOne - kOff || energy > kOne + kOff) return false;
  }
  return true;
}

bool good_maps(const std::byte* data, const Shape& shape) {
  const std::size_t dim = shape.head_dim, heads = std::size_t{shape.layers} * shape.kv_heads;
  for (std::size_t i = 0; i < heads - shape.kv_heads; ++i) {
    const std::uint8_t* maps = profile_maps_at(data, heads, i, shape.head_dim);
    if (!good_rows(maps, dim, dim) || !good_rows(maps + 2 * dim * dim, dim / 2, 2)) return false;
  }
  return true;
}

bool good_rotary(const ProfileHeader& header, const Shape& shape) {
  if ((header.flags & ~(kProfileMaps | kProfileAdjacent | kProfileAttention)) != 0) return false;
  if ((header.flags & kProfileMaps) == 0) return (header.flags & kProfileAdjacent) == 0 && header.rotary_pairs == 0;
  return header.rotary_pairs != 0 && header.rotary_pairs <= shape.head_dim / 2;
}

bool good_attention(const HeadAttention& attention) {
  for (std::uint32_t i = 1; i < kAttentionRules; ++i) {
    if (attention.recovered[i] < attention.recovered[i - 1]) return false;
  }
  for (std::uint32_t i = 1; i < kAttentionPoints; ++i) {
    if (attention.tokens[i] < attention.tokens[i - 1]) return false;
  }
  return true;
}

void put_crc(std::span<std::byte> profile) {
  const std::uint32_t crc = profile_crc(profile.data(), profile.size());
  std::memcpy(profile.data() + offsetof(ProfileHeader, crc), &crc, sizeof crc);
}

/// The lowest layer has no layer below it.
bool good_lowest(const std::byte* data, const Shape& shape) {
  for (std::size_t i = 0; i < shape.kv_heads; ++i) {
    for (std::size_t n = 0; n < 5; ++n) {
      if (i16_at(profile_cosines_at(data, i, shape.head_dim), n) != kUnknownCosine) return false;
    }
  }
  return true;
}

}  // namespace

Status ProfileView::open(std::span<const std::byte> bytes, const Shape& shape) {
  if (!valid(shape)) return Status::kBadProfile;
  if (bytes.size() < sizeof(ProfileHeader)) return Status::kBadProfile;
  ProfileHeader header;
  std::memcpy(&header, bytes.data(), sizeof header);
  if (header.magic != kProfileMagic || header.version != kProfileVersion || header.header_bytes != sizeof header) {
    return Status::kBadProfile;
  }
  const bool maps = (header.flags & kProfileMaps) != 0;
  const bool attention = (header.flags & kProfileAttention) != 0;
  if (bytes.size() != profile_bytes(shape, maps, attention)) return Status::kBadProfile;
  if (header.total_bytes != bytes.size() || header.layers != shape.layers || header.kv_heads != shape.kv_heads ||
      header.head_dim != shape.head_dim || header.channels != kMaxOutlierChannels || !good_rotary(header, shape)) {
    return Status::kBadProfile;
  }
  if (header.crc != profile_crc(bytes.data(), bytes.size())) return Status::kBadProfile;
  const std::size_t heads = std::size_t{shape.layers} * shape.kv_heads;
  for (std::size_t i = 0; i < heads; ++i) {
    if (!good_head(head_profile_at(bytes.data(), i, shape.head_dim), shape.head_dim)) return Status::kBadProfile;
  }
  for (std::size_t i = 0; attention && i < heads; ++i) {
    HeadAttention of_head;
    const std::size_t above = maps ? heads - shape.kv_heads : 0;
    std::memcpy(&of_head, profile_attention_at(bytes.data(), heads, above, i, shape.head_dim), sizeof of_head);
    if (!good_attention(of_head)) return Status::kBadProfile;
  }
  if (!good_lowest(bytes.data(), shape) || (maps && !good_maps(bytes.data(), shape))) return Status::kBadProfile;
  data_ = bytes.data();
  layers_ = shape.layers;
  kv_heads_ = shape.kv_heads;
  head_dim_ = shape.head_dim;
  rotary_ = {(header.flags & kProfileAdjacent) != 0, header.rotary_pairs};
  attention_ = attention;
  return Status::kOk;
}

std::uint32_t ProfileView::checksum() const {
  std::uint32_t crc = 0;
  if (!empty()) std::memcpy(&crc, data_ + offsetof(ProfileHeader, crc), sizeof crc);
  return crc;
}

std::uint32_t ProfileView::weights() const {
  std::uint32_t weights = 0;
  if (!empty()) std::memcpy(&weights, data_ + offsetof(ProfileHeader, weights), sizeof weights);
  return weights;
}

HeadProfile ProfileView::head(std::uint32_t layer, std::uint32_t kv_head) const {
  return head_profile_at(data_, std::size_t{layer} * kv_heads_ + kv_head, head_dim_);
}

HeadAttention ProfileView::attention(std::uint32_t layer, std::uint32_t kv_head) const {
  HeadAttention attention;
  if (!has_attention()) return attention;
  const std::size_t heads = std::size_t{layers_} * kv_heads_, index = std::size_t{layer} * kv_heads_ + kv_head;
  const std::byte* at = profile_attention_at(data_, heads, has_maps() ? heads - kv_heads_ : 0, index, head_dim_);
  std::memcpy(&attention, at, sizeof attention);
  return attention;
}

LayerCosines ProfileView::cosines(std::uint32_t layer, std::uint32_t kv_head) const {
  const std::uint8_t* at = profile_cosines_at(data_, std::size_t{layer} * kv_heads_ + kv_head, head_dim_);
  return {i16_at(at, 0), i16_at(at, 1), i16_at(at, 2), i16_at(at, 3), i16_at(at, 4)};
}

LayerCosines ProfileView::cosines(std::uint32_t layer) const {
  const auto mean = [&](std::int16_t LayerCosines::*of) {
    std::int32_t sum = 0;  // of at most 1024 heads, each within 2^15
    for (std::uint32_t head = 0; head < kv_heads_; ++head) {
      const std::int16_t cosine = cosines(layer, head).*of;
      if (cosine == kUnknownCosine) return kUnknownCosine;
      sum += cosine;
    }
    if (kv_heads_ == 0) return kUnknownCosine;
    const std::int32_t half = kv_heads_ / 2;
    return static_cast<std::int16_t>((sum + (sum < 0 ? -half : half)) / kv_heads_);
  };
  return {mean(&LayerCosines::keys), mean(&LayerCosines::values), mean(&LayerCosines::aligned_keys),
          mean(&LayerCosines::aligned_values), mean(&LayerCosines::raw_keys)};
}

const std::uint8_t* ProfileView::value_map(std::uint32_t layer, std::uint32_t kv_head) const {
  if (!has_maps() || layer == 0) return nullptr;
  const std::size_t above = (std::size_t{layer} - 1) * kv_heads_ + kv_head;
  return profile_maps_at(data_, std::size_t{layers_} * kv_heads_, above, head_dim_);
}

const std::uint8_t* ProfileView::key_turns(std::uint32_t layer, std::uint32_t kv_head) const {
  const std::uint8_t* map = value_map(layer, kv_head);
  return map == nullptr ? nullptr : map + 2 * std::size_t{head_dim_} * head_dim_;
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
  put_crc(profile);
  return Status::kOk;
}

Status add_attention(std::span<const std::byte> profile, const Shape& shape, std::span<const HeadAttention> attention,
                     std::span<std::byte> copy) {
  ProfileView checked;
  if (checked.open(profile, shape) != Status::kOk) return Status::kBadProfile;
  if (attention.size() != std::size_t{shape.layers} * shape.kv_heads) return Status::kBadArgument;
  if (copy.size() != profile_bytes(shape, checked.has_maps(), true)) return Status::kBadArgument;
  for (const HeadAttention& each : attention) {
    if (!good_attention(each)) return Status::kBadArgument;
  }
  const std::size_t others = copy.size() - attention.size_bytes();
  std::memcpy(copy.data(), profile.data(), others);
  std::memcpy(copy.data() + others, attention.data(), attention.size_bytes());
  ProfileHeader header;
  std::memcpy(&header, copy.data(), sizeof header);
  header.total_bytes = static_cast<std::uint32_t>(copy.size());
  header.flags = static_cast<std::uint16_t>(header.flags | kProfileAttention);
  std::memcpy(copy.data(), &header, sizeof header);
  put_crc(copy);
  return Status::kOk;
}

}  // namespace nibkv
