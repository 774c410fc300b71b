#pragma once

#include <cstdint>

#include "nibkv/cache.hpp"

namespace nibkv {

constexpr std::uint32_t tiles_of(std::uint32_t slots) {
  return slots / kTileSlots + (slots % kTileSlots != 0 ? 1 : 0);
}

/// A run of a chain's slots: a list of tiles, all full but the last.
struct Segment {
  std::uint32_t first = kNoTile;  ///< tile
  std::uint32_t last = kNoTile;
  std::uint32_t begin = 0;  ///< how many slots of the chain come before it
  std::uint32_t slots = 0;

  constexpr std::uint32_t end() const { return begin + slots; }
};

/// The segments of a chain that have slots, in slot order.
struct Segments {
  static constexpr std::uint32_t kMost = 4;

  Segment at[kMost];
  std::uint32_t count = 0;

  constexpr void add(const Segment& segment) {
    if (segment.slots != 0) at[count++] = segment;
  }
};

/// The place of a slot.
struct Place {
  std::uint32_t tile;
  std::uint32_t lane = 0;
};

/// Walks over the slots of a chain, or over its tiles.
class Cursor : public Place {
 public:
  /// At the first slot.
  explicit Cursor(const Segments& segments) : Place{kNoTile}, segments_(segments) { enter(0); }

  /// Whether there is a slot here.
  bool any() const { return tile != kNoTile; }
  /// The number of the tile's first slot in the chain.
  std::uint32_t first_slot() const { return slot_; }
  /// The tile's slots in use.
  std::uint32_t slots_in_tile() const {
    const std::uint32_t left = segments_.at[segment_].end() - slot_;
    return left < kTileSlots ? left : kTileSlots;
  }

  void next_slot(const std::uint32_t* links) {
    ++lane;
    if (slot_ + lane == segments_.at[segment_].end()) {
      enter(segment_ + 1);
    } else if (lane == kTileSlots) {
      next_tile(links);
    }
  }
  void next_tile(const std::uint32_t* links) {
    slot_ += kTileSlots;
    lane = 0;
    if (slot_ < segments_.at[segment_].end()) {
      tile = links[tile];
    } else {
      enter(segment_ + 1);
    }
  }

 private:
  void enter(std::uint32_t segment) {
    segment_ = segment;
    lane = 0;
    const bool any = segment < segments_.count;
    tile = any ? segments_.at[segment].first : kNoTile;
    slot_ = any ? segments_.at[segment].begin : 0;
  }

  Segments segments_;
  std::uint32_t segment_ = 0;
  std::uint32_t slot_ = 0;
};

/// Calls visit(number in the chain, place) for all slots, in order.
template <typename Visit>
inline void each_slot(const Segments& segments, const std::uint32_t* links, Visit visit) {
  for (std::uint32_t i = 0; i < segments.count; ++i) {
    const Segment& segment = segments.at[i];
    std::uint32_t slot = segment.begin;
    for (std::uint32_t tile = segment.first; slot < segment.end(); tile = links[tile]) {
      const std::uint32_t left = segment.end() - slot;
      const std::uint32_t lanes = left < kTileSlots ? left : kTileSlots;
      for (std::uint32_t lane = 0; lane < lanes; ++lane, ++slot) visit(slot, Place{tile, lane});
    }
  }
}

}  // namespace nibkv
