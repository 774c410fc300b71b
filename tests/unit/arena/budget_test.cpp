// How the slots of an arena are divided among its heads.
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

#include "nibkv/nibkv.hpp"
#include "tests/reference/arena_model.hpp"
#include "tests/reference/scores.hpp"
#include "tests/support/effort.hpp"
#include "tests/support/rig.hpp"
#include "tests/support/rows.hpp"

namespace nibkv::budget_test {
namespace {

using reference::ArenaModel;
using test::Random;
using test::Rig;
using test::words;

std::vector<std::uint32_t> budgets_of(const Cache& cache) {
  std::vector<std::uint32_t> list;
  for (std::uint32_t layer = 0; layer < cache.shape().layers; ++layer) {
    for (std::uint32_t head = 0; head < cache.shape().kv_heads; ++head) list.push_back(cache.budget(layer, head));
  }
  return list;
}

std::uint32_t sum_of(const std::vector<std::uint32_t>& list) {
  return std::accumulate(list.begin(), list.end(), 0u);
}

Shape random_shape(Random& random) {
  Shape shape;
  shape.layers = static_cast<std::uint16_t>(random.within(1, 12));
  shape.kv_heads = static_cast<std::uint16_t>(random.within(1, 6));
  shape.query_heads = static_cast<std::uint16_t>(shape.kv_heads * random.within(1, 3));
  shape.head_dim = 16;
  shape.max_chunk = static_cast<std::uint16_t>(random.within(1, 48));
  return shape;
}

TEST(Budget, IsTheMeanForEveryHeadUnlessAPolicySaysOtherwise) {
  constexpr Shape kShape = {.layers = 3, .query_heads = 2, .kv_heads = 2, .head_dim = 16};
  for (const Policy& policy : {full(77), streaming_llm(77), ems(77), h2o(77), ada_kv(77)}) {
    Rig rig(kShape, policy);
    EXPECT_EQ(budgets_of(rig.cache()), std::vector<std::uint32_t>(6, 77)) << words(kShape, policy);
    EXPECT_EQ(rig.cache().budget(3, 0), 0u);
    EXPECT_EQ(rig.cache().budget(0, 2), 0u);
    EXPECT_EQ(rig.cache().budget(0xffffffff, 0xffffffff), 0u);
  }
  EXPECT_EQ(Cache{}.budget(0, 0), 0u);
}

TEST(Budget, SharesDifferByWholeTilesAndAddUpToTheMean) {
  Random random(101);
  for (unsigned round = 0; round < test::turns(200, 20); ++round) {
    const Shape shape = random_shape(random);
    Policy policy = round % 2 == 0 ? pyramid_kv(random.within(4, 900)) : head_kv(random.within(4, 900));
    policy.sinks = random.below(4);
    if (!valid(policy, shape)) continue;
    Rig rig(shape, policy, {}, round + 1);
    const std::string what = words(shape, policy);
    const std::uint32_t least = policy.sinks + policy.recent + 1;
    const std::vector<std::uint32_t> budgets = budgets_of(rig.cache());
    for (const std::uint32_t budget : budgets) {
      ASSERT_EQ(budget % kTileSlots, policy.tokens % kTileSlots) << what;
      ASSERT_GE(budget, least) << what;
      ASSERT_LE(budget, policy.most * policy.tokens) << what;
      if (policy.budget == Budget::kScores) {
        ASSERT_GE(budget, policy.tokens / 5 / kTileSlots * kTileSlots) << what;
      }
    }
    ASSERT_EQ(sum_of(budgets), policy.tokens * budgets.size()) << what;
    // The criterion by which heads are ranked: a head with more of it has no smaller budget, except
    // for the tile that rounding may add.
    std::vector<double> places;
    ProfileView profile;
    if (policy.budget == Budget::kScores) {
      ASSERT_EQ(profile.open(rig.profile(), shape), Status::kOk);
    }
    for (std::uint32_t layer = 0; layer < shape.layers; ++layer) {
      for (std::uint32_t head = 0; head < shape.kv_heads; ++head)
        places.push_back(profile.empty() ? -1.0 * layer : 1.0 * profile.head(layer, head).head_score);
    }
    for (std::size_t i = 0; i < budgets.size(); ++i) {
      for (std::size_t j = 0; j < budgets.size(); ++j) {
        ASSERT_TRUE(places[i] < places[j] || budgets[i] + kTileSlots >= budgets[j])
            << what << ", heads " << i << ", " << j;
      }
    }
  }
}

TEST(Budget, AnyScoresAreThoseOfTheProfileOrNone) {
  constexpr Shape kShape = {.layers = 3, .query_heads = 4, .kv_heads = 2, .head_dim = 16, .outlier_channels = 4};
  Policy policy = ems(300);
  ASSERT_EQ(policy.budget, Budget::kAnyScores);
  const std::vector<std::uint32_t> equal(6, 300);
  Rig rig(kShape, policy);
  policy.budget = Budget::kScores;
  Rig needing(kShape, policy);
  EXPECT_EQ(budgets_of(rig.cache()), budgets_of(needing.cache()));
  EXPECT_NE(budgets_of(rig.cache()), equal);
  EXPECT_EQ(footprint(kShape, policy), footprint(kShape, ems(300)));

  const std::vector<std::byte> without_scores = test::make_profile(kShape, 1);
  test::Arena arena(footprint(kShape, policy));
  Cache cache;
  ASSERT_EQ(cache.init(arena.bytes(), kShape, ems(300), {.profile = without_scores}), Status::kOk);
  EXPECT_EQ(budgets_of(cache), equal);
  Shape plain = kShape;
  plain.outlier_channels = 0;
  EXPECT_EQ(budgets_of(Rig(plain, ems(300)).cache()), equal) << "no profile";
  EXPECT_EQ(compact_now(rig.cache(), 200, Budget::kAnyScores), Status::kOk);
}

// Scratch has 32-bit offsets.
TEST(Budget, MostTimesTheMeanMayBeTooLargeForScratch) {
  constexpr Shape kShape = {.layers = 64, .query_heads = 16, .kv_heads = 1, .head_dim = 16, .max_chunk = 16};
  Policy policy = snapkv(2097120);
  policy.recent = 8;
  policy.budget = Budget::kPyramid;
  ASSERT_TRUE(valid(policy, kShape));
  if (sizeof(std::size_t) > 4) {
    EXPECT_NE(footprint(kShape, policy), 0u);
  }
  policy.most = 64;
  ASSERT_TRUE(valid(policy, kShape));
  EXPECT_EQ(layout_of(kShape, policy).scratch_bytes, 0u);
  EXPECT_EQ(footprint(kShape, policy), 0u);
}

TEST(Budget, APyramidFallsFromNearlyTwiceTheMeanToNearlyNothing) {
  constexpr Shape kShape = {.layers = 20, .query_heads = 2, .kv_heads = 2, .head_dim = 16};
  Policy policy = pyramid_kv(1024);
  policy.recent = 0;
  Rig rig(kShape, policy);
  EXPECT_NEAR(rig.cache().budget(0, 0), 1024 * (2 - 1.0 / 20), 64);
  EXPECT_NEAR(rig.cache().budget(10, 1), 1024, 96);
  EXPECT_NEAR(rig.cache().budget(19, 1), 1024 / 20.0, 64);
}

// Heads that retrieve hold as much as they may, the others the least; one may lie between.
TEST(Budget, TheHeadsThatRetrieveMostHoldMostTimesTheMean) {
  Random random(107);
  for (unsigned round = 0; round < test::turns(200, 20); ++round) {
    const Shape shape = random_shape(random);
    const std::uint32_t tokens = random.within(40, 900);
    Policy policy = duo(tokens, static_cast<std::uint8_t>(random.within(1, 12)));
    if (random.below(2) == 0) {
      policy = snapkv(tokens);
      policy.budget = Budget::kRetrieval;
    }
    Rig rig(shape, policy, {}, round + 1);
    const std::string what = words(shape, policy);
    const std::vector<std::uint32_t> budgets = budgets_of(rig.cache());
    ASSERT_EQ(sum_of(budgets), tokens * budgets.size()) << what;
    const std::uint32_t rest = tokens % kTileSlots, heads = static_cast<std::uint32_t>(budgets.size());
    const std::uint32_t most = tokens / kTileSlots * kTileSlots * std::min<std::uint32_t>(policy.most, heads) + rest;
    const std::uint32_t least = *std::min_element(budgets.begin(), budgets.end());
    ASSERT_GE(least, std::max(tokens / 5 / kTileSlots * kTileSlots, policy.sinks + policy.recent + 1)) << what;
    ASSERT_LE(*std::max_element(budgets.begin(), budgets.end()), most) << what;
    std::vector<float> scores(budgets.size());
    test::fill_head_scores(scores, round + 1);
    unsigned between = 0;
    for (std::size_t i = 0; i < budgets.size(); ++i) {
      between += budgets[i] != least && budgets[i] != most ? 1 : 0;
      for (std::size_t j = 0; j < budgets.size(); ++j)
        ASSERT_TRUE(scores[i] <= scores[j] || budgets[i] >= budgets[j]) << what << ", heads " << i << ", " << j;
    }
    ASSERT_LE(between, 1u) << what;
  }
}

// Layers hold the same share of their attention, as their curves in the profile have it.
TEST(Budget, LayersHoldTheSameShareOfTheirAttention) {
  Random random(108);
  for (unsigned round = 0; round < test::turns(100, 10); ++round) {
    const Shape shape = random_shape(random);
    const Policy policy = prefix_kv(random.within(100, 900));
    Rig rig(shape, policy, {}, round + 1);
    const std::string what = words(shape, policy);
    const std::vector<std::uint32_t> budgets = budgets_of(rig.cache());
    ASSERT_EQ(sum_of(budgets), policy.tokens * budgets.size()) << what;
    ProfileView profile;
    ASSERT_EQ(profile.open(rig.profile(), shape), Status::kOk);
    // The mean curve of a layer's heads, read backwards: the share that a number of tokens has.
    const auto place_of = [&](std::uint32_t layer, double tokens) {
      double before = 0;
      for (std::uint32_t point = 0; point < kAttentionPoints; ++point) {
        double mean = 0;
        for (std::uint32_t head = 0; head < shape.kv_heads; ++head)
          mean += 1.0 * profile.attention(layer, head).tokens[point] / shape.kv_heads;
        if (tokens < mean) return point + (mean > before ? (tokens - before) / (mean - before) : 0.0);
        before = mean;
      }
      return 1.0 * kAttentionPoints;
    };
    const std::uint32_t least = *std::min_element(budgets.begin(), budgets.end());
    const std::uint32_t rest = policy.tokens % kTileSlots;
    double lowest = kAttentionPoints,
           highest = 0;  // places that a tile more would surely reach, and one less would not
    for (std::size_t i = 0; i < budgets.size(); ++i) {
      const auto layer = static_cast<std::uint32_t>(i / shape.kv_heads);
      if (budgets[i] == least || budgets[i] / kTileSlots >= policy.tokens / kTileSlots * 4) continue;
      const double held = budgets[i] - rest;
      lowest = std::min(lowest, place_of(layer, held + 2 * kTileSlots));
      highest = std::max(highest, place_of(layer, held - 2 * kTileSlots));
    }
    EXPECT_LE(highest, lowest + 0.02 + (budgets.size() < 3 ? kAttentionPoints : 0)) << what;
  }
}

TEST(Budget, WithoutHeadScoresThatDifferHeadsAreAlike) {
  constexpr Shape kShape = {.layers = 2, .query_heads = 3, .kv_heads = 3, .head_dim = 16};
  const Policy policy = head_kv(500);
  const std::vector<std::byte> profile = test::make_profile(kShape, 3);
  test::Arena arena(footprint(kShape, policy));
  Cache cache;
  ASSERT_EQ(cache.init(arena.bytes(), kShape, policy, {{}, profile, {}}), Status::kOk);
  EXPECT_EQ(budgets_of(cache), std::vector<std::uint32_t>(6, 500));
}

TEST(Budget, ATableIsTakenInWholeTiles) {
  constexpr Shape kShape = {.layers = 2, .query_heads = 2, .kv_heads = 2, .head_dim = 16, .max_chunk = 40};
  Policy policy = snapkv(128);
  policy.budget = Budget::kTable;
  Rig rig(kShape, policy, {}, 1, std::vector<std::uint32_t>{223, 127, 96, 95});
  EXPECT_EQ(budgets_of(rig.cache()), (std::vector<std::uint32_t>{192, 96, 96, 64}));
}

TEST(Budget, WhatCannotBeSharedIsRefusedAndChangesNothing) {
  constexpr Shape kShape = {.layers = 2, .query_heads = 2, .kv_heads = 2, .head_dim = 16, .max_chunk = 40};
  Policy table = snapkv(128);
  table.budget = Budget::kTable;
  using Budgets = std::vector<std::uint32_t>;
  const std::vector<std::byte> profile = test::make_profile(kShape, 3);
  struct Case {
    const char* what;
    Policy policy;
    Budgets budgets;
    Status status;
  };
  const Case cases[] = {
      {"no table", table, {}, Status::kBadPolicy},
      {"too short", table, {128, 128, 128}, Status::kBadPolicy},
      {"too long", table, {128, 128, 128, 128, 128}, Status::kBadPolicy},
      {"less than what is always kept", table, {128, 128, 128, 40}, Status::kBadPolicy},
      {"nothing", table, {128, 128, 128, 0}, Status::kBadPolicy},
      {"more than the mean", table, {160, 128, 128, 128}, Status::kBadPolicy},
      {"far more than the mean", table, {0xffffffff, 64, 64, 64}, Status::kBadPolicy},
      {"as much as the mean", table, {192, 128, 128, 64}, Status::kOk},
      {"head scores without a profile", head_kv(128), {}, Status::kBadProfile},
      {"heads that retrieve without a profile", duo(128), {}, Status::kBadProfile},
      {"attention without a profile", prefix_kv(128), {}, Status::kBadProfile},
      {"rules without a profile", fast_gen(128), {}, Status::kBadProfile},
  };
  for (const Case& one : cases) {
    test::Arena arena(footprint(kShape, one.policy));
    const std::vector<std::byte> before = arena.copy();
    Cache cache;
    EXPECT_EQ(cache.init(arena.bytes(), kShape, one.policy, {{}, {}, one.budgets}), one.status) << one.what;
    EXPECT_EQ(cache.ready(), one.status == Status::kOk) << one.what;
    if (one.status != Status::kOk) {
      EXPECT_EQ(arena.copy(), before) << one.what;
    }
  }
  test::Arena arena(footprint(kShape, head_kv(128)));
  Cache cache;
  EXPECT_EQ(cache.init(arena.bytes(), kShape, head_kv(128), {{}, profile, {}}), Status::kOk);
  for (const Policy& policy : {prefix_kv(128), fast_gen(128)}) {
    test::Arena other(footprint(kShape, policy));
    EXPECT_EQ(cache.init(other.bytes(), kShape, policy, {{}, profile, {}}), Status::kBadProfile)
        << "no attention in it";
  }
}

// PrefixKV online: a layer whose attention is spread gets more than one whose attention is on a few tokens.
TEST(CompactNow, LayersHoldTheSameShareOfTheirScores) {
  constexpr Shape kShape = {.layers = 2, .query_heads = 2, .kv_heads = 2, .head_dim = 16, .max_chunk = 16};
  Policy policy = ems_no_merge(512);
  policy.recent = 8;
  Rig rig(kShape, policy);
  Random random(109);
  for (int i = 0; i < 25; ++i) {
    for (std::uint32_t layer = 0; layer < 2; ++layer) {
      const auto rows = random.bells(16 * 2 * 16);
      auto queries = random.bells(16 * 2 * 16);
      for (float& x : queries) x *= layer == 0 ? 0.01f : 8.0f;
      ASSERT_EQ(append(rig.cache(), layer, rows, rows), Status::kOk);
      (void)test::attend_all(rig.cache(), layer, queries);
    }
  }
  ASSERT_EQ(compact_now(rig.cache(), 200, Budget::kPrefix), Status::kOk);
  EXPECT_EQ(rig.cache().budget(0, 0), 512u);
  const auto held = [&](std::uint32_t layer) { return rig.cache().held(layer, 0) + rig.cache().held(layer, 1); };
  EXPECT_LE(held(0) + held(1), 4 * 200u);
  EXPECT_GE(held(0) + held(1), 4 * 200u - 4 * kTileSlots);
  EXPECT_GT(held(0), 2 * held(1));
  EXPECT_EQ(check(rig.cache()), Status::kOk);
}

// One step of a long run. One head of each layer, a different one after `turn` tokens, attends
// to few tokens, the others to all.
void feed(Rig& rig, Random& random, std::uint32_t layer, std::uint32_t turn = 400) {
  const Shape& shape = rig.shape();
  const std::uint32_t dim = shape.head_dim;
  const std::uint32_t count = random.within(1, shape.max_chunk);
  const auto keys = random.bells(std::size_t{count} * shape.kv_heads * dim);
  ASSERT_EQ(append(rig.cache(), layer, keys, keys), Status::kOk) << words(shape, rig.policy());
  auto queries = random.bells(std::size_t{count} * shape.query_heads * dim);
  const std::uint32_t sharp = rig.cache().seen(layer) / turn % shape.kv_heads;
  for (std::size_t row = 0; row < queries.size() / dim; ++row) {
    const bool looks = row % shape.query_heads / shape.group() == sharp;
    for (std::size_t c = 0; c < dim; ++c) queries[row * dim + c] *= looks ? 4.0f : 0.0f;
  }
  (void)test::attend_all(rig.cache(), layer, queries);
}

void expect_sound(const Rig& rig, const std::string& what) {
  const Usage usage = rig.cache().usage();
  ASSERT_LE(usage.peak_tiles, usage.tiles) << what;
  ASSERT_LE(usage.peak_bytes, usage.arena_bytes) << what;
  std::uint32_t tiles = 0;
  ASSERT_NO_THROW(tiles = ArenaModel(rig.arena().bytes(), rig.shape(), rig.policy()).check_chains()) << what;
  ASSERT_EQ(tiles, usage.used_tiles) << what;
  for (std::uint32_t layer = 0; layer < rig.shape().layers; ++layer) {
    for (std::uint32_t head = 0; head < rig.shape().kv_heads; ++head) {
      ASSERT_LE(rig.cache().held(layer, head),
                rig.cache().budget(layer, head) + test::most_beyond(rig.shape(), rig.policy()))
          << what;
    }
  }
  ASSERT_TRUE(rig.arena().guards_intact()) << what;
}

// Enough for the budgets of competing heads to differ.
constexpr std::uint32_t kTokens = test::kShorter == 1 ? 1500 : 500;

TEST(Budget, HeadsShareOnePoolForThousandsOfTokensUnderEveryPreset) {
  const std::vector<std::string> ports = test::running_ports();
  struct Kind {
    std::uint16_t dim;
    std::uint16_t group;
    std::uint16_t chunk;
    std::uint32_t tokens;
  };
  std::size_t round = 0;
  for (const Kind& kind : {Kind{16, 1, 40, 96}, Kind{16, 17, 3, 110}, Kind{48, 3, 8, 99}, Kind{64, 4, 1, 128},
                           Kind{112, 2, 60, 224}, Kind{256, 1, 33, 130}}) {
    const Shape shape = {.layers = 2,
                         .query_heads = static_cast<std::uint16_t>(3 * kind.group),
                         .kv_heads = 3,
                         .head_dim = kind.dim,
                         .max_chunk = kind.chunk};
    for (const test::Preset& preset : test::scored_presets(shape, kind.tokens)) {
      const std::size_t port = round % ports.size();
      if (round++ % test::kEvery != 0) continue;
      Rig rig(shape, preset.policy, ports[kind.dim > 48 ? 0 : port]);
      Random random(round);
      const std::string what = preset.name + ", " + words(shape, preset.policy, rig.cache().port());
      bool differ = false;
      while (rig.cache().seen(1) < kTokens && !testing::Test::HasFatalFailure()) {
        for (std::uint32_t layer = 0; layer < 2; ++layer) feed(rig, random, layer);
        if (rig.cache().seen(1) % 4 == 0) expect_sound(rig, what);
        differ = differ || rig.cache().budget(0, 0) != rig.cache().budget(0, 1);
      }
      if (HasFatalFailure()) return;
      EXPECT_TRUE(differ || preset.policy.budget != Budget::kAdaptive) << what;
    }
  }
}

TEST(Budget, AdaptiveBudgetsKeepTheSumOfTheirLayerAndAFloor) {
  constexpr Shape kShape = {.layers = 2, .query_heads = 8, .kv_heads = 4, .head_dim = 32, .max_chunk = 8};
  std::size_t turn = 0;
  for (Policy policy : {ada_kv(320), ada_kv(330)}) {
    for (const Score score : {Score::kLocal, Score::kGlobal, Score::kGlobalLocal}) {
      if (test::kShorter != 1 && turn++ % 5 != 0) continue;
      policy.score = score;
      Rig rig(kShape, policy);
      Random random(102);
      std::uint32_t most = 0;
      while (rig.cache().seen(0) < (test::kShorter == 1 ? 3000u : 1000u)) {
        feed(rig, random, 0, 10000);
        const std::string what = words(kShape, policy) + ", seen " + std::to_string(rig.cache().seen(0));
        std::vector<std::uint32_t> budgets = budgets_of(rig.cache());
        ASSERT_TRUE(std::all_of(budgets.begin() + 4, budgets.end(), [&](auto b) { return b == policy.tokens; }))
            << "the other layer's stay: " << what;
        budgets.resize(4);
        if (budgets[0] == policy.tokens && rig.cache().held(0, 0) == rig.cache().seen(0)) continue;
        ASSERT_EQ(sum_of(budgets), policy.tokens * 4) << what;
        for (const std::uint32_t budget : budgets) {
          ASSERT_GE(budget, policy.tokens / 5 / kTileSlots * kTileSlots) << what;
          ASSERT_EQ(budget % kTileSlots, policy.tokens % kTileSlots) << what;
          most = std::max(most, budget);
        }
      }
      EXPECT_TRUE(most >= 384 || score != Score::kLocal) << "heads that look at all tokens have more: " << most;
    }
  }
}

TEST(CompactNow, CutsEveryChainToItsShareAndKeepsTheArenasBudgets) {
  constexpr Shape kShape = {.layers = 3, .query_heads = 4, .kv_heads = 2, .head_dim = 32, .max_chunk = 16};
  std::size_t turn = 0;
  for (const test::Preset& preset : test::scored_presets(kShape, 256)) {
    for (const Budget how : {Budget::kUniform, Budget::kPyramid, Budget::kScores, Budget::kAdaptive}) {
      for (const std::uint32_t tokens : {160u, 200u, 256u}) {
        if (turn++ % test::kEvery != 0) continue;
        Rig rig(kShape, preset.policy);
        const std::vector<std::uint32_t> budgets = budgets_of(rig.cache());
        Random random(103);
        while (rig.cache().seen(2) < 230) {
          for (std::uint32_t layer = 0; layer < 3; ++layer) feed(rig, random, layer);
        }
        const std::string what = preset.name + " by " + std::to_string(static_cast<int>(how)) + " to " +
                                 std::to_string(tokens) + ", " + words(kShape, preset.policy);
        const std::vector<std::byte> before = rig.arena().copy();
        if (how == Budget::kScores && rig.profile().empty()) {
          ASSERT_EQ(compact_now(rig.cache(), tokens, how), Status::kBadProfile) << what;
          ASSERT_EQ(rig.arena().copy(), before) << what;
          continue;
        }
        ASSERT_EQ(compact_now(rig.cache(), tokens, how), Status::kOk) << what;
        ASSERT_EQ(budgets_of(rig.cache()), budgets) << what;
        std::uint32_t sum = 0;
        for (std::uint32_t layer = 0; layer < 3; ++layer) {
          for (std::uint32_t head = 0; head < 2; ++head) {
            const std::uint32_t held = rig.cache().held(layer, head);
            sum += held;
            const auto slots = test::explain_all(rig.cache(), layer, head);
            const std::uint32_t seen = rig.cache().seen(layer);
            for (std::uint32_t i = 0; i < preset.policy.sinks; ++i) ASSERT_EQ(slots[i].position, i) << what;
            for (std::uint32_t i = 1; i <= recent_of(preset.policy, seen); ++i)
              ASSERT_EQ(slots[held - i].position, seen - i) << what;
            if (how == Budget::kUniform && preset.policy.budget == Budget::kUniform) {
              ASSERT_EQ(held, std::min(tokens, seen)) << what;
            }
          }
        }
        ASSERT_LE(sum, 6 * tokens) << what;
        ASSERT_GE(sum, 6 * tokens / 2) << what;
        for (std::uint32_t layer = 0; layer < 3; ++layer) feed(rig, random, layer);
        expect_sound(rig, what);
      }
    }
  }
}

TEST(CompactNow, RefusesWhatDoesNotFitThePolicy) {
  constexpr Shape kShape = {.layers = 1, .query_heads = 2, .kv_heads = 2, .head_dim = 16, .max_chunk = 16};
  Policy table = snapkv(128);
  table.budget = Budget::kTable;
  Cache empty;
  EXPECT_EQ(compact_now(empty, 64, Budget::kUniform), Status::kNotReady);
  for (const Policy& policy : {full(128), streaming_llm(128), ems(128), ada_kv(128), table}) {
    Rig rig(kShape, policy, {}, 1, std::vector<std::uint32_t>{128, 128});
    const auto rows = Random(104).bells(16 * 2 * 16);
    for (int i = 0; i < 8; ++i) ASSERT_EQ(append(rig.cache(), 0, rows, rows), Status::kOk);
    const std::vector<std::byte> before = rig.arena().copy();
    const std::string what = words(kShape, policy);
    if (policy.keep != Keep::kScore) {
      EXPECT_EQ(compact_now(rig.cache(), 100, Budget::kUniform), Status::kBadPolicy) << what;
    } else {
      EXPECT_EQ(compact_now(rig.cache(), 129, Budget::kUniform), Status::kBadArgument) << what;
      EXPECT_EQ(compact_now(rig.cache(), policy.sinks + policy.recent, Budget::kUniform), Status::kBadArgument) << what;
      EXPECT_EQ(compact_now(rig.cache(), 0, Budget::kUniform), Status::kBadArgument) << what;
      EXPECT_EQ(compact_now(rig.cache(), 100, static_cast<Budget>(9)), Status::kBadPolicy) << what;
      const bool own = policy.budget == Budget::kTable;
      EXPECT_EQ(compact_now(rig.cache(), 100, own ? Budget::kPyramid : Budget::kTable), Status::kBadPolicy) << what;
    }
    EXPECT_EQ(rig.arena().copy(), before) << what;
  }
}

}  // namespace
}  // namespace nibkv::budget_test
