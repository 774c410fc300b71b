#pragma once

#include <cstdint>

#include "arena/view.hpp"
#include "nibkv/snapshot.hpp"
#include "snapshot/format.hpp"

namespace nibkv {

/// What a snapshot says about the profile.
inline std::uint32_t profile_of(const ArenaView& to) {
  return has_codes(to.shape().storage) ? to.profile().checksum() : 0;
}

/// The bytes of a tile in the section of sides.
inline std::uint32_t side_record_bytes(const ArenaView& to) {
  return to.layout().side_bytes + (to.policy().keep == Keep::kScore ? 4 : 0);
}

/// The lengths of sections follow from these counts.
inline std::uint64_t side_section_bytes(const ArenaView& of, const detail::SnapshotCounts& counts) {
  return (counts.tiles.all() + counts.views) * side_record_bytes(of);
}
inline std::uint64_t chain_section_bytes(const ArenaView& of) {
  return of.heads() * (sizeof(ChainRecord) + measured_bytes(of.shape()));
}
inline std::uint64_t code_section_bytes(const ArenaView& of, const detail::SnapshotCounts& counts) {
  return detail::code_bytes(of.shape(), of.policy(), counts.tiles, of.layout().code_bytes);
}
inline std::uint64_t shared_section_bytes(const ArenaView& of, const detail::SnapshotCounts& counts) {
  return counts.planes * of.layout().key_bytes;
}
inline std::uint64_t log_section_bytes(const ArenaView& of, const detail::SnapshotCounts& counts) {
  return detail::log_section_bytes(of.shape(), of.policy(), counts.pages);
}

}  // namespace nibkv
