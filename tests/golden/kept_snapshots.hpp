#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "tests/support/go_on.hpp"

/// Snapshots that were written once, tests/data/*.snapshot. Every later version, port and machine
/// restores them, continues with the same bytes, and saves the same ones. Without a heap, so that
/// a bare board can run this code too.
namespace nibkv::test {

struct KeptSnapshot {
  const char* name;  ///< tests/data/NAME.snapshot
  Shape shape;
  Policy policy;
  int steps;           ///< number of steps of go_on that it holds
  std::uint64_t word;  ///< hash of the steps after it
  std::uint32_t budgets[4] = {};
  std::size_t budget_count = 0;
};

namespace kept {

inline constexpr Shape kSmall = {
    .layers = 1, .query_heads = 2, .kv_heads = 1, .head_dim = 16, .outlier_channels = 4, .max_chunk = 9};
inline constexpr Shape kExact = {
    .layers = 1, .query_heads = 2, .kv_heads = 1, .head_dim = 16, .max_chunk = 9, .storage = Storage::kF32};
inline constexpr Shape kWide = {
    .layers = 2, .query_heads = 6, .kv_heads = 2, .head_dim = 16, .outlier_channels = 4, .max_chunk = 9};

constexpr Policy merged() {
  Policy policy = ems(64);
  policy.merge = Merge::kBoth;
  policy.threshold = 0;
  policy.budget = Budget::kAdaptive;
  return policy;
}
constexpr Policy table() {
  Policy policy = snapkv(64);
  policy.budget = Budget::kTable;
  return policy;
}
constexpr Policy folded() {
  Policy policy = ems_fold(600, pairs_from(0, 2));
  policy.recent = 40;
  policy.fold.recent = 0;
  policy.fold.retain = Retain::kFarRange;
  return policy;
}

constexpr Policy logged() {
  Policy policy = streaming_llm(68);
  policy.recall = 32;
  policy.indexed = 256;
  policy.log = 64;
  return policy;
}

}  // namespace kept

// Files of a released version are never written again. To make new ones: run nibkv_golden_tests
// with NIBKV_WRITE_SNAPSHOTS=1; it prints the words.
inline constexpr KeptSnapshot kKeptSnapshots[] = {
    {"2-full", kept::kSmall, full(600), 35, 0x9fcace18ebf2f1cf},
    {"2-f32", kept::kExact, streaming_llm(20, 4), 30, 0xcd4ab3974b6d3ec4},
    {"2-merged", kept::kWide, kept::merged(), 30, 0x14f8152f2e8c0ba5},
    {"2-table", kept::kWide, kept::table(), 30, 0x7d6610f906ed8d83, {96, 32, 64, 64}, 4},
    {"2-folded", kept::kWide, kept::folded(), 30, 0xd404b5e4e6c03fd6},
    {"2-log", kept::kSmall, kept::logged(), 35, 0xc829ac0a4f74a33f},
};
inline constexpr char kKeptNote[] = "what the caller keeps beside it";

/// The maximum of something over all of them.
template <typename Needs>
constexpr std::size_t most_of_kept(Needs needs) {
  std::size_t most = 0;
  for (const KeptSnapshot& one : kKeptSnapshots) most = std::max(most, needs(one));
  return most;
}

/// The cache of one of them, in its own memory. The store of a log keeps what it has when another cache is made.
class KeptCache {
 public:
  Status init(const KeptSnapshot& one, std::string_view port);

  Cache& cache() { return cache_; }
  /// Appends what the snapshot of that name holds.
  Status fill(const KeptSnapshot& one);
  /// What it saves now, with kKeptNote; empty if save fails.
  std::span<const std::byte> saved();
  /// Continues, and returns the hash of what attention gives and of the final cache.
  Status go_on_from(std::uint64_t& word);

 private:
  static constexpr std::size_t kRows = most_of_kept([](const KeptSnapshot& one) {
    return std::max<std::size_t>(one.shape.max_chunk, kProfileTokens) * one.shape.query_heads * one.shape.head_dim;
  });

  GoOnRoom room() { return {keys_, values_, queries_, out_, target_}; }
  std::span<const std::byte> save_with(std::span<const std::byte> note, std::uint32_t sequence);

  alignas(kArenaAlignment)
      std::byte arena_[most_of_kept([](const KeptSnapshot& one) { return footprint(one.shape, one.policy); })];
  alignas(kArenaAlignment)
      std::byte profile_[most_of_kept([](const KeptSnapshot& one) { return profile_bytes(one.shape); })];
  alignas(kArenaAlignment) std::byte
      calibration_[most_of_kept([](const KeptSnapshot& one) { return calibration_bytes(one.shape); })];
  std::byte saved_[most_of_kept([](const KeptSnapshot& one) {
    return static_cast<std::size_t>(most_snapshot_bytes(one.shape, one.policy, sizeof kKeptNote));
  })];
  std::byte pages_[most_of_kept(
      [](const KeptSnapshot& one) { return static_cast<std::size_t>(cold_bytes(one.shape, one.policy)); })];
  ColdStore store_;
  float keys_[kRows], values_[kRows], queries_[kRows], out_[kRows];
  std::uint32_t target_[most_of_kept([](const KeptSnapshot& one) { return most_held(one.shape, one.policy); })];
  Cache cache_;
};

/// The result of one of them.
struct KeptResult {
  Status status = Status::kOk;  ///< the first of the library that was not kOk
  bool saved_the_same = false;  ///< after it was restored
  bool made_the_same = false;   ///< by a cache filled here
  std::uint64_t word = 0;

  bool right(const KeptSnapshot& one) const {
    return status == Status::kOk && saved_the_same && made_the_same && word == one.word;
  }
};

/// @param snapshot  the file's bytes
KeptResult try_kept(const KeptSnapshot& one, std::span<const std::byte> snapshot, std::string_view port,
                    KeptCache& memory);

}  // namespace nibkv::test
