#pragma once

#include <cstdint>

#include "arena/access.hpp"

namespace nibkv {

/// Folds the old slots of two layers that share codes, as many as the entries can hold. append
/// calls it when both layers have seen the same tokens (lib/DESIGN.md).
/// @param lower  the lower layer of the pair
void fold_pair(const Access& to, std::uint32_t lower);

}  // namespace nibkv
