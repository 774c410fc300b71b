// Faults reported in other caches, which this one must not have: which heads it accepts.
#include <gtest/gtest.h>

#include <cmath>

#include "nibkv/nibkv.hpp"
#include "tests/support/feed.hpp"

namespace nibkv::reports_shapes_test {
namespace {

using test::feed;
using test::Random;
using test::Rig;

// Blaizzy/mlx-vlm#2061: a head dimension that is not a multiple of the quantiser's group raises
// an error in the middle of a run.
TEST(ReportsShapes, AHeadDimensionWorksToTheEndOrIsRefusedAtOnce) {
  for (std::uint16_t dim = 1; dim <= 300; ++dim) {
    const Shape shape = {.layers = 1, .query_heads = 1, .kv_heads = 1, .head_dim = dim};
    if (dim % 16 == 0 && dim <= 256) {
      Rig rig(shape, ems(64));
      Random random(dim);
      (void)feed(rig.cache(), random, 150);
      EXPECT_EQ(check(rig.cache()), Status::kOk) << dim;
      continue;
    }
    EXPECT_EQ(footprint(shape, ems(64)), 0u) << dim;
    test::Arena arena(1 << 16);
    Cache cache;
    EXPECT_EQ(cache.init(arena.bytes(), shape, ems(64)), Status::kBadShape) << dim;
  }
}

// Mesh-LLM/mesh-llm#1532: the default chooses a cache type that heads of 80 channels cannot have, and loading fails.
TEST(ReportsShapes, HeadsOf80ChannelsWorkUnderEveryPreset) {
  const Shape shape = {.layers = 1, .query_heads = 2, .kv_heads = 1, .head_dim = 80};
  for (std::uint32_t i = 0; !policy_name(i).empty(); ++i) {
    Policy policy;
    ASSERT_EQ(find_policy(policy_name(i), 64, policy), Status::kOk);
    Rig rig(shape, policy);
    Random random(i);
    for (const float number : feed(rig.cache(), random, policy.keep == Keep::kAll ? 64 : 150)) {
      ASSERT_TRUE(std::isfinite(number)) << policy_name(i);
    }
    EXPECT_EQ(check(rig.cache()), Status::kOk) << policy_name(i);
  }
}

}  // namespace
}  // namespace nibkv::reports_shapes_test
