#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>

#include "nibkv/shape.hpp"
#include "nibkv/status.hpp"

#include "nibkv/macros_push.hpp"

namespace nibkv {

/// What is known of a model's keys and queries before it runs: a small constant table, made once per model from any
/// text and linked as data or loaded from a file. lib/FORMAT.md has every bit. Per KV head of every layer:
/// - the channels of its keys whose error would cost most, worst first (ranked by mean q^2 times mean k^2: ThinK, arXiv
///   2407.21018, section 3), and the scale of their 8-bit codes;
/// - the mean key: taken off every key before coding. All logits of a query move by the same amount, which softmax does
///   not see;
/// - the mean square of every query channel: says which errors of a key its queries will see;
/// - how much the head looks answers up in far text, as a share of the head that does so most (HeadKV, arXiv
/// 2410.19258);
/// - how alike its keys and values are to those of the same head in the layer below, which decides whether the two
/// layers may share codes (MiniCache, arXiv 2405.14366): as they are, and brought to the lower layer's basis by an
/// orthogonal map. The maps themselves are there when asked for.
/// Without a profile nothing is taken off, errors count alike, and there are no outlier channels.
inline constexpr std::uint32_t kProfileVersion = 4;

/// First 32 bytes of a profile; all numbers are little-endian.
struct ProfileHeader {
  std::uint32_t magic;         ///< kProfileMagic
  std::uint16_t version;       ///< kProfileVersion
  std::uint16_t header_bytes;  ///< 32
  std::uint32_t total_bytes;   ///< of the whole profile
  std::uint32_t crc;           ///< CRC-32 (IEEE 802.3) of the whole profile with this field 0
  std::uint16_t layers;
  std::uint16_t kv_heads;
  std::uint16_t head_dim;
  std::uint16_t channels;      ///< ranked outlier channels of a head: 16
  std::uint16_t flags;         ///< kProfileMaps, kProfileAdjacent
  std::uint16_t rotary_pairs;  ///< with maps: pairs of a head that rotary embedding turns, [1, head_dim / 2]; else 0
  std::uint32_t weights;       ///< CalibrationOptions::weights
};
static_assert(sizeof(ProfileHeader) == 32 && offsetof(ProfileHeader, crc) == 12 &&
              offsetof(ProfileHeader, flags) == 24);

inline constexpr std::uint32_t kProfileMagic = 0x504b424e;  // "NBKP"

inline constexpr std::uint16_t kProfileMaps = 1;      ///< maps follow the heads
inline constexpr std::uint16_t kProfileAdjacent = 2;  ///< RotaryPairs::adjacent; only with maps

/// Bytes of a profile for this shape. Only layers, kv_heads and head_dim matter.
/// @param maps  with the maps of every layer above the lowest
/// @returns 0 when that is 4 GiB or more, which no profile can be
constexpr std::size_t profile_bytes(const Shape& shape, bool maps = false) {
  const std::uint64_t dim = shape.head_dim;
  const std::uint64_t heads = std::uint64_t{shape.layers} * shape.kv_heads;
  const std::uint64_t above = shape.layers == 0 ? 0 : heads - shape.kv_heads;
  const std::uint64_t head = kMaxOutlierChannels * 3 + dim * 4 + 2 + 5 * 2;
  const std::uint64_t bytes = sizeof(ProfileHeader) + head * heads + (maps ? (dim * dim + dim) * 2 * above : 0);
  return bytes > std::numeric_limits<std::uint32_t>::max() ? 0 : static_cast<std::size_t>(bytes);
}

/// Which channels of a head rotary embedding turns together. Those that it leaves are paired as neighbours.
struct RotaryPairs {
  bool adjacent = false;    ///< channels (2i, 2i + 1), as in GGUF files of Llama models; else (i, i + count)
  std::uint16_t count = 0;  ///< pairs that turn, [1, head_dim / 2]; 0: head_dim / 2
};

struct ChannelPair {
  std::uint32_t first, second;
};

/// @param pair    [0, head_dim / 2)
/// @param rotary  with a count above 0
constexpr ChannelPair channels_of(std::uint32_t pair, const RotaryPairs& rotary) {
  if (rotary.adjacent || pair >= rotary.count) return {2 * pair, 2 * pair + 1};
  return {pair, pair + rotary.count};
}

inline constexpr std::int16_t kUnknownCosine = -32768;

/// How alike a layer's rows are to those of the layer below at the same tokens: cosines in Q15, in [-32767, 32767] or
/// kUnknownCosine. Keys count with all of their channels, outlier channels too.
struct LayerCosines {
  /// Of keys less each layer's mean key, weighted by their magnitudes: sum <k, l> / sqrt(sum <k, k> * sum <l, l>).
  std::int16_t keys = kUnknownCosine;
  std::int16_t values = kUnknownCosine;          ///< mean of the cosines of values; rows of zeros are left out
  std::int16_t aligned_keys = kUnknownCosine;    ///< as `keys`, once each pair of rotary channels is turned
  std::int16_t aligned_values = kUnknownCosine;  ///< as `values`, once they went through the map
  std::int16_t raw_keys = kUnknownCosine;        ///< mean of the cosines of keys, means not taken off
};

/// One head's part of a profile: pointers into it. Arrays of u16 are little-endian and may be unaligned.
struct HeadProfile {
  const std::uint8_t* channels;        ///< u8[16]: ranked, each in [0, head_dim), all different
  const std::uint8_t* outlier_scales;  ///< scale16[16]: key ~ code * scale, code in [-127, 127]
  const std::uint8_t* key_means;       ///< bf16[head_dim]
  const std::uint8_t* query_squares;   ///< bf16[head_dim], at least 0: mean over tokens and the group
  std::uint16_t head_score;            ///< 65535 for the head that looks answers up most; 0 in all when unknown
};

/// Writes the head scores of a profile and its new checksum.
///
/// @param profile  that ProfileView::open takes
/// @param scores   f32[layers][kv_heads], finite, at least 0. They are scaled so that the largest becomes 65535, and
///                 rounded; all are 0 when all of `scores` are.
/// @returns kBadProfile; kBadArgument for scores of a wrong number or out of range. The profile is unchanged unless
///          kOk.
Status set_head_scores(std::span<std::byte> profile, const Shape& shape, std::span<const float> scores);

/// A checked profile. It points into the bytes it was opened on.
class ProfileView {
 public:
  /// Checks all of `bytes`: magic, version, size, checksum, shape, ranges of every field.
  /// @returns kBadProfile; the view is unchanged then.
  Status open(std::span<const std::byte> bytes, const Shape& shape);

  bool empty() const { return data_ == nullptr; }
  /// Its checksum; 0 when empty.
  std::uint32_t checksum() const;
  /// CalibrationOptions::weights of whoever made it; 0 when unknown or empty.
  std::uint32_t weights() const;
  /// @param layer    in range of the shape it was opened with
  /// @param kv_head  likewise
  HeadProfile head(std::uint32_t layer, std::uint32_t kv_head) const;

  /// Of a layer and the one below; all unknown for layer 0.
  LayerCosines cosines(std::uint32_t layer, std::uint32_t kv_head) const;
  /// Means over the layer's heads, rounded to nearest; unknown where one head's is.
  LayerCosines cosines(std::uint32_t layer) const;

  bool has_maps() const { return rotary_.count != 0; }
  /// How key_turns pairs channels; the count is 0 without maps.
  const RotaryPairs& rotary() const { return rotary_; }
  /// The orthogonal map M that brings a layer's values nearest to those of the layer below: output channel i is the sum
  /// over j of M[i][j] / 32768 * v[j]. The unit matrix where nothing was measured.
  /// @returns i16[head_dim][head_dim], little-endian, maybe unaligned; null without maps and for layer 0
  const std::uint8_t* value_map(std::uint32_t layer, std::uint32_t kv_head) const;
  /// What turns a layer's keys nearest to those of the layer below, before or after rotary embedding alike: with (c, s)
  /// of pair p and (i, j) = channels_of(p, rotary()), out[i] = c * k[i] - s * k[j] and out[j] = s * k[i] + c * k[j].
  /// @returns i16[head_dim / 2][2], Q15, as above
  const std::uint8_t* key_turns(std::uint32_t layer, std::uint32_t kv_head) const;

 private:
  const std::byte* data_ = nullptr;
  std::uint16_t layers_ = 0;
  std::uint16_t kv_heads_ = 0;
  std::uint16_t head_dim_ = 0;
  RotaryPairs rotary_ = {};
};

/// Most tokens that a Calibrator takes at a time.
inline constexpr std::size_t kCalibrationChunk = 64;

struct CalibrationOptions {
  /// Measures aligned cosines and their maps too. Memory and time then grow by head_dim^2 a head: 8 bytes, and a
  /// multiplication a token.
  bool align = false;
  RotaryPairs rotary = {};  ///< read when align is set
  /// Which weights the profile is of: any number that other weights do not have, such as a checksum of them; 0: not
  /// said. A cache that is told its model's (Options::weights) refuses a profile of others.
  std::uint32_t weights = 0;
};

/// Working memory of a Calibrator in bytes; 0 for an invalid shape, or when no memory of this machine can hold them.
constexpr std::size_t calibration_bytes(const Shape& shape, const CalibrationOptions& options = {}) {
  if (!valid(shape)) return 0;
  const std::uint64_t dim = shape.head_dim, heads = shape.kv_heads;
  const std::uint64_t head = 8 + dim * (3 * 8 + 2 * 4);
  const std::uint64_t pair = 8 * (6 + (options.align ? dim + dim * dim : 0));
  const std::uint64_t chunk = kCalibrationChunk * heads * dim * 2 * 4;  // keys and values of the layer before
  const std::uint64_t maps = options.align ? 8 * (3 * dim * dim + dim) : 0;
  const std::uint64_t bytes = shape.layers * heads * head + (shape.layers - 1u) * heads * pair + chunk + maps;
  const auto size = static_cast<std::size_t>(bytes);
  return size == bytes ? size : 0;
}

/// Makes a profile: show it queries, keys and values of a model that reads any text, a few thousand tokens or more.
///
/// Contexts should be about as long as those the model will meet: mean keys are means over positions.
///
/// Neighbouring layers are compared token by token, so tokens are to be shown as a model works on them: a chunk in
/// layer 0, the same tokens in layer 1, and so on. A pair of layers is unknown in the profile unless every chunk of the
/// upper one came right after a chunk of as many tokens of the lower one, and none of the lower one came otherwise.
class Calibrator {
 public:
  /// @param memory  at least calibration_bytes(shape, options), aligned to 8 bytes, until write() was called
  /// @returns kBadShape, also for calibration_bytes(shape, options) == 0; kBadArgument for a rotary count above
  ///          head_dim / 2; kMisaligned; kArenaTooSmall
  Status init(std::span<std::byte> memory, const Shape& shape, const CalibrationOptions& options = {});

  /// Takes note of `count` tokens of one layer.
  /// @param queries  f32, finite, shape [count][query_heads][head_dim], after rotary embedding
  /// @param keys     f32, finite, shape [count][kv_heads][head_dim], after rotary embedding
  /// @param values   f32, finite, shape [count][kv_heads][head_dim]
  /// @returns kNotReady; kBadArgument for a wrong layer or span size, for more than kCalibrationChunk tokens, or for a
  ///          number that is not finite.
  ///          Nothing has changed unless kOk.
  Status observe(std::uint32_t layer, std::span<const float> queries, std::span<const float> keys,
                 std::span<const float> values);

  /// Writes the profile. With maps it takes O(layers * kv_heads * head_dim^3).
  /// @param profile  exactly profile_bytes(shape), or with `align` profile_bytes(shape, true) for maps too
  /// @returns kNotReady; kBadArgument for a wrong span size or when a layer has seen no token
  Status write(std::span<std::byte> profile) const;

 private:
  std::byte* memory_ = nullptr;
  Shape shape_;
  CalibrationOptions options_;
  std::uint32_t last_layer_ = 0;  // that was shown,
  std::size_t last_count_ = 0;    // ... and its tokens; 0: none yet
};

}  // namespace nibkv

#include "nibkv/macros_pop.hpp"
