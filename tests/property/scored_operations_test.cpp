// Random operations under policies of Keep::kScore: whatever their order, the arena stays consistent. Ports take turns: other tests
// hold them to the same bytes.
#include <gtest/gtest.h>

#include "tests/property/scored_walk.hpp"
#include "tests/support/effort.hpp"

namespace nibkv {
namespace {

using test::Random;
using test::ScoredWalk;

TEST(ScoredOperations, InAnyOrderLeaveASoundArenaUnderEveryPreset) {
  const std::vector<std::string> ports = test::running_ports();
  for (std::size_t preset = 0; preset < 9; ++preset) {
    for (std::uint64_t seed = 0; seed < 8; ++seed) {
      SCOPED_TRACE("preset " + std::to_string(preset) + ", seed " + std::to_string(seed));
      ScoredWalk walk(Random(seed * 100 + preset), seed * 100 + preset, preset, ports[(preset + seed) % ports.size()]);
      walk.steps(60 / test::kShorter);
      if (HasFailure()) return;
    }
  }
}

TEST(ScoredOperations, InAnyOrderLeaveASoundArenaUnderAnyPolicy) {
  const std::vector<std::string> ports = test::running_ports();
  for (std::uint64_t seed = 1000; seed < 1060; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    ScoredWalk walk(Random(seed), seed, 99, ports[seed % ports.size()]);
    walk.steps(80 / test::kShorter);
    if (HasFailure()) return;
  }
}

}  // namespace
}  // namespace nibkv
