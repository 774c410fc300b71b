#include "fold/fold.hpp"

#include "arena/history.hpp"
#include "arena/plan_arrays.hpp"
#include "codec/gaps.hpp"
#include "codec/row.hpp"
#include "codec/slot.hpp"
#include "fold/fold_row.hpp"
#include "fold/shared_row.hpp"
#include "nibkv/plan.hpp"

namespace nibkv {
namespace {

// The chains of one head in both layers of a pair. They have the same slots, positions and numbers of tiles.
class HeadPair {
 public:
  HeadPair(const ArenaView& to, std::uint32_t lower, std::uint32_t kv_head)
      : to_(to),
        keys_(to.policy().fold.keys.has(lower)),
        values_(to.policy().fold.values.has(lower)),
        chains_{&to.chain(lower, kv_head), &to.chain(lower + 1, kv_head)},
        parts_{&folded_part(to, *chains_[0]), &folded_part(to, *chains_[1])},
        distances_(distances(to, lower, kv_head)) {}

  /// Folds the 32 most similar of the old slots, if enough slots are old and a free
  /// entry can hold them.
  bool fold_some();

 private:
  Cursor own_slot(std::uint32_t which, std::uint32_t index) const;
  std::uint32_t distance(const Place (&at)[2]) const;
  std::uint32_t in_range(const std::uint32_t* distances, std::uint32_t count);
  void choose(const std::uint32_t* distances, std::uint32_t count, std::uint32_t* target) const;
  void fold_slot(const Place (&at)[2]);

  const ArenaView& to_;
  bool keys_;
  bool values_;
  Chain* chains_[2];
  FoldedPart* parts_[2];
  std::uint32_t* distances_;  // distances of the retained slots
};

Cursor HeadPair::own_slot(std::uint32_t which, std::uint32_t index) const {
  Segments own;
  own.add(to_.own(*chains_[which]));
  Cursor at(own);
  for (std::uint32_t i = 0; i < index; ++i) at.next_slot(to_.links());
  return at;
}

// The angle between both layers' rows, of keys and values together if both fold. A row of
// zeros matches any other.
std::uint32_t HeadPair::distance(const Place (&at)[2]) const {
  std::int8_t levels[2][kMaxHeadDim] = {};
  const std::uint32_t dim = to_.shape().head_dim;
  std::uint32_t sum = 0;
  const auto scale = [](const std::uint16_t* scales, const Place& slot) { return scales[slot.lane]; };
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

// Retain::kFarRange: how many are far from each other, by the distances of all slots ever examined.
std::uint32_t HeadPair::in_range(const std::uint32_t* distances, std::uint32_t count) {
  FoldedPart& range = *parts_[0];
  for (std::uint32_t i = 0; i < count; ++i) {
    if (distances[i] < range.nearest) range.nearest = distances[i];
    if (distances[i] > range.farthest) range.farthest = distances[i];
  }
  // Distances are below 2^19.
  const std::uint32_t reach = (range.farthest - range.nearest) * to_.policy().fold.retained / 256;
  std::uint32_t far = 0;
  for (std::uint32_t i = 0; i < count; ++i) far += distances[i] + reach > range.farthest ? 1 : 0;
  return far;
}

// Marks the 32 slots that fold as dropped: the nearest ones, or the farthest under Retain::kNear;
// among equal ones the newest.
void HeadPair::choose(const std::uint32_t* distances, std::uint32_t count, std::uint32_t* target) const {
  const std::uint32_t flip = to_.policy().fold.retain == Retain::kNear ? 0 : 0xffffffff;
  const auto nearness = [&](std::uint32_t i) { return distances[i] ^ flip; };
  const auto count_from = [&](std::uint32_t least) {
    std::uint32_t reach = 0;
    for (std::uint32_t i = 0; i < count; ++i) reach += nearness(i) >= least ? 1 : 0;
    return reach;
  };
  const std::uint32_t limit = largest_that([&](std::uint32_t least) { return count_from(least) >= kTileSlots; });
  std::uint32_t at_limit = kTileSlots - (limit == 0xffffffff ? 0 : count_from(limit + 1));
  for (std::uint32_t i = count; i-- > 0;) {
    target[i] = nearness(i) > limit ? kDrop : 0;
    if (nearness(i) != limit || at_limit == 0) continue;
    target[i] = kDrop;
    --at_limit;
  }
}

// Appends a slot to the folded part.
void HeadPair::fold_slot(const Place (&at)[2]) {
  const std::uint32_t lane = parts_[0]->used % kTileSlots;
  for (std::uint32_t w = 0; w < 2; ++w) {
    if (lane == 0) grow(to_, *parts_[w]);
    move_slot(to_, at[w].tile, at[w].lane, parts_[w]->last, lane);
    if (to_.policy().keep == Keep::kScore) {
      to_.set_position(parts_[w]->last, lane, to_.position(at[w].tile, at[w].lane));
    }
    parts_[w]->used += 1;
  }
  const Place into[2] = {{parts_[0]->last, lane}, {parts_[1]->last, lane}};
  if (keys_) SharedRow(to_, at, true).fold_into(into);
  if (values_) SharedRow(to_, at, false).fold_into(into);
}

bool HeadPair::fold_some() {
  const Policy& policy = to_.policy();
  const std::uint32_t entries = to_.layout().paired_entries;
  const std::uint32_t own = chains_[0]->used - parts_[0]->used;
  const std::uint32_t sinks = policy.sinks < own ? policy.sinks : own;
  if (parts_[0]->used + kTileSlots > entries * kTileSlots) return false;
  const std::uint32_t most = to_.layout().most_retained;
  const std::uint32_t always = sinks + detail::unfolded(to_.shape(), policy);
  const std::uint32_t old = own > always ? own - always : 0;
  std::uint32_t count = old < kTileSlots + most ? old : kTileSlots + most;
  const bool ranges = policy.fold.retain == Retain::kFarRange;
  const std::uint32_t weighed = parts_[0]->retained > sinks ? parts_[0]->retained - sinks : 0;
  if (count < kTileSlots + (ranges ? weighed : most)) return false;

  std::uint32_t* target = to_.plan();
  std::uint32_t* distances = target + PlanArrays::stride(to_);
  Cursor at[2] = {own_slot(0, sinks), own_slot(1, sinks)};
  const Cursor first[2] = {at[0], at[1]};
  for (std::uint32_t i = 0; i < count; ++i) {
    const bool known = i < weighed && distances_[i] != kUnknownDistance;
    distances[i] = known ? distances_[i] : distance({at[0], at[1]});
    for (Cursor& cursor : at) cursor.next_slot(to_.links());
  }
  if (ranges) {
    const std::uint32_t far = in_range(distances, count);
    const std::uint32_t wanted = kTileSlots + (far < most ? far : most);
    if (count < wanted) return false;
    count = wanted;
  }
  choose(distances, count, target + sinks);
  at[0] = first[0];
  at[1] = first[1];
  for (std::uint32_t i = 0, kept = 0; i < count; ++i) {
    if (target[sinks + i] == kDrop) {
      fold_slot({at[0], at[1]});
    } else {
      distances_[kept++] = distances[i];
    }
    for (Cursor& cursor : at) cursor.next_slot(to_.links());
  }
  for (std::uint32_t i = 0, next = 0; i < own; ++i) {
    const bool leaves = i >= sinks && i < sinks + count && target[i] == kDrop;
    target[i] = leaves ? kDrop : next++;
  }
  for (std::uint32_t w = 0; w < 2; ++w) {
    parts_[w]->retained = sinks + count - kTileSlots;
    chains_[w]->used = parts_[w]->used + close_gaps(to_, *chains_[w], own, target, 0);
  }
  return true;
}

}  // namespace

void fold_old_slots(const ArenaView& to, const Band& band) {
  if (band.layers == 1) return;
  for (std::uint32_t head = 0; head < to.shape().kv_heads; ++head) {
    HeadPair pair(to, band.first, head);
    while (pair.fold_some()) {
      // The newest slots never fold.
      const std::uint32_t seen = to.chain(band.first, 0).seen;
      const std::uint32_t newest = detail::unfolded(to.shape(), to.policy());
      record_change(to, seen > newest ? seen - newest : 0, seen);
    }
  }
}

}  // namespace nibkv
