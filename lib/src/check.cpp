#include "nibkv/check.hpp"

#include "access.hpp"
#include "sound.hpp"

namespace nibkv {
namespace {

// Lists of tiles, followed one after the other.
struct Walk {
  const Access& to;
  std::uint32_t window;     // marks are of tiles [window, window + marked)
  std::uint32_t marked;     // bits of scratch
  std::uint64_t steps = 0;  // tiles met

  // Whether `tile` exists and was not met before, as far as this window knows. Lists that run in a circle end here.
  bool take(std::uint32_t tile) {
    if (tile >= to.layout().tiles || ++steps > to.layout().tiles) return false;
    if (tile < window || tile - window >= marked) return true;
    auto& byte = reinterpret_cast<std::uint8_t*>(to.scratch(0))[(tile - window) / 8];
    const auto bit = static_cast<std::uint8_t>(1u << (tile - window) % 8);
    if ((byte & bit) != 0) return false;
    byte = static_cast<std::uint8_t>(byte | bit);
    return true;
  }
};

// A chain has the tiles that its slots need and ends where it says.
bool sound_chain(Walk& walk, const Chain& chain) {
  const std::uint32_t* links = walk.to.links();
  std::uint32_t tile = chain.first;
  std::uint32_t last = kNoTile;
  for (std::uint32_t left = tiles_of(chain.used); left != 0; --left) {
    if (!walk.take(tile)) return false;
    last = tile;
    tile = links[tile];
  }
  return tile == kNoTile && chain.last == last;
}

bool sound_free_list(Walk& walk, const Chain& chain, std::size_t head) {
  const bool equal = equal_runs(walk.to.policy());
  for (std::uint32_t tile = chain.free; tile != kNoTile; tile = walk.to.links()[tile]) {
    if (!walk.take(tile)) return false;
    if (equal && tile / walk.to.layout().tiles_per_head != head) return false;
  }
  return true;
}

// Every tile is in one list, once.
bool sound_lists(const Access& to) {
  const std::size_t heads = std::size_t{to.shape().layers} * to.shape().kv_heads;
  const auto tiles = static_cast<std::uint32_t>(to.layout().tiles);
  const std::uint32_t marked = to.layout().scratch_bytes * 8;
  for (std::uint32_t window = 0; window < tiles; window += marked) {
    std::memset(to.scratch(0), 0, to.layout().scratch_bytes);
    Walk walk{to, window, marked};
    for (std::size_t i = 0; i < heads; ++i) {
      if (!sound_chain(walk, to.at<Chain>(to.layout().chains)[i])) return false;
    }
    if (walk.steps != to.header().used_tiles) return false;
    for (std::size_t i = 0; i < heads; ++i) {
      if (!sound_free_list(walk, to.at<Chain>(to.layout().chains)[i], i)) return false;
    }
    if (walk.steps != tiles) return false;
    if (tiles - window <= marked) break;
  }
  return true;
}

// The side data of a chain whose tiles are known to be right.
bool sound_slots(const Access& to, const Chain& chain) {
  SoundSides sides(to.shape(), to.policy(), to.layout().side, chain);
  for (std::uint32_t tile = chain.first; tile != kNoTile; tile = to.links()[tile]) {
    if (!sides.next(to.side(tile), to.policy().keep == Keep::kScore ? to.base(tile) : 0)) return false;
  }
  return true;
}

}  // namespace

Status check(const Cache& cache) {
  if (!cache.ready()) return Status::kNotReady;
  const Access to{cache};
  const ArenaHeader& header = to.header();
  if (header.magic != kArenaMagic || header.used_tiles > header.peak_tiles || header.peak_tiles > to.layout().tiles)
    return Status::kCorrupt;
  for (std::uint32_t layer = 0; layer < to.shape().layers; ++layer) {
    for (std::uint32_t head = 0; head < to.shape().kv_heads; ++head) {
      const Chain& chain = to.chain(layer, head);
      if (chain.used > chain.seen || chain.seen != to.chain(layer, 0).seen) return Status::kCorrupt;
      if (to.policy().keep != Keep::kAll && tiles_of(chain.used) > to.layout().chain_tiles) return Status::kCorrupt;
    }
  }
  if (!sound_lists(to)) return Status::kCorrupt;
  if (to.shape().storage != Storage::kQ4) return Status::kOk;
  for (std::uint32_t layer = 0; layer < to.shape().layers; ++layer) {
    for (std::uint32_t head = 0; head < to.shape().kv_heads; ++head) {
      if (!sound_slots(to, to.chain(layer, head))) return Status::kCorrupt;
    }
  }
  return Status::kOk;
}

}  // namespace nibkv
