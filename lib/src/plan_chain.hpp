#pragma once

#include <cstdint>

#include "nibkv/policy.hpp"

namespace nibkv {

/// The body of plan() for a chain of `used` slots and tiles for `capacity`; also what append runs before it makes room.
void plan_chain(const Policy& policy, std::uint32_t used, std::uint32_t incoming, std::uint32_t capacity, std::uint32_t* target);

}  // namespace nibkv
