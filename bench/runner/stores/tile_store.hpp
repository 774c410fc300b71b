#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "bench/runner/model/model.hpp"
#include "bench/runner/stores/kv_store.hpp"
#include "nibkv/file_store.hpp"
#include "nibkv/nibkv.hpp"

namespace nibkv::llm {

/// Fields of a Policy by name: policy_settings.hpp.
using PolicySettings = std::vector<std::pair<std::string, std::string>>;

/// How a TileStore keeps a model's keys and values.
struct StoreOptions {
  std::string policy = "full";          ///< a name that find_policy knows
  PolicySettings settings;              ///< differences from the policy of that name
  std::optional<Budget> compacted_by;   ///< how heads share what compact_now leaves; none: as the policy says
  std::uint32_t tokens = 0;             ///< budget of a head; 0: as many as `arena_bytes` hold
  std::uint64_t arena_bytes = 0;        ///< read when tokens is 0
  std::string port;                     ///< empty: the fastest
  std::vector<std::byte> profile;       ///< empty: none
  KeyBasis basis = KeyBasis::kProfile;  ///< kMeasured: without a profile. Not read where nothing can be measured
  std::uint16_t outlier_channels = 0;   ///< needs a profile, or a measured basis
  Storage storage = Storage::kQ4;
  std::uint32_t reach = 0;  ///< Rotary::reach
  bool turns = false;       ///< Options::turns
  std::string cold_file;    ///< of the log's pages; empty: in memory
  /// Is told, once for each cache, what the codes cannot hold; may be empty.
  std::function<void(const std::string& note)> warn;
  std::size_t workers = 1;
};

/// The outlier channels of a cache for which nobody says how many: as many as what is known of the keys is good for.
inline std::uint16_t default_outliers(const StoreOptions& options) {
  if (options.basis == KeyBasis::kMeasured) return 4;
  return options.profile.empty() ? 0 : 8;
}

/// Whether a cache with these options measures its keys where it is asked to: not as f32, and not where layers may share
/// codes. Then it has no outlier channels either.
bool can_measure(const StoreOptions& options);

/// Tokens after which a TileStore looks at what its codes cannot hold, and the error of logits from which on it warns.
inline constexpr std::uint32_t kErrorTokens = 64;
inline constexpr float kLargeError = 2;

/// Layers whose error of logits is kLargeError or more, in order.
std::vector<std::size_t> lossy_layers(std::span<const float> errors);

/// "3" or "0, 3".
std::string layer_names(std::span<const std::size_t> layers);

/// A KvStore in one nibkv arena, which uses the library as any program would.
class TileStore : public KvStore {
 public:
  /// @throws Error with the status text for whatever nibkv refuses, as plan_cache does, and for an
  ///         arena larger than the memory of the machine; nothing is allocated then
  TileStore(const Config& model, const StoreOptions& options);

  std::size_t max_chunk() const override { return cache_.shape().max_chunk; }
  std::size_t max_batch() const override;
  bool reads_classes() const override { return keeps_classes(cache_.policy()); }
  void expect(std::span<const TokenClass> classes) override { expected_.assign(classes.begin(), classes.end()); }
  void append(int layer, std::size_t count, const float* keys, const float* values, ThreadPool& pool) override;
  void attend(int layer, std::size_t count, const float* queries, float* out, ThreadPool& pool) override;

  const Cache& cache() const { return cache_; }
  void clear();
  /// Takes back all but the first `seen` tokens. Returns what nibkv::truncate returns; unchanged unless kOk.
  Status truncate(std::size_t seen);
  /// From now on attend passes draft queries, which no score counts (Part::drafts), or the queries of tokens again.
  void expect_drafts(bool drafts) { drafts_ = drafts; }
  /// How many tokens append takes before it makes space in any head; 0 if the next one makes it.
  std::size_t space() const;
  /// A snapshot of the cache with the caller's own bytes.
  std::vector<std::byte> save(std::span<const std::byte> note) const;
  /// Returns what nibkv::restore returns. The store is unchanged unless kOk.
  Status restore(std::span<const std::byte> snapshot);
  /// Cuts every head back to its share of `tokens` now.
  /// @throws Error if the policy keeps no scores, or for a number out of its range
  void compact_now(std::uint32_t tokens);

  /// The bits of the tiles, links and chains in use at the peak, divided by the key and value
  /// channels held then. 0 before the first append.
  double bits_per_channel() const;
  /// nibkv::logit_errors of each layer, the root mean square over its heads, when it first held kErrorTokens tokens; 0
  /// until then.
  const std::vector<float>& logit_errors() const { return errors_; }
  /// The bytes with which an f16 cache would hold `tokens` tokens.
  std::uint64_t f16_bytes(std::uint64_t tokens) const;

 private:
  void note_peak();
  void recall_and_attend(std::uint32_t layer, std::span<const float> queries, std::span<float> out, ThreadPool& pool);
  void note_errors(std::uint32_t layer, std::span<const float> query);
  // How many shares of a call there are, and calls for each of them; share i uses worker i.
  std::uint32_t shares_of(const ThreadPool& pool) const;
  template <typename Call>
  void in_shares(std::uint32_t shares, ThreadPool& pool, const char* what, Call call);

  struct Free {
    void operator()(std::byte* memory) const;
  };

  std::unique_ptr<std::byte, Free> arena_;
  std::vector<std::byte> profile_;
  std::vector<std::byte> pages_;  // of the log, or a file
  FileStore page_file_;
  ColdStore store_;
  Cache cache_;
  std::optional<Budget> compacted_by_;
  bool drafts_ = false;
  std::vector<TokenClass> expected_;  // of the batch's tokens that not all layers have appended
  std::uint64_t peak_slots_ = 0;      // over all heads
  std::vector<float> errors_;
  bool said_unmeasured_ = false;
  std::function<void(const std::string&)> warn_;
};

/// The shape of the nibkv cache for a model.
Shape shape_of(const Config& model, const StoreOptions& options);
/// The Rotary::reach with which a conversation need not end where the model's context does: 0 if the policy keeps
/// everything, or if the model's rotary embedding is not one by which queries can be turned.
std::uint32_t endless_reach(const Config& model, const StoreOptions& options);
/// @throws Error naming the model if nibkv does not support its shape
void check_shape(const Config& model, const std::string& name);

/// Workers whose scratch a cache needs for so many threads: a policy that scores gives each KV head to one of them.
std::uint16_t workers_of(const Shape& shape, Keep keep);

/// The policy with a budget of `tokens` a head, what is set and the layers that share.
Policy policy_of(const StoreOptions& options, const Shape& shape, std::uint32_t tokens);

/// A cache as a TileStore makes it.
struct CachePlan {
  Shape shape;
  Policy policy;
};

/// @throws Error for a policy that cannot be what it should with these options, and for an arena too small for one
///         token
CachePlan plan_cache(const Config& model, const StoreOptions& options);

/// Throws Error(what: text(status)) unless kOk.
void require(Status status, const std::string& what);

}  // namespace nibkv::llm
