#include <cstring>

#include "nibkv/profile.hpp"
#include "profile_format.hpp"

namespace nibkv {
namespace {

/// Sums of one KV head over the tokens seen. Arrays of head_dim each follow one another in memory.
struct Sums {
  double* tokens;     ///< one number; the second of the pair is unused
  double* queries2;   ///< q^2, mean over the group
  double* keys;
  double* keys2;
  double* values;
  float* key_least;
  float* key_most;
};

Sums sums_at(std::byte* memory, std::size_t index, std::uint32_t head_dim) {
  auto* at = reinterpret_cast<double*>(memory + index * (16 + head_dim * 40u));
  auto* ranges = reinterpret_cast<float*>(at + 2 + 4 * std::size_t{head_dim});
  return {at, at + 2, at + 2 + head_dim, at + 2 + 2 * std::size_t{head_dim}, at + 2 + 3 * std::size_t{head_dim}, ranges,
          ranges + head_dim};
}

// log2 of a positive finite number, within 0.09: exponent and fraction read as one number.
double rough_log2(double value) {
  std::uint64_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return static_cast<double>(bits) * 0x1p-52 - 1023.0;
}

void put_u16(std::uint8_t* bytes, std::uint32_t index, std::uint16_t value) { std::memcpy(bytes + 2 * index, &value, 2); }

void write_head(const Sums& sums, std::uint32_t head_dim, const WritableHeadProfile& head) {
  const double tokens = sums.tokens[0];
  double cost[kMaxHeadDim];
  float reach[kMaxHeadDim];  // the largest magnitude left of a key once its mean is off and its gain applied
  for (std::uint32_t c = 0; c < head_dim; ++c) {
    const std::uint16_t mean = to_bf16(static_cast<float>(sums.keys[c] / tokens));
    put_u16(head.key_means, c, mean);
    put_u16(head.value_means, c, to_bf16(static_cast<float>(sums.values[c] / tokens)));
    const double center = static_cast<double>(from_bf16(mean));
    double spread = sums.keys2[c] / tokens - 2 * center * (sums.keys[c] / tokens) + center * center;
    spread = spread > 0 ? spread : 0;
    const double queries2 = sums.queries2[c] / tokens;
    cost[c] = queries2 * spread;
    // An error that is white after rotation costs |q|^2 |k|^2 in all; gains of (E q^2 / E k^2)^(1/4) make that least.
    int gain = 0;
    if (queries2 > 1e-30 && spread > 1e-30) gain = static_cast<int>(rough_log2(queries2 / spread) / 4 + 64.5) - 64;
    gain = gain < -kMaxGain ? -kMaxGain : gain > kMaxGain ? kMaxGain : gain;
    head.gains[c] = static_cast<std::int8_t>(gain);
    const float up = sums.key_most[c] - static_cast<float>(center);
    const float down = static_cast<float>(center) - sums.key_least[c];
    reach[c] = (up > down ? up : down) * power_of_two(gain);
  }
  for (std::uint32_t n = 0; n < kMaxOutlierChannels; ++n) {
    std::uint32_t worst = head_dim;
    for (std::uint32_t c = 0; c < head_dim; ++c) {
      if (cost[c] >= 0 && (worst == head_dim || cost[c] > cost[worst])) worst = c;
    }
    cost[worst] = -1;
    head.channels[n] = static_cast<std::uint8_t>(worst);
    put_u16(head.outlier_scales, n, reach[worst] >= 0x1p-60f ? to_scale16(reach[worst] / 127.0f) : std::uint16_t{0});
  }
}

}  // namespace

Status Calibrator::init(std::span<std::byte> memory, const Shape& shape) {
  if (!valid(shape)) return Status::kBadShape;
  if (reinterpret_cast<std::uintptr_t>(memory.data()) % alignof(double) != 0) return Status::kMisaligned;
  if (memory.size() < calibration_bytes(shape)) return Status::kArenaTooSmall;
  memory_ = memory.data();
  shape_ = shape;
  std::memset(memory_, 0, calibration_bytes(shape));
  return Status::kOk;
}

Status Calibrator::observe(std::uint32_t layer, std::span<const float> queries, std::span<const float> keys, std::span<const float> values) {
  if (memory_ == nullptr) return Status::kNotReady;
  const std::size_t dim = shape_.head_dim;
  const std::size_t count = keys.size() / (shape_.kv_heads * dim);
  if (layer >= shape_.layers || count == 0 || keys.size() != count * shape_.kv_heads * dim || values.size() != keys.size() ||
      queries.size() != count * shape_.query_heads * dim) {
    return Status::kBadArgument;
  }
  for (std::uint32_t kv_head = 0; kv_head < shape_.kv_heads; ++kv_head) {
    const Sums sums = sums_at(memory_, std::size_t{layer} * shape_.kv_heads + kv_head, shape_.head_dim);
    for (std::size_t i = 0; i < count; ++i) {
      const float* key = keys.data() + (i * shape_.kv_heads + kv_head) * dim;
      const float* value = values.data() + (i * shape_.kv_heads + kv_head) * dim;
      const float* group = queries.data() + (i * shape_.query_heads + kv_head * shape_.group()) * dim;
      const bool first = sums.tokens[0] == 0;
      sums.tokens[0] += 1;
      for (std::size_t c = 0; c < dim; ++c) {
        double squares = 0;
        for (std::size_t g = 0; g < shape_.group(); ++g) squares += static_cast<double>(group[g * dim + c]) * static_cast<double>(group[g * dim + c]);
        sums.queries2[c] += squares / shape_.group();
        sums.keys[c] += static_cast<double>(key[c]);
        sums.keys2[c] += static_cast<double>(key[c]) * static_cast<double>(key[c]);
        sums.values[c] += static_cast<double>(value[c]);
        if (first || key[c] < sums.key_least[c]) sums.key_least[c] = key[c];
        if (first || key[c] > sums.key_most[c]) sums.key_most[c] = key[c];
      }
    }
  }
  return Status::kOk;
}

Status Calibrator::write(std::span<std::byte> profile) const {
  if (memory_ == nullptr) return Status::kNotReady;
  if (profile.size() != profile_bytes(shape_)) return Status::kBadArgument;
  const std::size_t heads = std::size_t{shape_.layers} * shape_.kv_heads;
  for (std::size_t i = 0; i < heads; ++i) {
    if (sums_at(memory_, i, shape_.head_dim).tokens[0] == 0) return Status::kBadArgument;
  }
  for (std::size_t i = 0; i < heads; ++i) {
    write_head(sums_at(memory_, i, shape_.head_dim), shape_.head_dim, head_profile_at(profile.data(), i, shape_.head_dim));
  }
  ProfileHeader header{};
  header.magic = kProfileMagic;
  header.version = kProfileVersion;
  header.header_bytes = sizeof header;
  header.total_bytes = static_cast<std::uint32_t>(profile.size());
  header.layers = shape_.layers;
  header.kv_heads = shape_.kv_heads;
  header.head_dim = shape_.head_dim;
  header.channels = kMaxOutlierChannels;
  std::memcpy(profile.data(), &header, sizeof header);
  header.crc = profile_crc(profile.data(), profile.size());
  std::memcpy(profile.data(), &header, sizeof header);
  return Status::kOk;
}

}  // namespace nibkv
