// What fits into this many bytes, for a preset.
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <string_view>

#include "nibkv/nibkv.hpp"
#include "tests/support/effort.hpp"
#include "tests/support/rig.hpp"

namespace nibkv::planner_test {
namespace {

using test::words;

constexpr Shape kSmall = {.layers = 2, .query_heads = 6, .kv_heads = 2, .head_dim = 64, .max_chunk = 8, .workers = 2};

TEST(TokensThatFit, MakesAPresetAnewForEachBudget) {
  constexpr Shape kModel = {.layers = 30, .query_heads = 9, .kv_heads = 3, .head_dim = 64};
  constexpr std::uint64_t kBytes = 2 << 20;
  EXPECT_EQ(tokens_that_fit(kModel, ems, kBytes), 256u);
  EXPECT_EQ(tokens_that_fit(kModel, "ems", kBytes), 256u);
  EXPECT_EQ(tokens_that_fit(kModel, ems(400), kBytes), 256u);
  EXPECT_EQ(tokens_that_fit(kModel, ems(512), kBytes), 0u) << "its recent window is as long";
  const auto more_sinks = [](std::uint32_t tokens) { return streaming_llm(tokens, tokens / 4); };
  EXPECT_EQ(tokens_that_fit(kModel, more_sinks, kBytes), tokens_that_fit(kModel, streaming_llm(1), kBytes));
  EXPECT_EQ(tokens_that_fit(kModel, "no such policy", kBytes), 0u);
  EXPECT_EQ(tokens_that_fit(kModel, "", kBytes), 0u);
  EXPECT_EQ(tokens_that_fit(Shape{}, ems, kBytes), 0u);
}

// What each budget needs, 0 if it is not valid.
template <typename Preset>
std::vector<std::uint64_t> footprints(const Shape& shape, const Preset& preset, std::uint32_t most) {
  std::vector<std::uint64_t> list(most + 1);
  for (std::uint32_t tokens = 1; tokens <= most; ++tokens) list[tokens] = footprint(shape, preset(tokens));
  return list;
}

// For sizes around what each of these budgets needs, the result must be the largest one
// that is valid and fits.
template <typename Answer>
void expect_the_largest(const std::vector<std::uint64_t>& needs, const std::string& what, const Answer& answer) {
  const std::uint64_t beyond = *std::max_element(needs.end() - kTileSlots, needs.end());
  for (std::uint32_t asked = 1; asked < needs.size(); asked += asked < 100 ? 1 : 37) {
    for (const std::uint64_t bytes : {needs[asked] - 1, needs[asked], needs[asked] + 1}) {
      if (needs[asked] == 0 || bytes >= beyond) continue;
      std::uint32_t largest = 0;
      for (std::uint32_t tokens = 1; tokens < needs.size(); ++tokens) {
        if (needs[tokens] != 0 && needs[tokens] <= bytes) largest = tokens;
      }
      ASSERT_EQ(answer(bytes), largest) << what << ", " << bytes << " bytes";
    }
  }
}

TEST(TokensThatFit, IsWhatTryingEveryBudgetFinds) {
  constexpr std::uint32_t kMost = test::kShorter == 1 ? 1400 : 500;
  Shape f32 = {.layers = 2, .query_heads = 2, .kv_heads = 1, .head_dim = 16, .max_chunk = 50};
  f32.storage = Storage::kF32;
  const Shape shapes[] = {
      kSmall,
      {.layers = 1, .query_heads = 1, .kv_heads = 1, .head_dim = 16},
      {.layers = 3, .query_heads = 34, .kv_heads = 2, .head_dim = 80, .outlier_channels = 16, .max_chunk = 33},
      {.layers = 1, .query_heads = 8, .kv_heads = 8, .head_dim = 256, .max_chunk = 60, .workers = 4},
      {.layers = 5, .query_heads = 4, .kv_heads = 4, .head_dim = 128, .outlier_channels = 4, .max_chunk = 700},
      f32};
  for (const Shape& shape : shapes) {
    for (std::uint32_t i = 0; !policy_name(i).empty(); ++i) {
      const std::string_view name = policy_name(i);
      const auto preset = [&](std::uint32_t tokens) {
        Policy policy;
        EXPECT_EQ(find_policy(name, tokens, policy), Status::kOk);
        return policy;
      };
      expect_the_largest(footprints(shape, preset, kMost), std::string(name) + ", " + words(shape, preset(1)),
                         [&](std::uint64_t bytes) { return tokens_that_fit(shape, name, bytes); });
    }
    // Layers that share codes, from the length at which that saves bytes.
    const LayerSet pairs = pairs_from(0, shape.layers);
    if (shape.storage != Storage::kQ4 || pairs.empty()) continue;
    const auto expect_largest_of = [&](const auto& preset) {
      expect_the_largest(footprints(shape, preset, kMost), words(shape, preset(1)),
                         [&](std::uint64_t bytes) { return tokens_that_fit(shape, preset, bytes); });
    };
    expect_largest_of([&](std::uint32_t tokens) { return minicache(tokens, pairs); });
    expect_largest_of([&](std::uint32_t tokens) { return ems_fold(tokens, pairs); });
  }
}

// anthony-chaudhary/fak#10596: the engine must need what the planner says.
TEST(TokensThatFit, IsExactlyWhatInitTakes) {
  constexpr Shape kShape = {
      .layers = 3, .query_heads = 6, .kv_heads = 2, .head_dim = 80, .max_chunk = 16, .workers = 3};
  for (std::uint32_t i = 0; !policy_name(i).empty(); ++i) {
    const std::string name(policy_name(i));
    for (const std::uint64_t bytes : {150'000u, 300'000u, 1u << 20}) {
      const std::uint32_t tokens = tokens_that_fit(kShape, name, bytes);
      ASSERT_NE(tokens, 0u) << name;
      Policy policy;
      ASSERT_EQ(find_policy(name, tokens + 1, policy), Status::kOk);
      EXPECT_GT(footprint(kShape, policy), bytes) << name;
      ASSERT_EQ(find_policy(name, tokens, policy), Status::kOk);
      if (name != "qpruning" && name != "recall") {  // a tail from some budget on, and a log that grows with it
        EXPECT_EQ(tokens_that_fit(kShape, policy, bytes), tokens) << name;
      }
      const std::size_t need = footprint(kShape, policy);
      ASSERT_LE(need, bytes) << name;
      const std::vector<std::byte> profile = test::make_profile(kShape, policy, 5);
      test::Arena arena(need);
      const ColdStore store = memory_store(nullptr);  // nothing is written
      const Options options{.profile = profile, .store = &store};
      Cache cache;
      EXPECT_EQ(cache.init(arena.bytes().first(need - 1), kShape, policy, options), Status::kArenaTooSmall);
      EXPECT_EQ(cache.init(arena.bytes(), kShape, policy, options), Status::kOk) << words(kShape, policy);
      EXPECT_TRUE(arena.guards_intact()) << name;
    }
  }
}

// Two shares of 50 % leave nothing of a budget, but of 1 token both are 0.
TEST(SmallestFootprint, IsZeroWhereOnlySomeSmallBudgetsAreValid) {
  constexpr Shape kShape{.layers = 1, .query_heads = 1, .kv_heads = 1, .head_dim = 64};
  const auto halves = [](std::uint32_t tokens) {
    Policy policy = ems(tokens);
    policy.sinks = policy.recent = tokens / 2;
    return policy;
  };
  EXPECT_TRUE(valid(halves(1), kShape));
  EXPECT_FALSE(valid(halves(64), kShape));
  EXPECT_EQ(smallest_footprint(kShape, halves), 0u);
}

TEST(SmallestFootprint, IsWhatFitsAndOneByteLessDoesNot) {
  const Shape shapes[] = {
      kSmall,
      {.layers = 30, .query_heads = 9, .kv_heads = 3, .head_dim = 64, .outlier_channels = 8, .max_chunk = 32},
      {.layers = 4, .query_heads = 4, .kv_heads = 4, .head_dim = 128, .outlier_channels = 4, .max_chunk = 70}};
  for (const Shape& shape : shapes) {
    const auto expect_smallest = [&](const auto& preset, const std::string& what) {
      const std::size_t bytes = smallest_footprint(shape, preset);
      ASSERT_NE(bytes, 0u) << what;
      EXPECT_EQ(tokens_that_fit(shape, preset, bytes - 1), 0u) << what;
      EXPECT_NE(tokens_that_fit(shape, preset, bytes), 0u) << what;
    };
    for (std::uint32_t i = 0; !policy_name(i).empty(); ++i) {
      const std::string_view name = policy_name(i);
      expect_smallest(name, std::string(name));
      std::size_t least = 0;  // whatever the budget
      for (std::uint32_t tokens = 1; tokens <= 400; ++tokens) {
        Policy policy;
        ASSERT_EQ(find_policy(name, tokens, policy), Status::kOk);
        const std::size_t bytes = footprint(shape, policy);
        if (bytes != 0 && (least == 0 || bytes < least)) least = bytes;
      }
      EXPECT_EQ(smallest_footprint(shape, name), least) << name;
    }
    const LayerSet pairs = pairs_from(0, shape.layers);
    expect_smallest([&](std::uint32_t tokens) { return ems_fold(tokens, pairs); }, "ems_fold with pairs");
    expect_smallest(ems(400), "windows of 200 tokens");
    EXPECT_EQ(smallest_footprint(shape, ems(400)), footprint(shape, [] {
                Policy policy = ems(400);
                policy.tokens = 205;
                return policy;
              }()));
  }
  static_assert(smallest_footprint(kSmall, ems) == footprint(kSmall, ems(1)));
}

TEST(SmallestFootprint, IsZeroWhereNoBudgetIsValid) {
  EXPECT_EQ(smallest_footprint(kSmall, "no such policy"), 0u);
  EXPECT_EQ(smallest_footprint(Shape{}, ems), 0u);
  EXPECT_EQ(smallest_footprint(Shape{}, "ems"), 0u);
  EXPECT_EQ(smallest_footprint(kSmall, streaming_llm(1, kMaxTokens)), 0u);
}

}  // namespace
}  // namespace nibkv::planner_test
