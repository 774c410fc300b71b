#pragma once

#include <cstdint>

#include "arena/band.hpp"

namespace nibkv {

/// A list of tiles, in order.
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

/// The bytes of a tile in use; if `tile` is a view, the bytes of its entry.
inline std::uint64_t bytes_of_tile(const Access& to, std::uint32_t tile) {
  const Layout& at = to.layout();
  const std::uint64_t beside = at.side_bytes + 4u + (to.policy().keep == Keep::kScore ? 4u : 0u);
  if (!is_view(to, tile)) return at.code_bytes + beside;
  return 2 * beside + planes_of(to, tile) * (at.code_bytes / 2);
}

/// Only where layers share codes: elsewhere the number of tiles says it.
inline void count_bytes(const Access& to, std::uint32_t tile, bool taken) {
  if (!folds(to)) return;
  ArenaHeader& head = to.header();
  const std::uint64_t bytes = bytes_of_tile(to, tile);
  head.used_bytes = taken ? head.used_bytes + bytes : head.used_bytes - bytes;
  if (head.used_bytes > head.peak_bytes) head.peak_bytes = head.used_bytes;
}

/// Takes a tile from the pool, which must have one, and appends it to `chain`. It comes from
/// the chain's own run if any is free there, so that a chain mostly lies in one piece of memory
/// (lib/DESIGN.md has the gain).
inline std::uint32_t grow(const Access& to, Chain& chain) {
  Chain* lender = &chain;
  NIBKV_ASSERT(to.header().used_tiles < to.layout().tiles);
  for (Chain* other = to.chains(); lender->free == kNoTile; ++other) {
    NIBKV_ASSERT(other < to.chains() + to.heads());
    lender = other;
  }
  const std::uint32_t tile = lender->free;
  lender->free = to.links()[tile];
  ArenaHeader& head = to.header();
  head.used_tiles += 1;
  if (head.used_tiles > head.peak_tiles) head.peak_tiles = head.used_tiles;
  count_bytes(to, tile, true);
  add_to_list(chain, tile, to.links());
  return tile;
}

/// Returns a tile of `chain` to the pool: to the chain in whose run it lies, if all runs
/// are of equal length.
inline void give_back(const Access& to, Chain& chain, std::uint32_t tile) {
  const bool equal = equal_runs(to.policy(), to.layout());
  NIBKV_ASSERT(tile < to.layout().tiles && to.header().used_tiles != 0);
  Chain& owner = equal ? to.chains()[tile / to.layout().tiles_per_head] : chain;
  to.links()[tile] = owner.free;
  owner.free = tile;
  to.header().used_tiles -= 1;
  count_bytes(to, tile, false);
}

/// Takes an entry for the folded part of a chain. Called once for each of the two
/// chains that share codes.
inline void grow(const Access& to, FoldedPart& part) {
  const std::uint32_t view = part.free;
  NIBKV_ASSERT(view != kNoTile && is_view(to, view));
  part.free = to.links()[view];
  add_to_list(part, view, to.links());
  if (is_upper(to, view)) return;  // an entry is counted once
  to.header().used_entries += 1;
  count_bytes(to, view, true);
}
inline void give_back(const Access& to, FoldedPart& part, std::uint32_t view) {
  to.links()[view] = part.free;
  part.free = view;
  if (is_upper(to, view)) return;
  to.header().used_entries -= 1;
  count_bytes(to, view, false);
}

}  // namespace nibkv
