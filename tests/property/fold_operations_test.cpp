// Random operations where layers share codes and keep scores.
#include <gtest/gtest.h>

#include "tests/property/fold_walk.hpp"
#include "tests/support/effort.hpp"

namespace nibkv {
namespace {

using test::FoldWalk;
using test::Random;

TEST(FoldOperations, InAnyOrderKeepPairsInStepAndAttentionThatOfTheArena) {
  int sharing = 0;
  std::uint32_t merged = 0;
  for (const std::string& port : test::running_ports()) {
    for (std::uint64_t seed = 0; seed < 18; ++seed) {
      SCOPED_TRACE("seed " + std::to_string(seed));
      FoldWalk walk(Random(seed), seed, port);
      walk.steps(45 / test::kShorter);
      sharing += walk.shares() ? 1 : 0;
      merged += walk.merged_into_folded();
      if (HasFailure()) return;
    }
  }
  EXPECT_GT(sharing, 8);
  EXPECT_GT(merged, 100u / test::kShorter);
}

}  // namespace
}  // namespace nibkv
