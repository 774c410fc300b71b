#include "nibkv/truncate.hpp"

#include "arena/band.hpp"
#include "arena/pool.hpp"
#include "arena/share.hpp"

namespace nibkv {
namespace {

// Gives back a list of tiles, the last first, so that the chain takes them in the same order again.
void give_back_list(const ArenaView& to, Chain& chain, std::uint32_t first) {
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
    give_back(to, chain, reversed);
    reversed = next;
  }
}

void drop_newest(const ArenaView& to, Chain& chain, std::uint32_t count) {
  const std::uint32_t slots = to.own(chain).slots;
  NIBKV_ASSERT(count <= slots);
  chain.used -= count;
  chain.seen -= count;
  const std::uint32_t tiles = tiles_of(slots - count);
  if (tiles == tiles_of(slots)) return;
  std::uint32_t spare = chain.first;
  if (tiles == 0) {
    chain.first = chain.last = kNoTile;
  } else {
    chain.last = chain.first;
    for (std::uint32_t i = 1; i < tiles; ++i) chain.last = to.links()[chain.last];
    spare = to.links()[chain.last];
    to.links()[chain.last] = kNoTile;
  }
  give_back_list(to, chain, spare);
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
