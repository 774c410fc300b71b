#include "nibkv/check.hpp"

#include "arena/budget.hpp"
#include "attention/class_mass.hpp"
#include "cold/index.hpp"
#include "snapshot/judge.hpp"
#include "snapshot/side_checks.hpp"
#include "snapshot/walk.hpp"

namespace nibkv {
namespace {

// Whether the tokens whose rows append_share may write are there.
bool sound_reserve(const ArenaView& to) {
  const ArenaHeader& header = to.header();
  if (header.reserved > to.shape().max_chunk || header.reserved_first > header.reserved_last ||
      header.reserved_last >= to.shape().layers)
    return false;
  for (std::size_t i = 0; header.reserved != 0 && i < to.heads(); ++i) {
    const Chain& chain = to.chains()[i];
    const std::size_t layer = i / to.shape().kv_heads;
    if (layer < header.reserved_first || layer > header.reserved_last) continue;
    if (chain.seen != header.reserved_to || to.own(chain).slots < header.reserved) return false;
  }
  return true;
}

// Whether counts and budgets are ones that a snapshot of the arena may have.
bool sound_records(const ArenaView& to) {
  if (!sound_budgets(to)) return false;
  ChainJudge judge(to, to.header().whole_from);
  for (std::size_t i = 0; i < to.heads(); ++i) {
    if (judge.take(record_of(to, i)) != Status::kOk) return false;
  }
  const ArenaHeader& header = to.header();
  if (!judge.sound_whole_from() || header.whole_from > header.exact_from || header.exact_from > judge.most_seen())
    return false;
  return sound_peaks(to, {header.used_tiles, header.peak_tiles, header.peak_bytes}, judge.counts());
}

// Whether a list of tiles, which is sound, has those of a pool, and first the one apart if it should.
// @param first  or kNoTile
bool right_pool(const ArenaView& to, std::uint32_t tile, Pool pool, std::uint32_t first) {
  const std::uint32_t* links = to.links();
  if (first != kNoTile && tile != kNoTile) {
    if (tile != first) return false;
    tile = links[tile];
  }
  while (tile != kNoTile && to.pool_of(tile) == pool && tile >= to.layout().first_tiles) tile = links[tile];
  return tile == kNoTile;
}

bool sound_tier(Walk& walk, const Tier& tier, Pool pool, std::uint32_t first) {
  return sound_list(walk, {tier.first, tier.last, 0, tier.used}, false) && right_pool(walk.to, tier.first, pool, first);
}

bool sound_chain(Walk& walk, const Chain& chain) {
  const ArenaView& to = walk.to;
  if (!sound_list(walk, to.own(chain), false)) return false;
  const std::uint32_t first = to.first_tile(chain);
  if (!has_tiers(to.policy())) return folds(to) || right_pool(to, chain.first, to.pool_of(chain), first);
  return right_pool(to, chain.first, Pool::kTail, kNoTile) &&
         sound_tier(walk, kept_tier(to, chain), to.pool_of(chain), first) &&
         (!has_faint(to) || sound_tier(walk, faint_tier(to, chain), Pool::kFaint, kNoTile));
}

bool sound_free_list(Walk& walk, std::uint32_t tile, Pool pool, std::size_t head) {
  const bool equal = equal_runs(walk.to.policy(), walk.to.layout());
  for (; tile != kNoTile; tile = walk.to.links()[tile]) {
    if (!walk.take(tile) || tile >= walk.to.layout().tiles) return false;
    if (equal && tile / walk.to.layout().tiles_per_head != head) return false;
    if (walk.to.pool_of(tile) != pool || tile < walk.to.layout().first_tiles) return false;
  }
  return true;
}

bool sound_free_lists(Walk& walk, const Chain& chain, std::size_t head) {
  const ArenaView& to = walk.to;
  if (!has_tiers(to.policy())) return sound_free_list(walk, chain.free, to.pool_of(chain), head);
  return sound_free_list(walk, chain.free, Pool::kTail, head) &&
         sound_free_list(walk, kept_tier(to, chain).free, to.pool_of(chain), head) &&
         (!has_faint(to) || sound_free_list(walk, faint_tier(to, chain).free, Pool::kFaint, head));
}

// Whether every tile is in exactly one list, once.
bool sound_lists(const ArenaView& to) {
  const auto tiles = static_cast<std::uint32_t>(to.layout().tiles);
  const auto numbers = static_cast<std::uint32_t>(to.layout().tiles + to.layout().views);
  const std::uint32_t bytes = to.layout().scratch_bytes;
  const std::uint32_t marked = bytes < numbers / 8 + 1 ? bytes * 8 : numbers;
  for (std::uint32_t window = 0; window < numbers; window += marked) {
    std::memset(to.scratch(0), 0, to.layout().scratch_bytes);
    Walk walk{to, window, marked};
    for (std::size_t i = 0; i < to.heads(); ++i) {
      if (!sound_chain(walk, to.chains()[i])) return false;
    }
    if (walk.steps != to.header().used_tiles) return false;
    for (std::size_t i = 0; i < to.heads(); ++i) {
      if (!sound_free_lists(walk, to.chains()[i], i)) return false;
    }
    // First tiles of empty chains are in no list.
    std::uint32_t waiting = 0;
    for (std::size_t i = 0; i < to.heads(); ++i) {
      const Chain& chain = to.chains()[i];
      const std::uint32_t list = has_tiers(to.policy()) ? kept_tier(to, chain).first : chain.first;
      waiting += list == kNoTile && to.first_tile(chain) != kNoTile ? 1 : 0;
    }
    const std::uint32_t recalled = indexed_heads(to.shape(), to.policy()) * (to.policy().recall / kTileSlots);
    if (walk.steps + waiting + recalled != tiles) return false;
    if (numbers - window <= marked) break;
  }
  return true;
}

// Checks the side data of a chain whose tiles are known to be valid.
bool sound_slots(const ArenaView& to, const Chain& chain) {
  SideChecks sides(to.shape(), to.policy(), to.layout().side, chain, to.sinks_from(chain));
  for (Cursor at = to.first_slot(chain); at.any(); at.next_tile(to.links())) {
    sides.begin(at.slots_in_tile());
    if (!sides.next(to.side(at.tile), to.policy().keep == Keep::kScore ? to.base(at.tile) : 0)) return false;
  }
  return true;
}

// Whether the log of each head is one of its tokens, and what is recalled is in it.
bool sound_logs(const ArenaView& to) {
  const std::uint32_t indexed = indexed_heads(to.shape(), to.policy());
  std::uint32_t next = 0;
  for (std::size_t i = 0; i < to.heads(); ++i) {
    const Chain& chain = to.chains()[i];
    const ColdHead& head = cold_head(to, chain);
    if (head.index == kNotIndexed) {
      if (head.used != 0 || head.pages != 0) return false;
      continue;
    }
    if (next == indexed || head.index != next++ || head.used > to.policy().recall || head.used > chain.used)
      return false;
    const std::uint32_t own = chain.used - head.used;
    if (own > chain.seen || std::uint64_t{head.pages} * kTileSlots != chain.seen - own) return false;
    const std::uint32_t first = first_recalled(to, chain), last = first + to.policy().recall / kTileSlots - 1;
    for (std::uint32_t tile = first; tile <= last; ++tile) {
      if (to.links()[tile] != (tile < last ? tile + 1 : kNoTile)) return false;
    }
    const std::uint32_t* const tokens = recalled_tokens(to, head);
    for (std::uint32_t slot = 0; slot < head.used; ++slot) {
      const std::uint32_t page = tokens[slot] / kTileSlots;
      if (page < first_page(to, head) || page >= head.pages) return false;
      if (slot != 0 && tokens[slot] <= tokens[slot - 1]) return false;
    }
    const HeadIndex index(to, head);
    for (std::uint32_t page = first_page(to, head); page < head.pages; ++page) {
      if (!sound_index(index.at(page))) return false;
    }
  }
  return next == indexed;
}

bool sound_codes(const ArenaView& to, std::uint32_t tile) {
  const Pool pool = to.pool_of(tile);
  const TileFormat format = to.format(pool);
  if (format.key_bits == 8 && !sound_bytes(to.key_codes(tile), to.key_bytes(pool))) return false;
  return format.value_bits != 8 || sound_bytes(to.value_codes(tile), to.value_bytes(pool));
}

}  // namespace

Status check(Cache& cache) {
  if (!cache.ready()) return Status::kNotReady;
  const ArenaView to{cache};
  // It says where all else lies.
  if (!has_own_layout(to)) return Status::kCorrupt;
  if (to.header().magic != kArenaMagic) return Status::kCorrupt;
  if (keeps_log(to.policy()) && !sound_logs(to)) return Status::kCorrupt;
  if (!sound_records(to) || !sound_measured(to)) return Status::kCorrupt;
  if (!sound_folds(to) || !sound_reserve(to)) return Status::kCorrupt;
  if (!sound_lists(to)) return Status::kCorrupt;
  if (!has_codes(to.shape().storage)) return Status::kOk;
  for (std::uint32_t layer = 0; layer < to.shape().layers; ++layer) {
    for (std::uint32_t head = 0; head < to.shape().kv_heads; ++head) {
      const Chain& chain = to.chain(layer, head);
      if (!sound_slots(to, chain) || chain.members_mass != mass_of_members(to, chain)) return Status::kCorrupt;
      if (!same_positions(to, layer, head)) return Status::kCorrupt;
      for (Cursor at = to.first_slot(chain); at.any(); at.next_tile(to.links())) {
        if (!sound_codes(to, at.tile)) return Status::kCorrupt;
      }
    }
  }
  return Status::kOk;
}

}  // namespace nibkv
