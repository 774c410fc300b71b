// The kept snapshots on a machine with files. tests/baremetal/kept.cpp has them on one without.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <vector>

#include "tests/golden/kept_snapshots.hpp"
#include "tests/support/rig.hpp"

namespace nibkv {
namespace {

std::string path_of(const test::KeptSnapshot& one) {
  return std::string(NIBKV_TEST_FILES "/") + one.name + ".snapshot";
}

std::vector<std::byte> contents(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  const std::string text{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  const auto bytes = std::as_bytes(std::span(text));
  return {bytes.begin(), bytes.end()};
}

// Made again, with the first port that this CPU runs.
void write(const test::KeptSnapshot& one, test::KeptCache& memory) {
  ASSERT_EQ(memory.init(one, {}), Status::kOk);
  ASSERT_EQ(memory.fill(one), Status::kOk);
  const auto bytes = memory.saved();
  std::ofstream(path_of(one), std::ios::binary)
      .write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
}

TEST(KeptSnapshots, AreRestoredGoOnWithTheSameWordAndAreWhatEveryPortOnEveryMachineSaves) {
  const auto memory = std::make_unique<test::KeptCache>();
  for (const test::KeptSnapshot& one : test::kKeptSnapshots) {
    ASSERT_EQ(layout_of(one.shape, one.policy).views != 0, has_pairs(one.policy));
    if (std::getenv("NIBKV_WRITE_SNAPSHOTS") != nullptr) write(one, *memory);
    const std::vector<std::byte> snapshot = contents(path_of(one));
    for (const std::string& port : test::running_ports()) {
      const test::KeptResult result = test::try_kept(one, snapshot, port, *memory);
      EXPECT_EQ(result.status, Status::kOk) << path_of(one) << ", port " << port;
      EXPECT_TRUE(result.saved_the_same) << one.name << ", port " << port;
      EXPECT_TRUE(result.made_the_same) << one.name << ", port " << port;
      char word[32];
      std::snprintf(word, sizeof word, "0x%016llx", static_cast<unsigned long long>(result.word));
      EXPECT_EQ(result.word, one.word) << one.name << ", port " << port << " gave " << word;
    }
  }
}

// Refuses an older snapshot, and stays as it was.
void expect_refused(const test::KeptSnapshot& one, const char* file, Status status) {
  const auto memory = std::make_unique<test::KeptCache>();
  ASSERT_EQ(memory->init(one, {}), Status::kOk);
  ASSERT_EQ(memory->fill(one), Status::kOk);
  const auto saved = memory->saved();
  const std::vector<std::byte> before(saved.begin(), saved.end());
  EXPECT_EQ(restore(memory->cache(), contents(std::string(NIBKV_TEST_FILES) + "/" + file)), status);
  const auto after = memory->saved();
  EXPECT_EQ(std::vector<std::byte>(after.begin(), after.end()), before);
}

// Their rows were rotated without signs, so they would come back as other rows.
TEST(KeptSnapshots, OfVersionOneAreRefused) {
  expect_refused(test::kKeptSnapshots[0], "1-full.snapshot", Status::kNewerSnapshot);
}

// Their scores were counted in other units than those of new queries.
TEST(KeptSnapshots, OfOlderScoresAreRefused) {
  const auto* table = std::find_if(std::begin(test::kKeptSnapshots), std::end(test::kKeptSnapshots),
                                   [](const test::KeptSnapshot& one) { return std::string(one.name) == "2-table"; });
  ASSERT_NE(table, std::end(test::kKeptSnapshots));
  expect_refused(*table, "2-table-older-scores.snapshot", Status::kOtherPolicy);
}

}  // namespace
}  // namespace nibkv
