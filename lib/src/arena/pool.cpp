#include "arena/pool.hpp"

namespace nibkv {

std::uint32_t grow(const ArenaView& to, Chain& chain) {
  Chain* lender = &chain;
  NIBKV_ASSERT(to.header().used_tiles < to.layout().tiles);
  const bool wide = to.is_wide(chain);
  for (Chain* other = to.chains(); lender->free == kNoTile; ++other) {
    NIBKV_ASSERT(other < to.chains() + to.heads());
    if (to.is_wide(*other) == wide) lender = other;
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

void give_back(const ArenaView& to, Chain& chain, std::uint32_t tile) {
  const bool equal = equal_runs(to.policy(), to.layout());
  NIBKV_ASSERT(tile < to.layout().tiles && to.header().used_tiles != 0);
  Chain& owner = equal ? to.chains()[tile / to.layout().tiles_per_head] : chain;
  to.links()[tile] = owner.free;
  owner.free = tile;
  to.header().used_tiles -= 1;
  count_bytes(to, tile, false);
}

}  // namespace nibkv
