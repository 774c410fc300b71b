#include "nibkv/compact.hpp"

#include "compact_chain.hpp"
#include "slot.hpp"

namespace nibkv {
namespace {

// True when all slots of the tile that starts at `slot` keep their lanes: the tile can be linked as it is.
bool moves_whole(const std::uint32_t* target, std::uint32_t slot, std::uint32_t used) {
  if (target[slot] == kDrop || target[slot] % kTileSlots != 0) return false;
  for (std::uint32_t lane = 1; lane < kTileSlots && slot + lane < used; ++lane) {
    if (target[slot + lane] != target[slot] + lane) return false;
  }
  return true;
}

}  // namespace

void compact_chain(const Access& to, Chain& chain, const std::uint32_t* target) {
  std::uint32_t* links = to.links();
  // Written tiles are a prefix of the chain that ends at `last`; tiles between it and the one being read are free for
  // writing, since a target is never behind its slot.
  std::uint32_t last = kNoTile;
  std::uint32_t open = chain.first;  // the first tile not yet written
  std::uint32_t reading = chain.first;
  std::uint32_t before_reading = kNoTile;
  std::uint32_t kept = 0;
  for (std::uint32_t slot = 0; slot < chain.used; slot += kTileSlots) {
    const std::uint32_t next = links[reading];
    if (open != reading && moves_whole(target, slot, chain.used)) {
      // Take the tile out of its place and link it where the next written one belongs.
      links[before_reading] = next;
      links[reading] = open;
      if (last == kNoTile) {
        chain.first = reading;
      } else {
        links[last] = reading;
      }
      last = reading;
      kept += chain.used - slot < kTileSlots ? chain.used - slot : kTileSlots;
      reading = next;
      continue;
    }
    for (std::uint32_t lane = 0; lane < kTileSlots && slot + lane < chain.used; ++lane) {
      if (target[slot + lane] == kDrop) continue;
      const std::uint32_t new_lane = target[slot + lane] % kTileSlots;
      if (new_lane == 0) {
        last = open;
        open = links[open];
      }
      if (last != reading || new_lane != lane) move_slot(to, reading, lane, last, new_lane);
      ++kept;
    }
    before_reading = reading;
    reading = next;
  }
  // What follows the last written tile goes back to the pool.
  std::uint32_t spare = last == kNoTile ? chain.first : links[last];
  while (spare != kNoTile) {
    const std::uint32_t next = links[spare];
    to.give_back(spare);
    spare = next;
  }
  if (last == kNoTile) {
    chain.first = kNoTile;
  } else {
    links[last] = kNoTile;
  }
  chain.last = last;
  chain.used = kept;
}

Status compact(Cache& cache, std::uint32_t layer, std::uint32_t kv_head, std::span<const std::uint32_t> target) {
  if (!cache.ready()) return Status::kNotReady;
  const Access to{cache};
  if (layer >= to.shape().layers || kv_head >= to.shape().kv_heads) return Status::kBadArgument;
  Chain& chain = to.chain(layer, kv_head);
  if (target.size() != chain.used) return Status::kBadPlan;
  if (const Status good = check_plan(target); good != Status::kOk) return good;
  compact_chain(to, chain, target.data());
  return Status::kOk;
}

}  // namespace nibkv
