#pragma once

#include <cstddef>
#include <cstdint>

#include "arena/view.hpp"

namespace nibkv {

/// Index of the outlier byte of the n-th outlier channel in slot `lane`.
constexpr std::size_t outlier_byte(std::uint32_t lane, std::uint32_t n) {
  return n / 4 * 128 + lane * 4 + n % 4;
}

/// Reads one slot's 4-bit codes, u8[head_dim], from the key or value codes of a tile, or writes
/// them. See lib/FORMAT.md.
void get_key_codes(const std::uint8_t* tile, std::uint32_t lane, std::uint32_t head_dim, std::uint8_t* codes);
void put_key_codes(std::uint8_t* tile, std::uint32_t lane, std::uint32_t head_dim, const std::uint8_t* codes);
void get_value_codes(const std::uint8_t* tile, std::uint32_t lane, std::uint32_t head_dim, std::uint8_t* codes);
void put_value_codes(std::uint8_t* tile, std::uint32_t lane, std::uint32_t head_dim, const std::uint8_t* codes);

/// Makes a slot new, under Keep::kScore: it has its position, and nothing is known of it.
void start_slot(const ArenaView& to, const Chain& chain, std::uint32_t tile, std::uint32_t lane,
                std::uint32_t position);

/// Copies one slot: codes and side data, but not the position. Codes that two layers share move with
/// the lower one.
void move_slot(const ArenaView& to, std::uint32_t from_tile, std::uint32_t from_lane, std::uint32_t to_tile,
               std::uint32_t to_lane);

/// A tile of another cache: in its arena, or as a snapshot has it.
struct TileBytes {
  const Policy& policy;
  const Side& at;  ///< where in `side` the fields lie
  const std::byte* side;
  const std::uint8_t* keys;  ///< Storage::kF32: f32 rows, as in ArenaView
  const std::uint8_t* values;
};
inline TileBytes tile_bytes(const ArenaView& from, std::uint32_t tile) {
  return {from.policy(), from.layout().side, from.side(tile), from.key_codes(tile), from.value_codes(tile)};
}

/// move_slot from one cache to another: what both keep of a slot. Neither shares codes between layers.
void copy_slot(const TileBytes& from, std::uint32_t lane, const ArenaView& to, const Place& to_at);

}  // namespace nibkv
