#include "nibkv/move.hpp"

#include <gtest/gtest.h>

#include <algorithm>

#include "tests/support/effort.hpp"
#include "tests/support/feed.hpp"
#include "tests/support/model_of.hpp"
#include "tests/support/rows.hpp"
#include "tests/support/snapshots.hpp"

namespace nibkv::move_test {
namespace {

using test::feed;
using test::go_on;
using test::model_of;
using test::Random;
using test::Rig;
using test::saved;

constexpr Shape kShape{.layers = 2, .query_heads = 4, .kv_heads = 2, .head_dim = 32, .max_chunk = 8};

std::vector<std::uint32_t> positions(const Cache& cache, std::uint32_t layer, std::uint32_t head) {
  std::vector<std::uint32_t> list;
  for (const SlotInfo& slot : test::explain_all(cache, layer, head)) list.push_back(slot.position);
  return list;
}

TEST(Clone, GoesOnAsTheOtherDoes) {
  for (const test::SnapshotCase& each : test::some_snapshot_cases()) {
    Rig rig(each.shape, each.policy, {}, 1, each.budgets);
    Random random(3);
    go_on(rig.cache(), random, 9);
    const std::size_t bytes = rig.cache().usage().arena_bytes;
    test::Arena arenas[2] = {test::Arena(bytes), test::Arena(bytes)};
    Cache forks[2];
    for (int i = 0; i < 2; ++i) {
      ASSERT_EQ(clone(rig.cache(), arenas[i].bytes(), forks[i]), Status::kOk) << each.name;
      EXPECT_EQ(saved(forks[i]), saved(rig.cache())) << each.name;
      EXPECT_EQ(check(forks[i]), Status::kOk) << each.name;
      EXPECT_EQ(forks[i].port(), rig.cache().port());
    }
    // Each continues in its own way, and the first as the original would.
    const auto prefix = saved(rig.cache());
    Random same = random, too = random, different(99);
    const auto first = go_on(forks[0], same, 6);
    EXPECT_EQ(saved(rig.cache()), prefix) << each.name;
    EXPECT_NE(go_on(forks[1], different, 6), first) << each.name;
    EXPECT_EQ(go_on(rig.cache(), too, 6), first) << each.name;
    EXPECT_EQ(saved(rig.cache()), saved(forks[0])) << each.name;
    EXPECT_TRUE(arenas[0].guards_intact() && arenas[1].guards_intact()) << each.name;
  }
}

TEST(Clone, RefusesAndChangesNothing) {
  Rig rig(kShape, ems(64));
  Random random(3);
  feed(rig.cache(), random, 30);
  const std::size_t bytes = rig.cache().usage().arena_bytes;
  test::Arena arena(bytes + kArenaAlignment);
  Cache none, to;
  const auto untouched = arena.copy();
  EXPECT_EQ(clone(none, arena.bytes(), to), Status::kNotReady);
  EXPECT_EQ(clone(rig.cache(), arena.bytes().first(bytes - 1), to), Status::kArenaTooSmall);
  EXPECT_EQ(clone(rig.cache(), arena.bytes().subspan(1), to), Status::kMisaligned);
  EXPECT_EQ(arena.copy(), untouched);
  auto* own = const_cast<std::byte*>(rig.arena().bytes().data());
  EXPECT_EQ(clone(rig.cache(), {own, bytes}, to), Status::kBadArgument);
  EXPECT_FALSE(to.ready());
  EXPECT_EQ(check(rig.cache()), Status::kOk);
}

// Without a cut, all that a slot has comes along.
TEST(MoveTo, AllSlotsMoveToALargerCache) {
  for (const auto& [name, policy] : test::scored_presets(kShape, 96)) {
    Rig from(kShape, policy);
    Random random(4);
    feed(from.cache(), random, 300);
    Policy larger = policy;
    larger.tokens = 300;
    Shape shape = kShape;
    shape.max_chunk = 20;
    shape.workers = 3;
    Rig to(shape, larger);
    Random junk(5);
    feed(to.cache(), junk, 20);
    const auto before = saved(from.cache());
    ASSERT_EQ(move_to(from.cache(), to.cache()), Status::kOk) << name;
    EXPECT_EQ(saved(from.cache()), before) << name;
    EXPECT_EQ(check(to.cache()), Status::kOk) << name;
    EXPECT_EQ(to.cache().seen(1), 300u);
    EXPECT_EQ(oldest_reachable(to.cache()), oldest_reachable(from.cache())) << name;
    EXPECT_EQ(oldest_exact(to.cache()), oldest_exact(from.cache())) << name;
    for (std::uint32_t head = 0; head < 2; ++head) {
      EXPECT_EQ(model_of(to).slots(1, head), model_of(from).slots(1, head)) << name;
      EXPECT_EQ(model_of(to).notes(1, head), model_of(from).notes(1, head)) << name;
    }
    // Both give the same attention until one makes space.
    Random same(6), too(6);
    EXPECT_EQ(feed(from.cache(), same, 1), feed(to.cache(), too, 1)) << name;
  }
}

// The slots that stay are those that compact_now would keep, cut in one step.
TEST(MoveTo, ASmallerBudgetKeepsTheBestSlots) {
  Policy policy = snapkv(256);
  policy.pool = 1;
  policy.recent = 20;
  policy.sinks = 3;
  Policy smaller = policy;
  smaller.tokens = 96;
  Rig from(kShape, policy), to(kShape, smaller);
  Random random(4);
  feed(from.cache(), random, 400);
  ASSERT_EQ(move_to(from.cache(), to.cache()), Status::kOk);
  EXPECT_EQ(check(to.cache()), Status::kOk);
  EXPECT_EQ(oldest_reachable(to.cache()), 380u);
  EXPECT_EQ(oldest_exact(to.cache()), 400u);
  ASSERT_EQ(compact_now(from.cache(), 96, Budget::kUniform), Status::kOk);
  for (std::uint32_t layer = 0; layer < 2; ++layer) {
    for (std::uint32_t head = 0; head < 2; ++head) {
      EXPECT_EQ(to.cache().held(layer, head), 96u);
      EXPECT_EQ(positions(to.cache(), layer, head), positions(from.cache(), layer, head));
      EXPECT_EQ(model_of(to).notes(layer, head), model_of(from).notes(layer, head));
      EXPECT_EQ(model_of(to).slots(layer, head), model_of(from).slots(layer, head));
    }
  }
}

TEST(MoveTo, OtherPoliciesFindWhatTheyNeed) {
  Rig all(kShape, full(200));
  Random random(4);
  feed(all.cache(), random, 200);
  // No scores: the sinks and the newest slots stay.
  Rig scored(kShape, ems_no_merge(64));
  ASSERT_EQ(move_to(all.cache(), scored.cache()), Status::kOk);
  std::vector<std::uint32_t> expected = {0, 1, 2, 3};
  for (std::uint32_t i = 140; i < 200; ++i) expected.push_back(i);
  EXPECT_EQ(positions(scored.cache(), 0, 1), expected);
  EXPECT_EQ(oldest_reachable(scored.cache()), 168u);
  Rig window(kShape, streaming_llm(64, 4));
  ASSERT_EQ(move_to(all.cache(), window.cache()), Status::kOk);
  EXPECT_EQ(positions(window.cache(), 0, 1), expected);
  EXPECT_EQ(oldest_reachable(window.cache()), 140u);
  // From a window, positions are known; to a cache that keeps everything, if it has space.
  Rig wide(kShape, full(96)), narrow(kShape, full(32));
  ASSERT_EQ(move_to(scored.cache(), wide.cache()), Status::kOk);
  EXPECT_EQ(model_of(wide).slots(0, 1), model_of(scored).slots(0, 1));
  const auto before = narrow.copy_state();
  EXPECT_EQ(move_to(scored.cache(), narrow.cache()), Status::kFull);
  EXPECT_EQ(narrow.copy_state(), before);
  Rig again(kShape, ems(100));
  ASSERT_EQ(move_to(window.cache(), again.cache()), Status::kOk);
  EXPECT_EQ(positions(again.cache(), 1, 0), expected);
  for (Rig* rig : {&scored, &window, &wide, &again}) EXPECT_EQ(check(rig->cache()), Status::kOk);
}

TEST(MoveTo, RefusesWhatDoesNotFit) {
  Rig from(kShape, ems(64));
  Random random(4);
  feed(from.cache(), random, 80);
  Cache none;
  const auto refuses = [&](Shape shape, const Policy& policy, Status status, std::uint64_t seed = 1) {
    Rig to(shape, policy, {}, seed);
    Random junk(5);
    feed(to.cache(), junk, 9);
    const auto before = to.copy_state();
    EXPECT_EQ(move_to(from.cache(), to.cache()), status);
    EXPECT_EQ(to.copy_state(), before);
  };
  EXPECT_EQ(move_to(none, from.cache()), Status::kNotReady);
  EXPECT_EQ(move_to(from.cache(), none), Status::kNotReady);
  EXPECT_EQ(move_to(from.cache(), from.cache()), Status::kBadArgument);
  Shape shape = kShape;
  shape.layers = 3;
  refuses(shape, ems(64), Status::kOtherShape);
  shape = kShape;
  shape.storage = Storage::kF32;
  refuses(shape, full(64), Status::kOtherShape);
  shape = kShape;
  shape.head_dim = 48;
  refuses(shape, ems(64), Status::kOtherShape);
  shape = kShape;
  shape.outlier_channels = 4;
  refuses(shape, ems(64), Status::kOtherShape);
  refuses(kShape, head_kv(64), Status::kOtherProfile);  // it has a profile, the other none
  Policy folds = minicache(600, pairs_from(0, 2));
  folds.fold.recent = 0;
  ASSERT_NE(layout_of(kShape, folds).views, 0u);
  refuses(kShape, folds, Status::kOtherPolicy);
  const std::vector<float> rows = random.bells(64);
  ASSERT_EQ(append(from.cache(), 0, rows, rows), Status::kOk);
  refuses(kShape, ems(64), Status::kBadArgument);
}

TEST(MoveTo, KeysWereCodedByTheReach) {
  const auto moved = [&](std::uint32_t from_reach, std::uint32_t to_reach) {
    Shape from = kShape, to = kShape;
    from.rotary = {.base = 1e4f, .dims = 16, .reach = from_reach};
    to.rotary = {.base = 1e4f, .dims = 16, .reach = to_reach};
    Rig first(from, ems(64)), second(to, ems(64));
    return move_to(first.cache(), second.cache());
  };
  EXPECT_EQ(moved(0, 64), Status::kOtherShape);
  EXPECT_EQ(moved(64, 0), Status::kOtherShape);
  EXPECT_EQ(moved(64, 128), Status::kOtherShape);
  EXPECT_EQ(moved(64, 64), Status::kOk);
}

// Without Keep::kScore a slot's position follows from its number.
TEST(MoveTo, WithAReachPositionsMustBeKnown) {
  Shape shape = {.layers = 1, .query_heads = 1, .kv_heads = 1, .head_dim = 16, .max_chunk = 8};
  const auto moved = [&](const Policy& from, const Policy& to) {
    Rig source(shape, from), target(shape, to), imported(shape, to);
    Random random(7);
    const auto rows = random.bells(8 * 16);
    for (int i = 0; i < 12; ++i) EXPECT_EQ(append(source.cache(), 0, rows, rows), Status::kOk);
    const auto before = target.copy_state();
    const Status status = move_to(source.cache(), target.cache());
    EXPECT_EQ(import_snapshot(imported.cache(), shape, from, test::saved(source.cache())), status);
    if (status != Status::kOk) {
      EXPECT_EQ(target.copy_state(), before);
    }
    return status;
  };
  shape.rotary = {.base = 1e4f, .dims = 16, .reach = 32};
  EXPECT_EQ(moved(ems_no_merge(64), full(128)), Status::kOtherPolicy);
  EXPECT_EQ(moved(ems_no_merge(64), streaming_llm(128)), Status::kOtherPolicy);
  EXPECT_EQ(moved(streaming_llm(64, 4), full(128)), Status::kOtherPolicy);
  EXPECT_EQ(moved(streaming_llm(64, 4), streaming_llm(96, 8)), Status::kOtherPolicy);
  EXPECT_EQ(moved(streaming_llm(64, 4), streaming_llm(40, 4)), Status::kOk);
  EXPECT_EQ(moved(full(128), streaming_llm(64, 8)), Status::kOk);
  EXPECT_EQ(moved(full(128), full(256)), Status::kOk);
  EXPECT_EQ(moved(streaming_llm(64, 4), ems(96)), Status::kOk);
  EXPECT_EQ(moved(ems(64), ems_no_merge(96)), Status::kOk);
  shape.rotary.reach = 0;
  EXPECT_EQ(moved(ems_no_merge(64), full(128)), Status::kOk);
}

// The score of a sink has no bound. Where it is not a sink, it must have one.
TEST(MoveTo, ASinkMayBecomeASlotLikeAnyOther) {
  constexpr Shape kOne = {.layers = 1, .query_heads = 1, .kv_heads = 1, .head_dim = 16};
  Policy with_sinks = h2o(64);
  with_sinks.sinks = 4;
  Rig from(kOne, with_sinks), to(kOne, h2o(64)), again(kOne, h2o(64));
  for (int i = 0; i < 2000; ++i) {
    const std::vector<float> key(16, i == 0 ? 4.0f : -4.0f), query(16, 4.0f);
    ASSERT_EQ(append(from.cache(), 0, key, key), Status::kOk);
    (void)test::attend_all(from.cache(), 0, query);
  }
  ASSERT_EQ(move_to(from.cache(), to.cache()), Status::kOk);
  EXPECT_EQ(check(to.cache()), Status::kOk);
  std::vector<std::byte> snapshot(static_cast<std::size_t>(snapshot_bytes(to.cache())));
  ASSERT_EQ(save(to.cache(), snapshot), Status::kOk);
  EXPECT_EQ(restore(again.cache(), snapshot), Status::kOk);
}

// There and back between all presets, on all ports.
TEST(MoveTo, AnyPresetToAnyOther) {
  Shape shape = kShape;
  shape.outlier_channels = 4;
  const auto presets = test::scored_presets(shape, 90);
  std::vector<Policy> policies = {full(400), streaming_llm(70, 3), precise_tail(400, 33)};
  for (std::size_t i = 0; i < presets.size(); i += test::kEvery) {
    const Policy& policy = presets[i].policy;
    if (!test::needs_head_scores(policy) && !test::needs_attention(policy)) policies.push_back(policy);
  }
  for (const std::string& port : test::running_ports()) {
    for (const Policy& policy : policies) {
      Rig from(shape, policy, port);
      Random random(9);
      go_on(from.cache(), random, 11);
      for (Policy other : policies) {
        if (other.keep == Keep::kScore && other.budget == Budget::kUniform && other.recent == 0) other.tokens = 60;
        Rig to(shape, other, port);
        ASSERT_EQ(move_to(from.cache(), to.cache()), Status::kOk);
        ASSERT_EQ(check(to.cache()), Status::kOk) << test::words(shape, other, port);
        ASSERT_EQ(truncate(to.cache(), oldest_reachable(to.cache())), Status::kOk);
        ASSERT_EQ(check(to.cache()), Status::kOk) << test::words(shape, other, port);
        go_on(to.cache(), random, 2);
        ASSERT_EQ(check(to.cache()), Status::kOk) << test::words(shape, other, port);
        EXPECT_TRUE(to.arena().guards_intact());
      }
    }
  }
}

TEST(Room, SaysHowMuchAppendTakes) {
  Shape shape = kShape;
  shape.max_chunk = 64;
  for (const std::uint32_t tokens : {1u, 31u, 32u, 33u, 95u}) {
    Rig rig(shape, full(tokens));
    Random random(2);
    std::uint32_t space = room(rig.cache());
    EXPECT_GE(space, tokens);
    while (space != 0) {
      const std::uint32_t count = random.within(1, std::min<std::uint32_t>(space, 64));
      const std::vector<float> rows = random.bells(std::size_t{count} * 64);
      for (std::uint32_t layer = 0; layer < 2; ++layer) ASSERT_EQ(append(rig.cache(), layer, rows, rows), Status::kOk);
      ASSERT_EQ(room(rig.cache()), space - count);
      space -= count;
    }
    const std::vector<float> row = random.bells(64);
    EXPECT_EQ(append(rig.cache(), 0, row, row), Status::kFull);
  }
  Rig bounded(shape, ems(64));
  Random random(2);
  feed(bounded.cache(), random, 100);
  EXPECT_EQ(room(bounded.cache()), 0xffffffff - 100);
  const Cache none;
  EXPECT_EQ(room(none), 0u);
  // Layers that share codes give tiles back as they fold.
  const Shape deep = {.layers = 4, .query_heads = 4, .kv_heads = 2, .head_dim = 48, .max_chunk = 7};
  Policy policy = minicache(300, pairs_from(1, 4));
  policy.fold.recent = 0;
  Rig folded(deep, policy);
  ASSERT_NE(layout_of(deep, policy).views, 0u);
  EXPECT_EQ(room(folded.cache()), 320u);
  feed(folded.cache(), random, 320);
  EXPECT_EQ(room(folded.cache()), 0u);
}

// Where layers have wider codes, no head takes tiles of another, under kAll either.
TEST(MoveTo, RefusesAHeadThatIsTooLongWhereLayersAreWide) {
  const Shape shape = {.layers = 1, .query_heads = 4, .kv_heads = 4, .head_dim = 16, .max_chunk = 8};
  Policy policy = full(320);
  policy.wide.add(0);
  policy.wide_storage = Storage::kQ8;
  Policy smaller = policy;
  smaller.tokens = 96;
  test::Rig from(shape, policy, ""), to(shape, smaller, "");
  const std::vector<float> rows(std::size_t{8} * 4 * 16, 1.0f);
  for (int i = 0; i < 25; ++i) ASSERT_EQ(append(from.cache(), 0, rows, rows), Status::kOk);
  for (std::uint32_t head = 1; head < 4; ++head) {
    std::vector<std::uint32_t> target(200, kDrop);
    for (std::uint32_t i = 0; i < 10; ++i) target[i] = i;
    ASSERT_EQ(compact(from.cache(), 0, head, target), Status::kOk);
  }
  ASSERT_EQ(append(to.cache(), 0, std::span(rows).first(64), std::span(rows).first(64)), Status::kOk);
  EXPECT_EQ(move_to(from.cache(), to.cache()), Status::kFull);
  std::vector<std::byte> snapshot(static_cast<std::size_t>(snapshot_bytes(from.cache())));
  ASSERT_EQ(save(from.cache(), snapshot), Status::kOk);
  EXPECT_EQ(import_snapshot(to.cache(), shape, policy, snapshot), Status::kFull);
  EXPECT_EQ(to.cache().held(0, 0), 1u);
}

}  // namespace
}  // namespace nibkv::move_test
