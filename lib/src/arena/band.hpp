#pragma once

#include <cstddef>
#include <cstdint>

#include "arena/tiers.hpp"

// Layers that act together, and where the codes that two of them share lie. What is shared is known to these files,
// fold/ and snapshot/bands; append, compact, cache, mover and judge ask only whether anything is.

namespace nibkv {

/// Layers that plan, make room and merge together: one layer, or two that share codes.
struct Band {
  std::uint32_t first;
  std::uint32_t layers;

  constexpr std::uint32_t end() const { return first + layers; }
};

/// The distance of a slot for which the distance from the other layer's slot is not computed yet.
inline constexpr std::uint32_t kUnknownDistance = 0xffffffff;

/// The part of a chain in a layer that shares codes that does not lie in its own tiles: its first
/// slots, which lie in views. The chains of both layers have the same entries in the same order.
struct FoldedPart {
  std::uint32_t first = kNoTile;  // view
  std::uint32_t last = kNoTile;
  std::uint32_t used = 0;              // slots; all views but the last are full
  std::uint32_t retained = 0;          // of the first slots after them: sinks, and slots that did not fold
  std::uint32_t free = kNoTile;        // first free view
  std::uint32_t nearest = 0xffffffff;  // smallest and largest distance of the slots examined under Retain::kFarRange;
  std::uint32_t farthest = 0;          // kept in the lower layer's part
  std::uint32_t reserved = 0;
};
static_assert(sizeof(FoldedPart) == detail::kFoldedPartBytes);

/// Whether any layers share codes.
inline bool folds(const ArenaView& to) {
  return to.layout().views != 0;
}
inline bool is_paired(const ArenaView& to, std::uint32_t layer) {
  return folds(to) && detail::is_paired(to.policy(), layer);
}
inline bool is_lower(const ArenaView& to, std::uint32_t layer) {
  return folds(to) && detail::is_lower(to.policy(), layer);
}

inline Band band_of(const ArenaView& to, std::uint32_t layer) {
  if (!is_paired(to, layer)) return {layer, 1};
  return {detail::is_lower(to.policy(), layer) ? layer : layer - 1, 2};
}
/// Whether all layers of a band have seen the same tokens.
bool in_step(const ArenaView& to, const Band& band);
/// Whether a layer may append `count` tokens now. The layers of a band take turns, with equal
/// numbers of tokens, the lowest first.
bool in_turn(const ArenaView& to, std::uint32_t layer, std::uint32_t count);
/// Whether `layer` ends a turn of its band.
inline bool ends_turn(const Band& band, std::uint32_t layer) {
  return layer + 1 == band.end();
}
/// The layer of a band whose rows say which slots are similar: the nearer one to what both share.
std::uint32_t judging_layer(const ArenaView& to, const Band& band);

/// Whether the profile's mean key is subtracted from a layer's keys.
bool is_centred(const ArenaView& to, std::uint32_t layer);
/// The map of an upper layer's values, i16[head_dim][head_dim] in Q15, and the rotations of the
/// pairs of its keys; null if they are not aligned.
const std::uint8_t* value_map(const ArenaView& to, std::uint32_t layer, std::uint32_t kv_head);
const std::uint8_t* key_turns(const ArenaView& to, std::uint32_t layer, std::uint32_t kv_head);

/// Exists only where layers share codes.
inline FoldedPart& folded_part(const ArenaView& to, const Chain& chain) {
  return to.at<FoldedPart>(to.layout().folds)[&chain - to.chains()];
}
/// The distances between the two layers of the slots that a head of a pair retains after its
/// sinks, u32[most_retained]; kUnknownDistance if not computed.
std::uint32_t* distances(const ArenaView& to, std::uint32_t lower, std::uint32_t kv_head);

// A view's tile number encodes its entry, and whether it belongs to the upper layer.
inline bool is_view(const ArenaView& to, std::uint32_t tile) {
  return tile >= to.layout().tiles;
}
inline std::uint32_t entry_of(const ArenaView& to, std::uint32_t view) {
  return (view - static_cast<std::uint32_t>(to.layout().tiles)) / 2;
}
inline bool is_upper(const ArenaView& to, std::uint32_t view) {
  return ((view - static_cast<std::uint32_t>(to.layout().tiles)) & 1) != 0;
}
/// The lower layer's view of the first entry that a head of a pair has.
std::uint32_t first_view(const ArenaView& to, std::uint32_t lower, std::uint32_t kv_head);

/// Whether another layer reads the same codes of keys, or of values.
inline bool shares_keys(const ArenaView& to, std::uint32_t tile) {
  return is_view(to, tile) &&
         (entry_of(to, tile) < to.layout().both_entries || entry_of(to, tile) >= to.layout().value_entries);
}
inline bool shares_values(const ArenaView& to, std::uint32_t tile) {
  return is_view(to, tile) && entry_of(to, tile) < to.layout().value_entries;
}
/// Whether the codes of a tile are its own, or shared and the lower layer's to move.
inline bool owns_keys(const ArenaView& to, std::uint32_t tile) {
  return !shares_keys(to, tile) || !is_upper(to, tile);
}
inline bool owns_values(const ArenaView& to, std::uint32_t tile) {
  return !shares_values(to, tile) || !is_upper(to, tile);
}
/// The bytes from the codes of a tile to those of the tile with the next number, of the
/// same chain and kind.
std::ptrdiff_t code_step(const ArenaView& to, std::uint32_t tile);
/// The planes of an entry, each of key_bytes.
inline std::uint32_t planes_of(const ArenaView& to, std::uint32_t view) {
  return entry_of(to, view) < to.layout().both_entries ? 2 : 3;
}
std::uint8_t* plane_of(const ArenaView& to, std::uint32_t view, std::uint32_t index);

/// The maximum of slots of a chain under Keep::kAll, beside what the pool has left: where layers share codes, what its
/// own tiles and entries hold; where some have wider codes, what its own tiles hold.
inline std::uint32_t most_slots(const ArenaView& to) {
  if (has_tiers(to.policy())) return to.layout().chain_tiles * kTileSlots;
  return folds(to) || has_wide(to.policy()) ? to.layout().tiles_per_head * kTileSlots : 0xffffffff;
}

/// Tiles of a chain's own run in the pool.
std::uint32_t run_tiles(const ArenaView& to, std::uint32_t layer, const Chain& chain);
/// Makes what layers share empty: both layers of a pair get the views of the pair's own entries.
void reset_bands(const ArenaView& to);

/// Appends a tile to a list of tiles.
template <typename List>
void add_to_list(List& list, std::uint32_t tile, std::uint32_t* links) {
  links[tile] = kNoTile;
  if (list.first == kNoTile) {
    list.first = tile;
  } else {
    links[list.last] = tile;
  }
  list.last = tile;
}

/// The bytes of a tile of the pool in use.
std::uint64_t pool_tile_bytes(const ArenaView& to, Pool pool);
/// The bytes of a tile in use; if `tile` is a view, the bytes of its entry.
std::uint64_t bytes_of_tile(const ArenaView& to, std::uint32_t tile);
/// Whether the header counts bytes: elsewhere the number of tiles says them.
inline bool counts_bytes(const ArenaView& to) {
  return folds(to) || has_wide(to.policy()) || has_tiers(to.policy());
}
/// Only where they are counted.
void count_bytes(const ArenaView& to, std::uint32_t tile, bool taken);
/// Takes an entry for the folded part of a chain. Called once for each of the two
/// chains that share codes.
void grow(const ArenaView& to, FoldedPart& part);
void give_back(const ArenaView& to, FoldedPart& part, std::uint32_t view);

inline Segment ArenaView::own(const Chain& chain) const {
  const std::uint32_t before = folds(*this) ? folded_part(*this, chain).used : slots_below(*this, chain);
  return {chain.first, chain.last, before, chain.used - before};
}
inline std::uint32_t ArenaView::sinks_from(const Chain& chain) const {
  if (keeps_log(policy())) return cold_head(*this, chain).used;
  return folds(*this) ? folded_part(*this, chain).used : faint_slots(*this, chain);
}
inline std::uint32_t ArenaView::unordered(const Chain& chain) const {
  if (!folds(*this)) return sinks_from(chain);
  return folded_part(*this, chain).used + folded_part(*this, chain).retained;
}
inline std::uint8_t* ArenaView::key_codes(std::uint32_t tile) const {
  if (!is_view(*this, tile)) return in_place<std::uint8_t>(codes(tile));
  return plane_of(*this, tile, owns_keys(*this, tile) && is_upper(*this, tile) ? 1 : 0);
}
inline std::uint8_t* ArenaView::value_codes(std::uint32_t tile) const {
  if (!is_view(*this, tile)) return in_place<std::uint8_t>(codes(tile)) + key_bytes(pool_of(tile));
  const std::uint32_t last = planes_of(*this, tile) - 1;
  return plane_of(*this, tile, shares_values(*this, tile) || is_upper(*this, tile) ? last : 1);
}

}  // namespace nibkv
