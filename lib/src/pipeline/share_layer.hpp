#pragma once

#include <cstdint>

#include "arena/view.hpp"

namespace nibkv {

/// Distributes `tokens` a head among the heads of a layer by the scores of their
/// slots (Budget::kAdaptive).
void share_layer(const ArenaView& to, std::uint32_t layer, std::uint32_t tokens);

}  // namespace nibkv
