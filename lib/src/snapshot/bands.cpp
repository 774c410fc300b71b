#include "snapshot/bands.hpp"

#include "arena/pool.hpp"
#include "snapshot/judge.hpp"
#include "snapshot/walk.hpp"

namespace nibkv {
namespace {

// Distances of folded slots are below this (fold/fold.cpp).
constexpr std::uint32_t kDistances = 1u << 19;

// Whether two chains of a pair match. The lower one may be a chunk ahead.
bool in_step(const ArenaView& to, const ChainRecord& lower, const ChainRecord& upper) {
  if (lower.folded != upper.folded || lower.retained != upper.retained) return false;
  if (lower.seen < upper.seen || lower.seen - upper.seen > to.shape().max_chunk) return false;
  if (lower.used < upper.used || lower.used - upper.used != lower.seen - upper.seen) return false;
  if (upper.retained > upper.used - upper.folded) return false;
  const FoldedPart none;
  if (lower.reach == none.nearest) return upper.reach == none.farthest;
  return lower.reach <= upper.reach;
}

// Checks that both chains of a pair hold the same positions, slot for slot.
Status check_positions(const ArenaView& to, const SnapshotSource& source, const ChainReader (&pair)[2]) {
  const std::uint32_t folded = pair[0].record().folded;
  const std::uint32_t own = pair[1].record().used - folded;
  const std::uint32_t tiles = tiles_of(folded) + tiles_of(own);
  for (std::uint32_t n = 0; n < tiles; ++n) {
    std::uint32_t base[2];
    std::uint16_t offset[2][kTileSlots];
    for (int i = 0; i < 2; ++i) {
      Reader bases(source, pair[i].tile(n));
      Reader offsets(source, pair[i].tile(n) + sizeof(std::uint32_t) + to.layout().side.positions);
      if (!bases.get(&base[i], sizeof base[i]) || !offsets.get(offset[i], sizeof offset[i]))
        return Status::kStorageFailed;
    }
    const bool view = n < tiles_of(folded);
    const std::uint32_t left = view ? folded - n * kTileSlots : own - (n - tiles_of(folded)) * kTileSlots;
    for (std::uint32_t lane = 0; lane < kTileSlots && lane < left; ++lane) {
      if (base[0] + offset[0][lane] != base[1] + offset[1][lane]) return Status::kCorrupt;
    }
  }
  return Status::kOk;
}

// The bytes that Usage counts for the given tiles, views and planes.
std::uint64_t bytes_in_use(const ArenaView& to, const detail::SnapshotCounts& counts) {
  const std::uint64_t side = pool_tile_bytes(to, Pool::kKept) - to.layout().code_bytes;
  return (counts.tiles.all() + counts.views) * side + counts.planes * to.layout().key_bytes +
         detail::code_bytes(to.shape(), to.policy(), counts.tiles, to.layout().code_bytes);
}

// Whether both layers of a pair have the views of the same entries, all of them the pair's
// own, in the same order.
bool sound_views(Walk& walk, std::uint32_t lower, std::uint32_t kv_head) {
  const ArenaView& to = walk.to;
  const FoldedPart& part = folded_part(to, to.chain(lower, kv_head));
  const FoldedPart& other = folded_part(to, to.chain(lower + 1, kv_head));
  if (part.used != other.used || part.retained != other.retained) return false;
  if (!sound_list(walk, {part.first, part.last, 0, part.used}, true)) return false;
  if (!sound_list(walk, {other.first, other.last, 0, other.used}, true)) return false;
  const std::uint32_t own = entry_of(to, first_view(to, lower, kv_head)) / to.layout().paired_entries;
  std::uint32_t count = 0;
  const auto same_entries = [&](std::uint32_t view, std::uint32_t upper) {
    for (; view != kNoTile; view = to.links()[view], upper = to.links()[upper], ++count) {
      if (count == to.layout().paired_entries || upper != view + 1 || !is_view(to, view) || is_upper(to, view))
        return false;
      if (view >= to.layout().tiles + to.layout().views) return false;
      if (entry_of(to, view) / to.layout().paired_entries != own) return false;
    }
    return upper == kNoTile;
  };
  return same_entries(part.first, other.first) && same_entries(part.free, other.free) &&
         count == to.layout().paired_entries;
}

}  // namespace

bool sound_tiers(const ArenaView& to, const ChainRecord& record) {
  const Policy& policy = to.policy();
  if (record.folded > record.used || record.retained > record.used - record.folded) return false;
  if (!has_tiers(policy)) return true;
  if (record.folded > policy.faint || record.used - record.folded - record.retained > tail_capacity(to)) return false;
  if (policy.keep == Keep::kAll) return record.retained <= to.layout().tiles_per_head * kTileSlots;
  // After compact_now, a chain may be longer than its adaptive budget until the next append.
  const std::uint32_t below = detail::tail_tiles(to.shape(), policy) + detail::faint_tiles(policy);
  if (tiles_of(record.retained) > to.layout().chain_tiles - below) return false;
  return policy.budget == Budget::kAdaptive || record.retained <= detail::kept_of(policy, record.budget);
}

void record_fold(const ArenaView& from, std::uint32_t layer, const Chain& chain, ChainRecord& record) {
  if (!is_paired(from, layer)) return;
  const FoldedPart& part = folded_part(from, chain);
  record.folded = part.used;
  record.retained = part.retained;
  const bool lower = detail::is_lower(from.policy(), layer);
  record.reach = lower ? part.nearest : folded_part(from, *(&chain - from.shape().kv_heads)).farthest;
}

bool sound_fold(const ArenaView& to, std::uint32_t layer, const ChainRecord& record) {
  if (!is_paired(to, layer)) return record.folded == 0 && record.retained == 0 && record.reach == 0;
  const Policy& policy = to.policy();
  const std::uint64_t most_folded = std::uint64_t{to.layout().paired_entries} * kTileSlots;
  if (record.folded > most_folded || record.folded > record.used) return false;
  // A chain that holds more than this would have folded, and its own tiles could not
  // hold the next tokens.
  const std::uint64_t most_retained = policy.sinks + detail::retained_beside(policy, most_folded);
  const std::uint64_t always = most_retained + detail::unfolded(to.shape(), policy) + kTileSlots - 1;
  const bool lower = detail::is_lower(policy, layer);
  const std::uint32_t own = record.used - record.folded;
  if (own > always + (lower ? to.shape().max_chunk : 0)) return false;
  if (record.retained > own || record.retained > most_retained) return false;
  const FoldedPart none;
  if (policy.fold.retain != Retain::kFarRange) return record.reach == (lower ? none.nearest : none.farthest);
  return record.reach < kDistances || (lower && record.reach == none.nearest);
}

Status check_pairs(const ArenaView& to, const SnapshotSource& source, const Parts& parts) {
  if (!folds(to)) return Status::kOk;
  const std::uint32_t heads = to.shape().kv_heads;
  ChainReader pair[2] = {{to, source, parts}, {to, source, parts}};
  for (std::uint32_t layer = 0; layer < to.shape().layers; ++layer) {
    for (std::uint32_t head = 0; head < heads; ++head) {
      if (!pair[1].next()) return Status::kStorageFailed;
      if (layer == 0) continue;
      if (!pair[0].next()) return Status::kStorageFailed;
      if (!detail::is_lower(to.policy(), layer - 1)) continue;
      if (!in_step(to, pair[0].record(), pair[1].record())) return Status::kCorrupt;
      if (to.policy().keep != Keep::kScore) continue;
      if (const Status same = check_positions(to, source, pair); same != Status::kOk) return same;
    }
  }
  return Status::kOk;
}

bool sound_peaks(const ArenaView& to, const Peaks& peaks, const detail::SnapshotCounts& counts) {
  const Layout& layout = to.layout();
  if (peaks.used_tiles != counts.tiles.all() || peaks.tiles < peaks.used_tiles || peaks.tiles > layout.tiles)
    return false;
  if (!counts_bytes(to)) return peaks.bytes == 0;
  const std::uint64_t planes = detail::all_planes(layout);
  return peaks.bytes >= bytes_in_use(to, counts) &&
         peaks.bytes <= bytes_in_use(to, {detail::tiles_of_pools(layout), layout.views, planes});
}

void load_fold(const ArenaView& to, std::uint32_t layer, std::uint32_t kv_head, const ChainRecord& record) {
  if (!is_paired(to, layer)) return;
  FoldedPart& part = folded_part(to, to.chain(layer, kv_head));
  for (std::uint32_t left = tiles_of(record.folded); left != 0; --left) grow(to, part);
  part.used = record.folded;
  part.retained = record.retained;
  if (detail::is_lower(to.policy(), layer)) {
    part.nearest = record.reach;
  } else {
    folded_part(to, to.chain(layer - 1, kv_head)).farthest = record.reach;
  }
}

bool sound_folds(const ArenaView& to) {
  if (!folds(to)) {
    std::uint64_t bytes = 0;
    for (std::size_t i = 0; counts_bytes(to) && i < to.heads(); ++i) {
      for (Cursor at = to.first_slot(to.chains()[i]); at.any(); at.next_tile(to.links()))
        bytes += bytes_of_tile(to, at.tile);
    }
    return to.header().used_entries == 0 && to.header().used_bytes == bytes;
  }
  std::uint64_t entries = 0;
  std::uint64_t bytes = std::uint64_t{to.header().used_tiles} * pool_tile_bytes(to, Pool::kKept);
  for (std::uint32_t layer = 0; layer < to.shape().layers; ++layer) {
    for (std::uint32_t head = 0; head < to.shape().kv_heads; ++head) {
      const Chain& chain = to.chain(layer, head);
      if (!is_paired(to, layer)) {
        const FoldedPart& none = folded_part(to, chain);
        if ((none.used | none.retained) != 0) return false;
      }
      if (!is_lower(to, layer)) continue;
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

bool same_positions(const ArenaView& to, std::uint32_t layer, std::uint32_t kv_head) {
  if (to.policy().keep != Keep::kScore || !is_lower(to, layer)) return true;
  const Chain& chain = to.chain(layer, kv_head);
  const Chain& other = to.chain(layer + 1, kv_head);
  Cursor at[2] = {to.first_slot(chain), to.first_slot(other)};
  for (std::uint32_t slot = 0; slot < other.used; ++slot) {
    if (to.position(at[0].tile, at[0].lane) != to.position(at[1].tile, at[1].lane)) return false;
    for (Cursor& cursor : at) cursor.next_slot(to.links());
  }
  return true;
}

}  // namespace nibkv
