#include "cold/recalled.hpp"

#include "codec/slot.hpp"

namespace nibkv {
namespace {

void move_recalled(const ArenaView& to, const Chain& chain, std::uint32_t* tokens, std::uint32_t from,
                   std::uint32_t slot) {
  const Place at = recalled_place(to, chain, from), place = recalled_place(to, chain, slot);
  move_slot(to, at.tile, at.lane, place.tile, place.lane);
  tokens[slot] = tokens[from];
}

void set_used(const ArenaView& to, Chain& chain, std::uint32_t used) {
  ColdHead& head = cold_head(to, chain);
  chain.used = chain.used - head.used + used;
  head.used = used;
}

}  // namespace

// The new slots of those that stay rise. So one that moves to a lower slot never comes to where one lies that moves to
// a higher one, and each kind is moved in an order in which nothing is overwritten.
std::uint32_t arrange(const ArenaView& to, Chain& chain, const std::uint32_t* chosen, std::uint32_t count) {
  ColdHead& head = cold_head(to, chain);
  std::uint32_t* const tokens = recalled_tokens(to, head);
  const std::uint32_t before = head.used;
  std::uint32_t found = 0;
  for (std::uint32_t slot = before; slot < count; ++slot) tokens[slot] = kNoToken;
  for (std::uint32_t slot = 0, next = 0; slot < before; ++slot) {
    while (next < count && chosen[next] < tokens[slot]) ++next;
    if (next == count || chosen[next] != tokens[slot]) continue;
    ++found;
    if (next < slot) move_recalled(to, chain, tokens, slot, next);
  }
  for (std::uint32_t slot = before, next = count; slot-- > 0;) {
    while (next > 0 && chosen[next - 1] > tokens[slot]) --next;
    if (next == 0 || chosen[next - 1] != tokens[slot]) continue;
    if (next - 1 > slot) move_recalled(to, chain, tokens, slot, next - 1);
  }
  for (std::uint32_t slot = 0; slot < count; ++slot) {
    if (tokens[slot] != chosen[slot]) tokens[slot] = kNoToken;
  }
  set_used(to, chain, count);
  return found;
}

void drop_empty(const ArenaView& to, Chain& chain) {
  ColdHead& head = cold_head(to, chain);
  std::uint32_t* const tokens = recalled_tokens(to, head);
  std::uint32_t kept = 0;
  for (std::uint32_t slot = 0; slot < head.used; ++slot) {
    if (tokens[slot] == kNoToken) continue;
    if (kept != slot) move_recalled(to, chain, tokens, slot, kept);
    ++kept;
  }
  set_used(to, chain, kept);
}

}  // namespace nibkv
