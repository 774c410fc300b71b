#pragma once

#include <span>
#include <vector>

#include "nibkv/shape.hpp"

namespace nibkv::reference {

/// A key `positions` later, by the definition of rotary embedding: pair i is rotated by
/// positions * scale * base^(-2i / dims) radians.
std::vector<double> turned(std::span<const double> key, const Rotary& rotary, double positions);

}  // namespace nibkv::reference
