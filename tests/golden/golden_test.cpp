#include <gtest/gtest.h>

#include <cstdio>

#include "tests/golden/pipeline.hpp"
#include "tests/support/arena.hpp"
#include "tests/support/rig.hpp"

namespace nibkv {
namespace {

void expect_word(const test::GoldenCases& cases, std::uint64_t expected) {
  test::Arena memory(test::kGoldenBytes);
  for (const std::string& port : test::running_ports()) {
    test::GoldenRun golden(port, memory.bytes());
    int number = 0;
    for (const test::GoldenCase& one : cases) {
      ASSERT_EQ(golden.run(one), Status::kOk) << test::words(one.shape, one.policy, port);
      std::printf("[   golden ] port %s, after case %d: 0x%016llx\n", port.c_str(), number++,
                  static_cast<unsigned long long>(golden.word()));
    }
    char word[32];
    std::snprintf(word, sizeof word, "0x%016llx", static_cast<unsigned long long>(golden.word()));
    EXPECT_EQ(golden.word(), expected) << "port " << port << " gave " << word;
    EXPECT_TRUE(memory.guards_intact());
    std::printf("[   golden ] in %zu bytes\n", golden.most_bytes());
  }
}

TEST(Golden, TheWholePipelineGivesTheSameWordWithEveryPortOnEveryMachine) {
  expect_word(test::golden_cases(), test::kGolden);
}

void expect_shared(const test::GoldenCases& cases) {
  for (const test::GoldenCase& one : cases) {
    ASSERT_TRUE(valid(one.policy, one.shape));
    ASSERT_NE(layout_of(one.shape, one.policy).views, 0u);
  }
}

TEST(Golden, SoDoLayersThatShareCodes) {
  expect_shared(test::fold_cases());
  expect_word(test::fold_cases(), test::kFoldGolden);
}

TEST(Golden, SoDoLayersThatAreAligned) {
  expect_shared(test::aligned_cases());
  expect_word(test::aligned_cases(), test::kAlignedGolden);
}

TEST(Golden, SoDoCodesOfEveryWidth) {
  expect_word(test::width_cases(), test::kWidthGolden);
}

TEST(Golden, TiersGiveTheSameWordOnAllPorts) {
  expect_word(test::tier_cases(), test::kTierGolden);
}

TEST(Golden, SoDoLogs) {
  expect_word(test::log_cases(), test::kLogGolden);
}

TEST(Golden, SoDoKeysThatAreTurned) {
  expect_word(test::turned_cases(), test::kTurnedGolden);
}

}  // namespace
}  // namespace nibkv
