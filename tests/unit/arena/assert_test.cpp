#include <gtest/gtest.h>

#include <cstddef>
#include <cstring>
#include <vector>

#include "nibkv/nibkv.hpp"
#include "tests/support/arena.hpp"

// What the library checks of itself in tests (arena/assert.hpp).

namespace nibkv {
namespace {

constexpr Shape kShape = {.layers = 1, .query_heads = 1, .kv_heads = 1, .head_dim = 16};

// An append into an arena whose header says that no tile is free.
void append_to_a_full_pool() {
  test::Arena arena(footprint(kShape, ems(64)));
  Cache cache;
  ASSERT_EQ(cache.init(arena.bytes(), kShape, ems(64)), Status::kOk);
  const auto tiles = static_cast<std::uint32_t>(layout_of(kShape, ems(64)).tiles);
  std::memcpy(arena.bytes().data() + 4, &tiles, sizeof tiles);
  const std::vector<float> row(16, 1.0f);
  EXPECT_EQ(append(cache, 0, row, row), Status::kOk);
}

#ifdef NIBKV_ASSERTS
#if GTEST_HAS_DEATH_TEST
TEST(Asserts, StopAtWhatCannotBe) {
  EXPECT_DEATH(append_to_a_full_pool(), "");
}
#endif
#else
TEST(Asserts, CostNothingWithoutNibkvAsserts) {
  append_to_a_full_pool();
}
#endif

}  // namespace
}  // namespace nibkv
