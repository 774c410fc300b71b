#pragma once

#include <span>
#include <vector>

#include "nibkv/shape.hpp"

namespace nibkv::reference {

/// A key `positions` later, by the definition of rotary embedding: pair i is rotated by
/// positions * scale * base^(-2i / dims) radians.
std::vector<double> turned(std::span<const double> key, const Rotary& rotary, double positions);

/// By how many positions a query is nearer to a slot than it would be: the fewest steps of a Rotary::reach that bring
/// it within that.
std::uint32_t shift_of(const Rotary& rotary, std::uint32_t query, std::uint32_t slot);

/// A slot's key as a query meets it where there is a reach.
/// @param key  as it was coded
/// @param q4   it was wrapped before
std::vector<double> met(std::span<const double> key, const Rotary& rotary, std::uint32_t query, std::uint32_t slot,
                        bool q4);

}  // namespace nibkv::reference
