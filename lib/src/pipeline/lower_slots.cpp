#include "pipeline/lower_slots.hpp"

#include "arena/history.hpp"
#include "arena/plan_arrays.hpp"
#include "codec/gaps.hpp"
#include "codec/row.hpp"
#include "codec/slot.hpp"
#include "nibkv/plan.hpp"

namespace nibkv {
namespace {

// Moves slots of a head to tiles that may have codes of fewer bits.
class Lowering {
 public:
  Lowering(const ArenaView& to, std::uint32_t layer, std::uint32_t kv_head)
      : to_(to), with_(to, layer, kv_head), refiner_(to, with_.basis(), to.refining()) {
    with_.keep(refiner_);
  }

  // To a tile whose widths are at most those of `from`; the position is set here, too.
  void move(const Place& from, const Place& place) const;

 private:
  const ArenaView& to_;
  Recoder with_;
  KeyRefiner refiner_;
};

void Lowering::move(const Place& from, const Place& place) const {
  const std::uint32_t position = to_.policy().keep == Keep::kScore ? to_.position(from.tile, from.lane) : 0;
  move_side(to_, from, place);
  std::uint8_t codes[kMaxHeadDim];
  key_row(to_, from.tile, from.lane, codes);
  with_.put_key(key_plane(to_, from.tile).bits, codes, place);
  value_row(to_, from.tile, from.lane, codes);
  with_.put_value(value_plane(to_, from.tile).bits, codes, place);
  if (to_.policy().keep == Keep::kScore) to_.set_position(place.tile, place.lane, position);
}

// The slots of a chain that are not faint.
Segments not_faint(const ArenaView& to, const Chain& chain) {
  const Segments all = to.segments(chain);
  Segments segments;
  for (std::uint32_t i = 0; i < all.count; ++i) {
    if (all.at[i].begin >= faint_slots(to, chain)) segments.add(all.at[i]);
  }
  return segments;
}

// Closes the gaps of the faint slots, and adds those that become faint at their end.
void compact_faint(const ArenaView& to, Chain& chain, const Lowering& lowering, const std::uint32_t* target) {
  Tier& faint = faint_tier(to, chain);
  const std::uint32_t slots = faint.used;
  const Segments others = not_faint(to, chain);
  std::uint32_t* const numbers = PlanArrays(to).rank;
  std::uint32_t next = 0;
  for (std::uint32_t i = 0; i < slots; ++i) numbers[i] = target[i] == kFaint ? next++ : kDrop;
  faint.used = close_gaps(to, faint, slots, numbers, 0);
  each_slot(others, to.links(), [&](std::uint32_t slot, const Place& at) {
    if (target[slot] != kFaint) return;
    const bool sink = slot - slots < to.policy().sinks;  // its score is below no bound
    if (sink && keeps_global(to.policy())) chain.heaviest = 0xffffffff;
    lowering.move(at, add_to_tier(to, chain, faint));
  });
}

}  // namespace

Place add_to_tier(const ArenaView& to, const Chain& chain, Tier& tier) {
  const std::uint32_t lane = tier.used % kTileSlots;
  const std::uint32_t tile = lane == 0 ? grow(to, chain, tier) : tier.last;
  tier.used += 1;
  return {tile, lane};
}

void compact_tiers(const ArenaView& to, std::uint32_t layer, std::uint32_t kv_head, const std::uint32_t* target,
                   std::uint32_t ripe) {
  Chain& chain = to.chain(layer, kv_head);
  Tier& kept = kept_tier(to, chain);
  const std::uint32_t first = faint_slots(to, chain);
  const std::uint32_t rest = chain.used - slots_below(to, chain) - ripe;  // slots of the tail
  const Lowering lowering(to, layer, kv_head);
  const std::uint32_t* const of_tail = target == nullptr ? nullptr : target + slots_below(to, chain);
  if (target != nullptr) {
    if (has_faint(to)) compact_faint(to, chain, lowering, target);
    kept.used = close_gaps(to, kept, kept.used, target + first, 0);
  }
  for (std::uint32_t slot = 0; slot < ripe; slot += kTileSlots) {
    const std::uint32_t tile = chain.first;
    for (std::uint32_t lane = 0; lane < kTileSlots; ++lane) {
      if (of_tail == nullptr || of_tail[slot + lane] < kMember)
        lowering.move({tile, lane}, add_to_tier(to, chain, kept));
    }
    chain.first = to.links()[tile];
    if (chain.first == kNoTile) chain.last = kNoTile;
    give_back(to, chain, tile);
  }
  chain.used = faint_slots(to, chain) + kept.used;
  chain.used += target == nullptr ? rest : close_gaps(to, chain, rest, of_tail + ripe, kept.used);
}

void lower_ripe(const ArenaView& to, std::uint32_t layer, std::uint32_t kv_head, std::uint32_t ripe,
                std::uint32_t incoming) {
  if (ripe == 0) return;
  record_change(to, 0, to.chain(layer, kv_head).seen + incoming);
  compact_tiers(to, layer, kv_head, nullptr, ripe);
}

std::uint32_t fitting_ripe(const ArenaView& to, const Chain& chain) {
  const std::uint32_t ripe = ripe_slots(to, chain);
  const std::uint32_t left = kept_slots_left(to, chain);
  return ripe < left ? ripe : left;
}

}  // namespace nibkv
