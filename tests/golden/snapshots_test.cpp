// Snapshots that were written once, tests/data/*.snapshot: every later version, port and machine restores them and goes
// on with the same bytes.
#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <span>

#include "tests/support/hash.hpp"
#include "tests/support/snapshots.hpp"

namespace nibkv {
namespace {

// Files of a released version are never written again. New ones: run this test with NIBKV_WRITE_SNAPSHOTS=1; it prints
// the words.
struct Kept {
  test::SnapshotCase one;
  int steps;
  std::uint64_t word;
};

std::vector<Kept> kept() {
  std::vector<Kept> list;
  const Shape small = {
      .layers = 1, .query_heads = 2, .kv_heads = 1, .head_dim = 16, .outlier_channels = 4, .max_chunk = 9};
  list.push_back({{"1-full", small, full(600)}, 35, 0x98139aed4abecf15});
  Shape exact = small;
  exact.outlier_channels = 0;
  exact.storage = Storage::kF32;
  list.push_back({{"1-f32", exact, streaming_llm(20, 4)}, 30, 0x718c259846026844});
  const Shape wide = {
      .layers = 2, .query_heads = 6, .kv_heads = 2, .head_dim = 16, .outlier_channels = 4, .max_chunk = 9};
  Policy policy = ems(64);
  policy.merge = Merge::kBoth;
  policy.threshold = 0;
  policy.budget = Budget::kAdaptive;
  list.push_back({{"1-merged", wide, policy}, 30, 0x92fb5acad06da9b7});
  policy = snapkv(64);
  policy.budget = Budget::kTable;
  list.push_back({{"1-table", wide, policy, {96, 32, 64, 64}}, 30, 0x20881e7a075a17b6});
  policy = ems_fold(600, pairs_from(0, 2));
  policy.recent = 40;
  policy.fold.recent = 0;
  policy.fold.retain = Retain::kFarRange;
  list.push_back({{"1-folded", wide, policy}, 30, 0x48adb617ce76d6da});
  return list;
}

std::string path_of(const Kept& kept) {
  return NIBKV_TEST_FILES "/" + kept.one.name + ".snapshot";
}

std::vector<std::byte> contents(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  const std::string text{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  const auto bytes = std::as_bytes(std::span(text));
  return {bytes.begin(), bytes.end()};
}

constexpr char kNote[] = "what the caller keeps beside it";

// Made anew, with the first port that this CPU runs.
std::vector<std::byte> made(const Kept& kept, const std::string& port) {
  test::Rig rig(kept.one.shape, kept.one.policy, port, 11, kept.one.budgets);
  test::Random random(12);
  test::go_on(rig.cache(), random, kept.steps);
  return test::saved(rig.cache(), {1, std::as_bytes(std::span(kNote))});
}

TEST(KeptSnapshots, AreRestoredAndGoOnWithTheSameWordWithEveryPortOnEveryMachine) {
  for (const Kept& kept : kept()) {
    if (std::getenv("NIBKV_WRITE_SNAPSHOTS") != nullptr) {
      const auto bytes = made(kept, {});
      std::ofstream(path_of(kept), std::ios::binary)
          .write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
    }
    const std::vector<std::byte> snapshot = contents(path_of(kept));
    for (const std::string& port : test::running_ports()) {
      test::Rig rig(kept.one.shape, kept.one.policy, port, 11, kept.one.budgets);
      ASSERT_EQ(layout_of(kept.one.shape, kept.one.policy).views != 0, has_pairs(kept.one.policy));
      ASSERT_EQ(restore(rig.cache(), snapshot), Status::kOk) << path_of(kept);
      EXPECT_EQ(test::saved(rig.cache(), {1, std::as_bytes(std::span(kNote))}), snapshot) << kept.one.name;
      test::Random random(13);
      test::Hash hash;
      const std::vector<float> out = test::go_on(rig.cache(), random, 20);
      hash.add(std::as_bytes(std::span(out)));
      hash.add(test::saved(rig.cache()));
      char word[32];
      std::snprintf(word, sizeof word, "0x%016llx", static_cast<unsigned long long>(hash.word()));
      EXPECT_EQ(hash.word(), kept.word) << kept.one.name << ", port " << port << " gave " << word;
    }
  }
}

TEST(KeptSnapshots, AreWhatEveryPortOnEveryMachineSaves) {
  for (const Kept& kept : kept()) {
    for (const std::string& port : test::running_ports()) {
      EXPECT_EQ(made(kept, port), contents(path_of(kept))) << kept.one.name << ", port " << port;
    }
  }
}

}  // namespace
}  // namespace nibkv
