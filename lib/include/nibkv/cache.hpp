#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "nibkv/arena.hpp"
#include "nibkv/cold.hpp"
#include "nibkv/profile.hpp"

#include "nibkv/macros_push.hpp"

namespace nibkv {

struct Kernels;

/// Which built port to use, and what is known about the model.
struct Options {
  std::string_view port = {};               ///< a name from port_name(); empty: the fastest port that this CPU can run
  std::span<const std::byte> profile = {};  ///< a profile (profile.hpp); must outlive the cache; empty: none
  /// u32[layers][kv_heads], for Budget::kTable: the budget of each head in tokens. Each is rounded
  /// down to a multiple of 32. It must then be at least sinks + recent + 1, and with its slack fit
  /// in Layout::chain_tiles, about Policy::most times the mean. All together must not exceed what
  /// Policy::tokens, the mean, allows for all heads.
  std::span<const std::uint32_t> budgets = {};
  std::uint32_t weights = 0;  ///< the weights of the model, as in CalibrationOptions::weights; 0: not given
  /// Heads take turns at making space, so that no token pays for all of them: of n heads (layer after layer), head i
  /// makes it at positions that are 32 * i / n modulo 32, if it holds more than its budget. All queries still see a
  /// full budget. Under Budget::kAdaptive layers take turns, and only Keep::kScore has any.
  /// For single tokens: then some head makes space at nearly every token, so truncate() goes back exactly over the
  /// last append alone, and drafts that are appended again make space again. A snapshot does not hold it.
  bool turns = false;
  /// Where the log of Policy::log goes; must outlive the cache, and so must what it stands for.
  const ColdStore* store = nullptr;
};

inline constexpr std::uint32_t kNoTile = 0xffffffff;

/// The tiles of one KV head of one layer, in position order; where its layer shares codes, they
/// come after its folded part.
struct Chain {
  std::uint32_t first = 0;  ///< tile number, kNoTile when empty
  std::uint32_t last = 0;
  std::uint32_t used = 0;          ///< slots in use, folded ones included; all tiles but the last are full
  std::uint32_t seen = 0;          ///< tokens ever appended
  std::uint32_t free = 0;          ///< first of the chain's own free tiles
  std::uint32_t budget = 0;        ///< tokens
  std::uint32_t heaviest = 0;      ///< upper bound of the chain's global scores
  std::uint16_t exponent = 0;      ///< how often the global scores were halved
  std::uint16_t level = 0;         ///< the local score with which slots start: the mean when space was last made
  std::uint32_t members_mass = 0;  ///< what biases add to the number of its slots, in 1/256
};
static_assert(sizeof(Chain) == detail::kChainBytes);

/// What an arena holds at this moment.
struct Usage {
  std::size_t arena_bytes = 0;  ///< the footprint
  std::size_t used_bytes = 0;   ///< codes, side data and links of the tiles and shared entries in use, plus all chains
  std::size_t peak_bytes = 0;   ///< the largest used_bytes so far
  std::uint32_t tiles = 0;      ///< tiles of the pool, not counting the entries that layers share
  std::uint32_t used_tiles = 0;
  std::uint32_t peak_tiles = 0;
  /// Rows appended so far, keys and values apart, of which one channel is so large that the error of its codes is at
  /// least what all other channels hold together: these are lost. Outlier channels and the mean key do not count.
  /// Such rows want a profile, or more bits. Snapshots do not have this number; shares of an append that run at the
  /// same time may miss some.
  std::uint32_t drowned_rows = 0;
};

/// A handle to one arena. It owns nothing and may be copied. All state lies in the arena,
/// which holds no pointers.
///
/// The verbs are free functions, a header for each (nibkv.hpp lists them). Calls on one cache must not overlap in time,
/// except attend calls with different workers, recall calls with different workers and heads, and the shares of one
/// append_share, attend_share or combine_share.
class Cache {
 public:
  Cache() = default;

  /// Creates an empty cache in `arena` and makes this object its handle.
  ///
  /// @param arena  at least footprint(shape, policy) bytes, starting at a multiple of
  ///               kArenaAlignment (aligned() cuts one out of any buffer); must outlive the cache
  /// @returns kBadShape; kBadPolicy, also for a footprint beyond this machine's address space
  ///          and for Options::budgets that do not meet their conditions under Budget::kTable;
  ///          kMisaligned; kArenaTooSmall; kUnknownPort; kUnsupportedPort; kBadProfile, also when
  ///          there is no profile but outlier channels, Budget::kScores or kRetrieval need one, when
  ///          there is one under KeyBasis::kMeasured, when the
  ///          policy aligns layers and the profile has no maps, when Budget::kPrefix or kRules find no
  ///          attention in it, or when Options::weights and the profile name different weights, and when
  ///          Policy::indexed needs one; kBadPolicy for a log in a build without them
  ///          (CMake option NIBKV_LOG); kBadArgument for a log without a store that has both functions.
  ///          Neither the object nor the arena is changed unless kOk.
  /// Cost: O(footprint) once, to clear the arena.
  Status init(std::span<std::byte> arena, const Shape& shape, const Policy& policy, const Options& options = {});

  /// Forgets all tokens. Shape, policy, port and profile stay; the peaks of usage() start over.
  /// @returns kNotReady
  /// Cost: O(tiles).
  Status clear();
  /// The same, and overwrites with zeros what the cache has held: rows, scores, positions, workspace. The store of a
  /// log keeps its pages: it is its owner's to overwrite.
  /// Nothing else is overwritten when tokens go: what they left in an arena or a snapshot is the caller's to
  /// protect (lib/ENGINES.md, "At rest").
  /// Cost: O(footprint).
  Status wipe();

  bool ready() const { return base_ != nullptr; }
  const Shape& shape() const { return shape_; }
  const Policy& policy() const { return policy_; }
  std::string_view port() const;
  Usage usage() const;

  /// The tokens that a KV head holds now. 0 for indices out of range.
  std::uint32_t held(std::uint32_t layer, std::uint32_t kv_head) const;
  /// The budget of a KV head in tokens. 0 for indices out of range.
  std::uint32_t budget(std::uint32_t layer, std::uint32_t kv_head) const;
  /// The number of tokens ever appended to a layer, which is the position of its next token. 0 for
  /// a layer out of range.
  std::uint32_t seen(std::uint32_t layer) const;
  /// The tokens from which a layer has measured its keys (KeyBasis::kMeasured); 0 if it has not, and out of range.
  std::uint32_t measured(std::uint32_t layer) const;

 private:
  friend struct ArenaView;

  std::byte* base_ = nullptr;
  Shape shape_ = {};
  Policy policy_ = {};
  const Layout* layout_ = nullptr;  // in the arena
  ProfileView profile_ = {};
  const Kernels* kernels_ = nullptr;
  const void* store_ = nullptr;
  bool turns_ = false;
};

/// The names of the built ports, fastest first: index 0, 1, ...; an empty view past the end.
std::string_view port_name(std::uint32_t index);
/// True when this CPU can run the built port of that name.
bool port_runs(std::string_view name);

/// Arena and handle in one object, for firmware: `static nibkv::StaticCache<kShape, kPolicy> cache;`
template <Shape kShape, Policy kPolicy>
class StaticCache {
 public:
  static constexpr std::size_t kBytes = footprint(kShape, kPolicy);
  static_assert(kBytes != 0, "the shape or the policy is out of range");

  Status init(const Options& options = {}) { return cache_.init(arena_, kShape, kPolicy, options); }
  Cache& cache() { return cache_; }
  const Cache& cache() const { return cache_; }

 private:
  alignas(kArenaAlignment) std::byte arena_[kBytes];
  Cache cache_ = {};
};

}  // namespace nibkv

#include "nibkv/macros_pop.hpp"
