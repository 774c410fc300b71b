#pragma once

#include <cstdint>

#include "arena/band.hpp"
#include "nibkv/snapshot.hpp"

namespace nibkv {

/// What a snapshot says about the profile.
inline std::uint32_t profile_of(const Access& to) {
  return to.shape().storage == Storage::kQ4 ? to.profile().checksum() : 0;
}

/// The bytes of a tile in the section of sides.
inline std::uint32_t side_record_bytes(const Access& to) {
  return to.layout().side_bytes + (to.policy().keep == Keep::kScore ? 4 : 0);
}

/// Calls visit(plane, whether it is one of keys) for the planes of an entry, in the order in which they lie.
template <typename Visit>
inline void each_plane(const Access& of, std::uint32_t lower_view, Visit visit) {
  visit(of.key_codes(lower_view), true);
  if (!shares_keys(of, lower_view)) visit(of.key_codes(lower_view + 1), true);
  visit(of.value_codes(lower_view), false);
  if (!shares_values(of, lower_view)) visit(of.value_codes(lower_view + 1), false);
}

/// Which tiles of the chains a section contains.
inline bool all_tiles(const Access&, std::uint32_t) {
  return true;
}
inline bool pool_tiles(const Access& of, std::uint32_t tile) {
  return !is_view(of, tile);
}
inline bool lower_views(const Access& of, std::uint32_t tile) {
  return is_view(of, tile) && !is_upper(of, tile);
}

/// The number of planes in an entry of `layer` if it is the lower one of a pair, else 0.
inline std::uint32_t planes_of(const Policy& policy, std::uint32_t layer) {
  if (!detail::is_lower(policy, layer)) return 0;
  return policy.fold.keys.has(layer) && policy.fold.values.has(layer) ? 2 : 3;
}

/// Adds a chain of a layer to the counts.
inline void count_chain(detail::SnapshotCounts& counts, const Policy& policy, std::uint32_t layer, std::uint64_t used,
                        std::uint64_t folded) {
  const auto tiles = [](std::uint64_t slots) { return (slots + kTileSlots - 1) / kTileSlots; };
  counts.tiles += tiles(used - folded);
  counts.views += tiles(folded);
  counts.planes += tiles(folded) * planes_of(policy, layer);
}

/// The lengths of sections follow from these counts.
inline std::uint64_t side_section_bytes(const Access& of, const detail::SnapshotCounts& counts) {
  return (counts.tiles + counts.views) * side_record_bytes(of);
}
inline std::uint64_t shared_section_bytes(const Access& of, const detail::SnapshotCounts& counts) {
  return counts.planes * (of.layout().code_bytes / 2);
}

}  // namespace nibkv
