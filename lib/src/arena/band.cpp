#include "arena/band.hpp"

#include "arena/plan_arrays.hpp"

namespace nibkv {

bool in_step(const ArenaView& to, const Band& band) {
  for (std::uint32_t layer = band.first; layer < band.end(); ++layer) {
    if (to.chain(layer, 0).seen != to.chain(band.first, 0).seen) return false;
  }
  return true;
}

bool in_turn(const ArenaView& to, std::uint32_t layer, std::uint32_t count) {
  const Band band = band_of(to, layer);
  const std::uint32_t seen = to.chain(layer, 0).seen;
  for (std::uint32_t other = band.first; other < band.end(); ++other) {
    if (to.chain(other, 0).seen != (other < layer ? seen + count : seen)) return false;
  }
  return true;
}

std::uint32_t judging_layer(const ArenaView& to, const Band& band) {
  return band.layers == 1 || to.policy().fold.t < 128 ? band.first : band.first + 1;
}

bool is_centred(const ArenaView& to, std::uint32_t layer) {
  // What it adds to logits then differs from slot to slot, and attend adds it with those of outlier channels.
  if (to.shape().rotary.reach != 0 && to.shape().outlier_channels == 0) return false;
  const Fold& fold = to.policy().fold;
  return !folds(to) || fold.centred || !(fold.keys.has(layer) || (layer != 0 && fold.keys.has(layer - 1)));
}

const std::uint8_t* value_map(const ArenaView& to, std::uint32_t layer, std::uint32_t kv_head) {
  const bool maps = folds(to) && layer != 0 && to.policy().fold.aligned_values.has(layer - 1);
  return maps ? to.profile().value_map(layer, kv_head) : nullptr;
}

const std::uint8_t* key_turns(const ArenaView& to, std::uint32_t layer, std::uint32_t kv_head) {
  const bool turns = folds(to) && layer != 0 && to.policy().fold.aligned_keys.has(layer - 1);
  return turns ? to.profile().key_turns(layer, kv_head) : nullptr;
}

std::uint32_t* distances(const ArenaView& to, std::uint32_t lower, std::uint32_t kv_head) {
  const std::size_t paired_head = entry_of(to, first_view(to, lower, kv_head)) / to.layout().paired_entries;
  return to.at<std::uint32_t>(to.layout().distances) + paired_head * to.layout().most_retained;
}

std::uint32_t first_view(const ArenaView& to, std::uint32_t lower, std::uint32_t kv_head) {
  const Policy& policy = to.policy();
  const detail::PairCounts all = detail::count_pairs(policy, to.shape().layers);
  const detail::PairCounts before = detail::count_pairs(policy, lower);
  std::uint32_t pair = before.both;
  if (!policy.fold.keys.has(lower)) pair = all.both + before.values;
  if (!policy.fold.values.has(lower)) pair = all.both + all.values + before.keys;
  return static_cast<std::uint32_t>(to.layout().tiles) +
         2 * to.layout().paired_entries * (pair * to.shape().kv_heads + kv_head);
}

std::ptrdiff_t code_step(const ArenaView& to, std::uint32_t tile) {
  if (!is_view(to, tile)) return static_cast<std::ptrdiff_t>(to.code_bytes(to.pool_of(tile)));
  const auto plane_bytes = static_cast<std::ptrdiff_t>(to.layout().key_bytes);
  return static_cast<std::ptrdiff_t>(planes_of(to, tile)) * plane_bytes / 2;  // an entry has two numbers
}

std::uint8_t* plane_of(const ArenaView& to, std::uint32_t view, std::uint32_t index) {
  const std::uint64_t number = entry_of(to, view);
  const std::uint64_t both = to.layout().both_entries;
  const std::uint64_t before = number < both ? 2 * number : 2 * both + 3 * (number - both);
  return to.at<std::uint8_t>(to.layout().shared + (before + index) * to.layout().key_bytes);
}

std::uint32_t run_tiles(const ArenaView& to, std::uint32_t layer, const Chain& chain) {
  const Layout& layout = to.layout();
  if (equal_runs(to.policy(), layout)) return layout.tiles_per_head;
  if (folds(to)) return is_paired(to, layer) ? layout.paired_tiles : layout.tiles_per_head;
  return tiles_of(detail::kept_of(to.policy(), chain.budget) + detail::slack_of(to.shape(), to.policy()));
}

void reset_bands(const ArenaView& to) {
  if (!folds(to)) return;
  for (std::uint32_t layer = 0; layer < to.shape().layers; ++layer) {
    const bool lower = is_lower(to, layer);
    for (std::uint32_t head = 0; head < to.shape().kv_heads; ++head) {
      FoldedPart& part = folded_part(to, to.chain(layer, head));
      if (!lower && is_paired(to, layer)) continue;  // done with the layer below
      part = {};
      if (!lower) continue;
      const std::uint32_t first = first_view(to, layer, head);
      const std::uint32_t end = first + 2 * to.layout().paired_entries;
      for (std::uint32_t view = first; view < end; ++view) to.links()[view] = view + 2 < end ? view + 2 : kNoTile;
      part.free = first;
      for (std::uint32_t i = 0; i < to.layout().most_retained; ++i) distances(to, layer, head)[i] = kUnknownDistance;
      folded_part(to, to.chain(layer + 1, head)) = part;
      folded_part(to, to.chain(layer + 1, head)).free = first + 1;
    }
  }
}

// Those of a tile but its codes.
static std::uint64_t beside_codes(const ArenaView& to) {
  return to.layout().side_bytes + 4u + (to.policy().keep == Keep::kScore ? 4u : 0u);
}

std::uint64_t pool_tile_bytes(const ArenaView& to, Pool pool) {
  return to.code_bytes(pool) + beside_codes(to);
}

std::uint64_t bytes_of_tile(const ArenaView& to, std::uint32_t tile) {
  if (!is_view(to, tile)) return pool_tile_bytes(to, to.pool_of(tile));
  return 2 * beside_codes(to) + planes_of(to, tile) * to.layout().key_bytes;
}

void count_bytes(const ArenaView& to, std::uint32_t tile, bool taken) {
  if (!counts_bytes(to)) return;
  ArenaHeader& head = to.header();
  const std::uint64_t bytes = bytes_of_tile(to, tile);
  head.used_bytes = taken ? head.used_bytes + bytes : head.used_bytes - bytes;
  if (head.used_bytes > head.peak_bytes) head.peak_bytes = head.used_bytes;
}

void grow(const ArenaView& to, FoldedPart& part) {
  const std::uint32_t view = part.free;
  NIBKV_ASSERT(view != kNoTile && is_view(to, view));
  part.free = to.links()[view];
  add_to_list(part, view, to.links());
  if (is_upper(to, view)) return;  // an entry is counted once
  to.header().used_entries += 1;
  count_bytes(to, view, true);
}

void give_back(const ArenaView& to, FoldedPart& part, std::uint32_t view) {
  to.links()[view] = part.free;
  part.free = view;
  if (is_upper(to, view)) return;
  to.header().used_entries -= 1;
  count_bytes(to, view, false);
}

namespace {

// Sets a slot's position where it and the lanes before it span more than 65535 positions: the oldest become later by
// whole steps.
// @returns false if they do not
bool set_by_step(std::uint32_t step, std::uint32_t& base, std::uint16_t* offsets, std::uint32_t lane,
                 std::uint32_t position) {
  if (position < base) {
    std::uint32_t most = 0;
    for (std::uint32_t i = 0; i < lane; ++i) most = most < offsets[i] ? offsets[i] : most;
    if (base - position <= 65535 - most) return false;
    offsets[lane] = static_cast<std::uint16_t>((position - base) & (step - 1));
    return true;
  }
  if (position - base <= 65535) return false;
  const std::uint32_t up = (position - base - 65535 + step - 1) & ~(step - 1);
  base += up;
  for (std::uint32_t i = 0; i < lane; ++i)
    offsets[i] = static_cast<std::uint16_t>(offsets[i] >= up ? offsets[i] - up : offsets[i] & (step - 1));
  offsets[lane] = static_cast<std::uint16_t>(position - base);
  return true;
}

}  // namespace

void ArenaView::set_position(std::uint32_t tile, std::uint32_t lane, std::uint32_t position) const {
  NIBKV_ASSERT(lane < kTileSlots);
  if (lane == 0) base(tile) = position;
  std::uint16_t* const offsets = positions(tile);
  if (positions_by_step(shape().rotary) && set_by_step(shape().rotary.step(), base(tile), offsets, lane, position))
    return;
  if (position < base(tile)) {
    const std::uint32_t down = base(tile) - position;
    base(tile) = position;
    for (std::uint32_t i = 0; i < lane; ++i) {
      const std::uint32_t offset = offsets[i] < 65535 - (down < 65535 ? down : 65535) ? offsets[i] + down : 65535;
      offsets[i] = static_cast<std::uint16_t>(offset);
    }
  }
  const std::uint32_t offset = position - base(tile);
  offsets[lane] = static_cast<std::uint16_t>(offset < 65535 ? offset : 65535);
}

PlanArrays::PlanArrays(const ArenaView& to)
    : target(to.plan()),
      score(target + stride(to)),
      rank(score + stride(to)),
      first(rank + stride(to)),
      next(first + stride(to)),
      other(folds(to) ? next + stride(to) : nullptr),
      droppable(folds(to)       ? other + stride(to)
                : has_faint(to) ? next + stride(to)
                                : nullptr) {}

Segments ArenaView::segments(const Chain& chain) const {
  Segments all;
  if (folds(*this)) {
    const FoldedPart& part = folded_part(*this, chain);
    all.add({part.first, part.last, 0, part.used});
  }
  if (keeps_log(policy())) all.add(recalled_slots(*this, chain));
  // The first tile of a list may have wider codes.
  const auto add = [&](Segment list) {
    if (list.slots > kTileSlots && pool_of(list.first) != pool_of(list.last)) {
      all.add({list.first, list.first, list.begin, kTileSlots});
      list = {links()[list.first], list.last, list.begin + kTileSlots, list.slots - kTileSlots};
    }
    all.add(list);
  };
  if (has_tiers(policy())) {
    const std::uint32_t faint = faint_slots(*this, chain);
    if (faint != 0) all.add({faint_tier(*this, chain).first, faint_tier(*this, chain).last, 0, faint});
    const Tier& kept = kept_tier(*this, chain);
    add({kept.first, kept.last, faint, kept.used});
  }
  add(own(chain));
  return all;
}

}  // namespace nibkv
