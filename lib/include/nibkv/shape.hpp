#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>

#include "nibkv/limits.hpp"

namespace nibkv {

inline constexpr std::size_t kArenaAlignment = 64;  ///< bytes

/// How keys and values are stored: in tiles of codes, or as f32.
enum class Storage : std::uint8_t {
  kQ4 = 0,    ///< keys and values at 4 bits a channel
  kF32 = 1,   ///< exact rows, 7.5 times as large as kQ4: the reference for tests and evaluation
  kQ8 = 2,    ///< 8 bits
  kQ8Q4 = 3,  ///< keys at 8 bits, values at 4
  kQ4Q2 = 4,  ///< keys at 4 bits, values at 2
  kQ2 = 5,    ///< 2 bits
};

/// The widths of a tile's codes, in bits a channel: 2, 4 or 8 each.
struct TileFormat {
  std::uint8_t key_bits = 0;
  std::uint8_t value_bits = 0;

  /// The bytes of a tile's key codes and of its value codes.
  constexpr std::uint32_t key_bytes(std::uint32_t head_dim) const { return kTileSlots / 8 * key_bits * head_dim; }
  constexpr std::uint32_t value_bytes(std::uint32_t head_dim) const { return kTileSlots / 8 * value_bits * head_dim; }
  constexpr bool operator==(const TileFormat&) const = default;
};

/// Both are 0 for kF32, which has no codes.
constexpr TileFormat format_of(Storage storage) {
  switch (storage) {
    case Storage::kQ4:
      return {4, 4};
    case Storage::kF32:
      return {};
    case Storage::kQ8:
      return {8, 8};
    case Storage::kQ8Q4:
      return {8, 4};
    case Storage::kQ4Q2:
      return {4, 2};
    case Storage::kQ2:
      return {2, 2};
  }
  return {};
}
/// Whether rows are stored as codes, in tiles with scales.
constexpr bool has_codes(Storage storage) {
  return storage != Storage::kF32;
}

/// The rotary position embedding of the keys that are appended: at position p, counted from
/// the cache's first token, channel pair i is rotated by p * scale * base^(-2i / dims) radians
/// (RoFormer, arXiv 2104.09864). Only a policy with `position_free` or `rephase` reads it, and attend
/// if there is a `reach`. The default means that it is not known.
struct Rotary {
  float base = 0;          ///< [1, 2^100]
  float scale = 1;         ///< factor of positions: (0, 1], below 1 for a model whose context was extended linearly
  std::uint16_t dims = 0;  ///< how many first channels of a head are rotated: even, [2, head_dim]; 0: not known
  bool adjacent = true;    ///< pairs are channels (2i, 2i + 1); otherwise (i, i + dims / 2)
  /// The largest distance in tokens from which a query may see a slot: 0, no limit, or [2, 2^24], at most what the
  /// model is trained for. A slot further behind meets the query turned back by the multiple of step() that
  /// brings it into (reach - step(), reach], so that a cache that drops or merges tokens can read for ever. Keys are
  /// coded at their positions modulo step(), which should be at most the context that the profile was made from: best
  /// is the largest such reach, 8191 for a profile of 2,048 tokens.
  std::uint32_t reach = 0;

  constexpr bool known() const { return dims != 0; }
  /// Half of the reach, or the next smaller power of two.
  constexpr std::uint32_t step() const { return std::bit_floor(reach / 2); }
  /// By how many positions a query is turned back for a slot at a distance of so many.
  constexpr std::uint32_t shift_of(std::uint32_t distance) const {
    if (reach == 0 || distance <= reach) return 0;
    return ((distance - reach - 1) & ~(step() - 1)) + step();
  }
  /// By how many positions a key is turned back before it is coded: with a reach, the multiple of step() that brings it
  /// into [0, step()), since a profile knows keys as they are at the positions from which it was made.
  constexpr std::uint32_t wrap_of(std::uint32_t position) const { return reach == 0 ? 0 : position & ~(step() - 1); }
  static constexpr std::uint32_t kMostTurns = 4;
  /// By how many steps, at most, a query is turned less far for a slot than a key at its own position is: up
  /// to kMostTurns.
  constexpr std::uint32_t turns() const { return reach < 2 ? 0 : (reach + step() - 1) >> std::countr_zero(step()); }
  /// Compares without == on floats, because compilers may be asked to warn about that.
  constexpr bool operator==(const Rotary& other) const {
    return base <= other.base && base >= other.base && scale <= other.scale && scale >= other.scale &&
           dims == other.dims && adjacent == other.adjacent && reach == other.reach;
  }
};

/// From where a cache knows what the keys of its model have in common: a mean that most of them are near, and channels
/// that are far larger than the others.
enum class KeyBasis : std::uint8_t {
  kProfile = 0,  ///< from a profile; without one it is not known, and keys are coded as they come
  /// Each layer measures its own keys when tokens are appended to it while it holds none, kLeastMeasured or more at
  /// once: without a profile, and not from append_share. With fewer, its keys are coded as they come. Not where
  /// layers share codes, and not with Storage::kF32.
  kMeasured = 1,
};
inline constexpr std::uint32_t kLeastMeasured = 16;

/// What never changes during the life of a cache.
struct Shape {
  std::uint16_t layers = 0;       ///< [1, 1024]
  std::uint16_t query_heads = 0;  ///< [1, 1024], a multiple of kv_heads
  std::uint16_t kv_heads = 0;     ///< [1, 1024]
  std::uint16_t head_dim = 0;     ///< 16, 32, 48, ..., 256 channels
  /// Key channels of a head that are kept at 8 bits: 0, 4, 8, 12 or 16; 0 with kF32. More
  /// than 0 needs a profile, or KeyBasis::kMeasured.
  std::uint16_t outlier_channels = 0;
  std::uint16_t max_chunk = 1;  ///< maximum tokens in one append or attend, [1, 4096]
  /// The most threads that may call attend, or shares of a call, at the same time, [1, 256]: each has its own scratch.
  /// Any call may use fewer. More than kv_heads have nothing to do in attend under a policy that scores attention.
  std::uint16_t workers = 1;
  Storage storage = Storage::kQ4;
  KeyBasis basis = KeyBasis::kProfile;
  Rotary rotary = {};

  /// Query heads that read one KV head.
  constexpr std::uint32_t group() const { return query_heads / kv_heads; }
  /// Query rows [query][head of the group] that attend processes in one pass over a chain.
  constexpr std::uint32_t rows() const {
    const std::uint32_t all = group() * max_chunk;
    return all < kMaxRows ? all : kMaxRows;
  }
  constexpr bool operator==(const Shape&) const = default;
};

/// True when every field is in its range, or when it is not known and all other fields
/// have their defaults.
constexpr bool valid(const Rotary& rotary, std::uint32_t head_dim) {
  if (!rotary.known()) return rotary == Rotary{};
  if (rotary.dims % 2 != 0 || rotary.dims > head_dim) return false;
  if (rotary.reach != 0 && (rotary.reach < 2 || rotary.reach > 1u << 24)) return false;
  return rotary.base >= 1 && rotary.base <= 0x1p100f && rotary.scale > 0 && rotary.scale <= 1;
}

/// True when every field is in its range.
constexpr bool valid(const Shape& shape) {
  const auto within = [](std::uint32_t value, std::uint32_t low, std::uint32_t high) {
    return value >= low && value <= high;
  };
  if (!within(shape.layers, 1, 1024) || !within(shape.query_heads, 1, 1024) || !within(shape.kv_heads, 1, 1024))
    return false;
  if (shape.query_heads % shape.kv_heads != 0) return false;
  if (!within(shape.head_dim, 16, kMaxHeadDim) || shape.head_dim % 16 != 0) return false;
  if (shape.outlier_channels > kMaxOutlierChannels || shape.outlier_channels % 4 != 0) return false;
  if (shape.outlier_channels > shape.head_dim) return false;
  if (!within(shape.max_chunk, 1, 4096) || !within(shape.workers, 1, 256)) return false;
  if (!valid(shape.rotary, shape.head_dim)) return false;
  if (shape.basis > KeyBasis::kMeasured) return false;
  if (shape.storage == Storage::kF32) return shape.outlier_channels == 0 && shape.basis == KeyBasis::kProfile;
  return shape.storage <= Storage::kQ2;
}

}  // namespace nibkv
