#pragma once

#include <cstddef>
#include <cstdint>

#include "arena/view.hpp"

namespace nibkv {

/// Index of the outlier byte of the n-th outlier channel in slot `lane`.
constexpr std::size_t outlier_byte(std::uint32_t lane, std::uint32_t n) {
  return n / 4 * 128 + lane * 4 + n % 4;
}

/// The codes of the keys or of the values of a tile.
struct CodePlane {
  std::uint32_t bits;  ///< of a code: 2, 4 or 8
  std::uint32_t head_dim;
};
inline CodePlane key_plane(const ArenaView& of, std::uint32_t tile) {
  return {of.format(tile).key_bits, of.shape().head_dim};
}
inline CodePlane value_plane(const ArenaView& of, std::uint32_t tile) {
  return {of.format(tile).value_bits, of.shape().head_dim};
}

/// Reads one slot's codes, u8[head_dim], from the key or value codes of a tile, or writes
/// them. See lib/FORMAT.md.
void get_key_codes(const CodePlane& plane, const std::uint8_t* tile, std::uint32_t lane, std::uint8_t* codes);
void put_key_codes(const CodePlane& plane, std::uint8_t* tile, std::uint32_t lane, const std::uint8_t* codes);
void get_value_codes(const CodePlane& plane, const std::uint8_t* tile, std::uint32_t lane, std::uint8_t* codes);
void put_value_codes(const CodePlane& plane, std::uint8_t* tile, std::uint32_t lane, const std::uint8_t* codes);

/// Makes a slot new, under Keep::kScore: it has its position, and nothing is known of it.
void start_slot(const ArenaView& to, const Chain& chain, std::uint32_t tile, std::uint32_t lane,
                std::uint32_t position);

/// The side data of move_slot.
void move_side(const ArenaView& to, const Place& from, const Place& to_at);

/// Copies one slot: codes and side data, but not the position. Codes that two layers share move with
/// the lower one. In a tile with wider codes the slot gets such codes of the same row.
void move_slot(const ArenaView& to, std::uint32_t from_tile, std::uint32_t from_lane, std::uint32_t to_tile,
               std::uint32_t to_lane);

/// The side data of another cache's tile: in its arena, or as a snapshot has it.
struct SideBytes {
  const Policy& policy;
  const Side& at;  ///< where in `side` the fields lie
  const std::byte* side;
};

/// Copies what both caches keep of a slot, but for its position and codes, from lane `lane` of a tile.
void copy_side(const SideBytes& from, std::uint32_t lane, const ArenaView& to, const Place& to_at);

/// Copies a slot of a cache with Storage::kF32 to another such cache.
void copy_f32_slot(const ArenaView& from, const Place& at, const ArenaView& to, const Place& to_at);

/// Puts codes, u8[head_dim] of `bits` each, into a slot that has their scale and whose own codes are as wide, or wider:
/// these are of the same row.
/// @param codes  changed
void put_wider_key(const ArenaView& to, const Place& at, std::uint32_t bits, std::uint8_t* codes);
void put_wider_value(const ArenaView& to, const Place& at, std::uint32_t bits, std::uint8_t* codes);

}  // namespace nibkv
