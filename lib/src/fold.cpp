#include "fold.hpp"

#include "compact_chain.hpp"
#include "fold_row.hpp"
#include "nibkv/plan.hpp"
#include "row.hpp"
#include "slot.hpp"

namespace nibkv {
namespace {

constexpr std::uint32_t kMostRetained = kTileSlots + 1;  // with 32 that fold, where half of the slots are
constexpr std::uint32_t kMostCandidates = kTileSlots + kMostRetained;

// The chains of one head in both layers of a pair. They have the same slots, positions and numbers of tiles.
class HeadPair {
 public:
  HeadPair(const Access& to, std::uint32_t lower, std::uint32_t kv_head)
      : to_(to),
        keys_(to.policy().fold.keys.has(lower)),
        values_(to.policy().fold.values.has(lower)),
        chains_{&to.chain(lower, kv_head), &to.chain(lower + 1, kv_head)},
        parts_{&to.folded_part(*chains_[0]), &to.folded_part(*chains_[1])} {}

  /// Folds the 32 of the oldest slots that are most alike, if enough are old and there is room for them.
  bool fold_some();

 private:
  SlotCursor own_slot(std::uint32_t which, std::uint32_t index) const;
  std::uint32_t distance(const SlotCursor (&at)[2]) const;
  void choose(const std::uint32_t* distances, std::uint32_t count, std::uint32_t retained, bool* stays) const;
  std::uint32_t in_range(const std::uint32_t* distances, std::uint32_t most);
  void fold_slot(const SlotCursor (&at)[2]);
  void fold_codes(const SlotCursor (&at)[2], std::uint32_t lane, bool keys);

  const Access& to_;
  bool keys_;
  bool values_;
  Chain* chains_[2];
  FoldedPart* parts_[2];
};

SlotCursor HeadPair::own_slot(std::uint32_t which, std::uint32_t index) const {
  SlotCursor at{chains_[which]->first, index % kTileSlots};
  for (std::uint32_t i = 0; i < index / kTileSlots; ++i) at.tile = to_.links()[at.tile];
  return at;
}

// The angles between both layers' rows, of keys and values together if both fold. A row of zero fits any other.
std::uint32_t HeadPair::distance(const SlotCursor (&at)[2]) const {
  std::int8_t levels[2][kMaxHeadDim] = {};
  const std::uint32_t dim = to_.shape().head_dim;
  std::uint32_t sum = 0;
  const auto scale = [](const std::uint16_t* scales, const SlotCursor& slot) { return scales[slot.lane]; };
  if (keys_ && scale(to_.key_scales(at[0].tile), at[0]) != 0 && scale(to_.key_scales(at[1].tile), at[1]) != 0) {
    for (std::uint32_t w = 0; w < 2; ++w) key_levels(to_, at[w].tile, at[w].lane, levels[w]);
    sum += Arc(levels[0], levels[1], dim).angle();
  }
  if (values_ && scale(to_.value_scales(at[0].tile), at[0]) != 0 && scale(to_.value_scales(at[1].tile), at[1]) != 0) {
    for (std::uint32_t w = 0; w < 2; ++w) value_levels(to_, at[w].tile, at[w].lane, levels[w]);
    sum += Arc(levels[0], levels[1], dim).angle();
  }
  return sum;
}

// Of equal ones the oldest are retained.
void HeadPair::choose(const std::uint32_t* distances, std::uint32_t count, std::uint32_t retained, bool* stays) const {
  const bool near = to_.policy().fold.retain == Retain::kNear;
  for (std::uint32_t i = 0; i < count; ++i) stays[i] = false;
  for (; retained != 0; --retained) {
    std::uint32_t best = count;
    for (std::uint32_t i = 0; i < count; ++i) {
      if (stays[i]) continue;
      if (best == count || (near ? distances[i] < distances[best] : distances[i] > distances[best])) best = i;
    }
    stays[best] = true;
  }
}

// Retain::kFarRange: how many beside 32 others are far from one another, at most `most`.
std::uint32_t HeadPair::in_range(const std::uint32_t* distances, std::uint32_t most) {
  FoldedPart& range = *parts_[0];
  for (std::uint32_t more = 0;; ++more) {
    for (std::uint32_t i = 0; i < kTileSlots + more; ++i) {
      if (distances[i] < range.nearest) range.nearest = distances[i];
      if (distances[i] > range.farthest) range.farthest = distances[i];
    }
    // Distances are below 2^19.
    const std::uint32_t reach = (range.farthest - range.nearest) * to_.policy().fold.retained / 256;
    std::uint32_t far = 0;
    for (std::uint32_t i = 0; i < kTileSlots + more; ++i) far += distances[i] > range.farthest - reach ? 1 : 0;
    if (more == most || far <= more) return more;
  }
}

void HeadPair::fold_codes(const SlotCursor (&at)[2], std::uint32_t lane, bool keys) {
  std::uint8_t rows[2][kMaxHeadDim] = {};
  std::uint8_t codes[kMaxHeadDim];
  RowPair pair{{rows[0], rows[1]}, {}};
  for (std::uint32_t w = 0; w < 2; ++w) {
    (keys ? key_row : value_row)(to_, at[w].tile, at[w].lane, rows[w]);
    pair.scales[w] = (keys ? to_.key_scales(at[w].tile) : to_.value_scales(at[w].tile))[at[w].lane];
  }
  fold_row(to_.kernels(), pair, to_.shape().head_dim, to_.policy().fold.t, to_.encoding(), codes);
  for (std::uint32_t w = 0; w < 2; ++w) (keys ? put_key : put_value)(to_, parts_[w]->last, lane, codes, pair.scales[w]);
}

// Appends a slot to the folded part.
void HeadPair::fold_slot(const SlotCursor (&at)[2]) {
  const std::uint32_t lane = parts_[0]->used % kTileSlots;
  for (std::uint32_t w = 0; w < 2; ++w) {
    if (lane == 0) to_.grow_folded(*parts_[w]);
    move_slot(to_, at[w].tile, at[w].lane, parts_[w]->last, lane);
    if (to_.policy().keep == Keep::kScore) {
      to_.set_position(parts_[w]->last, lane, to_.position(at[w].tile, at[w].lane));
    }
    parts_[w]->used += 1;
  }
  if (keys_) fold_codes(at, lane, true);
  if (values_) fold_codes(at, lane, false);
}

bool HeadPair::fold_some() {
  const Policy& policy = to_.policy();
  const std::uint32_t folded = parts_[0]->used;
  const std::uint32_t own = chains_[0]->used - folded;
  const std::uint32_t sinks = policy.sinks < own ? policy.sinks : own;
  const std::uint32_t fixed = parts_[0]->retained > sinks ? parts_[0]->retained : sinks;
  if (folded + kTileSlots > to_.layout().paired_entries * kTileSlots) return false;
  const auto wanted = static_cast<std::uint32_t>(detail::retained_beside(policy, folded + kTileSlots));
  const std::uint32_t missing = wanted > fixed - sinks ? wanted - (fixed - sinks) : 0;
  const std::uint32_t most = detail::most_retained(policy);
  std::uint32_t retained = missing < most ? missing : most;
  std::uint32_t count = kTileSlots + retained;
  if (own - fixed < count + detail::unfolded(to_.shape(), policy)) return false;

  SlotCursor at[2] = {own_slot(0, fixed), own_slot(1, fixed)};
  const SlotCursor first[2] = {at[0], at[1]};
  std::uint32_t distances[kMostCandidates];
  bool stays[kMostCandidates];
  for (std::uint32_t i = 0; i < count; ++i) {
    distances[i] = distance(at);
    for (SlotCursor& cursor : at) cursor.next(to_.links());
  }
  if (policy.fold.retain == Retain::kFarRange) {
    retained = in_range(distances, retained);
    count = kTileSlots + retained;
  }
  choose(distances, count, retained, stays);
  std::uint32_t* target = to_.plan();
  for (std::uint32_t i = 0, next = 0; i < own; ++i) {
    const bool leaves = i >= fixed && i < fixed + count && !stays[i - fixed];
    target[i] = leaves ? kDrop : next++;
  }
  at[0] = first[0];
  at[1] = first[1];
  for (std::uint32_t i = 0; i < count; ++i) {
    if (!stays[i]) fold_slot(at);
    for (SlotCursor& cursor : at) cursor.next(to_.links());
  }
  for (std::uint32_t w = 0; w < 2; ++w) {
    parts_[w]->retained = fixed + retained;
    compact_own(to_, *chains_[w], own, target, 0);
    chains_[w]->used += parts_[w]->used;
  }
  return true;
}

}  // namespace

void fold_pair(const Access& to, std::uint32_t lower) {
  for (std::uint32_t head = 0; head < to.shape().kv_heads; ++head) {
    HeadPair pair(to, lower, head);
    while (pair.fold_some()) {
    }
  }
}

}  // namespace nibkv
