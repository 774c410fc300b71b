#pragma once

#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "tests/support/rig.hpp"

namespace nibkv::test {

/// CRC-32 as a polynomial division, bit by bit; `crc` is that of the preceding bytes, 0 at first.
std::uint32_t crc_of(std::uint32_t crc, std::span<const std::byte> bytes);

/// The snapshot of a cache; fails the test if save does.
inline std::vector<std::byte> saved(const Cache& cache, const SaveOptions& options = {}) {
  std::vector<std::byte> bytes(static_cast<std::size_t>(snapshot_bytes(cache, options.note.size())));
  EXPECT_EQ(save(cache, bytes, options), Status::kOk) << words(cache.shape(), cache.policy(), cache.port());
  return bytes;
}

/// Restores a cache from a snapshot of itself; fails the test if that is refused or changes it.
inline void come_back(Cache& cache) {
  const std::vector<std::byte> snapshot = saved(cache);
  ASSERT_EQ(restore(cache, snapshot), Status::kOk) << words(cache.shape(), cache.policy(), cache.port());
  ASSERT_EQ(saved(cache), snapshot) << words(cache.shape(), cache.policy(), cache.port());
}

/// A snapshot in parts that can be changed and put together again with right checksums. Written from lib/FORMAT.md.
struct TakenApart {
  struct Section {
    std::uint32_t kind = 0;
    std::uint32_t reserved = 0;
    std::uint64_t claimed = 0;  ///< the length to write; that of `bytes` at first
    std::vector<std::byte> bytes;
  };
  std::vector<std::byte> header;
  std::vector<Section> sections;
  bool total_follows = true;  ///< whether the header's length is corrected too

  explicit TakenApart(std::span<const std::byte> snapshot);
  std::vector<std::byte> sealed() const;

  template <typename T>
  static T get(const std::vector<std::byte>& bytes, std::size_t offset) {
    T value;
    std::memcpy(&value, bytes.data() + offset, sizeof value);
    return value;
  }
  template <typename T>
  static void put(std::vector<std::byte>& bytes, std::size_t offset, T value) {
    std::memcpy(bytes.data() + offset, &value, sizeof value);
  }
};

/// What snapshots must handle: every way to keep, score, merge and share, both storages.
struct SnapshotCase {
  std::string name;
  Shape shape;
  Policy policy;
  std::vector<std::uint32_t> budgets = {};
};
std::vector<SnapshotCase> snapshot_cases();
/// All of them, or where time is short (effort.hpp) every kEvery-th, a policy that scores and merges first.
std::vector<SnapshotCase> some_snapshot_cases();

/// As in go_on.hpp. Returns what attention gave; the test fails if a verb does.
std::vector<float> go_on(Cache& cache, Random& random, int steps);

}  // namespace nibkv::test
