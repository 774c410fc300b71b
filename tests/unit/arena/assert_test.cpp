#include <gtest/gtest.h>

#include <cstddef>
#include <cstring>
#include <vector>

#include "nibkv/nibkv.hpp"
#include "tests/support/arena.hpp"
#include "tests/support/rig.hpp"

// What is watched in tests: the library's own asserts (numbers/assert.hpp), and the gaps between the regions of a Rig's arena.

namespace nibkv::assert_test {
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

#ifdef NIBKV_SANITIZED
extern "C" int __asan_address_is_poisoned(const volatile void* at);

TEST(Gaps, AreWatchedBetweenTheRegionsOfTheState) {
  constexpr Policy kPolicy = ems(64);
  const Layout at = layout_of(kShape, kPolicy);
  const test::Rig rig(kShape, kPolicy);
  const std::byte* bytes = rig.arena().bytes().data();
  const auto watched = [&](std::uint64_t offset) { return __asan_address_is_poisoned(bytes + offset) != 0; };
  // One chain; links and bases of 3 tiles. Poison begins at multiples of 8.
  EXPECT_FALSE(watched(at.chains) || watched(at.chains + sizeof(Chain) - 1));
  EXPECT_TRUE(watched(at.chains + (sizeof(Chain) + 7) / 8 * 8) && watched(at.links - 1));
  EXPECT_FALSE(watched(at.links) || watched(at.links + 4 * at.tiles - 1));
  EXPECT_TRUE(watched(at.links + (4 * at.tiles + 7) / 8 * 8) && watched(at.bases - 1));
  EXPECT_EQ(at.layout + sizeof(Layout), at.total) << "the layout fills its region";
  volatile std::size_t count = 8;  // a function's call, which is watched in this file too
  EXPECT_DEATH(std::memset(const_cast<std::byte*>(bytes) + at.links - 8, 0, count), "use-after-poison");
}
#endif

}  // namespace
}  // namespace nibkv::assert_test
