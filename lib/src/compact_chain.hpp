#pragma once

#include <cstdint>

#include "access.hpp"

namespace nibkv {

/// The body of compact() for a plan that is known to be right.
void compact_chain(const Access& to, Chain& chain, const std::uint32_t* target);

}  // namespace nibkv
