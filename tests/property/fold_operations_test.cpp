// Random operations where layers share codes and keep scores.
#include <gtest/gtest.h>

#include <cstdio>

#include "tests/property/fold_walk.hpp"
#include "tests/support/effort.hpp"

namespace nibkv {
namespace {

using test::FoldWalk;
using test::Random;

TEST(FoldOperations, InAnyOrderKeepPairsInStepAndAttentionThatOfTheArena) {
  std::size_t sharing = 0;
  std::uint32_t merged = 0;
  const std::vector<std::string> ports = test::running_ports();
  for (std::uint64_t seed = 0; seed < 18; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    // Ports take turns: other tests hold them to the same bytes.
    FoldWalk walk(Random(seed), seed, ports[seed % ports.size()]);
    walk.steps(static_cast<int>(test::turns(45, 12)));
    sharing += walk.shares() ? 1 : 0;
    merged += walk.merged_into_folded();
    if (HasFailure()) return;
  }
  std::printf("[ measured ] %zu walks with shared codes, %u merged into them\n", sharing, merged);
  EXPECT_GT(sharing, 8u);
  EXPECT_GT(merged, 40u);
}

}  // namespace
}  // namespace nibkv
