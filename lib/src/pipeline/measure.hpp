#pragma once

#include <cstdint>

#include "arena/view.hpp"
#include "codec/native_rows.hpp"

namespace nibkv {

/// Whether the next tokens of a layer are those from which it measures its keys.
inline bool will_measure(const ArenaView& to, std::uint32_t layer) {
  if (to.shape().basis != KeyBasis::kMeasured) return false;
  std::uint32_t used = 0;  // of any head: what they hold is in the basis that was measured
  for (std::uint32_t head = 0; head < to.shape().kv_heads; ++head) used |= to.chain(layer, head).used;
  return used == 0;
}

/// Measures the keys of a layer that holds nothing, or forgets what was measured if they are too few.
void measure(const ArenaView& to, std::uint32_t layer, std::uint32_t count, const ConstRows& keys);

}  // namespace nibkv
