#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "nibkv/nibkv.hpp"
#include "tests/support/random.hpp"

/// One hash of everything that the pipeline computes. It is the same on every architecture, with
/// every port and every compiler, and changes only when the numbers of the library are changed on
/// purpose. Without a heap, so that a bare board can compute it with this code too.
namespace nibkv::test {

// To update: run nibkv_golden_tests; it prints the new words.
inline constexpr std::uint64_t kGolden = 0x02adf19f510f7111;
inline constexpr std::uint64_t kTurnedGolden = 0x42277486fa6e9bf1;   ///< of the cases that rotate keys
inline constexpr std::uint64_t kFoldGolden = 0x6cd6b958b932318e;     ///< of those in which layers share codes
inline constexpr std::uint64_t kWidthGolden = 0xbb3734d6eeed2bac;    ///< of those with codes of 2 and 8 bits
inline constexpr std::uint64_t kAlignedGolden = 0x3bb63dcb6d75648a;  ///< in which they share through maps
inline constexpr std::uint64_t kTierGolden = 0x5c40d486d26d8506;     ///< of those with tiers, and a measured basis
inline constexpr std::uint64_t kLogGolden = 0xef54d525c3ae776d;      ///< of those with a log

struct GoldenCase {
  Shape shape;
  Policy policy;
  int steps;
  std::uint32_t budgets[2] = {};
  std::size_t budget_count = 0;
};

struct GoldenCases {
  static constexpr std::size_t kMost = 24;
  GoldenCase list[kMost] = {};
  std::size_t count = 0;

  void add(const GoldenCase& one) { list[count++] = one; }
  const GoldenCase* begin() const { return list; }
  const GoldenCase* end() const { return list + count; }
};

GoldenCases golden_cases();
GoldenCases turned_cases();
GoldenCases width_cases();
GoldenCases tier_cases();
GoldenCases log_cases();
GoldenCases fold_cases();
GoldenCases aligned_cases();

/// The memory that a run needs in addition to its object.
inline constexpr std::size_t kGoldenBytes = std::size_t{1} << 20;

/// Runs cases one after the other with one port; word() is the hash of all their results.
class GoldenRun {
 public:
  /// @param memory  kGoldenBytes, aligned to kArenaAlignment
  GoldenRun(std::string_view port, std::span<std::byte> memory) : port_(port), memory_(memory) {}

  /// @returns the first status of the library that was not kOk; kArenaTooSmall also if the
  ///          memory does not suffice
  Status run(const GoldenCase& one);

  std::uint64_t word() const { return word_; }
  /// The maximum number of bytes in use at the same time.
  std::size_t most_bytes() const { return most_; }

 private:
  void add(std::span<const std::byte> bytes);
  template <typename T>
  std::span<T> take(std::size_t count);
  Status make_cache(const GoldenCase& one);
  Status add_tokens(std::uint32_t count, Random& random);
  Status add_scores(int step);
  Status drop_some();

  std::string_view port_;
  std::span<std::byte> memory_;
  std::size_t used_ = 0;
  std::size_t most_ = 0;
  bool short_of_memory_ = false;
  Cache cache_;
  ColdStore store_;
  std::span<const std::byte> pages_;
  std::span<const std::byte> state_;
  std::uint64_t word_ = 0xcbf29ce484222325u;  // FNV-1a
};

}  // namespace nibkv::test
