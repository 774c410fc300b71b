#include "arena/pool.hpp"

namespace nibkv {
namespace {

void count_tile(const ArenaView& to, std::uint32_t tile) {
  ArenaHeader& head = to.header();
  NIBKV_ASSERT(head.used_tiles < to.layout().tiles);
  head.used_tiles += 1;
  if (head.used_tiles > head.peak_tiles) head.peak_tiles = head.used_tiles;
  count_bytes(to, tile, true);
}

void uncount_tile(const ArenaView& to, std::uint32_t tile) {
  NIBKV_ASSERT(tile < to.layout().tiles && to.header().used_tiles != 0);
  to.header().used_tiles -= 1;
  count_bytes(to, tile, false);
}

// Takes the first of a list's free tiles, or, if it has none, of another one's of its kind, and appends it to `list`.
// @param list_of  what lists a chain has of this kind; nullptr if it has none
template <typename List, typename ListOf>
std::uint32_t take_free(const ArenaView& to, List& list, ListOf list_of) {
  List* lender = &list;
  for (std::size_t i = 0; lender->free == kNoTile; ++i) {
    NIBKV_ASSERT(i < to.heads());
    if (List* const other = list_of(to.chains()[i]); other != nullptr) lender = other;
  }
  const std::uint32_t tile = lender->free;
  lender->free = to.links()[tile];
  count_tile(to, tile);
  add_to_list(list, tile, to.links());
  return tile;
}

// The first tile of a list may be one apart.
template <typename List>
bool take_first(const ArenaView& to, const Chain& chain, List& list) {
  const std::uint32_t first = list.first == kNoTile ? to.first_tile(chain) : kNoTile;
  if (first == kNoTile) return false;
  count_tile(to, first);
  add_to_list(list, first, to.links());
  return true;
}

template <typename List>
void put_free(const ArenaView& to, List& list, std::uint32_t tile) {
  uncount_tile(to, tile);
  if (tile < to.layout().first_tiles) return;  // it waits for its chain
  to.links()[tile] = list.free;
  list.free = tile;
}

}  // namespace

std::uint32_t grow(const ArenaView& to, Chain& chain) {
  const bool tail = has_tiers(to.policy());
  if (!tail && take_first(to, chain, chain)) return chain.first;
  const bool wide = to.is_wide(chain);
  return take_free(to, chain, [&](Chain& other) { return !tail && to.is_wide(other) == wide ? &other : nullptr; });
}

std::uint32_t grow(const ArenaView& to, const Chain& chain, Tier& tier) {
  const bool faint = has_faint(to) && &tier == &faint_tier(to, chain);
  if (!faint && take_first(to, chain, tier)) return tier.first;
  const bool wide = to.is_wide(chain);
  return take_free(to, tier, [&](const Chain& other) {
    return !faint && to.is_wide(other) == wide ? &kept_tier(to, other) : nullptr;
  });
}

void give_back(const ArenaView& to, Chain& chain, std::uint32_t tile) {
  const bool equal = equal_runs(to.policy(), to.layout());
  put_free(to, equal ? to.chains()[tile / to.layout().tiles_per_head] : chain, tile);
}

void give_back(const ArenaView& to, Tier& tier, std::uint32_t tile) {
  put_free(to, tier, tile);
}

}  // namespace nibkv
