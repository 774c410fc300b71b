#pragma once

#include <cstdint>

#include "arena/view.hpp"

namespace nibkv {

/// Cuts back every chain of a layer that `count` more tokens would make too long. All are cut back
/// before the first of them grows, since a head whose budget has grown takes tiles that others give
/// back. The lowest layer of a band makes room for all.
void make_room(const ArenaView& to, std::uint32_t layer, std::uint32_t count);

}  // namespace nibkv
