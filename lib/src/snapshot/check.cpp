#include "nibkv/check.hpp"

#include "arena/pool.hpp"
#include "snapshot/side_checks.hpp"

namespace nibkv {
namespace {

// Follows lists of tiles, one after the other.
struct Walk {
  const Access& to;
  std::uint32_t window;     // the marks are for tiles [window, window + marked)
  std::uint32_t marked;     // bits of scratch
  std::uint64_t steps = 0;  // tiles visited

  // Whether `tile` exists and was not visited before, as far as this window knows.
  // Cyclic lists end here.
  bool take(std::uint32_t tile) {
    const std::uint64_t numbers = to.layout().tiles + to.layout().views;
    if (tile >= numbers || ++steps > numbers) return false;
    if (tile < window || tile - window >= marked) return true;
    auto& byte = reinterpret_cast<std::uint8_t*>(to.scratch(0))[(tile - window) / 8];
    const auto bit = static_cast<std::uint8_t>(1u << (tile - window) % 8);
    if ((byte & bit) != 0) return false;
    byte = static_cast<std::uint8_t>(byte | bit);
    return true;
  }
};

// Whether a chain, or its folded part, has the tiles that its slots need, and ends where it says.
bool sound_list(Walk& walk, const Segment& list, bool views) {
  const std::uint32_t* links = walk.to.links();
  std::uint32_t tile = list.first;
  std::uint32_t last = kNoTile;
  for (std::uint32_t left = tiles_of(list.slots); left != 0; --left) {
    if (!walk.take(tile) || is_view(walk.to, tile) != views) return false;
    last = tile;
    tile = links[tile];
  }
  return tile == kNoTile && list.last == last;
}

bool sound_chain(Walk& walk, const Chain& chain) {
  return sound_list(walk, walk.to.own(chain), false);
}

// Whether both layers of a pair have the views of the same entries, all of them the pair's
// own, in the same order.
bool sound_views(Walk& walk, std::uint32_t lower, std::uint32_t kv_head) {
  const Access& to = walk.to;
  const FoldedPart& part = folded_part(to, to.chain(lower, kv_head));
  const FoldedPart& other = folded_part(to, to.chain(lower + 1, kv_head));
  if (part.used != other.used || part.retained != other.retained) return false;
  if (!sound_list(walk, {part.first, part.last, 0, part.used}, true)) return false;
  if (!sound_list(walk, {other.first, other.last, 0, other.used}, true)) return false;
  const std::uint32_t own = entry_of(to, first_view(to, lower, kv_head)) / to.layout().paired_entries;
  std::uint32_t count = 0;
  const auto in_step = [&](std::uint32_t view, std::uint32_t upper) {
    for (; view != kNoTile; view = to.links()[view], upper = to.links()[upper], ++count) {
      if (count == to.layout().paired_entries || upper != view + 1 || !is_view(to, view) || is_upper(to, view))
        return false;
      if (view >= to.layout().tiles + to.layout().views) return false;
      if (entry_of(to, view) / to.layout().paired_entries != own) return false;
    }
    return upper == kNoTile;
  };
  return in_step(part.first, other.first) && in_step(part.free, other.free) && count == to.layout().paired_entries;
}

bool sound_free_list(Walk& walk, const Chain& chain, std::size_t head) {
  const bool equal = equal_runs(walk.to.policy(), walk.to.layout());
  for (std::uint32_t tile = chain.free; tile != kNoTile; tile = walk.to.links()[tile]) {
    if (!walk.take(tile) || is_view(walk.to, tile)) return false;
    if (equal && tile / walk.to.layout().tiles_per_head != head) return false;
  }
  return true;
}

// Whether every tile is in exactly one list, once.
bool sound_lists(const Access& to) {
  const auto tiles = static_cast<std::uint32_t>(to.layout().tiles);
  const auto numbers = static_cast<std::uint32_t>(to.layout().tiles + to.layout().views);
  const std::uint32_t marked = to.layout().scratch_bytes * 8;
  for (std::uint32_t window = 0; window < numbers; window += marked) {
    std::memset(to.scratch(0), 0, to.layout().scratch_bytes);
    Walk walk{to, window, marked};
    for (std::size_t i = 0; i < to.heads(); ++i) {
      if (!sound_chain(walk, to.chains()[i])) return false;
    }
    if (walk.steps != to.header().used_tiles) return false;
    for (std::size_t i = 0; i < to.heads(); ++i) {
      if (!sound_free_list(walk, to.chains()[i], i)) return false;
    }
    if (walk.steps != tiles) return false;
    if (numbers - window <= marked) break;
  }
  return true;
}

// Whether both layers of a pair hold the same positions, slot for slot.
bool same_positions(const Access& to, const Chain& chain, const Chain& other) {
  if (to.policy().keep != Keep::kScore) return true;
  Cursor at[2] = {to.first_slot(chain), to.first_slot(other)};
  for (std::uint32_t slot = 0; slot < other.used; ++slot) {
    if (to.position(at[0].tile, at[0].lane) != to.position(at[1].tile, at[1].lane)) return false;
    for (Cursor& cursor : at) cursor.next_slot(to.links());
  }
  return true;
}

// Checks the folded parts and the counts of what is in use.
bool sound_entries(const Access& to) {
  std::uint64_t entries = 0;
  std::uint64_t bytes = std::uint64_t{to.header().used_tiles} * bytes_of_tile(to, 0);
  for (std::uint32_t layer = 0; layer < to.shape().layers; ++layer) {
    if (!detail::is_lower(to.policy(), layer)) continue;
    for (std::uint32_t head = 0; head < to.shape().kv_heads; ++head) {
      const Chain& chain = to.chain(layer, head);
      const Chain& other = to.chain(layer + 1, head);
      // The lower one may be a chunk ahead.
      if (chain.seen < other.seen || chain.seen - other.seen != chain.used - other.used) return false;
      if (chain.seen - other.seen > to.shape().max_chunk) return false;
      const FoldedPart& part = folded_part(to, chain);
      if (part.used > chain.used || part.used > other.used || part.retained > other.used - part.used) return false;
      entries += tiles_of(part.used);
      bytes += tiles_of(part.used) * bytes_of_tile(to, first_view(to, layer, head));
      Walk walk{to, 0, 0};
      if (!sound_views(walk, layer, head)) return false;
    }
  }
  const ArenaHeader& header = to.header();
  return entries == header.used_entries && bytes == header.used_bytes && bytes <= header.peak_bytes;
}

// Checks the side data of a chain whose tiles are known to be valid.
bool sound_slots(const Access& to, const Chain& chain) {
  SideChecks sides(to.shape(), to.policy(), to.layout().side, chain, to.own(chain).begin);
  for (Cursor at = to.first_slot(chain); at.any(); at.next_tile(to.links())) {
    if (!sides.next(to.side(at.tile), to.policy().keep == Keep::kScore ? to.base(at.tile) : 0)) return false;
  }
  return true;
}

}  // namespace

Status check(Cache& cache) {
  if (!cache.ready()) return Status::kNotReady;
  const Access to{cache};
  const ArenaHeader& header = to.header();
  if (header.magic != kArenaMagic || header.used_tiles > header.peak_tiles || header.peak_tiles > to.layout().tiles)
    return Status::kCorrupt;
  for (std::uint32_t layer = 0; layer < to.shape().layers; ++layer) {
    for (std::uint32_t head = 0; head < to.shape().kv_heads; ++head) {
      const Chain& chain = to.chain(layer, head);
      if (chain.used > chain.seen || chain.seen != to.chain(layer, 0).seen) return Status::kCorrupt;
      if (to.policy().keep != Keep::kAll && tiles_of(chain.used) > to.layout().chain_tiles) return Status::kCorrupt;
    }
  }
  if (folds(to) && !sound_entries(to)) return Status::kCorrupt;
  if (!sound_lists(to)) return Status::kCorrupt;
  if (to.shape().storage != Storage::kQ4) return Status::kOk;
  for (std::uint32_t layer = 0; layer < to.shape().layers; ++layer) {
    for (std::uint32_t head = 0; head < to.shape().kv_heads; ++head) {
      if (!sound_slots(to, to.chain(layer, head))) return Status::kCorrupt;
      if (is_lower(to, layer) && !same_positions(to, to.chain(layer, head), to.chain(layer + 1, head)))
        return Status::kCorrupt;
    }
  }
  return Status::kOk;
}

}  // namespace nibkv
