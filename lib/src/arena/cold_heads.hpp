#pragma once

#include "arena/view.hpp"

// What a log has in the arena (Policy::log). The last tiles of an indexed head's run hold what is recalled, in order.

namespace nibkv {

inline constexpr std::uint32_t kNotIndexed = 0xffffffff;

struct ColdHead {
  std::uint32_t index;  // its number among the indexed heads, or kNotIndexed
  std::uint32_t used;   // slots that hold recalled tokens
  std::uint32_t pages;  // that the log has been given, lost ones too
  std::uint32_t written;
  std::uint32_t read;
  std::uint32_t lost;
  std::uint64_t chosen;  // tokens, and those of them that were there
  std::uint64_t found;
  std::uint64_t unused;
};
static_assert(sizeof(ColdHead) == detail::kColdHeadBytes);

inline ColdHead& cold_head(const ArenaView& to, const Chain& chain) {
  return to.at<ColdHead>(to.cold())[&chain - to.chains()];
}
inline bool is_indexed(const ArenaView& to, const Chain& chain) {
  return cold_head(to, chain).index != kNotIndexed;
}

/// Counts a page; stops at the largest value.
inline void count_page(std::uint32_t& counter) {
  counter += counter != 0xffffffff ? 1 : 0;
}

/// Slots of a chain that hold recalled tokens.
inline std::uint32_t recalled_used(const ArenaView& to, const Chain& chain) {
  return keeps_log(to.policy()) ? cold_head(to, chain).used : 0;
}

/// Which tokens of the log the recalled slots of an indexed head are: u32[recall], rising. The log's first token is 0.
inline std::uint32_t* recalled_tokens(const ArenaView& to, const ColdHead& head) {
  const ColdSpace at = cold_space_of(to.shape(), to.policy());
  return to.at<std::uint32_t>(to.cold() + at.tokens) + std::size_t{head.index} * to.policy().recall;
}

/// Pages that the log of a head has space for.
inline std::uint32_t log_pages(const ArenaView& to) {
  return to.policy().log / kTileSlots;
}
/// The first of its pages that is not forgotten.
inline std::uint32_t first_page(const ArenaView& to, const ColdHead& head) {
  return head.pages > log_pages(to) ? head.pages - log_pages(to) : 0;
}

/// How many are not, lost ones too; none of a head without an index.
inline std::uint32_t kept_pages(const ArenaView& to, const ColdHead& head) {
  return head.index == kNotIndexed ? 0 : head.pages - first_page(to, head);
}

/// The first tile for recalled slots of an indexed head.
inline std::uint32_t first_recalled(const ArenaView& to, const Chain& chain) {
  const auto index = static_cast<std::uint32_t>(&chain - to.chains());
  return (index + 1) * to.layout().tiles_per_head - to.policy().recall / kTileSlots;
}
/// The place of a recalled slot.
inline Place recalled_place(const ArenaView& to, const Chain& chain, std::uint32_t slot) {
  return {first_recalled(to, chain) + slot / kTileSlots, slot % kTileSlots};
}
/// The recalled slots of a head, which come before its others.
inline Segment recalled_slots(const ArenaView& to, const Chain& chain) {
  const std::uint32_t slots = cold_head(to, chain).used;
  if (slots == 0) return {};
  return {first_recalled(to, chain), recalled_place(to, chain, slots - 1).tile, 0, slots};
}

/// The position of a recalled slot. The log begins after the sinks.
inline std::uint32_t recalled_position(const ArenaView& to, const Chain& chain, std::uint32_t slot) {
  return to.policy().sinks + recalled_tokens(to, cold_head(to, chain))[slot];
}

/// Chooses the heads that have an index, gives them their budgets, and makes the log of each empty.
void choose_indexed(const ArenaView& to);

}  // namespace nibkv
