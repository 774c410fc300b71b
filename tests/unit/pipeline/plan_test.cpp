#include "nibkv/plan.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

#include "tests/reference/arena_model.hpp"
#include "tests/reference/streaming.hpp"
#include "tests/support/effort.hpp"
#include "tests/support/rig.hpp"

namespace nibkv::plan_test {
namespace {

using test::Random;
using test::Rig;
using test::words;

Status check(std::initializer_list<std::uint32_t> target) {
  return check_plan(std::span(target.begin(), target.size()));
}

TEST(CheckPlan, KeptSlotsMoveToZeroOneTwoInOrder) {
  EXPECT_EQ(check({}), Status::kOk);
  EXPECT_EQ(check({0}), Status::kOk);
  EXPECT_EQ(check({kDrop}), Status::kOk);
  EXPECT_EQ(check({0, 1, 2}), Status::kOk);
  EXPECT_EQ(check({0, kDrop, 1}), Status::kOk);
  EXPECT_EQ(check({kDrop, 0, kDrop, kDrop, 1, kDrop}), Status::kOk);

  EXPECT_EQ(check({1}), Status::kBadPlan);
  EXPECT_EQ(check({0, 2}), Status::kBadPlan);
  EXPECT_EQ(check({1, 0}), Status::kBadPlan);
  EXPECT_EQ(check({0, 0}), Status::kBadPlan);
  EXPECT_EQ(check({kDrop, 1}), Status::kBadPlan);
  EXPECT_EQ(check({0, kDrop, 2}), Status::kBadPlan);
  EXPECT_EQ(check({0, 1, 1}), Status::kBadPlan);
  EXPECT_EQ(check({0xfffffffd}), Status::kBadPlan);
}

TEST(CheckPlan, AgreesWithTheDefinitionOnEveryShortArray) {
  for (std::uint32_t size = 0; size <= 5; ++size) {
    std::uint32_t arrays = 1;
    for (std::uint32_t i = 0; i < size; ++i) arrays *= size + 2;
    for (std::uint32_t number = 0; number < arrays; ++number) {
      std::vector<std::uint32_t> target;
      std::vector<std::uint32_t> kept;
      for (std::uint32_t i = 0, rest = number; i < size; ++i, rest /= size + 2) {
        target.push_back(rest % (size + 2) == size + 1 ? kDrop : rest % (size + 2));
        if (target.back() != kDrop) kept.push_back(target.back());
      }
      std::vector<std::uint32_t> counted(kept.size());
      std::iota(counted.begin(), counted.end(), 0u);
      ASSERT_EQ(check_plan(target), kept == counted ? Status::kOk : Status::kBadPlan) << testing::PrintToString(target);
    }
  }
}

TEST(Plan, RefusesIndicesAndSizesOutOfRangeAndWritesNothing) {
  constexpr Shape kShape = {.layers = 2, .query_heads = 4, .kv_heads = 2, .head_dim = 16, .max_chunk = 8};
  Rig rig(kShape, streaming_llm(40));
  const std::vector<float> rows(8 * 2 * 16, 1.0f);
  for (int i = 0; i < 5; ++i) ASSERT_EQ(append(rig.cache(), 0, rows, rows), Status::kOk);
  const std::vector<std::byte> before = rig.arena().copy();
  std::vector<std::uint32_t> target(41, 77);
  const auto first = [&](std::size_t count) { return std::span(target).first(count); };
  EXPECT_EQ(plan(rig.cache(), 2, 0, 1, first(40)), Status::kBadArgument);
  EXPECT_EQ(plan(rig.cache(), 0, 2, 1, first(40)), Status::kBadArgument);
  EXPECT_EQ(plan(rig.cache(), 0xffffffff, 0xffffffff, 1, first(40)), Status::kBadArgument);
  EXPECT_EQ(plan(rig.cache(), 0, 0, 9, first(40)), Status::kBadArgument);
  EXPECT_EQ(plan(rig.cache(), 0, 0, 0xffffffff, first(40)), Status::kBadArgument);
  EXPECT_EQ(plan(rig.cache(), 0, 0, 1, first(39)), Status::kBadArgument);
  EXPECT_EQ(plan(rig.cache(), 0, 0, 1, first(41)), Status::kBadArgument);
  EXPECT_EQ(plan(rig.cache(), 0, 0, 1, {}), Status::kBadArgument);
  EXPECT_EQ(target, std::vector<std::uint32_t>(41, 77));
  EXPECT_EQ(plan(rig.cache(), 0, 0, 8, first(40)), Status::kOk);
  EXPECT_EQ(plan(rig.cache(), 1, 0, 8, {}), Status::kOk);
  EXPECT_EQ(target[40], 77u);
  EXPECT_EQ(rig.arena().copy(), before);
}

TEST(Plan, FullNeverDrops) {
  constexpr Shape kShape = {.layers = 1, .query_heads = 1, .kv_heads = 1, .head_dim = 16, .max_chunk = 8};
  Rig rig(kShape, full(64));
  const std::vector<float> rows(8 * 16, 1.0f);
  for (std::uint32_t i = 1; i <= 8; ++i) {
    ASSERT_EQ(append(rig.cache(), 0, rows, rows), Status::kOk);
    std::vector<std::uint32_t> target(8 * i);
    ASSERT_EQ(plan(rig.cache(), 0, 0, 8, target), Status::kOk);
    for (std::uint32_t slot = 0; slot < 8 * i; ++slot) ASSERT_EQ(target[slot], slot);
  }
}

// Tokens of f32 storage whose first value channel is their position.
std::vector<float> numbered(std::uint32_t first, std::uint32_t count, std::uint32_t heads, std::uint32_t dim) {
  std::vector<float> rows(std::size_t{count} * heads * dim, 0.0f);
  for (std::size_t i = 0; i < std::size_t{count} * heads; ++i) rows[i * dim] = static_cast<float>(first + i / heads);
  return rows;
}

std::vector<std::uint32_t> positions(const Rig& rig, std::uint32_t layer, std::uint32_t head) {
  const reference::ArenaModel model(rig.arena().bytes(), rig.shape(), rig.policy());
  std::vector<std::uint32_t> list;
  for (std::uint32_t i = 0; i < rig.cache().held(layer, head); ++i) {
    list.push_back(static_cast<std::uint32_t>(model.value_f32(layer, head, i)[0]));
  }
  return list;
}

TEST(Streaming, KeepsExactlyTheSinksAndTheMostRecentTokens) {
  Random random(51);
  for (unsigned round = 0; round < test::turns(60, 6); ++round) {
    Shape shape = {.layers = 2,
                   .query_heads = 2,
                   .kv_heads = 2,
                   .head_dim = 16,
                   .max_chunk = 1,
                   .workers = 1,
                   .storage = Storage::kF32};
    shape.max_chunk = static_cast<std::uint16_t>(random.below(3) == 0 ? 1 : random.within(1, 70));
    const std::uint32_t sinks = random.below(2) == 0 ? 4 : random.below(70);
    const Policy policy = streaming_llm(sinks + 1 + random.below(150), sinks);
    Rig rig(shape, policy);
    std::uint32_t seen = 0;
    while (seen < 3 * policy.tokens + 200) {
      const std::uint32_t count = random.below(2) == 0 ? shape.max_chunk : random.within(1, shape.max_chunk);
      const std::uint32_t held_before = rig.cache().held(1, 0);
      std::vector<std::uint32_t> target(held_before);
      ASSERT_EQ(plan(rig.cache(), 1, 0, count, target), Status::kOk);
      ASSERT_EQ(check_plan(target), Status::kOk) << words(shape, policy) << ", seen " << seen;
      const auto rows = numbered(seen, count, 2, 16);
      ASSERT_EQ(append(rig.cache(), 1, rows, rows), Status::kOk) << words(shape, policy) << ", seen " << seen;
      seen += count;
      const std::uint32_t held = rig.cache().held(1, 0);
      const auto dropped = static_cast<std::uint32_t>(std::count(target.begin(), target.end(), kDrop));
      ASSERT_EQ(held, held_before - dropped + count)
          << "append and plan disagree: " << words(shape, policy) << ", seen " << seen;
      ASSERT_EQ(dropped % kTileSlots, 0u) << words(shape, policy) << ", seen " << seen;
      ASSERT_GE(held, std::min(seen, policy.tokens)) << words(shape, policy) << ", seen " << seen;
      ASSERT_LE(held, policy.tokens + kTileSlots - 1 + shape.max_chunk) << words(shape, policy) << ", seen " << seen;
      ASSERT_GE(held - (count - 1), std::min(seen - (count - 1), policy.tokens))
          << "the first query sees less than the budget: " << words(shape, policy) << ", seen " << seen;
      ASSERT_EQ(rig.cache().seen(1), seen);
      for (std::uint32_t head = 0; head < 2; ++head) {
        ASSERT_EQ(positions(rig, 1, head), reference::streaming_positions(seen, held, sinks))
            << words(shape, policy) << ", seen " << seen;
      }
      ASSERT_EQ(rig.cache().held(0, 0), 0u);
    }
  }
}

TEST(Streaming, CodesMoveAsTheyAre) {
  for (const std::string& port : test::running_ports()) {
    constexpr Shape kShape = {
        .layers = 1, .query_heads = 2, .kv_heads = 2, .head_dim = 48, .outlier_channels = 8, .max_chunk = 11};
    Rig rig(kShape, streaming_llm(64, 5), port);
    Rig all(kShape, full(600), port);
    Random random(52);
    for (int step = 0; step < 50; ++step) {
      const auto keys = random.bells(11 * 2 * 48);
      const auto values = random.bells(11 * 2 * 48);
      ASSERT_EQ(append(rig.cache(), 0, keys, values), Status::kOk);
      ASSERT_EQ(append(all.cache(), 0, keys, values), Status::kOk);
    }
    const reference::ArenaModel kept(rig.arena().bytes(), kShape, rig.policy());
    const reference::ArenaModel every(all.arena().bytes(), kShape, all.policy());
    for (std::uint32_t head = 0; head < 2; ++head) {
      const auto slots = kept.slots(0, head);
      const auto originals = every.slots(0, head);
      const auto held = static_cast<std::uint32_t>(slots.size());
      const auto list = reference::streaming_positions(550, held, 5);
      for (std::uint32_t i = 0; i < held; ++i)
        ASSERT_EQ(slots[i], originals[list[i]]) << "slot " << i << ", port " << port;
    }
  }
}

}  // namespace
}  // namespace nibkv::plan_test
