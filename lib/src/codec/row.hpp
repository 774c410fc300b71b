#pragma once

#include <cstdint>

#include "arena/view.hpp"
#include "codec/basis.hpp"

namespace nibkv {

/// One slot's codes, u8[head_dim].
void key_row(const ArenaView& to, std::uint32_t tile, std::uint32_t lane, std::uint8_t* row);
void value_row(const ArenaView& to, std::uint32_t tile, std::uint32_t lane, std::uint8_t* row);

/// Levels of one slot's codes, i8[head_dim].
void key_levels(const ArenaView& to, std::uint32_t tile, std::uint32_t lane, std::int8_t* levels);
void value_levels(const ArenaView& to, std::uint32_t tile, std::uint32_t lane, std::int8_t* levels);

/// Levels of codes.
/// @param codes   u8[head_dim]
/// @param levels  i8[head_dim], written
void to_levels(std::uint32_t bits, const std::uint8_t* codes, std::uint32_t head_dim, std::int8_t* levels);

/// The squared levels of the keys of all slots of a tile, each summed over channels: f32[32].
void key_energies(const ArenaView& to, std::uint32_t tile, float* energies);

/// The key that a slot holds, f32[head_dim], as it was appended, except for quantisation.
void restore_key(const ArenaView& to, const Basis& basis, std::uint32_t tile, std::uint32_t lane, float* row);

/// Quantises a rotated key or value into a slot.
void put_key(const ArenaView& to, std::uint32_t tile, std::uint32_t lane, const std::uint8_t* codes,
             std::uint16_t scale);
void put_value(const ArenaView& to, std::uint32_t tile, std::uint32_t lane, const std::uint8_t* codes,
               std::uint16_t scale);

}  // namespace nibkv
