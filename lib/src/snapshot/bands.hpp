#pragma once

#include "arena/band.hpp"
#include "snapshot/fingerprint.hpp"
#include "snapshot/parts.hpp"
#include "snapshot/reader.hpp"

// What snapshots and checks say of layers that share codes.

namespace nibkv {

/// What a snapshot says about a cache's policy.
inline std::uint64_t policy_print(const ArenaView& of) {
  return fingerprint(of.policy(), folds(of));
}

/// Calls visit(plane, whether it is one of keys) for the planes of an entry, in the order in which they lie.
template <typename Visit>
inline void each_plane(const ArenaView& of, std::uint32_t lower_view, Visit visit) {
  visit(of.key_codes(lower_view), true);
  if (!shares_keys(of, lower_view)) visit(of.key_codes(lower_view + 1), true);
  visit(of.value_codes(lower_view), false);
  if (!shares_values(of, lower_view)) visit(of.value_codes(lower_view + 1), false);
}

/// Which tiles of the chains a section contains.
inline bool all_tiles(const ArenaView&, std::uint32_t) {
  return true;
}
inline bool pool_tiles(const ArenaView& of, std::uint32_t tile) {
  return !is_view(of, tile);
}
inline bool lower_views(const ArenaView& of, std::uint32_t tile) {
  return is_view(of, tile) && !is_upper(of, tile);
}

/// The number of planes in an entry of `layer` if it is the lower one of a pair, else 0.
inline std::uint32_t planes_of_layer(const Policy& policy, std::uint32_t layer) {
  if (!detail::is_lower(policy, layer)) return 0;
  return policy.fold.keys.has(layer) && policy.fold.values.has(layer) ? 2 : 3;
}

/// A list of tiles of a chain, as a snapshot has it.
struct TileList {
  std::uint32_t slots;
  Pool pool;        // of its tiles, but for the first one
  Pool first_pool;  // of that
  bool views;       // whether they are views, not tiles of a pool

  std::uint32_t tiles() const { return tiles_of(slots); }
  Pool pool_of(std::uint32_t tile) const { return tile == 0 ? first_pool : pool; }
};
/// All of a chain, in slot order.
struct TileLists {
  static constexpr std::uint32_t kCount = 3;
  TileList at[kCount];

  std::uint32_t tiles() const { return at[0].tiles() + at[1].tiles() + at[2].tiles(); }
};
/// What the record of a chain says, with no more slots in its parts than in all.
inline TileLists lists_of(const Policy& policy, std::uint32_t layer, const ChainRecord& record) {
  const bool wide = policy.wide.has(layer);
  const Pool pool = wide ? Pool::kWide : Pool::kKept;
  const Pool first = wide || policy.wide_first ? Pool::kWide : Pool::kKept;
  const std::uint32_t rest = record.used - record.folded;
  if (!has_tiers(policy)) {
    return {{{record.folded, Pool::kKept, Pool::kKept, true}, {rest, pool, first, false}, {0, pool, pool, false}}};
  }
  return {{{record.folded, Pool::kFaint, Pool::kFaint, false},
           {record.retained, pool, first, false},
           {rest - record.retained, Pool::kTail, Pool::kTail, false}}};
}

/// Adds a chain of a layer to the counts.
inline void count_chain(detail::SnapshotCounts& counts, const Policy& policy, std::uint32_t layer,
                        const TileLists& lists) {
  for (const TileList& list : lists.at) {
    if (list.slots == 0) continue;
    if (list.views) {
      counts.views += list.tiles();
      counts.planes += std::uint64_t{list.tiles()} * planes_of_layer(policy, layer);
    } else {
      counts.tiles[list.first_pool] += 1;
      counts.tiles[list.pool] += list.tiles() - 1;
    }
  }
}

/// Whether a record's parts are within the whole, and within what tiers can hold. True where there are none.
bool sound_tiers(const ArenaView& to, const ChainRecord& record);

/// Adds what a chain's folded part is to its record.
void record_fold(const ArenaView& from, std::uint32_t layer, const Chain& chain, ChainRecord& record);

/// Checks what a record says about a folded part, without the other layer.
bool sound_fold(const ArenaView& to, std::uint32_t layer, const ChainRecord& record);

/// Checks layers that share codes against each other, after each record of a chain was
/// found valid by itself.
Status check_pairs(const ArenaView& to, const SnapshotSource& source, const Parts& parts);

/// How much of an arena was in use at most.
struct Peaks {
  std::uint32_t used_tiles;  // now
  std::uint32_t tiles;
  std::uint64_t bytes;
};

/// Whether these are peaks that a cache with `counts` in use can have had.
bool sound_peaks(const ArenaView& to, const Peaks& peaks, const detail::SnapshotCounts& counts);

/// Takes the entries that the record names for a chain that is empty.
void load_fold(const ArenaView& to, std::uint32_t layer, std::uint32_t kv_head, const ChainRecord& record);

/// Checks an arena's folded parts and its counts of what is in use.
bool sound_folds(const ArenaView& to);

/// Whether both layers of a pair hold the same positions, slot for slot. True for other layers than
/// the lower one of a pair.
bool same_positions(const ArenaView& to, std::uint32_t layer, std::uint32_t kv_head);

}  // namespace nibkv
