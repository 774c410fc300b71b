#pragma once

#include <cstdint>

#include "access.hpp"
#include "basis.hpp"

namespace nibkv {

/// One slot's 4-bit codes, u8[head_dim].
void key_row(const Access& to, std::uint32_t tile, std::uint32_t lane, std::uint8_t* row);
void value_row(const Access& to, std::uint32_t tile, std::uint32_t lane, std::uint8_t* row);

/// Levels of one slot's 4-bit codes, i8[head_dim].
void key_levels(const Access& to, std::uint32_t tile, std::uint32_t lane, std::int8_t* levels);
void value_levels(const Access& to, std::uint32_t tile, std::uint32_t lane, std::int8_t* levels);

/// The key that a slot holds, f32[head_dim], as it was appended, except for quantisation.
void restore_key(const Access& to, const Basis& basis, std::uint32_t tile, std::uint32_t lane, float* row);

/// Quantises a rotated key or value into a slot.
void put_key(const Access& to, std::uint32_t tile, std::uint32_t lane, const std::uint8_t* codes, std::uint16_t scale);
void put_value(const Access& to, std::uint32_t tile, std::uint32_t lane, const std::uint8_t* codes,
               std::uint16_t scale);

/// The square root of a number that is 0 or normal, to two units in the last place.
float square_root(float x);

/// log2(x) for a normal x of 1 or more, to 1/1000.
float binary_logarithm(float x);

}  // namespace nibkv
