#include <cstring>

#include "nibkv/profile.hpp"
#include "numbers/numbers.hpp"
#include "profile/format.hpp"
#include "profile/layer_similarity.hpp"
#include "profile/procrustes.hpp"

namespace nibkv {
namespace {

/// Sums of one KV head over the tokens seen. Arrays of head_dim each follow one another in memory.
struct Sums {
  double* tokens;    ///< one number
  double* queries2;  ///< q^2, mean over the group
  double* keys;
  double* keys2;
  float* key_least;
  float* key_most;
};

Sums sums_at(std::byte* memory, std::size_t index, std::uint32_t head_dim) {
  const std::size_t dim = head_dim;
  auto* at = in_place<double>(memory + index * (8 + dim * 32));
  auto* ranges = in_place<float>(at + 1 + 3 * dim);
  return {at, at + 1, at + 1 + dim, at + 1 + 2 * dim, ranges, ranges + dim};
}

/// What follows the sums of all heads: the sums of pairs, and temporary memory.
struct Neighbours {
  double* pairs;               ///< [layers - 1][kv_heads] of PairSums
  std::size_t pair_sums_size;  ///< doubles of each
  double* map;                 ///< [D][D]; this and the next two are null if not aligned
  double* turns;               ///< [D / 2][2]
  double* room;                ///< polar_workspace(D)
  float* keys;                 ///< of the previous layer, [kCalibrationChunk][kv_heads][D]
  float* values;               ///< likewise

  Neighbours(std::byte* memory, const Shape& shape, bool align)
      : pair_sums_size(nibkv::pair_sums_size(shape.head_dim, align)) {
    const std::size_t dim = shape.head_dim, heads = shape.kv_heads;
    pairs = in_place<double>(memory + shape.layers * heads * (8 + dim * 32));
    double* end = pairs + (shape.layers - 1u) * heads * pair_sums_size;
    map = align ? end : nullptr;
    turns = align ? map + dim * dim : nullptr;
    room = align ? turns + dim : nullptr;
    keys = in_place<float>(align ? room + polar_workspace(dim) : end);
    values = keys + kCalibrationChunk * heads * dim;
  }

  /// @param index  number of the head among those above layer 0
  PairSums pair(std::size_t index, std::size_t head_dim) const {
    return pair_sums_at(pairs + index * pair_sums_size, head_dim, map != nullptr);
  }
};

// Limits a value to what a profile may hold: finite after rounding.
float limited(double value) {
  constexpr double kMost = 1e38;
  return static_cast<float>(value < -kMost ? -kMost : value > kMost ? kMost : value);
}

// An outlier that is clipped at 8 bits is lost, so the range extends beyond the largest key seen.
constexpr float kHeadroom = 1.25f;

void write_head(const Sums& sums, std::uint32_t head_dim, const WritableHeadProfile& head) {
  put_u16(head.head_score, 0, 0);
  const double tokens = sums.tokens[0];
  double cost[kMaxHeadDim];
  float reach[kMaxHeadDim];  // the largest magnitude of a key after its mean is subtracted
  for (std::uint32_t c = 0; c < head_dim; ++c) {
    const std::uint16_t mean = to_bf16(limited(sums.keys[c] / tokens));
    const double queries2 = sums.queries2[c] / tokens;
    put_u16(head.key_means, c, mean);
    put_u16(head.query_squares, c, to_bf16(limited(queries2)));
    const double center = static_cast<double>(from_bf16(mean));
    const double spread = sums.keys2[c] / tokens - 2 * center * (sums.keys[c] / tokens) + center * center;
    cost[c] = spread > 0 ? queries2 * spread : 0;
    const double up = static_cast<double>(sums.key_most[c]) - center;
    const double down = center - static_cast<double>(sums.key_least[c]);
    reach[c] = limited(up > down ? up : down);
  }
  for (std::uint32_t n = 0; n < kMaxOutlierChannels; ++n) {
    std::uint32_t worst = head_dim;
    for (std::uint32_t c = 0; c < head_dim; ++c) {
      if (cost[c] >= 0 && (worst == head_dim || cost[c] > cost[worst])) worst = c;
    }
    cost[worst] = -1;
    head.channels[n] = static_cast<std::uint8_t>(worst);
    const bool live = reach[worst] >= 0x1p-60f;
    put_u16(head.outlier_scales, n, live ? to_scale16(reach[worst] * (kHeadroom / 127.0f)) : std::uint16_t{0});
  }
}

void write_cosines(const LayerCosines& cosines, std::uint8_t* bytes) {
  std::size_t n = 0;
  for (const std::int16_t cosine :
       {cosines.keys, cosines.values, cosines.aligned_keys, cosines.aligned_values, cosines.raw_keys}) {
    put_i16(bytes, n++, cosine);
  }
}

// Elements of orthogonal matrices.
void write_q15(const double* from, std::size_t count, std::uint8_t* bytes) {
  for (std::size_t i = 0; i < count; ++i) {
    const auto rounded = static_cast<std::int32_t>(from[i] * 32768 + 65536.5) - 65536;
    put_i16(bytes, i, static_cast<std::int16_t>(rounded > 32767 ? 32767 : rounded < -32767 ? -32767 : rounded));
  }
}

}  // namespace

Status Calibrator::init(std::span<std::byte> memory, const Shape& shape, const CalibrationOptions& options) {
  const std::size_t bytes = calibration_bytes(shape, options);
  if (bytes == 0) return Status::kBadShape;
  if (options.align && options.rotary.count > shape.head_dim / 2) return Status::kBadArgument;
  if (reinterpret_cast<std::uintptr_t>(memory.data()) % alignof(double) != 0) return Status::kMisaligned;
  if (memory.size() < bytes) return Status::kArenaTooSmall;
  memory_ = memory.data();
  shape_ = shape;
  options_ = options;
  if (options_.rotary.count == 0) options_.rotary.count = static_cast<std::uint16_t>(shape.head_dim / 2);
  last_count_ = 0;
  std::memset(memory_, 0, bytes);
  return Status::kOk;
}

Status Calibrator::observe(std::uint32_t layer, std::span<const float> queries, std::span<const float> keys,
                           std::span<const float> values) {
  if (memory_ == nullptr) return Status::kNotReady;
  const std::size_t dim = shape_.head_dim;
  const std::size_t count = keys.size() / (shape_.kv_heads * dim);
  if (layer >= shape_.layers || count == 0 || count > kCalibrationChunk ||
      keys.size() != count * shape_.kv_heads * dim || values.size() != keys.size() ||
      queries.size() != count * shape_.query_heads * dim) {
    return Status::kBadArgument;
  }
  for (const std::span<const float> rows : {queries, keys, values}) {
    if (!all_finite(rows.data(), rows.size())) return Status::kBadArgument;
  }
  for (std::uint32_t kv_head = 0; kv_head < shape_.kv_heads; ++kv_head) {
    const Sums sums = sums_at(memory_, std::size_t{layer} * shape_.kv_heads + kv_head, shape_.head_dim);
    for (std::size_t i = 0; i < count; ++i) {
      const float* key = keys.data() + (i * shape_.kv_heads + kv_head) * dim;
      const float* group = queries.data() + (i * shape_.query_heads + kv_head * shape_.group()) * dim;
      const bool first = sums.tokens[0] == 0;
      sums.tokens[0] += 1;
      for (std::size_t c = 0; c < dim; ++c) {
        double squares = 0;
        for (std::size_t g = 0; g < shape_.group(); ++g) {
          const auto query = static_cast<double>(group[g * dim + c]);
          squares += query * query;
        }
        sums.queries2[c] += squares / shape_.group();
        sums.keys[c] += static_cast<double>(key[c]);
        sums.keys2[c] += static_cast<double>(key[c]) * static_cast<double>(key[c]);
        if (first || key[c] < sums.key_least[c]) sums.key_least[c] = key[c];
        if (first || key[c] > sums.key_most[c]) sums.key_most[c] = key[c];
      }
    }
  }

  const Neighbours neighbours(memory_, shape_, options_.align);
  if (last_count_ == count && layer == last_layer_ + 1) {
    const std::size_t row_size = dim * shape_.kv_heads;
    for (std::size_t kv_head = 0; kv_head < shape_.kv_heads; ++kv_head) {
      const PairSums pair = neighbours.pair((layer - 1) * std::size_t{shape_.kv_heads} + kv_head, dim);
      for (std::size_t at = kv_head * dim; at < count * row_size; at += row_size) {
        add_keys(pair, neighbours.keys + at, keys.data() + at, shape_.head_dim, options_.rotary);
        add_values(pair, neighbours.values + at, values.data() + at, shape_.head_dim);
      }
    }
  }
  std::memcpy(neighbours.keys, keys.data(), keys.size_bytes());
  std::memcpy(neighbours.values, values.data(), values.size_bytes());
  last_layer_ = layer;
  last_count_ = count;
  return Status::kOk;
}

Status Calibrator::write(std::span<std::byte> profile) const {
  if (memory_ == nullptr) return Status::kNotReady;
  const bool maps = options_.align && profile.size() == profile_bytes(shape_, true) && shape_.layers > 1;
  if (profile.empty() || (!maps && profile.size() != profile_bytes(shape_))) return Status::kBadArgument;
  const std::size_t heads = std::size_t{shape_.layers} * shape_.kv_heads;
  for (std::size_t i = 0; i < heads; ++i) {
    if (sums_at(memory_, i, shape_.head_dim).tokens[0] == 0) return Status::kBadArgument;
  }
  for (std::size_t i = 0; i < heads; ++i) {
    const WritableHeadProfile head = head_profile_at(profile.data(), i, shape_.head_dim);
    write_head(sums_at(memory_, i, shape_.head_dim), shape_.head_dim, head);
    write_cosines({}, head.cosines);
  }
  const Neighbours neighbours(memory_, shape_, options_.align);
  const std::size_t dim = shape_.head_dim;
  for (std::size_t i = 0; i < heads - shape_.kv_heads; ++i) {
    const Sums lower = sums_at(memory_, i, shape_.head_dim);
    const Sums upper = sums_at(memory_, i + shape_.kv_heads, shape_.head_dim);
    const LayerCosines cosines = measure_pair(neighbours.pair(i, dim), {lower.tokens[0], lower.keys, lower.keys2},
                                              {upper.tokens[0], upper.keys, upper.keys2}, shape_.head_dim,
                                              options_.rotary, neighbours.map, neighbours.turns, neighbours.room);
    write_cosines(cosines, head_profile_at(profile.data(), i + shape_.kv_heads, shape_.head_dim).cosines);
    if (!maps) continue;
    std::uint8_t* at = profile_maps_at(profile.data(), heads, i, shape_.head_dim);
    write_q15(neighbours.map, dim * dim, at);
    write_q15(neighbours.turns, dim, at + 2 * dim * dim);
  }
  ProfileHeader header{};
  header.magic = kProfileMagic;
  header.version = kProfileVersion;
  header.header_bytes = sizeof header;
  header.total_bytes = static_cast<std::uint32_t>(profile.size());
  header.layers = shape_.layers;
  header.kv_heads = shape_.kv_heads;
  header.head_dim = shape_.head_dim;
  header.weights = options_.weights;
  header.channels = kMaxOutlierChannels;
  if (maps) {
    header.flags = static_cast<std::uint16_t>(kProfileMaps | (options_.rotary.adjacent ? kProfileAdjacent : 0));
    header.rotary_pairs = options_.rotary.count;
  }
  std::memcpy(profile.data(), &header, sizeof header);
  header.crc = profile_crc(profile.data(), profile.size());
  std::memcpy(profile.data(), &header, sizeof header);
  return Status::kOk;
}

}  // namespace nibkv
