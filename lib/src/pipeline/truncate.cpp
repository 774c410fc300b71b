#include "nibkv/truncate.hpp"

#include "arena/band.hpp"
#include "arena/pool.hpp"
#include "arena/share.hpp"

namespace nibkv {
namespace {

// Gives back a list of tiles, the last first, so that the chain takes them in the same order again.
template <typename List>
void give_back_list(const ArenaView& to, List& list, std::uint32_t first) {
  std::uint32_t* links = to.links();
  std::uint32_t reversed = kNoTile;
  while (first != kNoTile) {
    const std::uint32_t next = links[first];
    links[first] = reversed;
    reversed = first;
    first = next;
  }
  while (reversed != kNoTile) {
    const std::uint32_t next = links[reversed];
    give_back(to, list, reversed);
    reversed = next;
  }
}

// Drops the last of a list's slots.
// @param list  a chain, for its own tiles, or a tier; its number of slots is the caller's to set
template <typename List>
void drop_last(const ArenaView& to, List& list, std::uint32_t slots, std::uint32_t count) {
  NIBKV_ASSERT(count <= slots);
  const std::uint32_t tiles = tiles_of(slots - count);
  if (tiles == tiles_of(slots)) return;
  std::uint32_t spare = list.first;
  if (tiles == 0) {
    list.first = list.last = kNoTile;
  } else {
    list.last = list.first;
    for (std::uint32_t i = 1; i < tiles; ++i) list.last = to.links()[list.last];
    spare = to.links()[list.last];
    to.links()[list.last] = kNoTile;
  }
  give_back_list(to, list, spare);
}

void drop_newest(const ArenaView& to, Chain& chain, std::uint32_t count) {
  const std::uint32_t own = to.own(chain).slots;
  const std::uint32_t of_own = count < own ? count : own;
  drop_last(to, chain, own, of_own);
  if (of_own != count) {
    Tier& kept = kept_tier(to, chain);
    drop_last(to, kept, kept.used, count - of_own);
    kept.used -= count - of_own;
  }
  chain.used -= count;
  chain.seen -= count;
}

std::uint32_t most_seen(const Cache& cache) {
  std::uint32_t most = 0;
  for (std::uint32_t layer = 0; layer < cache.shape().layers; ++layer) {
    most = cache.seen(layer) > most ? cache.seen(layer) : most;
  }
  return most;
}

}  // namespace

Status truncate(Cache& cache, std::uint32_t seen) {
  if (!cache.ready()) return Status::kNotReady;
  if (seen > most_seen(cache)) return Status::kBadArgument;
  const ArenaView to{cache};
  if (seen < to.header().whole_from) return Status::kGone;
  for (std::size_t i = 0; i < to.heads(); ++i) {
    Chain& chain = to.chains()[i];
    if (chain.seen > seen) drop_newest(to, chain, chain.seen - seen);
  }
  if (to.header().exact_from > seen) to.header().exact_from = seen;
  to.header().reserved = 0;
  forget_shares(to);
  return Status::kOk;
}

std::uint32_t oldest_reachable(const Cache& cache) {
  return cache.ready() ? ArenaView{cache}.header().whole_from : 0;
}

std::uint32_t oldest_exact(const Cache& cache) {
  return cache.ready() ? ArenaView{cache}.header().exact_from : 0;
}

}  // namespace nibkv
