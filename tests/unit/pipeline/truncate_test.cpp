#include "nibkv/truncate.hpp"

#include <gtest/gtest.h>

#include <algorithm>

#include "tests/support/effort.hpp"
#include "tests/support/feed.hpp"
#include "tests/support/model_of.hpp"
#include "tests/support/snapshots.hpp"

namespace nibkv::truncate_test {
namespace {

using test::go_on;
using test::model_of;
using test::Random;
using test::Rig;
using test::saved;
using test::TakenApart;

constexpr Shape kShape{.layers = 2, .query_heads = 4, .kv_heads = 2, .head_dim = 32, .max_chunk = 24};

// Appends `count` random tokens to every layer, without queries.
void append_tokens(Cache& cache, Random& random, std::uint32_t count) {
  const Shape& shape = cache.shape();
  for (std::uint32_t layer = 0; layer < shape.layers; ++layer) {
    const std::vector<float> keys = random.bells(std::size_t{count} * shape.kv_heads * shape.head_dim);
    ASSERT_EQ(append(cache, layer, keys, random.bells(keys.size())), Status::kOk);
  }
}

// A snapshot without what a cache has held at most, which is not taken back.
std::vector<std::byte> content(const Cache& cache) {
  TakenApart parts(saved(cache));
  TakenApart::put<std::uint32_t>(parts.header, 40, 0);
  TakenApart::put<std::uint64_t>(parts.header, 48, 0);
  return parts.sealed();
}

// Whether `count` tokens more need no space to be made.
bool fits(const Rig& rig, std::uint32_t count) {
  const Cache& cache = rig.cache();
  const std::uint32_t slack = cache.policy().keep == Keep::kAll ? 0 : 32;
  for (std::uint32_t layer = 0; layer < cache.shape().layers; ++layer) {
    for (std::uint32_t head = 0; head < cache.shape().kv_heads; ++head) {
      const std::uint32_t held = cache.held(layer, head);
      if (has_tiers(rig.policy())) {
        const reference::ArenaModel model = test::model_of(rig);
        const std::uint32_t tail = held - model.kept(layer, head).used - model.faint(layer, head).used;
        if (tail + count > rig.policy().tail + rig.shape().max_chunk + 31) return false;
      } else if (held + count > cache.budget(layer, head) + slack) {
        return false;
      }
    }
  }
  return true;
}

struct Twin {
  explicit Twin(const Cache& of) : arena(of.usage().arena_bytes) {
    EXPECT_EQ(clone(of, arena.bytes(), cache), Status::kOk);
  }
  test::Arena arena;
  Cache cache;
};

std::vector<std::pair<std::string, Policy>> policies() {
  std::vector<std::pair<std::string, Policy>> list = {
      {"full", full(300)}, {"streaming_llm", streaming_llm(70, 4)}, {"precise_tail", precise_tail(300)}};
  const auto presets = test::scored_presets(kShape, 80);
  for (std::size_t i = 0; i < presets.size(); i += test::kEvery) list.emplace_back(presets[i].name, presets[i].policy);
  return list;
}

// Until space is made, the slots are as if the tokens had never come, and so is all that follows.
TEST(Truncate, IsExactUntilSpaceIsMade) {
  for (const auto& [name, policy] : policies()) {
    for (const Storage storage : {Storage::kQ4, Storage::kF32}) {
      if (storage == Storage::kF32 && (policy.keep == Keep::kScore || has_tiers(policy))) continue;
      Shape shape = kShape;
      shape.storage = storage;
      Rig rig(shape, policy);
      Random random(7);
      for (int i = 0; i < 9; ++i) append_tokens(rig.cache(), random, random.within(1, 24));
      const std::uint32_t seen = rig.cache().seen(0);
      Twin before(rig.cache());
      std::uint32_t more = 0;
      while (more < 90 && fits(rig, 5)) {
        append_tokens(rig.cache(), random, 5);
        more += 5;
      }
      ASSERT_GT(more, 0u) << name;
      ASSERT_LE(oldest_exact(rig.cache()), seen) << name;
      ASSERT_EQ(truncate(rig.cache(), seen), Status::kOk) << name;
      EXPECT_EQ(check(rig.cache()), Status::kOk) << name;
      EXPECT_EQ(content(rig.cache()), content(before.cache)) << name;
      Random again(8), too(8);
      EXPECT_EQ(go_on(rig.cache(), again, 7), go_on(before.cache, too, 7)) << name;
      EXPECT_TRUE(rig.arena().guards_intact());
    }
  }
}

// Rejected draft tokens: any part of the last chunk goes back, whatever making space for it has dropped.
TEST(Truncate, TheLastChunkCanAlwaysGoBack) {
  for (const auto& [name, policy] : policies()) {
    if (policy.keep == Keep::kAll) continue;
    Rig rig(kShape, policy);
    Random random(3);
    int spaces = 0;
    for (int round = 0; round < 60; ++round) {
      const std::uint32_t seen = rig.cache().seen(0);
      const std::uint32_t count = random.within(1, 24);
      const std::uint32_t exact = oldest_exact(rig.cache());
      append_tokens(rig.cache(), random, count);
      for (std::uint32_t layer = 0; layer < 2; ++layer) {
        test::attend_all(rig.cache(), layer, random.bells(std::size_t{count} * 4 * 32));
      }
      spaces += oldest_exact(rig.cache()) != exact ? 1 : 0;
      const auto slots = model_of(rig).slots(1, 1);
      const auto notes = model_of(rig).notes(1, 1);
      const std::uint32_t back = random.below(count + 1);
      ASSERT_EQ(truncate(rig.cache(), seen + count - back), Status::kOk) << name << ", " << back;
      ASSERT_EQ(check(rig.cache()), Status::kOk) << name;
      const auto left = model_of(rig).slots(1, 1);
      ASSERT_EQ(left.size(), slots.size() - back) << name;
      EXPECT_TRUE(std::equal(left.begin(), left.end(), slots.begin())) << name;
      const auto left_notes = model_of(rig).notes(1, 1);
      EXPECT_TRUE(std::equal(left_notes.begin(), left_notes.end(), notes.begin())) << name;
    }
    EXPECT_GT(spaces, 5) << name;
  }
}

TEST(Truncate, SaysHowFarBackItCanGo) {
  for (const auto& [name, policy] : policies()) {
    Rig rig(kShape, policy);
    Random random(5);
    test::feed(rig.cache(), random, 290);
    const std::uint32_t oldest = oldest_reachable(rig.cache());
    const std::uint32_t newest = policy.keep == Keep::kRecent ? 66
                                 : policy.keep == Keep::kAll  ? 290
                                                              : recent_of(policy, 250);
    EXPECT_LE(oldest, 290 - newest) << name;
    EXPECT_LE(oldest, oldest_exact(rig.cache())) << name;
    const auto state = rig.copy_state();
    if (oldest > 0) {
      EXPECT_EQ(truncate(rig.cache(), oldest - 1), Status::kGone) << name;
    }
    EXPECT_EQ(truncate(rig.cache(), 291), Status::kBadArgument) << name;
    EXPECT_EQ(rig.copy_state(), state) << name;
    ASSERT_EQ(truncate(rig.cache(), oldest), Status::kOk) << name;
    EXPECT_EQ(rig.cache().seen(0), oldest);
    EXPECT_EQ(rig.cache().seen(1), oldest);
    EXPECT_EQ(check(rig.cache()), Status::kOk) << name;
    EXPECT_EQ(oldest_exact(rig.cache()), policy.keep == Keep::kAll ? 0 : oldest) << name;
    Random more(6);
    test::feed(rig.cache(), more, 100);
    EXPECT_EQ(check(rig.cache()), Status::kOk) << name;
  }
  Cache none;
  EXPECT_EQ(truncate(none, 0), Status::kNotReady);
  EXPECT_EQ(oldest_reachable(none), 0u);
  EXPECT_EQ(oldest_exact(none), 0u);
}

// A merge into a recent slot, by a caller's plan, ends what can go back there.
TEST(Truncate, ACentreDoesNotGoBack) {
  Rig rig(kShape, ems(80));
  Random random(2);
  test::feed(rig.cache(), random, 40);
  std::vector<std::uint32_t> target(40);
  for (std::uint32_t i = 0; i < 40; ++i) target[i] = i == 0 ? kMember + 29 : i - 1;  // into slot 30
  ASSERT_EQ(compact(rig.cache(), 1, 0, target), Status::kOk);
  EXPECT_EQ(oldest_reachable(rig.cache()), 31u);
  EXPECT_EQ(oldest_exact(rig.cache()), 40u);
  EXPECT_EQ(truncate(rig.cache(), 30), Status::kGone);
  EXPECT_EQ(truncate(rig.cache(), 31), Status::kOk);
  EXPECT_EQ(rig.cache().held(1, 0), 30u);
  EXPECT_EQ(rig.cache().held(0, 0), 31u);
}

// A pass that failed in a layer leaves the layers before it ahead.
TEST(Truncate, BringsLayersIntoStep) {
  Rig rig(kShape, ems(80));
  Random random(2);
  test::feed(rig.cache(), random, 50);
  const auto before = content(rig.cache());
  const std::vector<float> rows = random.bells(std::size_t{24} * 2 * 32);
  ASSERT_EQ(append(rig.cache(), 0, rows, rows), Status::kOk);
  ASSERT_EQ(truncate(rig.cache(), 50), Status::kOk);
  EXPECT_EQ(content(rig.cache()), before);
}

// Speculative decoding: draft tokens come, some go back, and nothing is left of them.
TEST(Truncate, DraftsLeaveNoTraceUnderFull) {
  Rig rig(kShape, full(300)), plain(kShape, full(300));
  Random random(4);
  for (int round = 0; round < 40; ++round) {
    const std::uint32_t seen = rig.cache().seen(0);
    const std::uint32_t accepted = random.within(1, 5);
    const Random same = random;
    Random rows = same;
    append_tokens(plain.cache(), rows, accepted);
    // The same rows, and others behind them.
    Random drafts = same;
    for (std::uint32_t layer = 0; layer < 2; ++layer) {
      std::vector<float> keys = drafts.bells(std::size_t{accepted} * 64);
      std::vector<float> values = drafts.bells(keys.size());
      const std::vector<float> rejected = Random(layer + 9).bells((5 - accepted) * std::size_t{64});
      keys.insert(keys.end(), rejected.begin(), rejected.end());
      values.insert(values.end(), rejected.begin(), rejected.end());
      ASSERT_EQ(append(rig.cache(), layer, keys, values), Status::kOk);
    }
    ASSERT_EQ(truncate(rig.cache(), seen + accepted), Status::kOk);
    random = rows;
    ASSERT_EQ(content(rig.cache()), content(plain.cache()));
  }
}

// Each query that was taken back has added 1 in all to the global scores of a head.
TEST(Truncate, ScoresKeepAtMostOneForEachQuery) {
  Policy policy = ems_no_merge(200);
  policy.budget = Budget::kUniform;  // a chain holds 232 slots at most, so shares are units of 256 slots
  Rig rig(kShape, policy);
  Random random(11);
  test::feed(rig.cache(), random, 100);
  const auto before = model_of(rig).notes(1, 0);
  test::feed(rig.cache(), random, 20);
  ASSERT_EQ(truncate(rig.cache(), 100), Status::kOk);
  const auto after = model_of(rig).notes(1, 0);
  ASSERT_EQ(after.size(), before.size());
  double added = 0;
  for (std::size_t i = 0; i < after.size(); ++i) {
    ASSERT_EQ(after[i].position, before[i].position);
    ASSERT_GE(after[i].global, before[i].global);
    added += static_cast<double>(after[i].global - before[i].global) / (1 << 24);
  }
  EXPECT_GT(added, 5);
  EXPECT_LT(added, 20.01);
}

// What has folded stays, the newest slots can go back, and both layers of a pair stay in step.
TEST(Truncate, WorksInAnyCache) {
  for (const test::SnapshotCase& each : test::some_snapshot_cases()) {
    Rig rig(each.shape, each.policy, {}, 1, each.budgets);
    Random random(12);
    for (int round = 0; round < 6; ++round) {
      go_on(rig.cache(), random, 3);
      const std::uint32_t seen = rig.cache().seen(0);
      const std::uint32_t oldest = oldest_reachable(rig.cache());
      ASSERT_LT(oldest, seen) << each.name;
      ASSERT_EQ(truncate(rig.cache(), random.within(oldest, seen)), Status::kOk) << each.name;
      ASSERT_EQ(check(rig.cache()), Status::kOk) << each.name;
      test::come_back(rig.cache());
    }
    EXPECT_TRUE(rig.arena().guards_intact()) << each.name;
  }
}

TEST(Truncate, ASnapshotSaysHowFarBackItCanGo) {
  for (const test::SnapshotCase& each : test::some_snapshot_cases()) {
    Rig rig(each.shape, each.policy, {}, 1, each.budgets), other(each.shape, each.policy, {}, 1, each.budgets);
    Random random(13);
    go_on(rig.cache(), random, 15);
    const std::uint32_t seen = rig.cache().seen(0), oldest = oldest_reachable(rig.cache());
    TakenApart parts(saved(rig.cache()));
    ASSERT_EQ(TakenApart::get<std::uint32_t>(parts.header, 56), oldest) << each.name;
    ASSERT_EQ(restore(other.cache(), parts.sealed()), Status::kOk) << each.name;
    EXPECT_EQ(oldest_reachable(other.cache()), oldest) << each.name;
    EXPECT_EQ(oldest_exact(other.cache()), oldest == 0 ? 0 : seen) << each.name;
    ASSERT_EQ(truncate(other.cache(), oldest), Status::kOk) << each.name;
    EXPECT_EQ(check(other.cache()), Status::kOk) << each.name;
    if (oldest == 0) continue;
    // A snapshot of before it was said.
    TakenApart::put<std::uint32_t>(parts.header, 56, 0);
    ASSERT_EQ(restore(other.cache(), parts.sealed()), Status::kOk) << each.name;
    EXPECT_EQ(oldest_reachable(other.cache()), seen) << each.name;
    // More than there is.
    for (const std::uint32_t wrong : {std::uint32_t{1}, seen + 1}) {
      TakenApart::put<std::uint32_t>(parts.header, 56, wrong);
      EXPECT_EQ(restore(other.cache(), parts.sealed()), Status::kCorrupt) << each.name << ", " << wrong;
    }
  }
}

TEST(Truncate, CheckFindsWrongBounds) {
  Rig rig(kShape, ems(80));
  Random random(1);
  test::feed(rig.cache(), random, 150);
  ASSERT_EQ(check(rig.cache()), Status::kOk);
  auto* header = const_cast<std::byte*>(rig.arena().bytes().data());
  const auto damaged = [&](std::size_t offset, std::uint32_t value) {
    std::uint32_t kept;
    std::memcpy(&kept, header + offset, 4);
    std::memcpy(header + offset, &value, 4);
    const Status status = check(rig.cache());
    std::memcpy(header + offset, &kept, 4);
    return status;
  };
  for (const std::uint32_t wrong : {0u, 1u, 151u, 0xffffffffu})
    EXPECT_EQ(damaged(32, wrong), Status::kCorrupt) << wrong;
  for (const std::uint32_t wrong : {0u, 151u, 0xffffffffu}) EXPECT_EQ(damaged(36, wrong), Status::kCorrupt) << wrong;
  EXPECT_EQ(check(rig.cache()), Status::kOk);
}

}  // namespace
}  // namespace nibkv::truncate_test
