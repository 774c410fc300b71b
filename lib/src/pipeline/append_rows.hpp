#pragma once

#include "arena/share.hpp"
#include "arena/view.hpp"
#include "codec/native_rows.hpp"

namespace nibkv {

/// Makes space for `count` more tokens of a layer, if it can take them.
/// @returns kOk, or what append returns; nothing is changed then
Status make_place(const ArenaView& to, std::uint32_t layer, std::uint32_t count);

/// A slot more at the end of a chain, which has the space. The caller writes its row.
/// @param position  of the slot; read only under Keep::kScore
Place add_slot(const ArenaView& to, Chain& chain, std::uint32_t position);

/// Takes slots for tokens at the end of a chain. Returns the first.
Place take_slots(const ArenaView& to, Chain& chain, std::uint32_t count);

/// The place after another one of the same segment.
inline Place next_place(const ArenaView& to, const Place& at) {
  if (at.lane + 1 < kTileSlots) return {at.tile, at.lane + 1};
  return {to.links()[at.tile], 0};
}

/// Writes the rows of some of the newest `count` tokens of a head into their slots, from `at` on.
/// @param space  encoding_bytes
void write_rows(const ArenaView& to, std::uint32_t layer, std::uint32_t head, std::uint32_t count, const Range& tokens,
                Place at, const ConstRows& keys, const ConstRows& values, float* space);

/// Ends an append, once slots are taken: old slots fold.
/// @param reserved  the tokens whose rows are still to come
void end_append(const ArenaView& to, std::uint32_t layer, std::uint32_t reserved);

}  // namespace nibkv
