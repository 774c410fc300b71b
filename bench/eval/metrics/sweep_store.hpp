#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "bench/runner/stores/f16_fold.hpp"
#include "bench/runner/stores/f16_store.hpp"
#include "bench/runner/stores/tile_store.hpp"

namespace nibkv::llm {

/// How many tokens a cache of a sweep takes before the next one's turn: this many
/// rows of logits are kept.
inline constexpr std::size_t kSweepStep = 64;

/// One cache of a sweep.
struct SweepCase {
  std::string policy;       ///< a name that find_policy knows, or one for which is_f16 or is_f16_fold
  std::string budget;       ///< as given: tokens, a share of the context such as 10%, or bytes of arena such as 1M
  PolicySettings settings;  ///< differences from the policy of that name
  std::string setting;      ///< the name of the settings and the storage in a report
  Storage storage = Storage::kQ4;

  bool operator==(const SweepCase&) const = default;
};

/// The policy and the name of its settings.
std::string name_of(const SweepCase& what);

/// Writes a budget of that form to `tokens` or `arena_bytes` of `options`.
/// @throws UsageError for another form, or a budget that does not fit `context` tokens
void set_budget(const std::string& budget, std::size_t context, StoreOptions& options);

/// The cache in an arena, or the one from which an f16 cache takes its size.
/// @param base  what all caches of a sweep have in common: port, profile, outlier channels, workers
StoreOptions store_options(const StoreOptions& base, const SweepCase& what, std::size_t context);

/// A cache to be measured: one in an arena, or an f16 one.
class SweepStore {
 public:
  /// An f16 cache gets as many bytes as the tiles of streaming_llm use at the budget. One that
  /// folds keeps all tokens, and pairs the layers that minicache pairs without alignment.
  /// @throws Error naming the case if nibkv refuses it
  SweepStore(const Config& model, const StoreOptions& base, const SweepCase& what, std::size_t context);
  explicit SweepStore(std::unique_ptr<TileStore> tiles);
  explicit SweepStore(std::unique_ptr<F16Store> window);

  KvStore& store();
  void clear();

  /// Cuts a cache in an arena back to `tokens` a head.
  /// @throws Error as TileStore::compact_now does, and for an f16 cache
  void compact_now(std::uint32_t tokens);

  std::uint64_t tokens() const;  ///< budget of a head
  std::uint64_t peak_bytes() const;
  std::uint64_t arena_bytes() const;
  double bits_per_channel() const;
  std::string fold() const;  ///< which layers share codes, in words

 private:
  std::unique_ptr<TileStore> tiles_;
  std::unique_ptr<F16Store> window_;
  std::unique_ptr<F16Fold> folded_;
};

}  // namespace nibkv::llm
