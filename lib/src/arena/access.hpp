#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "nibkv/cache.hpp"
#include "numbers/numbers.hpp"
#include "ports/kernels.hpp"

namespace nibkv {

/// First 64 bytes of an arena.
struct ArenaHeader {
  std::uint32_t magic;
  std::uint32_t used_tiles;
  std::uint32_t peak_tiles;
  std::uint32_t used_entries;  // this and the next two only where layers share codes, else 0
  std::uint64_t used_bytes;    // of tiles and entries
  std::uint64_t peak_bytes;
  std::uint32_t reserved[8];
};
static_assert(sizeof(ArenaHeader) == detail::kHeaderBytes);
inline constexpr std::uint32_t kArenaMagic = 0x564b424e;  // "NBKV"

/// Whether the pool is divided into runs of equal length, one for each chain.
constexpr bool equal_runs(const Policy& policy, const Layout& layout) {
  return (policy.budget == Budget::kUniform || policy.budget == Budget::kAdaptive) && layout.views == 0;
}

constexpr std::uint32_t tiles_of(std::uint32_t slots) {
  return (slots + kTileSlots - 1) / kTileSlots;
}

/// The distance of a slot for which the distance from the other layer's slot is not computed yet.
inline constexpr std::uint32_t kUnknownDistance = 0xffffffff;

/// The part of a chain in a layer that shares codes that does not lie in its own tiles: its first
/// slots, which lie in views. The chains of both layers have the same entries in the same order.
struct FoldedPart {
  std::uint32_t first = kNoTile;  // view
  std::uint32_t last = kNoTile;
  std::uint32_t used = 0;              // slots; all views but the last are full
  std::uint32_t retained = 0;          // of the first slots after them: sinks, and slots that did not fold
  std::uint32_t free = kNoTile;        // first free view
  std::uint32_t nearest = 0xffffffff;  // smallest and largest distance of the slots examined under Retain::kFarRange;
  std::uint32_t farthest = 0;          // kept in the lower layer's part
  std::uint32_t reserved = 0;
};
static_assert(sizeof(FoldedPart) == detail::kFoldedPartBytes);

/// Iterates over the slots of a chain, tile by tile.
struct SlotCursor {
  std::uint32_t tile;
  std::uint32_t lane = 0;
  std::uint32_t folded = 0;      // remaining slots of the folded part, including this one
  std::uint32_t then = kNoTile;  // the tile that follows them

  void next(const std::uint32_t* links) {
    if (folded != 0 && --folded == 0) {
      tile = then;
      lane = 0;
    } else if (++lane == kTileSlots) {
      lane = 0;
      tile = links[tile];
    }
  }
};

/// Iterates over the tiles of a chain; kNoTile after the last.
struct TileCursor {
  std::uint32_t tile;
  std::uint32_t slot = 0;        // the tile's first slot
  std::uint32_t folded = 0;      // the first slot of the chain's own tiles
  std::uint32_t then = kNoTile;  // the first of those tiles, while in the folded part

  /// One past the last slot that lies in tiles of the same kind as this one.
  std::uint32_t end(std::uint32_t used) const { return then != kNoTile ? folded : used; }
  void next(const std::uint32_t* links) {
    tile = links[tile];
    slot += kTileSlots;
    if (tile == kNoTile && then != kNoTile) {
      tile = then;
      then = kNoTile;
      slot = folded;
    }
  }
};

/// The only access to an arena's bytes: offsets become typed pointers here and nowhere else.
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
    return in_place<T>(cache.base_ + static_cast<std::size_t>(offset));
  }

  ArenaHeader& header() const { return *at<ArenaHeader>(0); }
  std::uint32_t* links() const { return at<std::uint32_t>(layout().links); }
  std::uint32_t* plan() const { return at<std::uint32_t>(layout().plan); }
  float* encoding() const { return at<float>(layout().encoding); }
  float* merging() const { return at<float>(layout().merging); }
  /// The last of the four rows of merging(): the rotation steps of KeyTurner's
  /// pairs, u64[head_dim / 2].
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

  /// Whether any layers share codes.
  bool folds() const { return layout().views != 0; }
  bool paired(std::uint32_t layer) const { return folds() && detail::is_paired(policy(), layer); }
  /// Whether it is the lower layer of a pair.
  bool leads(std::uint32_t layer) const { return folds() && detail::is_lower(policy(), layer); }
  /// Whether it is the upper layer of a pair.
  bool follows(std::uint32_t layer) const { return paired(layer) && !detail::is_lower(policy(), layer); }
  /// The lower layer of the pair that a layer belongs to; the layer itself if it is in none.
  std::uint32_t lower_of(std::uint32_t layer) const { return follows(layer) ? layer - 1 : layer; }
  /// The other layer of a pair.
  std::uint32_t partner(std::uint32_t layer) const { return detail::is_lower(policy(), layer) ? layer + 1 : layer - 1; }
  /// The map of an upper layer's values, i16[head_dim][head_dim] in Q15, and the rotations of the
  /// pairs of its keys; null if they are not aligned.
  const std::uint8_t* value_map(std::uint32_t layer, std::uint32_t kv_head) const {
    const bool maps = folds() && layer != 0 && policy().fold.aligned_values.has(layer - 1);
    return maps ? profile().value_map(layer, kv_head) : nullptr;
  }
  const std::uint8_t* key_turns(std::uint32_t layer, std::uint32_t kv_head) const {
    const bool turns = folds() && layer != 0 && policy().fold.aligned_keys.has(layer - 1);
    return turns ? profile().key_turns(layer, kv_head) : nullptr;
  }
  /// Whether the profile's mean key is subtracted from a layer's keys.
  bool centred(std::uint32_t layer) const {
    const LayerSet& keys = policy().fold.keys;
    return !folds() || policy().fold.centred || !(keys.has(layer) || (layer != 0 && keys.has(layer - 1)));
  }
  /// Whether a layer and the one with which it shares codes have seen the same tokens.
  bool in_step(std::uint32_t layer) const {
    return !paired(layer) || chain(layer, 0).seen == chain(partner(layer), 0).seen;
  }
  FoldedPart& folded_part(const Chain& chain) const {
    return at<FoldedPart>(layout().folds)[&chain - at<Chain>(layout().chains)];
  }
  /// The distances between the two layers of the slots that a head of a pair retains after its
  /// sinks, u32[most_retained]; kUnknownDistance if not computed.
  std::uint32_t* distances(std::uint32_t lower, std::uint32_t kv_head) const {
    const std::size_t paired_head = entry(first_view(lower, kv_head)) / layout().paired_entries;
    return at<std::uint32_t>(layout().distances) + paired_head * layout().most_retained;
  }
  std::uint32_t folded(const Chain& chain) const { return folds() ? folded_part(chain).used : 0; }
  /// Slots in the chain's own tiles.
  std::uint32_t own_slots(const Chain& chain) const { return chain.used - folded(chain); }
  /// A cursor at the chain's first slot, or tile, if it has any.
  SlotCursor first_slot(const Chain& chain) const { return start<SlotCursor>(chain); }
  TileCursor first_tile(const Chain& chain) const { return start<TileCursor>(chain); }
  template <typename Cursor>
  Cursor start(const Chain& chain) const {
    if (folded(chain) == 0) return {chain.first};
    const FoldedPart& part = folded_part(chain);
    return {part.first, 0, part.used, chain.first};
  }

  std::byte* side(std::uint32_t tile) const {
    return at<std::byte>(layout().sides + std::uint64_t{tile} * layout().side_bytes);
  }
  template <typename T>
  T* side_array(std::uint32_t tile, std::uint32_t offset) const {
    return in_place<T>(side(tile) + offset);
  }
  std::uint16_t* key_scales(std::uint32_t tile) const { return side_array<std::uint16_t>(tile, 0); }
  std::uint16_t* value_scales(std::uint32_t tile) const { return key_scales(tile) + kTileSlots; }
  std::int8_t* outliers(std::uint32_t tile) const { return side_array<std::int8_t>(tile, kTileSlots * 4); }
  // Arrays that the policy does not read do not exist: do not access them.
  std::uint32_t* global(std::uint32_t tile) const { return side_array<std::uint32_t>(tile, layout().side.global); }
  std::uint16_t* positions(std::uint32_t tile) const {
    return side_array<std::uint16_t>(tile, layout().side.positions);
  }
  std::uint16_t* local(std::uint32_t tile) const { return side_array<std::uint16_t>(tile, layout().side.local); }
  std::uint8_t* bias(std::uint32_t tile) const { return side_array<std::uint8_t>(tile, layout().side.bias); }
  std::uint8_t* merged(std::uint32_t tile) const { return side_array<std::uint8_t>(tile, layout().side.merged); }
  std::uint32_t& base(std::uint32_t tile) const { return at<std::uint32_t>(layout().bases)[tile]; }

  std::uint32_t position(std::uint32_t tile, std::uint32_t lane) const { return base(tile) + positions(tile)[lane]; }
  /// Lane 0 of a tile must be set first. Offsets from the tile's base saturate at 65535. Folded
  /// slots are in no order, so the base decreases to the smallest position in the tile.
  void set_position(std::uint32_t tile, std::uint32_t lane, std::uint32_t position) const {
    if (lane == 0) base(tile) = position;
    if (position < base(tile)) {
      const std::uint32_t down = base(tile) - position;
      base(tile) = position;
      for (std::uint32_t i = 0; i < lane; ++i) {
        const std::uint32_t offset =
            positions(tile)[i] < 65535 - (down < 65535 ? down : 65535) ? positions(tile)[i] + down : 65535;
        positions(tile)[i] = static_cast<std::uint16_t>(offset);
      }
    }
    const std::uint32_t offset = position - base(tile);
    positions(tile)[lane] = static_cast<std::uint16_t>(offset < 65535 ? offset : 65535);
  }

  std::byte* codes(std::uint32_t tile) const {
    return at<std::byte>(layout().codes + std::uint64_t{tile} * layout().code_bytes);
  }
  std::uint8_t* key_codes(std::uint32_t tile) const {
    if (tile >= layout().tiles) return plane(tile, shares_keys(tile) ? 0 : is_upper(tile) ? 1 : 0);
    return in_place<std::uint8_t>(codes(tile));
  }
  std::uint8_t* value_codes(std::uint32_t tile) const {
    if (tile < layout().tiles) return in_place<std::uint8_t>(codes(tile)) + layout().code_bytes / 2;
    const std::uint32_t last = entry(tile) < layout().both_entries ? 1 : 2;
    return plane(tile, shares_values(tile) || is_upper(tile) ? last : 1);
  }

  // A view's tile number encodes its entry, and whether it belongs to the upper layer.
  std::uint32_t entry(std::uint32_t view) const { return (view - static_cast<std::uint32_t>(layout().tiles)) / 2; }
  bool is_view(std::uint32_t tile) const { return tile >= layout().tiles; }
  bool is_upper(std::uint32_t view) const { return ((view - static_cast<std::uint32_t>(layout().tiles)) & 1) != 0; }
  /// The lower layer's view of the first entry that a head of a pair has.
  std::uint32_t first_view(std::uint32_t lower, std::uint32_t kv_head) const {
    const detail::PairCounts all = detail::count_pairs(policy(), shape().layers);
    const detail::PairCounts before = detail::count_pairs(policy(), lower);
    std::uint32_t pair = before.both;
    if (!policy().fold.keys.has(lower)) pair = all.both + before.values;
    if (!policy().fold.values.has(lower)) pair = all.both + all.values + before.keys;
    return static_cast<std::uint32_t>(layout().tiles) +
           2 * layout().paired_entries * (pair * shape().kv_heads + kv_head);
  }
  bool shares_keys(std::uint32_t view) const {
    return entry(view) < layout().both_entries || entry(view) >= layout().value_entries;
  }
  bool shares_values(std::uint32_t view) const { return entry(view) < layout().value_entries; }
  std::uint8_t* plane(std::uint32_t view, std::uint32_t index) const {
    const std::uint64_t number = entry(view);
    const std::uint64_t both = layout().both_entries;
    const std::uint64_t before = number < both ? 2 * number : 2 * both + 3 * (number - both);
    return at<std::uint8_t>(layout().shared + (before + index) * (layout().code_bytes / 2));
  }
  /// The bytes from the codes of a tile to those of the tile with the next number, of the
  /// same chain and kind.
  std::ptrdiff_t code_step(std::uint32_t tile) const {
    const auto plane_bytes = static_cast<std::ptrdiff_t>(layout().code_bytes / 2);
    if (!is_view(tile)) return 2 * plane_bytes;
    return (entry(tile) < layout().both_entries ? 2 : 3) * plane_bytes / 2;  // an entry has two numbers
  }
  /// Storage::kF32: keys [head_dim][32], values [32][head_dim].
  float* key_rows(std::uint32_t tile) const { return in_place<float>(codes(tile)); }
  float* value_rows(std::uint32_t tile) const { return key_rows(tile) + kTileSlots * shape().head_dim; }

  /// Takes a tile from the pool, which must have one, and appends it to `chain`. It comes from
  /// the chain's own run if any is free there, so that a chain mostly lies in one piece of memory
  /// (lib/DESIGN.md has the gain).
  std::uint32_t grow(Chain& chain) const {
    Chain* lender = &chain;
    for (Chain* other = at<Chain>(layout().chains); lender->free == kNoTile; ++other) lender = other;
    const std::uint32_t tile = lender->free;
    lender->free = links()[tile];
    ArenaHeader& head = header();
    head.used_tiles += 1;
    if (head.used_tiles > head.peak_tiles) head.peak_tiles = head.used_tiles;
    if (folds()) count_bytes(tile, true);
    links()[tile] = kNoTile;
    if (chain.first == kNoTile) {
      chain.first = tile;
    } else {
      links()[chain.last] = tile;
    }
    chain.last = tile;
    return tile;
  }

  /// Returns a tile of `chain` to the pool: to the chain in whose run it lies, if all runs
  /// are of equal length.
  void give_back(Chain& chain, std::uint32_t tile) const {
    Chain& owner = equal_runs(policy(), layout()) ? at<Chain>(layout().chains)[tile / layout().tiles_per_head] : chain;
    links()[tile] = owner.free;
    owner.free = tile;
    header().used_tiles -= 1;
    if (folds()) count_bytes(tile, false);
  }

  /// Takes an entry for the folded part of a chain. Called once for each of the two
  /// chains that share codes.
  void grow_folded(FoldedPart& part) const {
    const std::uint32_t view = part.free;
    part.free = links()[view];
    links()[view] = kNoTile;
    if (part.first == kNoTile) {
      part.first = view;
    } else {
      links()[part.last] = view;
    }
    part.last = view;
    if (is_upper(view)) return;  // an entry is counted once
    header().used_entries += 1;
    count_bytes(view, true);
  }
  void give_view_back(FoldedPart& part, std::uint32_t view) const {
    links()[view] = part.free;
    part.free = view;
    if (is_upper(view)) return;
    header().used_entries -= 1;
    count_bytes(view, false);
  }

  /// The bytes of a tile in use; if `tile` is a view, the bytes of its entry.
  std::uint64_t bytes_of(std::uint32_t tile) const {
    const std::uint64_t beside = layout().side_bytes + 4u + (policy().keep == Keep::kScore ? 4u : 0u);
    if (!is_view(tile)) return layout().code_bytes + beside;
    return 2 * beside + (entry(tile) < layout().both_entries ? 2u : 3u) * (layout().code_bytes / 2);
  }
  void count_bytes(std::uint32_t tile, bool taken) const {
    ArenaHeader& head = header();
    head.used_bytes = taken ? head.used_bytes + bytes_of(tile) : head.used_bytes - bytes_of(tile);
    if (head.used_bytes > head.peak_bytes) head.peak_bytes = head.used_bytes;
  }
};

}  // namespace nibkv
