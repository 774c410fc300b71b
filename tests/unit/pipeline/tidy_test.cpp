#include "nibkv/tidy.hpp"

#include <gtest/gtest.h>

#include "tests/support/feed.hpp"
#include "tests/support/snapshots.hpp"

namespace nibkv::tidy_test {
namespace {

using test::Random;
using test::Rig;
using test::saved;

// How many heads hold something else than before.
std::uint32_t changed_heads(const Cache& a, const Cache& b) {
  std::uint32_t count = 0;
  for (std::uint32_t layer = 0; layer < a.shape().layers; ++layer) {
    for (std::uint32_t head = 0; head < a.shape().kv_heads; ++head) {
      count += a.held(layer, head) != b.held(layer, head) ? 1 : 0;
    }
  }
  return count;
}

// Space is made between tokens, one head at a time, and all outputs are those of append's own.
TEST(Tidy, GivesTheSameBytesAndAppendMakesNoSpace) {
  for (const test::SnapshotCase& each : test::some_snapshot_cases()) {
    Rig rig(each.shape, each.policy, {}, 1, each.budgets), plain(each.shape, each.policy, {}, 1, each.budgets);
    test::Arena arena(rig.cache().usage().arena_bytes);
    Random random(4), same(4);
    std::uint32_t steps = 0;
    for (int token = 0; token < 300; ++token) {
      const std::uint32_t exact = oldest_exact(rig.cache());
      ASSERT_EQ(test::feed(rig.cache(), random, 1), test::feed(plain.cache(), same, 1)) << each.name;
      const bool folds = layout_of(each.shape, each.policy).views != 0;
      if (!folds) {
        ASSERT_EQ(oldest_exact(rig.cache()), exact) << each.name << ": append made space";
      }
      for (bool done = false; !done; ++steps) {
        Cache before;
        ASSERT_EQ(clone(rig.cache(), arena.bytes(), before), Status::kOk);
        ASSERT_EQ(tidy(rig.cache(), 1, done), Status::kOk) << each.name;
        const std::uint32_t heads = changed_heads(rig.cache(), before);
        if (done && token % 16 == 0) {
          ASSERT_EQ(saved(rig.cache()), saved(before)) << each.name;
        } else if (done) {
          ASSERT_EQ(heads, 0u) << each.name;
        } else if (each.policy.budget == Budget::kAdaptive) {
          ASSERT_TRUE(heads >= 1 && heads <= each.shape.kv_heads) << each.name;
        } else {
          const bool lowered = heads == 0 && has_tiers(each.policy);  // a tail whose slots all found space
          ASSERT_TRUE(lowered || heads == (folds ? 2u : 1u)) << each.name;
        }
      }
    }
    EXPECT_EQ(check(rig.cache()), Status::kOk) << each.name;
    EXPECT_EQ(steps > 300, each.policy.keep != Keep::kAll || has_tiers(each.policy)) << each.name;
  }
}

TEST(Tidy, RefusesWhatDoesNotFit) {
  const Shape shape{.layers = 2, .query_heads = 2, .kv_heads = 1, .head_dim = 16, .max_chunk = 6};
  Rig rig(shape, ems(40));
  bool done = false;
  Cache none;
  EXPECT_EQ(tidy(none, 1, done), Status::kNotReady);
  EXPECT_EQ(tidy(rig.cache(), 0, done), Status::kBadArgument);
  EXPECT_EQ(tidy(rig.cache(), 7, done), Status::kBadArgument);
  EXPECT_FALSE(done);
  EXPECT_EQ(tidy(rig.cache(), 6, done), Status::kOk);
  EXPECT_TRUE(done);
}

// A cache whose heads take turns, or the same without turns.
struct TakingTurns {
  explicit TakingTurns(const Shape& shape, const Policy& policy, const std::vector<std::uint32_t>& budgets = {},
                       bool turns = true)
      : rig(shape, policy, {}, 1, budgets), arena(footprint(shape, policy)) {
    EXPECT_EQ(cache.init(arena.bytes(), shape, policy,
                         {.port = {}, .profile = rig.profile(), .budgets = budgets, .weights = 0, .turns = turns}),
              Status::kOk);
  }
  Rig rig;  // its profile
  test::Arena arena;
  Cache cache;
};

constexpr Shape kSixHeads{.layers = 3, .query_heads = 4, .kv_heads = 2, .head_dim = 16, .max_chunk = 8};

TEST(Turns, SpaceIsMadeInOneHeadAtATimeAndQueriesSeeTheBudget) {
  TakingTurns turns(kSixHeads, ems(64)), plain(kSixHeads, ems(64), {}, false);
  test::Arena arena(turns.arena.bytes().size());
  Random random(4), same(4);
  std::uint32_t cuts = 0;
  for (std::uint32_t token = 0; token < 400; ++token) {
    Cache before;
    ASSERT_EQ(clone(turns.cache, arena.bytes(), before), Status::kOk);
    test::feed(turns.cache, random, 1);
    test::feed(plain.cache, same, 1);
    std::uint32_t cut = 0;
    for (std::uint32_t layer = 0; layer < kSixHeads.layers; ++layer) {
      for (std::uint32_t head = 0; head < kSixHeads.kv_heads; ++head) {
        const std::uint32_t held = turns.cache.held(layer, head);
        ASSERT_GE(held, std::min(token + 1, 64u));
        ASSERT_LE(held, 64u + 32u);
        if (held > before.held(layer, head)) continue;
        ++cut;
        EXPECT_EQ(token % 32, (2 * layer + head) * 32 / 6);
      }
    }
    ASSERT_LE(cut, 1u);
    cuts += cut;
    if (token < 64) {
      ASSERT_EQ(saved(turns.cache), saved(plain.cache));
    }
  }
  EXPECT_GE(cuts, 6u * 10);
}

TEST(Turns, AfterChunksSingleTokensComeToThemAgain) {
  TakingTurns turns(kSixHeads, ems(64));
  Random random(4);
  for (int chunk = 0; chunk < 20; ++chunk) test::feed(turns.cache, random, 8);
  for (bool done = false; !done;) ASSERT_EQ(tidy(turns.cache, 8, done), Status::kOk);
  for (std::uint32_t token = 160; token < 260; ++token) {
    std::uint32_t before[6], cut = 0;
    for (std::uint32_t i = 0; i < 6; ++i) before[i] = turns.cache.held(i / 2, i % 2);
    test::feed(turns.cache, random, 1);
    for (std::uint32_t i = 0; i < 6; ++i) cut += turns.cache.held(i / 2, i % 2) <= before[i] ? 1 : 0;
    ASSERT_LE(cut, 1u) << token;
  }
}

TEST(Turns, TidyPlanAndCloneKnowThem) {
  for (const test::SnapshotCase& each : test::some_snapshot_cases()) {
    TakingTurns tidied(each.shape, each.policy, each.budgets), plain(each.shape, each.policy, each.budgets);
    Random random(4), same(4);
    for (int token = 0; token < 200; ++token) {
      ASSERT_EQ(test::feed(tidied.cache, random, 1), test::feed(plain.cache, same, 1)) << each.name;
      for (bool done = false; !done;) ASSERT_EQ(tidy(tidied.cache, 1, done), Status::kOk) << each.name;
    }
    ASSERT_EQ(check(plain.cache), Status::kOk) << each.name;
    test::Arena arena(plain.arena.bytes().size());
    Cache copy;
    ASSERT_EQ(clone(plain.cache, arena.bytes(), copy), Status::kOk) << each.name;
    Random here(7), there(7);
    for (int token = 0; token < 40; ++token)
      ASSERT_EQ(test::feed(copy, here, 1), test::feed(plain.cache, there, 1)) << each.name;
    EXPECT_EQ(saved(copy), saved(plain.cache)) << each.name;
    for (int chunk = 0; chunk < 5; ++chunk) test::feed(copy, here, std::min<std::uint32_t>(5, each.shape.max_chunk));
    EXPECT_EQ(check(copy), Status::kOk) << each.name;
  }
}

TEST(Wipe, LeavesNothingOfWhatWasHeld) {
  for (const test::SnapshotCase& each : test::some_snapshot_cases()) {
    Rig rig(each.shape, each.policy, {}, 1, each.budgets), fresh(each.shape, each.policy, {}, 1, each.budgets);
    Random random(9);
    test::go_on(rig.cache(), random, 20);
    ASSERT_EQ(rig.cache().wipe(), Status::kOk) << each.name;
    EXPECT_EQ(rig.copy_state(), fresh.copy_state()) << each.name;
    std::vector<std::byte> all = rig.arena().copy();
    const Layout at = layout_of(each.shape, each.policy);
    for (std::size_t i = static_cast<std::size_t>(at.plan); i < at.layout; ++i) {
      ASSERT_EQ(all[i], std::byte{0}) << each.name << ", byte " << i;
    }
    Random same(2), too(2);
    EXPECT_EQ(test::go_on(rig.cache(), same, 5), test::go_on(fresh.cache(), too, 5)) << each.name;
  }
  Cache none;
  EXPECT_EQ(none.wipe(), Status::kNotReady);
}

}  // namespace
}  // namespace nibkv::tidy_test
