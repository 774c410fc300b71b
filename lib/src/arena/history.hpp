#pragma once

#include <cstdint>

#include "arena/view.hpp"

namespace nibkv {

/// Records that slots were dropped, merged or folded.
/// @param whole_from  the tokens of the chain from this position on have a slot each, as append left it
/// @param exact_from  how many tokens the layer has seen once the verb is done
inline void record_change(const ArenaView& to, std::uint32_t whole_from, std::uint32_t exact_from) {
  ArenaHeader& header = to.header();
  if (whole_from > header.whole_from) header.whole_from = whole_from;
  if (exact_from > header.exact_from) header.exact_from = exact_from;
  header.reserved = 0;
}

}  // namespace nibkv
