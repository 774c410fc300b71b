#pragma once

#include <cstddef>
#include <cstdint>

#include "arena/band.hpp"
#include "arena/prefetch.hpp"

namespace nibkv {

// The keys of a batch are read before its values, so no hardware prefetcher sees a single stream.
// A tile is prefetched when the fourth tile before it is processed: its keys and side data together
// with that tile's keys, its values together with that tile's values. Prefetching earlier, or in
// bursts, makes the requests wait for one another; later, memory is slower than the arithmetic.
// The target is the second-level cache, because the first can track fewer requests than a tile has
// lines. (lib/EXPERIMENTS.md has the figures.)
inline constexpr int kTilesAhead = 4;

/// A segment that a pass reads, and where its codes lie: the address is linear in the tile's number.
struct Run : Segment {
  std::uint32_t tiles_before = 0;
  const std::uint8_t* first_keys = nullptr;
  const std::uint8_t* first_values = nullptr;
  std::ptrdiff_t step = 0;
  const Run* next = nullptr;  // of the same chain

  const std::uint8_t* keys(std::uint32_t tile) const { return first_keys + offset(tile); }
  const std::uint8_t* values(std::uint32_t tile) const { return first_values + offset(tile); }
  std::ptrdiff_t offset(std::uint32_t tile) const {
    return (static_cast<std::ptrdiff_t>(tile) - static_cast<std::ptrdiff_t>(first)) * step;
  }
};

/// The runs of a chain's first slots.
struct Runs {
  Run at[Segments::kMost];
  std::uint32_t count = 0;
  std::uint32_t tiles = 0;

  Runs(const ArenaView& to, const Segments& segments, std::uint32_t end) {
    for (std::uint32_t i = 0; i < segments.count && segments.at[i].begin < end; ++i) {
      Run& run = at[count];
      static_cast<Segment&>(run) = segments.at[i];
      if (run.end() > end) run.slots = end - run.begin;
      run.tiles_before = tiles;
      run.first_keys = to.key_codes(run.first);
      run.first_values = to.value_codes(run.first);
      run.step = code_step(to, run.first);
      if (count != 0) at[count - 1].next = &run;
      tiles += tiles_of(run.slots);
      ++count;
    }
  }
  Runs(const Runs&) = delete;
  Runs& operator=(const Runs&) = delete;
};

/// The state of a pass over a run.
struct RunCursor {
  std::uint32_t tile;
  std::uint32_t ahead;  // the tile kTilesAhead after it, or kNoTile
  const Run* ahead_in;  // this run or the next one

  static RunCursor at_start(const ArenaView& to, const Run& run) {
    RunCursor cursor{run.first, run.first, &run};
    for (int i = 0; i < kTilesAhead; ++i) cursor.look_further(to);
    return cursor;
  }
  void move_on(const ArenaView& to) {
    tile = to.links()[tile];
    look_further(to);
  }
  void look_further(const ArenaView& to) {
    if (ahead == kNoTile) return;
    ahead = to.links()[ahead];
    if (ahead != kNoTile || ahead_in->next == nullptr) return;
    ahead_in = ahead_in->next;
    ahead = ahead_in->first;
  }
};

[[gnu::always_inline]] inline void prefetch_keys(const ArenaView& to, const RunCursor& cursor) {
  if (cursor.ahead == kNoTile) return;
  prefetch(cursor.ahead_in->keys(cursor.ahead), to.key_bytes(to.pool_of(cursor.ahead)));
  prefetch(to.side(cursor.ahead), to.layout().side_bytes);
}

[[gnu::always_inline]] inline void prefetch_values(const ArenaView& to, const RunCursor& cursor) {
  if (cursor.ahead == kNoTile) return;
  prefetch(cursor.ahead_in->values(cursor.ahead), to.value_bytes(to.pool_of(cursor.ahead)));
}

}  // namespace nibkv
