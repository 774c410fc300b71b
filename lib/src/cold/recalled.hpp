#pragma once

#include "arena/band.hpp"

// The recalled slots of an indexed head, in the order of their tokens.

namespace nibkv {

inline constexpr std::uint32_t kNoToken = 0xffffffff;  ///< of a slot that is still empty
inline constexpr std::uint32_t kNoPage = 0xffffffff;

/// Gives chosen tokens their slots: those that are recalled already move to theirs, the others' are empty.
/// @param chosen  rising
/// @returns how many were recalled already
std::uint32_t arrange(const ArenaView& to, Chain& chain, const std::uint32_t* chosen, std::uint32_t count);

/// Closes the gaps of empty slots.
void drop_empty(const ArenaView& to, Chain& chain);

}  // namespace nibkv
