#include "codec/gaps.hpp"

#include "codec/slot.hpp"
#include "nibkv/plan.hpp"

namespace nibkv {
namespace {

// True when all slots of the tile that starts at `slot` keep their lanes, so that the tile can
// be relinked as it is.
bool moves_whole(const std::uint32_t* target, std::uint32_t first_target, std::uint32_t slot, std::uint32_t used) {
  if (target[slot] >= kMember || (target[slot] - first_target) % kTileSlots != 0) return false;
  for (std::uint32_t lane = 1; lane < kTileSlots && slot + lane < used; ++lane) {
    if (target[slot + lane] != target[slot] + lane) return false;
  }
  return true;
}

}  // namespace

std::uint32_t move_forward(const ArenaView& to, Segment& segment, const std::uint32_t* target) {
  std::uint32_t* links = to.links();
  // The written tiles are a prefix of the segment, up to `last`. Tiles between it and the one being
  // read may be overwritten, since a target never comes after its slot.
  std::uint32_t last = kNoTile;
  std::uint32_t open = segment.first;  // the first tile not yet written
  std::uint32_t reading = segment.first;
  std::uint32_t before_reading = kNoTile;
  std::uint32_t kept = 0;
  for (std::uint32_t slot = 0; slot < segment.slots; slot += kTileSlots) {
    const std::uint32_t next = links[reading];
    // The first tile stays, if its codes are wider.
    const bool stays = last == kNoTile && to.pool_of(open) != to.pool_of(reading);
    if (open != reading && !stays && moves_whole(target, segment.begin, slot, segment.slots)) {
      // Unlink the tile and insert it where the next written one belongs.
      links[before_reading] = next;
      links[reading] = open;
      if (last == kNoTile) {
        segment.first = reading;
      } else {
        links[last] = reading;
      }
      last = reading;
      kept += segment.slots - slot < kTileSlots ? segment.slots - slot : kTileSlots;
      reading = next;
      continue;
    }
    const bool positioned = to.policy().keep == Keep::kScore;
    const std::uint32_t base = positioned ? to.base(reading) : 0;  // it changes when a slot moves to the tile's start
    for (std::uint32_t lane = 0; lane < kTileSlots && slot + lane < segment.slots; ++lane) {
      if (target[slot + lane] >= kMember) continue;
      const std::uint32_t new_lane = (target[slot + lane] - segment.begin) % kTileSlots;
      if (new_lane == 0) {
        last = open;
        open = links[open];
      }
      NIBKV_ASSERT(last != kNoTile && target[slot + lane] == segment.begin + kept);
      const std::uint32_t position = positioned ? base + to.positions(reading)[lane] : 0;
      if (last != reading || new_lane != lane) move_slot(to, reading, lane, last, new_lane);
      if (positioned) to.set_position(last, new_lane, position);
      ++kept;
    }
    before_reading = reading;
    reading = next;
  }
  // The tiles after the last written one are left over.
  const std::uint32_t spare = last == kNoTile ? segment.first : links[last];
  if (last == kNoTile) {
    segment.first = kNoTile;
  } else {
    links[last] = kNoTile;
  }
  segment.last = last;
  segment.slots = kept;
  return spare;
}

}  // namespace nibkv
