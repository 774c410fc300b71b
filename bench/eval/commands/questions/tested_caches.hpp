#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "bench/eval/commands/common.hpp"
#include "bench/eval/metrics/retrieval.hpp"
#include "bench/eval/metrics/sweep_store.hpp"

namespace nibkv::llm {

/// A cache that is asked.
struct Tested {
  StoreOptions options;
  AskMode mode = AskMode::kEither;
  std::string name;
  std::uint64_t f16_bytes = 0;  ///< of a cache for which is_f16
};

/// The caches that --policies or --policy, --set, --force-fold, --tokens and --mode name.
class TestedCaches {
 public:
  /// @param storage  of all but f32 and the f16 ones
  /// @throws UsageError
  TestedCaches(const Arguments& arguments, Storage storage);

  /// Gives them what all have in common, now that the model is known, and says what is to be noted of each.
  /// @param room  tokens of a prompt and its answer
  void begin(const Config& model, const StoreOptions& common, std::size_t room);

  const std::vector<Tested>& all() const { return caches_; }
  std::uint32_t tokens() const { return tokens_; }
  /// @param room  the most tokens that it must take
  SweepStore store(const Config& model, const Tested& cache, std::size_t room) const;

 private:
  void add(const std::string& policy, const PolicySettings& settings, Storage storage);
  void add_bounded(Tested cache, bool has_scores);

  std::uint32_t tokens_ = 0;
  bool unseen_ = true, seen_ = true;
  std::vector<Tested> caches_;
  std::vector<std::string> without_scores_;  // names of policies
};

}  // namespace nibkv::llm
