#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "arena/segment.hpp"
#include "nibkv/cache.hpp"
#include "numbers/assert.hpp"
#include "numbers/numbers.hpp"
#include "ports/kernels.hpp"

// CMake option.
#ifndef NIBKV_LOG
#define NIBKV_LOG 1
#endif

namespace nibkv {

/// has_log(); where a build leaves logs out a constant, and nothing that serves them is linked.
constexpr bool keeps_log(const Policy& policy) {
  return NIBKV_LOG != 0 && has_log(policy);
}

/// First 64 bytes of an arena.
struct ArenaHeader {
  std::uint32_t magic;
  std::uint32_t used_tiles;
  std::uint32_t peak_tiles;
  std::uint32_t used_entries;  // this and the next two only where layers share codes, else 0
  std::uint64_t used_bytes;    // of tiles and entries
  std::uint64_t peak_bytes;
  std::uint32_t whole_from;  // what truncate can take back: all layers' largest of history.hpp
  std::uint32_t exact_from;
  std::uint32_t reserved;     // tokens of the last call of reserve, 0 after any other verb that moves slots;
  std::uint32_t reserved_to;  // what the layer had then seen; the neighbouring layers for which that was
  std::uint32_t reserved_first;
  std::uint32_t reserved_last;
  std::uint32_t drowned;  // Usage::drowned_rows
  std::uint32_t unused;
};
static_assert(sizeof(ArenaHeader) == detail::kHeaderBytes);
inline constexpr std::uint32_t kArenaMagic = 0x564b424e;  // "NBKV"

/// Whether a position may stand for an earlier one, whole steps of a reach before it: 65535 tokens behind, no query
/// tells them apart.
constexpr bool positions_by_step(const Rotary& rotary) {
  return rotary.reach != 0 && rotary.reach + 2 * rotary.step() + 4096 <= 65535;
}

/// Whether all heads begin with the budget `tokens`.
constexpr bool equal_budgets(const Policy& policy) {
  return policy.budget == Budget::kUniform || policy.budget == Budget::kAdaptive;
}
/// Whether the pool is divided into runs of equal length, one for each chain.
constexpr bool equal_runs(const Policy& policy, const Layout& layout) {
  return equal_budgets(policy) && layout.views == 0 && layout.kept_from == 0;
}

/// Scales and outliers come first under every policy, at the same offsets.
inline constexpr Side kFirstSides = side_of(Shape{}, Policy{});

/// The only access to the regions of an arena: their offsets become typed pointers here and nowhere else. Scratch is
/// bytes here, which attend_rows, FarQueries, Merger and import divide.
struct ArenaView {
  const Cache& cache;

  /// @param layout  in the arena
  static void set(Cache& to, std::byte* base, const Shape& shape, const Policy& policy, const Layout& layout,
                  const ProfileView& profile, const Kernels& kernels, bool turns = false,
                  const ColdStore* store = nullptr) {
    to.base_ = base;
    to.shape_ = shape;
    to.policy_ = policy;
    to.layout_ = &layout;
    to.profile_ = profile;
    to.kernels_ = &kernels;
    to.turns_ = turns;
    to.store_ = store;
  }

  const Shape& shape() const { return cache.shape_; }
  const Policy& policy() const { return cache.policy_; }
  const Layout& layout() const { return *cache.layout_; }
  const ProfileView& profile() const { return cache.profile_; }
  const Kernels& kernels() const { return *cache.kernels_; }
  /// Whether the tiles of a layer have wider codes.
  bool is_wide_layer(std::uint32_t layer) const { return policy().wide.has(layer); }
  bool is_wide(const Chain& chain) const {
    return has_wide(policy()) && is_wide_layer(static_cast<std::uint32_t>(&chain - chains()) / shape().kv_heads);
  }
  /// The tile that a chain's first slots have to themselves under Policy::wide_first; kNoTile if there is none.
  std::uint32_t first_tile(const Chain& chain) const {
    if (layout().first_tiles == 0 || is_wide(chain)) return kNoTile;
    const auto index = static_cast<std::uint32_t>(&chain - chains());
    std::uint32_t wider = 0;  // layers before
    for (std::uint32_t layer = 0; layer < index / shape().kv_heads; ++layer) wider += is_wide_layer(layer) ? 1 : 0;
    return index - wider * shape().kv_heads;
  }
  /// The pool of a tile; kKept for a view.
  Pool pool_of(std::uint32_t tile) const {
    if (tile >= layout().kept_from) return tile < layout().faint_from ? Pool::kKept : Pool::kFaint;
    return tile < layout().wide_tiles ? Pool::kWide : Pool::kTail;
  }
  /// The pool from which a chain takes tiles, except for its tail and for what is faint.
  Pool pool_of(const Chain& chain) const { return is_wide(chain) ? Pool::kWide : Pool::kKept; }
  /// The codes of a tile; not under Storage::kF32.
  TileFormat format(Pool pool) const { return format_of(storage_of(shape(), policy(), pool)); }
  TileFormat format(std::uint32_t tile) const { return format(pool_of(tile)); }
  const CodeKernels& key_kernels(std::uint32_t tile) const { return kernels().of(format(tile).key_bits); }
  const CodeKernels& value_kernels(std::uint32_t tile) const { return kernels().of(format(tile).value_bits); }
  std::uint32_t key_bytes(Pool pool) const {
    return pool == Pool::kKept ? layout().key_bytes : format(pool).key_bytes(shape().head_dim);
  }
  std::uint32_t value_bytes(Pool pool) const {
    return pool == Pool::kKept ? layout().value_bytes : format(pool).value_bytes(shape().head_dim);
  }
  std::uint32_t code_bytes(Pool pool) const { return key_bytes(pool) + value_bytes(pool); }
  bool turns() const { return cache.turns_; }
  /// Exists where there is a log.
  ColdStore store() const {
    ColdStore store;
    std::memcpy(&store, cache.store_, sizeof store);  // it may be the C interface's
    return store;
  }

  template <typename T>
  T* at(std::uint64_t offset) const {
    return in_place<T>(cache.base_ + static_cast<std::size_t>(offset));
  }

  ArenaHeader& header() const { return *at<ArenaHeader>(0); }
  std::uint32_t* links() const { return at<std::uint32_t>(layout().links); }
  std::uint32_t* plan() const { return at<std::uint32_t>(layout().plan); }
  /// What is measured of a head's keys: arena.hpp. Exists only under KeyBasis::kMeasured.
  std::uint8_t* measured(std::uint32_t layer, std::uint32_t kv_head) const {
    const std::uint64_t tiers = heads() * detail::tiers_below(policy()) * detail::kTierBytes;
    return at<std::uint8_t>(layout().tiers + tiers + head_index(layer, kv_head) * measured_bytes(shape()));
  }
  /// What a log has in the arena: ColdSpace.
  std::uint64_t cold() const {
    return layout().tiers + heads() * (detail::tiers_below(policy()) * detail::kTierBytes + measured_bytes(shape()));
  }
  /// The tokens from which it is.
  std::uint32_t measured_tokens(std::uint32_t layer) const {
    if (shape().basis != KeyBasis::kMeasured) return 0;
    std::uint32_t tokens;
    std::memcpy(&tokens, measured(layer, 0), sizeof tokens);
    return tokens;
  }
  float* encoding() const { return at<float>(layout().encoding); }
  std::byte* merging() const { return at<std::byte>(layout().merging); }
  /// The workspace of KeyRefiner.
  float* refining() const { return encoding() + shape().head_dim; }
  /// The rotation steps of KeyTurner's pairs, u64[head_dim / 2].
  std::uint64_t* rotary_steps() const {
    return at<std::uint64_t>(layout().merging + merge_space_of(shape().head_dim).rotary_steps);
  }
  float* turned() const { return at<float>(layout().turned); }
  std::byte* scratch(std::uint32_t worker) const {
    NIBKV_ASSERT(worker < shape().workers);
    return at<std::byte>(layout().scratch + std::uint64_t{worker} * layout().scratch_bytes);
  }

  Scratch scratch_layout() const { return scratch_of(shape(), policy(), layout()); }

  std::size_t heads() const { return std::size_t{shape().layers} * shape().kv_heads; }
  Chain* chains() const { return at<Chain>(layout().chains); }
  std::size_t head_index(std::uint32_t layer, std::uint32_t kv_head) const {
    return std::size_t{layer} * shape().kv_heads + kv_head;
  }
  Chain& chain(std::uint32_t layer, std::uint32_t kv_head) const {
    NIBKV_ASSERT(layer < shape().layers && kv_head < shape().kv_heads);
    return chains()[head_index(layer, kv_head)];
  }

  /// What is asked of a band and of what its layers share is in band.hpp, of tiers in tiers.hpp.
  [[gnu::visibility("hidden")]] Segments segments(const Chain& chain) const;
  /// The segment that lies in the chain's own tiles, where its tokens arrive: its tail, if it has one, and without what
  /// is recalled.
  Segment own(const Chain& chain) const;
  /// The number of the chain's first sink: of its first slot that is neither folded, faint nor recalled.
  std::uint32_t sinks_from(const Chain& chain) const;
  /// How many of a chain's first slots are not in the order of their positions.
  std::uint32_t unordered(const Chain& chain) const;
  Cursor first_slot(const Chain& chain) const { return Cursor(segments(chain)); }
  template <typename Visit>
  void each_slot(const Chain& chain, Visit visit) const {
    nibkv::each_slot(segments(chain), links(), visit);
  }

  std::byte* side(std::uint32_t tile) const {
    NIBKV_ASSERT(tile < layout().tiles + layout().views);
    return at<std::byte>(layout().sides + std::uint64_t{tile} * layout().side_bytes);
  }
  template <typename T>
  T* side_array(std::uint32_t tile, std::uint32_t offset) const {
    return in_place<T>(side(tile) + offset);
  }
  std::uint16_t* key_scales(std::uint32_t tile) const {
    return side_array<std::uint16_t>(tile, kFirstSides.key_scales);
  }
  std::uint16_t* value_scales(std::uint32_t tile) const {
    return side_array<std::uint16_t>(tile, kFirstSides.value_scales);
  }
  std::int8_t* outliers(std::uint32_t tile) const { return side_array<std::int8_t>(tile, kFirstSides.outliers); }
  // Arrays that the policy does not read do not exist: do not access them.
  std::uint32_t* global(std::uint32_t tile) const {
    NIBKV_ASSERT(keeps_global(policy()));
    return side_array<std::uint32_t>(tile, layout().side.global);
  }
  std::uint16_t* positions(std::uint32_t tile) const {
    NIBKV_ASSERT(policy().keep == Keep::kScore);
    return side_array<std::uint16_t>(tile, layout().side.positions);
  }
  std::uint16_t* local(std::uint32_t tile) const {
    NIBKV_ASSERT(keeps_local(policy()));
    return side_array<std::uint16_t>(tile, layout().side.local);
  }
  std::uint8_t* bias(std::uint32_t tile) const {
    NIBKV_ASSERT(merges(policy()));
    return side_array<std::uint8_t>(tile, layout().side.bias);
  }
  std::uint8_t* merged(std::uint32_t tile) const {
    NIBKV_ASSERT(merges(policy()));
    return side_array<std::uint8_t>(tile, layout().side.merged);
  }
  std::uint8_t* classes(std::uint32_t tile) const {
    NIBKV_ASSERT(keeps_classes(policy()));
    return side_array<std::uint8_t>(tile, layout().side.classes);
  }
  std::uint32_t& base(std::uint32_t tile) const { return at<std::uint32_t>(layout().bases)[tile]; }

  std::uint32_t position(std::uint32_t tile, std::uint32_t lane) const { return base(tile) + positions(tile)[lane]; }
  /// The position of a chain's slot with this number.
  std::uint32_t position_of(const Chain& chain, std::uint32_t slot, const Place& at) const {
    return policy().keep == Keep::kScore ? position(at.tile, at.lane) : position_in_order(chain, slot);
  }
  /// Where they are not stored: those that the policy leaves, of slots that are in order.
  std::uint32_t position_in_order(const Chain& chain, std::uint32_t slot) const {
    const std::uint32_t number = keeps_log(policy()) ? slot - sinks_from(chain) : slot;
    return number < policy().sinks ? number : chain.seen - chain.used + slot;
  }
  /// Lane 0 of a tile must be set first. Offsets from the tile's base saturate at 65535, or, with positions_by_step(),
  /// what is too old becomes a later position. Folded slots are in no order, so the base decreases to the smallest
  /// position in the tile.
  [[gnu::visibility("hidden")]] void set_position(std::uint32_t tile, std::uint32_t lane, std::uint32_t position) const;

  [[gnu::visibility("hidden")]] std::byte* codes(std::uint32_t tile) const {
    NIBKV_ASSERT(tile < layout().tiles);
    const Layout& all = layout();
    if (all.kept_from == 0) return at<std::byte>(all.codes + std::uint64_t{tile} * all.code_bytes);  // usually
    const PoolTiles tiles = detail::tiles_of_pools(all);
    std::uint64_t offset = all.codes;
    for (std::uint32_t i = 0, first = 0;; ++i) {
      const std::uint64_t bytes = code_bytes(Pool{static_cast<std::uint8_t>(i)});
      if (tile - first < tiles.at[i]) return at<std::byte>(offset + std::uint64_t{tile - first} * bytes);
      first += static_cast<std::uint32_t>(tiles.at[i]);
      offset += tiles.at[i] * bytes;
    }
  }
  /// Also of views.
  [[gnu::visibility("hidden")]] std::uint8_t* key_codes(std::uint32_t tile) const;
  [[gnu::visibility("hidden")]] std::uint8_t* value_codes(std::uint32_t tile) const;
  /// Storage::kF32: keys [head_dim][32], values [32][head_dim].
  float* key_rows(std::uint32_t tile) const { return in_place<float>(codes(tile)); }
  float* value_rows(std::uint32_t tile) const { return key_rows(tile) + kTileSlots * shape().head_dim; }
};

/// What Cache::init says of a shape and a policy; `layout` is written only on kOk. What the header computes at compile
/// time too is compiled for the library in one place.
[[gnu::visibility("hidden")]] Status find_layout(const Shape& shape, const Policy& policy, Layout& layout);

/// Whether the layout in an arena is that of its cache's shape and policy.
bool has_own_layout(const ArenaView& to);

}  // namespace nibkv

#include "arena/band.hpp"  // defines what a band decides
