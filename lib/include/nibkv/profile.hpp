#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>

#include "nibkv/shape.hpp"
#include "nibkv/status.hpp"

namespace nibkv {

/// What is known of a model's keys and queries before it runs: a small constant table, made once per model from any
/// text and linked as data or loaded from a file. lib/FORMAT.md has every bit. Per KV head of every layer:
/// - the channels of its keys whose error would cost most, worst first (ranked by mean q^2 times mean k^2: ThinK, arXiv
///   2407.21018, section 3), and the scale of their 8-bit codes;
/// - the mean key: taken off every key before coding. All logits of a query move by the same amount, which softmax does
///   not see;
/// - the mean square of every query channel: says which errors of a key its queries will see;
/// - how much the head looks answers up in far text, as a share of the head that does so most (HeadKV, arXiv
/// 2410.19258). Without a profile nothing is taken off, errors count alike, and there are no outlier channels.
inline constexpr std::uint32_t kProfileVersion = 2;

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
  std::uint16_t channels;     ///< ranked outlier channels of a head: 16
  std::uint32_t reserved[2];  ///< 0
};
static_assert(sizeof(ProfileHeader) == 32);

inline constexpr std::uint32_t kProfileMagic = 0x504b424e;  // "NBKP"

/// Bytes of a profile for this shape. Only layers, kv_heads and head_dim matter.
constexpr std::size_t profile_bytes(const Shape& shape) {
  const std::size_t head = kMaxOutlierChannels * 3 + shape.head_dim * 4u + 2;
  return sizeof(ProfileHeader) + head * shape.layers * shape.kv_heads;
}

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
  /// @param layer, kv_head  in range of the shape it was opened with
  HeadProfile head(std::uint32_t layer, std::uint32_t kv_head) const;

 private:
  const std::byte* data_ = nullptr;
  std::uint16_t kv_heads_ = 0;
  std::uint16_t head_dim_ = 0;
};

/// Working memory of a Calibrator in bytes; 0 for an invalid shape, or when no memory of this machine can hold them.
constexpr std::size_t calibration_bytes(const Shape& shape) {
  if (!valid(shape)) return 0;
  const std::uint64_t bytes = std::uint64_t{shape.layers} * shape.kv_heads * (8 + shape.head_dim * (3u * 8u + 2u * 4u));
  return bytes > std::numeric_limits<std::size_t>::max() ? 0 : static_cast<std::size_t>(bytes);
}

/// Makes a profile: show it queries and keys of a model that reads any text, a few thousand tokens or more.
///
/// Contexts should be about as long as those the model will meet: mean keys are means over positions.
class Calibrator {
 public:
  /// @param memory  at least calibration_bytes(shape), aligned to 8 bytes, until write() was called
  /// @returns kBadShape, also for calibration_bytes(shape) == 0; kMisaligned; kArenaTooSmall
  Status init(std::span<std::byte> memory, const Shape& shape);

  /// Takes note of `count` tokens of one layer.
  /// @param queries  f32, finite, shape [count][query_heads][head_dim], after rotary embedding
  /// @param keys     f32, finite, shape [count][kv_heads][head_dim], after rotary embedding
  /// @returns kNotReady; kBadArgument for a wrong layer or span size
  Status observe(std::uint32_t layer, std::span<const float> queries, std::span<const float> keys);

  /// Writes the profile.
  /// @param profile  exactly profile_bytes(shape)
  /// @returns kNotReady; kBadArgument for a wrong span size or when a layer has seen no token
  Status write(std::span<std::byte> profile) const;

 private:
  std::byte* memory_ = nullptr;
  Shape shape_;
};

}  // namespace nibkv
