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

/// Adds a chain of a layer to the counts.
inline void count_chain(detail::SnapshotCounts& counts, const Policy& policy, std::uint32_t layer, std::uint64_t used,
                        std::uint64_t folded) {
  const auto tiles = [](std::uint64_t slots) { return (slots + kTileSlots - 1) / kTileSlots; };
  counts.tiles += tiles(used - folded);
  if (policy.wide.has(layer)) {
    counts.wide_tiles += tiles(used - folded);
  } else if (policy.wide_first && used != 0) {
    counts.wide_tiles += 1;
  }
  counts.views += tiles(folded);
  counts.planes += tiles(folded) * planes_of_layer(policy, layer);
}

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
