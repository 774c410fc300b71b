#pragma once

#include "arena/band.hpp"

namespace nibkv {

/// Makes space in a chain whose policy has a log: drops the oldest tokens after the sinks, in whole tiles. Those of an
/// indexed head go to the store.
/// @param incoming  tokens for which space is made, which the caller appends next
void drop_oldest(const ArenaView& to, std::uint32_t layer, std::uint32_t kv_head, std::uint32_t incoming);

}  // namespace nibkv
