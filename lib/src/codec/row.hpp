#pragma once

#include <cstdint>

#include "arena/view.hpp"
#include "codec/basis.hpp"
#include "codec/refine.hpp"

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

/// Puts rows of a head that have codes already into tiles whose codes may have another width. Where these are wider,
/// they are of the same row, and it is coded as before when it comes back from 8 bits; where they are narrower, the row
/// is coded again, without being rotated back. That takes the workspace of rows.
class Recoder {
 public:
  Recoder(const ArenaView& to, std::uint32_t layer, std::uint32_t kv_head) : to_(to), basis_(to, layer, kv_head) {}

  const Basis& basis() const { return basis_; }
  /// For many rows, while nothing else takes the workspace.
  /// @param refiner  of the basis, in to.refining(); kept. Otherwise each key makes one
  void keep(const KeyRefiner& refiner) { refiner_ = &refiner; }

  /// @param bits   of each of the codes, u8[head_dim], which are changed
  /// @param at     has their scale, and gets the one of its own codes
  void put_key(std::uint32_t bits, std::uint8_t* codes, const Place& at) const;
  void put_value(std::uint32_t bits, std::uint8_t* codes, const Place& at) const;

 private:
  const ArenaView& to_;
  Basis basis_;
  const KeyRefiner* refiner_ = nullptr;
};

}  // namespace nibkv
