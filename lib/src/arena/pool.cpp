#include "arena/pool.hpp"

namespace nibkv {

std::uint32_t grow(const ArenaView& to, Chain& chain) {
  Chain* lender = &chain;
  NIBKV_ASSERT(to.header().used_tiles < to.layout().tiles);
  ArenaHeader& head = to.header();
  head.used_tiles += 1;
  if (head.used_tiles > head.peak_tiles) head.peak_tiles = head.used_tiles;
  if (const std::uint32_t first = to.first_tile(chain); first != kNoTile && chain.first == kNoTile) {
    count_bytes(to, first, true);
    add_to_list(chain, first, to.links());
    return first;
  }
  const bool wide = to.is_wide(chain);
  for (Chain* other = to.chains(); lender->free == kNoTile; ++other) {
    NIBKV_ASSERT(other < to.chains() + to.heads());
    if (to.is_wide(*other) == wide) lender = other;
  }
  const std::uint32_t tile = lender->free;
  lender->free = to.links()[tile];
  count_bytes(to, tile, true);
  add_to_list(chain, tile, to.links());
  return tile;
}

void give_back(const ArenaView& to, Chain& chain, std::uint32_t tile) {
  const bool equal = equal_runs(to.policy(), to.layout());
  NIBKV_ASSERT(tile < to.layout().tiles && to.header().used_tiles != 0);
  to.header().used_tiles -= 1;
  count_bytes(to, tile, false);
  if (tile < to.layout().first_tiles) return;  // it waits for its chain
  Chain& owner = equal ? to.chains()[tile / to.layout().tiles_per_head] : chain;
  to.links()[tile] = owner.free;
  owner.free = tile;
}

}  // namespace nibkv
