#include "cold/log.hpp"

#include "cold/index.hpp"
#include "cold/recalled.hpp"

namespace nibkv {
namespace {

// Tokens that the log has just forgotten go from the recalled ones, too.
void forget_recalled(const ArenaView& to, Chain& chain) {
  ColdHead& head = cold_head(to, chain);
  const std::uint32_t first = first_page(to, head) * kTileSlots;
  std::uint32_t* const tokens = recalled_tokens(to, head);
  std::uint32_t gone = 0;
  while (gone < head.used && tokens[gone] < first) tokens[gone++] = kNoToken;
  if (gone != 0) drop_empty(to, chain);
}

}  // namespace

void write_pages(const ArenaView& to, std::uint32_t layer, std::uint32_t kv_head, std::uint32_t count) {
  Chain& chain = to.chain(layer, kv_head);
  ColdHead& head = cold_head(to, chain);
  if (head.index == kNotIndexed || count == 0) return;
  const RecallSpace at = recall_space_of(to.shape(), to.policy());
  std::byte* const space = to.scratch(0) + to.scratch_layout().recall;
  const PageBytes page{to, space + at.page};
  const Basis basis(to, layer, kv_head);
  const HeadIndex known(to, head);
  const std::uint32_t first = head.used + to.policy().sinks;
  Segments own;
  own.add(to.own(chain));
  each_slot(own, to.links(), [&](std::uint32_t slot, const Place& place) {
    if (slot < first || slot - first >= count) return;
    const std::uint32_t lane = (slot - first) % kTileSlots;
    slot_to_page(page, place, lane);
    if (lane != kTileSlots - 1) return;
    const IndexPage index = known.at(head.pages);
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
  forget_recalled(to, chain);
}

void copy_pages(const ArenaView& from, const ArenaView& to) {
  std::byte* const space = to.scratch(0) + to.scratch_layout().recall + recall_space_of(to.shape(), to.policy()).page;
  const PageBytes theirs{from, space}, page{to, space};
  for (std::size_t i = 0; i < to.heads(); ++i) {
    ColdHead& head = cold_head(to, to.chains()[i]);
    if (head.index == kNotIndexed) continue;
    const HeadIndex known(to, head);
    for (std::uint32_t number = first_page(to, head); number < head.pages; ++number) {
      const IndexPage index = known.at(number);
      if (index.lost()) continue;
      if (read_page(theirs, i, head.index, number, index.sum()) && write_page(page, i, head.index, number)) {
        index.set_sum(page.sum());  // of its own identity
      } else {
        index.lose();
        count_page(head.lost);
      }
    }
  }
}

}  // namespace nibkv
