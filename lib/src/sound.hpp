#pragma once

#include <cstddef>
#include <cstdint>

#include "nibkv/cache.hpp"

namespace nibkv {

/// Whether the side data of a chain's tiles is what verbs write, tile after tile.
class SoundSides {
 public:
  /// @param folded  the first slots of the chain, in tiles of their own, which come first
  SoundSides(const Shape& shape, const Policy& policy, const Side& side, const Chain& chain, std::uint32_t folded)
      : shape_(shape), policy_(policy), side_(side), chain_(chain), folded_(folded) {}

  /// @param side  of the next tile, at any address
  /// @param base  of it, read under Keep::kScore
  bool next(const std::byte* side, std::uint32_t base);

 private:
  bool sound_slot(const std::byte* side, std::uint32_t base, std::uint32_t lane);

  const Shape& shape_;
  const Policy& policy_;
  const Side& side_;
  const Chain& chain_;
  const std::uint32_t folded_;
  std::uint32_t slot_ = 0;
  std::uint64_t least_ = 0;  // the least position that the next slot may have; folded ones are in no order
};

}  // namespace nibkv
