#pragma once

#include <cstdint>

#include "arena/view.hpp"

namespace nibkv {

/// The keys or the values of one slot in both layers of a pair, to be folded into shared codes.
struct SharedRow {
  /// Loads what the slots hold.
  /// @param at  the slot in the lower and in the upper layer
  SharedRow(const ArenaView& to, const Place (&at)[2], bool keys);

  /// Folds the rows and writes them to slots of views of one entry.
  void fold_into(const Place (&at)[2]) const;

  std::uint8_t codes[2][kMaxHeadDim];
  std::uint16_t scales[2];

 private:
  const ArenaView& to_;
  bool keys_;
};

}  // namespace nibkv
