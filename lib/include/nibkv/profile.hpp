#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>

#include "nibkv/shape.hpp"
#include "nibkv/status.hpp"

#include "nibkv/macros_push.hpp"

namespace nibkv {

/// What is known about a model's keys and queries before it runs: a small constant table, made once
/// per model from any text, and linked as data or loaded from a file. lib/FORMAT.md specifies every
/// bit. For each KV head of every layer it has:
/// - the channels of its keys where an error would cost most, worst first, and the scales of their
///   8-bit codes. They are ranked by mean q^2 times the mean of (k - mean k)^2, after ThinK,
///   arXiv 2407.21018, section 3;
/// - the mean key, which is subtracted from every key before it is quantised. That shifts all
///   logits of a query by the same amount, which softmax ignores;
/// - the mean square of every query channel, which tells which errors of a key its queries
///   will see;
/// - how much the head retrieves answers from distant text, relative to the head that does so most
///   (HeadKV, arXiv 2410.19258);
/// - how similar its keys and values are to those of the same head in the layer below, which
///   decides whether the two layers may share codes (MiniCache, arXiv 2405.14366): both as they
///   are, and after an orthogonal map to the lower layer's basis. The maps themselves are included
///   on request.
/// - on request, how its attention spreads: how many tokens have a given share of it (PrefixKV, arXiv 2412.03409), and
///   what special tokens, punctuation, the newest and the most attended tokens get (FastGen, arXiv 2310.01801).
/// Without a profile nothing is subtracted, all errors count the same, and there are no
/// outlier channels.
inline constexpr std::uint32_t kProfileVersion = 4;

/// First 32 bytes of a profile; all numbers are little-endian.
struct ProfileHeader {
  std::uint32_t magic;         ///< kProfileMagic
  std::uint16_t version;       ///< kProfileVersion
  std::uint16_t header_bytes;  ///< 32
  std::uint32_t total_bytes;   ///< size of the whole profile
  std::uint32_t crc;           ///< CRC-32 (IEEE 802.3) of the whole profile with this field 0
  std::uint16_t layers;
  std::uint16_t kv_heads;
  std::uint16_t head_dim;
  std::uint16_t channels;      ///< ranked outlier channels per head: 16
  std::uint16_t flags;         ///< kProfileMaps, kProfileAdjacent, kProfileAttention
  std::uint16_t rotary_pairs;  ///< with maps: rotated channel pairs of a head, [1, head_dim / 2]; else 0
  std::uint32_t weights;       ///< CalibrationOptions::weights
};
static_assert(sizeof(ProfileHeader) == 32 && offsetof(ProfileHeader, crc) == 12 &&
              offsetof(ProfileHeader, flags) == 24);

inline constexpr std::uint32_t kProfileMagic = 0x504b424e;  // "NBKP"

inline constexpr std::uint16_t kProfileMaps = 1;       ///< maps follow the heads
inline constexpr std::uint16_t kProfileAdjacent = 2;   ///< RotaryPairs::adjacent is set; only with maps
inline constexpr std::uint16_t kProfileAttention = 4;  ///< the attention of all heads follows what else there is

inline constexpr std::uint32_t kAttentionPoints = 16;
inline constexpr std::uint32_t kAttentionRules = 4;

/// How the attention of a head spreads over a context.
struct HeadAttention {
  /// The share of it that goes to special tokens and the first four; to them and punctuation; to these and the newest
  /// 30 % of what a query sees; to these and the 30 % of the tokens with the largest mean attention: share / 65535, the
  /// mean over the queries. None is smaller than the one before.
  std::uint16_t recovered[kAttentionRules] = {};
  /// The fewest tokens of the context that have 1 - (1 - (i + 1) / 16)^2 of the attention of all queries. None is
  /// smaller than the one before.
  std::uint16_t tokens[kAttentionPoints] = {};

  constexpr bool operator==(const HeadAttention&) const = default;
};
static_assert(sizeof(HeadAttention) == 40);

/// The size in bytes of a profile for this shape. Only layers, kv_heads and head_dim matter.
/// @param maps       whether it contains the maps of every layer above the lowest
/// @param attention  whether it contains the attention of all heads
/// @returns 0 when that would be 4 GiB or more, too large for a profile
constexpr std::size_t profile_bytes(const Shape& shape, bool maps = false, bool attention = false) {
  const std::uint64_t dim = shape.head_dim;
  const std::uint64_t heads = std::uint64_t{shape.layers} * shape.kv_heads;
  const std::uint64_t above = shape.layers == 0 ? 0 : heads - shape.kv_heads;
  const std::uint64_t head = kMaxOutlierChannels * 3 + dim * 4 + 2 + 5 * 2;
  const std::uint64_t bytes = sizeof(ProfileHeader) + head * heads + (maps ? (dim * dim + dim) * 2 * above : 0) +
                              (attention ? sizeof(HeadAttention) * heads : 0);
  return bytes > std::numeric_limits<std::uint32_t>::max() ? 0 : static_cast<std::size_t>(bytes);
}

/// Which channels of a head rotary embedding rotates together. Channels that it leaves alone are
/// paired with their neighbours.
struct RotaryPairs {
  bool adjacent = false;    ///< pairs are channels (2i, 2i + 1), as in GGUF files of Llama models; else (i, i + count)
  std::uint16_t count = 0;  ///< number of pairs that are rotated, [1, head_dim / 2]; 0: head_dim / 2
};

struct ChannelPair {
  std::uint32_t first, second;
};

/// @param pair    [0, head_dim / 2)
/// @param rotary  its count must be above 0
constexpr ChannelPair channels_of(std::uint32_t pair, const RotaryPairs& rotary) {
  if (rotary.adjacent || pair >= rotary.count) return {2 * pair, 2 * pair + 1};
  return {pair, pair + rotary.count};
}

inline constexpr std::int16_t kUnknownCosine = -32768;

/// How similar a layer's rows are to those of the layer below for the same tokens: cosines
/// in Q15, in [-32767, 32767], or kUnknownCosine. Keys are compared in all of their channels,
/// outlier channels included.
struct LayerCosines {
  /// Of keys minus each layer's mean key, weighted by their magnitudes:
  /// sum <k, l> / sqrt(sum <k, k> * sum <l, l>).
  std::int16_t keys = kUnknownCosine;
  std::int16_t values = kUnknownCosine;          ///< mean cosine of the values; rows of zeros are left out
  std::int16_t aligned_keys = kUnknownCosine;    ///< as `keys`, after each pair of rotary channels is rotated
  std::int16_t aligned_values = kUnknownCosine;  ///< as `values`, after the map
  std::int16_t raw_keys = kUnknownCosine;        ///< mean cosine of the keys, without subtracting their means
};

/// One head's part of a profile, as pointers into it. Arrays of u16 are little-endian
/// and may be unaligned.
struct HeadProfile {
  const std::uint8_t* channels;        ///< u8[16]: ranked, each in [0, head_dim), all different
  const std::uint8_t* outlier_scales;  ///< scale16[16]: key ~ code * scale, code in [-127, 127]
  const std::uint8_t* key_means;       ///< bf16[head_dim]
  const std::uint8_t* query_squares;   ///< bf16[head_dim], at least 0: mean over the tokens and the query
                                       ///< heads of the group
  std::uint16_t head_score;            ///< 65535 for the head that retrieves most; 0 in all heads when unknown
};

/// Writes the head scores of a profile and its new checksum. By them Budget::kScores, kAnyScores (ems) and kRetrieval
/// divide the budget: how much each KV head looks things up in far text. One way to measure it (HeadKV, arXiv
/// 2410.19258) is to hide facts in a text, to ask for them, and to take the share of attention that goes to the fact
/// while the model answers, of the query head of the group that gives most.
///
/// @param profile  one that ProfileView::open accepts
/// @param scores   f32[layers][kv_heads], finite, at least 0. They are scaled so that the largest
///                 becomes 65535, and rounded. If all are 0, they stay 0.
/// @returns kBadProfile; kBadArgument for a wrong number of scores, or one out of range. The
///          profile is unchanged unless kOk.
Status set_head_scores(std::span<std::byte> profile, const Shape& shape, std::span<const float> scores);

/// Copies a profile and gives the copy the attention of all heads, in place of what it may have had.
///
/// @param profile    one that ProfileView::open accepts
/// @param attention  HeadAttention[layers][kv_heads]
/// @param copy       profile_bytes(shape, maps, true) bytes, with maps if the profile has them; no part of `profile`
/// @returns kBadProfile; kBadArgument for a wrong span size, or for numbers that decrease. Nothing is written unless
///          kOk.
Status add_attention(std::span<const std::byte> profile, const Shape& shape, std::span<const HeadAttention> attention,
                     std::span<std::byte> copy);

/// A validated profile. It points into the bytes on which it was opened.
class ProfileView {
 public:
  /// Checks all of `bytes`: magic, version, size, checksum, shape, ranges of every field.
  /// @returns kBadProfile; the view is unchanged then.
  Status open(std::span<const std::byte> bytes, const Shape& shape);

  bool empty() const { return data_ == nullptr; }
  /// The profile's checksum; 0 when empty.
  std::uint32_t checksum() const;
  /// CalibrationOptions::weights of the profile's maker; 0 when unknown or empty.
  std::uint32_t weights() const;
  /// @param layer    in the range of the shape it was opened with
  /// @param kv_head  likewise
  HeadProfile head(std::uint32_t layer, std::uint32_t kv_head) const;

  /// The cosines between a layer and the one below; all unknown for layer 0.
  LayerCosines cosines(std::uint32_t layer, std::uint32_t kv_head) const;
  /// Their means over the layer's heads, rounded to nearest; unknown if any head's is.
  LayerCosines cosines(std::uint32_t layer) const;

  bool has_attention() const { return attention_; }
  /// All 0 without.
  HeadAttention attention(std::uint32_t layer, std::uint32_t kv_head) const;

  bool has_maps() const { return rotary_.count != 0; }
  /// How key_turns pairs channels; its count is 0 without maps.
  const RotaryPairs& rotary() const { return rotary_; }
  /// The orthogonal map M that brings a layer's values closest to those of the layer below:
  /// output channel i is the sum over j of M[i][j] / 32768 * v[j]. M is the identity where
  /// nothing was measured.
  /// @returns i16[head_dim][head_dim], little-endian, possibly unaligned; null without
  ///          maps and for layer 0
  const std::uint8_t* value_map(std::uint32_t layer, std::uint32_t kv_head) const;
  /// The rotations that bring a layer's keys closest to those of the layer below, the
  /// same before and after rotary embedding. With (c, s) of pair p, (i, j) = channels_of(p, rotary()):
  /// out[i] = c * k[i] - s * k[j] and out[j] = s * k[i] + c * k[j].
  /// @returns i16[head_dim / 2][2], Q15, as above
  const std::uint8_t* key_turns(std::uint32_t layer, std::uint32_t kv_head) const;

 private:
  const std::byte* data_ = nullptr;
  std::uint16_t layers_ = 0;
  std::uint16_t kv_heads_ = 0;
  std::uint16_t head_dim_ = 0;
  RotaryPairs rotary_ = {};
  bool attention_ = false;
};

/// The maximum number of tokens that a Calibrator takes in one call.
inline constexpr std::size_t kCalibrationChunk = 64;

struct CalibrationOptions {
  /// Also measures aligned cosines and their maps. This adds head_dim^2 * 8 bytes of memory a head,
  /// and head_dim^2 multiplications a head and token.
  bool align = false;
  RotaryPairs rotary = {};  ///< read only if align is set
  /// Identifies the weights that the profile was made from: any number that other weights do not
  /// have, such as a checksum of them; 0: not given. A cache that is given its model's number
  /// (Options::weights) refuses a profile with another.
  std::uint32_t weights = 0;
};

/// The working memory of a Calibrator in bytes; 0 for an invalid shape, and for a size that does
/// not fit this machine's address space.
constexpr std::size_t calibration_bytes(const Shape& shape, const CalibrationOptions& options = {}) {
  if (!valid(shape)) return 0;
  const std::uint64_t dim = shape.head_dim, heads = shape.kv_heads;
  const std::uint64_t head = 8 + dim * (3 * 8 + 2 * 4);
  const std::uint64_t pair = 8 * (6 + (options.align ? dim + dim * dim : 0));
  const std::uint64_t chunk = kCalibrationChunk * heads * dim * 2 * 4;  // keys and values of the previous layer
  const std::uint64_t maps = options.align ? 8 * (3 * dim * dim + dim) : 0;
  const std::uint64_t bytes = shape.layers * heads * head + (shape.layers - 1u) * heads * pair + chunk + maps;
  const auto size = static_cast<std::size_t>(bytes);
  return size == bytes ? size : 0;
}

/// Makes a profile: pass it the queries, keys and values of a model that reads any text, a few
/// thousand tokens or more.
///
/// Contexts should be about as long as those that the model will meet, because mean keys are
/// means over positions.
///
/// Neighbouring layers are compared token by token, so pass tokens in the order in which a model
/// computes them: a chunk in layer 0, the same tokens in layer 1, and so on. The cosines of two
/// layers are known only if every chunk of the upper one came directly after a chunk of the same
/// number of tokens of the lower one, and the lower one got no other chunks.
class Calibrator {
 public:
  /// @param memory  at least calibration_bytes(shape, options), aligned to 8 bytes; must stay valid
  ///                until the last call of write()
  /// @returns kBadShape, also when calibration_bytes(shape, options) is 0; kBadArgument for
  ///          a rotary count above head_dim / 2; kMisaligned; kArenaTooSmall
  Status init(std::span<std::byte> memory, const Shape& shape, const CalibrationOptions& options = {});

  /// Adds `count` tokens of one layer, [1, kCalibrationChunk].
  /// @param queries  f32, finite, shape [count][query_heads][head_dim], after rotary embedding
  /// @param keys     f32, finite, shape [count][kv_heads][head_dim], after rotary embedding
  /// @param values   f32, finite, shape [count][kv_heads][head_dim]
  /// @returns kNotReady; kBadArgument for a wrong layer or span size, for more than
  ///          kCalibrationChunk tokens, or for a number that is not finite. Nothing
  ///          changes unless kOk.
  Status observe(std::uint32_t layer, std::span<const float> queries, std::span<const float> keys,
                 std::span<const float> values);

  /// Writes the profile. With maps it takes O(layers * kv_heads * head_dim^3).
  /// @param profile  exactly profile_bytes(shape), or with `align` profile_bytes(shape, true) for maps too
  /// @returns kNotReady; kBadArgument for a wrong span size, or when a layer has seen no token
  Status write(std::span<std::byte> profile) const;

 private:
  std::byte* memory_ = nullptr;
  Shape shape_;
  CalibrationOptions options_;
  std::uint32_t last_layer_ = 0;  // the layer passed last
  std::size_t last_count_ = 0;    // the number of its tokens; 0: none yet
};

}  // namespace nibkv

#include "nibkv/macros_pop.hpp"
