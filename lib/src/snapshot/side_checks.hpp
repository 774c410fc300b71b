#pragma once

#include <cstddef>
#include <cstdint>

#include "nibkv/cache.hpp"

namespace nibkv {

/// Checks that the side data of a chain's tiles is what the verbs write, tile by tile.
class SideChecks {
 public:
  /// @param folded  how many of the chain's first slots are folded or faint; their tiles come first
  SideChecks(const Shape& shape, const Policy& policy, const Side& side, const Chain& chain, std::uint32_t folded)
      : shape_(shape), policy_(policy), side_(side), chain_(chain), folded_(folded) {}

  /// Begins a list of tiles with so many slots: what comes next.
  void begin(std::uint32_t slots) { end_ = slot_ + slots; }
  /// @param side  that of the next tile, at any address
  /// @param base  that tile's base, read only under Keep::kScore
  bool next(const std::byte* side, std::uint32_t base);

 private:
  bool sound_slot(const std::byte* side, std::uint32_t base, std::uint32_t lane);
  bool sound_element(const SideField& field, const std::byte* element, std::uint32_t base, std::uint32_t lane);
  bool sound_position(std::uint32_t base, std::uint32_t offset, std::uint32_t lane);

  const Shape& shape_;
  const Policy& policy_;
  const Side& side_;
  const Chain& chain_;
  const std::uint32_t folded_;
  std::uint32_t slot_ = 0;
  std::uint32_t end_ = 0;    // of the list
  std::uint64_t least_ = 0;  // the smallest position that the next slot may have; folded ones are in no order
};

}  // namespace nibkv
