#pragma once

#include <cstdint>

#include "arena/band.hpp"

namespace nibkv {

/// Folds the old slots of the layers of a band that share codes, as many as the entries can hold.
/// append calls it when all of them have seen the same tokens (lib/DESIGN.md).
void fold_old_slots(const ArenaView& to, const Band& band);

}  // namespace nibkv
