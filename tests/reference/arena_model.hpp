#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "nibkv/cache.hpp"

namespace nibkv::reference {

/// The level of a 4-bit code, in units of its row's scale.
inline constexpr int kCodebook[16] = {-63, -48, -37, -29, -22, -15, -9, -3, 3, 9, 15, 22, 29, 37, 48, 63};
/// Of a code of 2, 4 or 8 bits; one of 8 bits is a level.
int level_of(int bits, int code);

/// scale16: bits 30..15 of a positive float.
double scale16_value(std::uint16_t scale);

/// Orthonormal Hadamard transform (Sylvester order) of the largest power-of-two blocks of a row, from its definition:
/// element (i, j) of a block of n is (-1)^popcount(i and j) / sqrt(n). It is its own inverse.
std::vector<double> hadamard(std::span<const double> row);

/// A row in the channels of tiles: each channel is multiplied by its sign, then transformed.
/// The sign of channel c is -1 if an odd number of the pairs of bits (0, 1), (2, 3), (4, 5), (6, 7)
/// of c have both bits set.
std::vector<double> rotated(std::span<const double> row);
/// The inverse.
std::vector<double> rotated_back(std::span<const double> row);

/// One slot, as an arena holds it.
struct Slot {
  std::vector<int> key_codes;    ///< [head_dim] in [0, 3], [0, 15] or [-127, 127]
  std::vector<int> value_codes;  ///< [head_dim] likewise
  std::vector<int> outliers;     ///< [outlier_channels]
  std::uint16_t key_scale = 0;   ///< scale16
  std::uint16_t value_scale = 0;
  int key_bits = 4;
  int value_bits = 4;

  bool operator==(const Slot&) const = default;

  std::vector<double> rotated_key() const;  ///< level * scale
  std::vector<double> rotated_value() const;
};

/// Gives a slot wider codes of the same row, as a move to a tile that has them does, unless its own are as wide.
void widen(Slot& slot, const TileFormat& format);

/// What an arena knows about a slot besides its codes; 0 for what its policy does not keep.
struct Notes {
  std::uint32_t position = 0;
  std::uint32_t global = 0;
  std::uint32_t local = 0;
  std::uint32_t bias = 0;
  std::uint32_t merged = 0;

  bool operator==(const Notes&) const = default;
};

/// The slots of a chain whose codes are shared with a neighbouring layer, which
/// are the chain's first.
struct Folded {
  std::uint32_t first = 0xffffffff;  ///< view
  std::uint32_t last = 0xffffffff;
  std::uint32_t used = 0;
  std::uint32_t retained = 0;
};

/// Slots of a chain that have moved down from its tail: the kept ones, and the faint ones.
struct Tier {
  std::uint32_t first = 0xffffffff;
  std::uint32_t last = 0xffffffff;
  std::uint32_t used = 0;
  std::uint32_t free = 0xffffffff;
};

/// The location of a slot.
struct Place {
  std::uint32_t tile;
  std::uint32_t lane;
};

/// Reads the bytes of an arena according to the documented format, and checks every index.
class ArenaModel {
 public:
  ArenaModel(std::span<const std::byte> arena, const Shape& shape, const Policy& policy);

  Chain chain(std::uint32_t layer, std::uint32_t kv_head) const;
  Folded folded(std::uint32_t layer, std::uint32_t kv_head) const;
  /// Empty where there is no such tier.
  Tier kept(std::uint32_t layer, std::uint32_t kv_head) const { return tier(layer, kv_head, 0); }
  Tier faint(std::uint32_t layer, std::uint32_t kv_head) const { return tier(layer, kv_head, 1); }
  /// The data of all slots of a chain: first the folded ones, or those of its tiers. Throws as tiles() does.
  std::vector<Place> places(std::uint32_t layer, std::uint32_t kv_head) const;
  /// A chain's own tiles, where there are tiers those of its tail, in the order of the links, without kNoTile. Throws std::runtime_error
  /// for a tile number out of range, a cycle, a last tile that is not Chain::last, or if the number
  /// of tiles is not what the used slots need.
  std::vector<std::uint32_t> tiles(std::uint32_t layer, std::uint32_t kv_head) const;
  Slot slot(std::uint32_t layer, std::uint32_t kv_head, std::uint32_t index) const;
  std::vector<Slot> slots(std::uint32_t layer, std::uint32_t kv_head) const;

  /// Only under Keep::kScore.
  std::vector<Notes> notes(std::uint32_t layer, std::uint32_t kv_head) const;

  /// Storage::kF32: keys lie as [head_dim][32], values as [32][head_dim].
  std::vector<float> key_f32(std::uint32_t layer, std::uint32_t kv_head, std::uint32_t index) const;
  std::vector<float> value_f32(std::uint32_t layer, std::uint32_t kv_head, std::uint32_t index) const;

  /// Throws std::runtime_error unless chains are well formed and share no tile, and every other
  /// tile is exactly once in the free list of the chain in whose run it lies, or, if runs differ in
  /// length, of any chain. Returns the number of tiles in all chains.
  std::uint32_t check_chains() const;

 private:
  template <typename T>
  T read(std::uint64_t offset) const;
  std::vector<std::uint32_t> list(std::uint32_t first, std::uint32_t last, std::uint32_t used, std::uint64_t begin,
                                  std::uint64_t end, const std::string& where) const;
  Tier tier(std::uint32_t layer, std::uint32_t kv_head, std::uint32_t which) const;
  std::vector<std::uint32_t> tier_tiles(std::uint32_t layer, std::uint32_t kv_head, std::uint32_t which) const;
  std::pair<std::uint64_t, std::uint64_t> codes_of(std::uint32_t tile) const;
  void check_free_tiles(const std::vector<bool>& taken, std::uint32_t used) const;
  TileFormat format(std::uint32_t tile) const;
  Slot slot_of(std::uint32_t tile, std::uint32_t lane) const;
  Notes notes_of(std::uint32_t tile, std::uint32_t lane) const;

  std::span<const std::byte> arena_;
  Shape shape_;
  Policy policy_;
  Layout layout_;
};

/// A slot's key and value in the channels in which they were appended: rotated back, with the key's
/// outlier channels and mean restored from the profile (empty view: none). An outlier channel's
/// product with a query uses only its 8-bit code.
std::vector<double> decode_key(const Slot& slot, const ProfileView& profile, std::uint32_t layer,
                               std::uint32_t kv_head);
std::vector<double> decode_value(const Slot& slot);

}  // namespace nibkv::reference
