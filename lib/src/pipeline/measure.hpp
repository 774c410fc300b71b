#pragma once

#include <cstdint>

#include "arena/view.hpp"
#include "codec/native_rows.hpp"

namespace nibkv {

/// Whether the next tokens of a layer are those from which it measures its keys.
inline bool will_measure(const ArenaView& to, std::uint32_t layer) {
  return to.shape().basis == KeyBasis::kMeasured && to.chain(layer, 0).used == 0;
}

/// Measures the keys of a layer that holds nothing, or forgets what was measured if they are too few.
void measure(const ArenaView& to, std::uint32_t layer, std::uint32_t count, const ConstRows& keys);

}  // namespace nibkv
