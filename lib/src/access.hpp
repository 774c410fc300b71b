#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "nibkv/cache.hpp"
#include "numbers.hpp"
#include "ports/kernels.hpp"

namespace nibkv {

/// First 64 bytes of an arena.
struct ArenaHeader {
  std::uint32_t magic;
  std::uint32_t used_tiles;
  std::uint32_t peak_tiles;
  std::uint32_t reserved[13];
};
static_assert(sizeof(ArenaHeader) == detail::kHeaderBytes);
static_assert(kMaxRows == kMostRows);
inline constexpr std::uint32_t kArenaMagic = 0x564b424e;  // "NBKV"

/// Whether the pool is divided into runs of one length, a chain's own each.
constexpr bool equal_runs(const Policy& policy) {
  return policy.budget == Budget::kUniform || policy.budget == Budget::kAdaptive;
}

/// The one door to an arena's bytes: offsets become typed pointers here and nowhere else.
struct Access {
  const Cache& cache;

  static void set(Cache& to, std::byte* base, const Shape& shape, const Policy& policy, const Layout& layout,
                  const ProfileView& profile, const Kernels& kernels) {
    to.base_ = base;
    to.shape_ = shape;
    to.policy_ = policy;
    to.layout_ = layout;
    to.profile_ = profile;
    to.kernels_ = &kernels;
  }

  const Shape& shape() const { return cache.shape_; }
  const Policy& policy() const { return cache.policy_; }
  const Layout& layout() const { return cache.layout_; }
  const ProfileView& profile() const { return cache.profile_; }
  const Kernels& kernels() const { return *cache.kernels_; }

  template <typename T>
  T* at(std::uint64_t offset) const {
    return reinterpret_cast<T*>(cache.base_ + static_cast<std::size_t>(offset));
  }

  ArenaHeader& header() const { return *at<ArenaHeader>(0); }
  std::uint32_t* links() const { return at<std::uint32_t>(layout().links); }
  std::uint32_t* plan() const { return at<std::uint32_t>(layout().plan); }
  float* encoding() const { return at<float>(layout().encoding); }
  float* merging() const { return at<float>(layout().merging); }
  /// The last of the four rows of merging(): what the pairs of KeyTurner turn by, u64[head_dim / 2].
  std::uint64_t* rotary_steps() const { return at<std::uint64_t>(layout().merging + 12u * shape().head_dim); }
  float* turned() const { return at<float>(layout().turned); }
  std::byte* scratch(std::uint32_t worker) const {
    return at<std::byte>(layout().scratch + std::uint64_t{worker} * layout().scratch_bytes);
  }

  Scratch scratch_layout() const { return scratch_of(shape(), policy(), layout().chain_tiles); }

  std::size_t head_index(std::uint32_t layer, std::uint32_t kv_head) const {
    return std::size_t{layer} * shape().kv_heads + kv_head;
  }
  Chain& chain(std::uint32_t layer, std::uint32_t kv_head) const {
    return at<Chain>(layout().chains)[head_index(layer, kv_head)];
  }

  std::byte* side(std::uint32_t tile) const {
    return at<std::byte>(layout().sides + std::uint64_t{tile} * layout().side_bytes);
  }
  template <typename T>
  T* side_array(std::uint32_t tile, std::uint32_t offset) const {
    return reinterpret_cast<T*>(side(tile) + offset);
  }
  std::uint16_t* key_scales(std::uint32_t tile) const { return side_array<std::uint16_t>(tile, 0); }
  std::uint16_t* value_scales(std::uint32_t tile) const { return key_scales(tile) + kTileSlots; }
  std::int8_t* outliers(std::uint32_t tile) const { return side_array<std::int8_t>(tile, kTileSlots * 4); }
  // Those that a policy does not read must not be touched under it.
  std::uint32_t* global(std::uint32_t tile) const { return side_array<std::uint32_t>(tile, layout().side.global); }
  std::uint16_t* positions(std::uint32_t tile) const {
    return side_array<std::uint16_t>(tile, layout().side.positions);
  }
  std::uint16_t* local(std::uint32_t tile) const { return side_array<std::uint16_t>(tile, layout().side.local); }
  std::uint8_t* bias(std::uint32_t tile) const { return side_array<std::uint8_t>(tile, layout().side.bias); }
  std::uint8_t* merged(std::uint32_t tile) const { return side_array<std::uint8_t>(tile, layout().side.merged); }
  std::uint32_t& base(std::uint32_t tile) const { return at<std::uint32_t>(layout().bases)[tile]; }

  std::uint32_t position(std::uint32_t tile, std::uint32_t lane) const { return base(tile) + positions(tile)[lane]; }
  /// Positions that lie further from their tile's first than 65535 are kept as that.
  void set_position(std::uint32_t tile, std::uint32_t lane, std::uint32_t position) const {
    if (lane == 0) base(tile) = position;
    const std::uint32_t offset = position - base(tile);
    positions(tile)[lane] = static_cast<std::uint16_t>(offset < 65535 ? offset : 65535);
  }

  std::byte* codes(std::uint32_t tile) const {
    return at<std::byte>(layout().codes + std::uint64_t{tile} * layout().code_bytes);
  }
  std::uint8_t* key_codes(std::uint32_t tile) const { return reinterpret_cast<std::uint8_t*>(codes(tile)); }
  std::uint8_t* value_codes(std::uint32_t tile) const { return key_codes(tile) + kTileSlots / 2 * shape().head_dim; }
  /// Storage::kF32: keys [head_dim][32], values [32][head_dim].
  float* key_rows(std::uint32_t tile) const { return reinterpret_cast<float*>(codes(tile)); }
  float* value_rows(std::uint32_t tile) const { return key_rows(tile) + kTileSlots * shape().head_dim; }

  /// Takes a tile from the pool, which must have one, and hangs it at the end of `chain`: one of the chain's own run of
  /// tiles if any is free, so that a chain mostly lies in one piece of memory (lib/DESIGN.md has the gain).
  std::uint32_t grow(Chain& chain) const {
    Chain* lender = &chain;
    for (Chain* other = at<Chain>(layout().chains); lender->free == kNoTile; ++other) lender = other;
    const std::uint32_t tile = lender->free;
    lender->free = links()[tile];
    ArenaHeader& head = header();
    head.used_tiles += 1;
    if (head.used_tiles > head.peak_tiles) head.peak_tiles = head.used_tiles;
    links()[tile] = kNoTile;
    if (chain.first == kNoTile) {
      chain.first = tile;
    } else {
      links()[chain.last] = tile;
    }
    chain.last = tile;
    return tile;
  }

  /// Gives a tile of `chain` back to the pool: to the chain in whose run it lies, if all runs are of one length.
  void give_back(Chain& chain, std::uint32_t tile) const {
    Chain& owner = equal_runs(policy()) ? at<Chain>(layout().chains)[tile / layout().tiles_per_head] : chain;
    links()[tile] = owner.free;
    owner.free = tile;
    header().used_tiles -= 1;
  }
};

/// Walks over the slots of a chain, from tile to tile.
struct SlotCursor {
  std::uint32_t tile;
  std::uint32_t lane = 0;

  void next(const std::uint32_t* links) {
    if (++lane == kTileSlots) {
      lane = 0;
      tile = links[tile];
    }
  }
};

constexpr std::uint32_t tiles_of(std::uint32_t slots) {
  return (slots + kTileSlots - 1) / kTileSlots;
}

}  // namespace nibkv
