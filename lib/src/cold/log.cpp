#include "cold/log.hpp"

#include "arena/history.hpp"
#include "codec/gaps.hpp"
#include "cold/index.hpp"
#include "cold/recalled.hpp"
#include "nibkv/plan.hpp"

namespace nibkv {
namespace {

// Gives the log some whole pages of a head's own slots.
void write_pages(const ArenaView& to, std::uint32_t layer, std::uint32_t kv_head, std::uint32_t first,
                 std::uint32_t count) {
  const Chain& chain = to.chain(layer, kv_head);
  ColdHead& head = cold_head(to, chain);
  const RecallSpace at = recall_space_of(to.shape(), to.policy());
  std::byte* const space = to.scratch(0) + to.scratch_layout().recall;
  const PageBytes page{to, space + at.page};
  const Basis basis(to, layer, kv_head);
  Segments own;
  own.add(to.own(chain));
  each_slot(own, to.links(), [&](std::uint32_t slot, const Place& place) {
    const std::uint32_t number = slot - head.used;
    if (number < first || number - first >= count) return;
    const std::uint32_t lane = (number - first) % kTileSlots;
    slot_to_page(page, place, lane);
    if (lane != kTileSlots - 1) return;
    const IndexPage index = index_page(to, head, head.pages);
    index_keys(to, basis, page, in_place<float>(space + at.row), index);
    if (write_page(page, to.head_index(layer, kv_head), head.index, head.pages)) {
      index.set_sum(page.sum());
      count_page(head.written);
    } else {
      index.lose();
      count_page(head.lost);
    }
    ++head.pages;
  });
}

// Tokens that the log has just forgotten go from the recalled ones, too.
void forget_recalled(const ArenaView& to, Chain& chain) {
  ColdHead& head = cold_head(to, chain);
  const std::uint32_t first = first_page(to, head) * kTileSlots;
  std::uint32_t* const tokens = recalled_tokens(to, head);
  std::uint32_t gone = 0;
  while (gone < head.used && tokens[gone] < first) ++gone;
  if (gone != 0) drop_recalled(to, chain, gone);
}

}  // namespace

void drop_oldest(const ArenaView& to, std::uint32_t layer, std::uint32_t kv_head, std::uint32_t incoming) {
  Chain& chain = to.chain(layer, kv_head);
  const std::uint32_t own = to.own(chain).slots;
  const std::uint32_t sinks = to.policy().sinks;
  // As under any Keep::kRecent: plan.cpp.
  const std::uint32_t drop = own < chain.budget ? 0 : (own + 1 - chain.budget) / kTileSlots * kTileSlots;
  if (drop == 0) return;
  if (is_indexed(to, chain)) {
    write_pages(to, layer, kv_head, sinks, drop);
    forget_recalled(to, chain);
  }
  const std::uint32_t begin = slots_below(to, chain);
  std::uint32_t* const target = to.plan();
  for (std::uint32_t slot = 0; slot < own; ++slot) {
    const bool dropped = slot >= sinks && slot - sinks < drop;
    target[slot] = dropped ? kDrop : begin + (slot < sinks ? slot : slot - drop);
  }
  record_change(to, chain.seen - (own - sinks - drop), chain.seen + incoming);
  chain.used = begin + close_gaps(to, chain, own, target, begin);
}

}  // namespace nibkv
