#pragma once

#include <cstddef>
#include <cstdint>

#include "nibkv/limits.hpp"

namespace nibkv {

inline constexpr std::size_t kArenaAlignment = 64;  ///< bytes

/// How keys and values are stored.
enum class Storage : std::uint8_t {
  kQ4 = 0,   ///< 4-bit tiles: the purpose of this library
  kF32 = 1,  ///< exact rows, 7.5 times as large: the reference for tests and evaluation
};

/// The rotary position embedding of the keys that are appended: at position p, counted from
/// the cache's first token, channel pair i is rotated by p * scale * base^(-2i / dims) radians
/// (RoFormer, arXiv 2104.09864). Only a policy with `position_free` or `rephase` reads it. The
/// default means that it is not known.
struct Rotary {
  float base = 0;          ///< [1, 2^100]
  float scale = 1;         ///< factor of positions: (0, 1], below 1 for a model whose context was extended linearly
  std::uint16_t dims = 0;  ///< how many first channels of a head are rotated: even, [2, head_dim]; 0: not known
  bool adjacent = true;    ///< pairs are channels (2i, 2i + 1); otherwise (i, i + dims / 2)

  constexpr bool known() const { return dims != 0; }
  /// Compares without == on floats, because compilers may be asked to warn about that.
  constexpr bool operator==(const Rotary& other) const {
    return base <= other.base && base >= other.base && scale <= other.scale && scale >= other.scale &&
           dims == other.dims && adjacent == other.adjacent;
  }
};

/// What never changes during the life of a cache.
struct Shape {
  std::uint16_t layers = 0;       ///< [1, 1024]
  std::uint16_t query_heads = 0;  ///< [1, 1024], a multiple of kv_heads
  std::uint16_t kv_heads = 0;     ///< [1, 1024]
  std::uint16_t head_dim = 0;     ///< 16, 32, 48, ..., 256 channels
  /// Key channels of a head that are kept at 8 bits: 0, 4, 8, 12 or 16; 0 with kF32. More
  /// than 0 needs a profile.
  std::uint16_t outlier_channels = 0;
  std::uint16_t max_chunk = 1;  ///< maximum tokens in one append or attend, [1, 4096]
  /// The most threads that may call attend, or shares of a call, at the same time, [1, 256]: each has its own scratch.
  /// Any call may use fewer. More than kv_heads have nothing to do in attend under a policy that scores attention.
  std::uint16_t workers = 1;
  Storage storage = Storage::kQ4;
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
  if (shape.storage == Storage::kF32) return shape.outlier_channels == 0;
  return shape.storage == Storage::kQ4;
}

}  // namespace nibkv
