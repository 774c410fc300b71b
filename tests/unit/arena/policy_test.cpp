#include "nibkv/policy.hpp"

#include <gtest/gtest.h>

#include <set>

#include "nibkv/cache.hpp"
#include "tests/support/rig.hpp"

namespace nibkv::policy_test {
namespace {

constexpr Shape kShape = {.layers = 1, .query_heads = 1, .kv_heads = 1, .head_dim = 64, .max_chunk = 10};

TEST(Policy, FullKeepsAllWithoutSinks) {
  static_assert(full(100) == Policy{Keep::kAll, 100, 0});
  static_assert(valid(full(1), kShape) && valid(full(kMaxTokens), kShape));
  static_assert(!valid(full(0), kShape) && !valid(full(kMaxTokens + 1), kShape));
  EXPECT_FALSE(valid(Policy{Keep::kAll, 100, 1}, kShape));
}

TEST(Policy, StreamingKeepsFourSinksUnlessToldOtherwise) {
  static_assert(streaming_llm(100) == Policy{Keep::kRecent, 100, 4});
  static_assert(streaming_llm(100, 0).sinks == 0);
}

TEST(Policy, SinksLeaveRoomForAToken) {
  for (const std::uint32_t tokens : {1u, 9u, 10u, 11u, 100u}) {
    for (std::uint32_t sinks = 0; sinks <= 110; ++sinks) {
      EXPECT_EQ(valid(streaming_llm(tokens, sinks), kShape), sinks < tokens)
          << tokens << " tokens, " << sinks << " sinks";
    }
  }
  EXPECT_FALSE(valid(streaming_llm(100, 0xffffffff), kShape));
  EXPECT_FALSE(valid(streaming_llm(kMaxTokens + 1), kShape));
  EXPECT_FALSE(valid(Policy{static_cast<Keep>(3), 100, 4}, kShape));
}

// A scored policy with one field changed.
template <typename T>
Policy with(T Policy::*field, T value, Policy policy = ems(100)) {
  policy.*field = value;
  return policy;
}

TEST(Policy, FieldsOfScoredPoliciesHaveRanges) {
  EXPECT_TRUE(valid(ems(100), kShape));
  EXPECT_FALSE(valid(with(&Policy::score, static_cast<Score>(4)), kShape));
  EXPECT_FALSE(valid(with(&Policy::group, static_cast<Group>(2)), kShape));
  EXPECT_FALSE(valid(with(&Policy::combine, static_cast<Combine>(2)), kShape));
  EXPECT_FALSE(valid(with(&Policy::merge, static_cast<Merge>(3)), kShape));
  EXPECT_FALSE(valid(with(&Policy::similarity, static_cast<Similarity>(3)), kShape));
  EXPECT_FALSE(valid(with(&Policy::mass, static_cast<Mass>(3)), kShape));
  EXPECT_FALSE(valid(with(&Policy::budget, static_cast<Budget>(9)), kShape));
  for (std::uint32_t value = 0; value <= 255; ++value) {
    EXPECT_EQ(valid(with(&Policy::most, static_cast<std::uint8_t>(value)), kShape), value >= 1 && value <= 64) << value;
    EXPECT_EQ(valid(with(&Policy::recovered, static_cast<std::uint8_t>(value)), kShape), value != 0) << value;
  }
  EXPECT_FALSE(valid(with(&Policy::budget, Budget::kRules), kShape)) << "it merges";
  EXPECT_FALSE(valid(with(&Policy::budget, Budget::kRules, l2_norm(100)), kShape));
  EXPECT_TRUE(valid(with(&Policy::budget, Budget::kRules, snapkv(100)), kShape));
  for (std::uint32_t value = 0; value <= 0xffff; ++value) {
    const bool power = value != 0 && (value & (value - 1)) == 0;
    EXPECT_EQ(valid(with(&Policy::window, static_cast<std::uint16_t>(value)), kShape), power && value <= 4096) << value;
  }
  for (std::uint32_t value = 0; value <= 255; ++value)
    EXPECT_EQ(valid(with(&Policy::pool, static_cast<std::uint8_t>(value)), kShape), value % 2 == 1 && value <= 15)
        << value;
  Shape exact = kShape;
  exact.storage = Storage::kF32;
  EXPECT_FALSE(valid(ems(100), exact)) << "scores need tiles of codes";
}

TEST(Policy, KeysAreTurnedOnlyWhereTheRotaryEmbeddingIsKnown) {
  Shape known = kShape;
  known.rotary = {.base = 1e4f, .dims = 64};
  for (bool Policy::*field : {&Policy::rephase, &Policy::position_free}) {
    Policy policy = ems(100);
    policy.merge = Merge::kBoth;
    EXPECT_TRUE(valid(policy, kShape));
    policy.*field = true;
    EXPECT_FALSE(valid(policy, kShape));
    EXPECT_TRUE(valid(policy, known));
    Cache cache;
    alignas(kArenaAlignment) static std::byte arena[65536];
    EXPECT_EQ(cache.init(arena, kShape, policy), Status::kBadPolicy);
    EXPECT_EQ(cache.init(arena, known, policy), Status::kOk);
  }
  for (const Policy& plain : {full(100), streaming_llm(100)}) {
    EXPECT_FALSE(valid(with(&Policy::rephase, true, plain), known));
    EXPECT_FALSE(valid(with(&Policy::position_free, true, plain), known));
  }
}

TEST(Policy, ScoredPoliciesLeaveRoomBesideWhatIsAlwaysKept) {
  constexpr std::uint32_t kMost = 0xffffffff;
  for (const std::uint16_t chunk : std::initializer_list<std::uint16_t>{1, 32, 33, 50, 4096}) {
    Shape shape = kShape;
    shape.max_chunk = chunk;
    for (std::uint32_t recent = 0; recent <= 100; ++recent) {
      EXPECT_EQ(valid(with(&Policy::recent, recent), shape), 4 + recent + 1 <= 100)
          << "chunk " << chunk << ", recent " << recent;
    }
    EXPECT_FALSE(valid(with(&Policy::recent, kMost), shape));
    EXPECT_FALSE(valid(with(&Policy::sinks, kMost), shape));
  }
}

TEST(Policy, OtherPoliciesHaveDefaultsInTheFieldsTheyDoNotRead) {
  for (const Policy& plain : {full(100), streaming_llm(100)}) {
    EXPECT_TRUE(valid(plain, kShape));
    EXPECT_FALSE(valid(with(&Policy::recent, std::uint32_t{1}, plain), kShape));
    EXPECT_FALSE(valid(with(&Policy::value_norms, true, plain), kShape));
    EXPECT_FALSE(valid(with(&Policy::recent_share, std::uint8_t{1}, plain), kShape));
    EXPECT_FALSE(valid(with(&Policy::score, Score::kLocal, plain), kShape));
    EXPECT_FALSE(valid(with(&Policy::per_query, false, plain), kShape));
    EXPECT_FALSE(valid(with(&Policy::merge, Merge::kValues, plain), kShape));
    for (const Budget budget : {Budget::kAdaptive, Budget::kRules})
      EXPECT_FALSE(valid(with(&Policy::budget, budget, plain), kShape));
    const bool bounded = plain.keep != Keep::kAll;
    for (const Budget budget : {Budget::kPyramid, Budget::kScores, Budget::kTable, Budget::kPrefix, Budget::kRetrieval})
      EXPECT_EQ(valid(with(&Policy::budget, budget, plain), kShape), bounded);
  }
}

TEST(Policy, TheRecentWindowOfEmsGrowsWithTheText) {
  const Policy policy = ems(416);
  EXPECT_EQ(recent_of(policy, 0), 0u);
  EXPECT_EQ(recent_of(policy, 15), 0u);
  EXPECT_EQ(recent_of(policy, 416), 26u);
  EXPECT_EQ(recent_of(policy, 1024), 64u);
  EXPECT_EQ(recent_of(policy, 16 * 208 - 1), 207u);
  EXPECT_EQ(recent_of(policy, 16 * 208), 208u);
  EXPECT_EQ(recent_of(policy, 0xffffffff), 208u);
  EXPECT_EQ(recent_of(snapkv(416), 0), 32u) << "others do not";
  EXPECT_EQ(recent_of(snapkv(416), 0xffffffff), 32u);
}

TEST(Policy, PresetsAreFoundByTheNamesThatAreListed) {
  std::set<std::string_view> names;
  for (std::uint32_t i = 0; !policy_name(i).empty(); ++i) {
    ASSERT_TRUE(names.insert(policy_name(i)).second) << policy_name(i);
    Policy policy;
    EXPECT_EQ(find_policy(policy_name(i), 256, policy), Status::kOk) << policy_name(i);
    EXPECT_EQ(policy.tokens, 256u) << policy_name(i);
    EXPECT_TRUE(valid(policy, kShape)) << policy_name(i);
  }
  EXPECT_TRUE(names.count("full") == 1 && names.count("streaming_llm") == 1);
  EXPECT_TRUE(policy_name(static_cast<std::uint32_t>(names.size())).empty());
  EXPECT_TRUE(policy_name(0xffffffff).empty());

  Policy policy;
  ASSERT_EQ(find_policy("full", 77, policy), Status::kOk);
  EXPECT_EQ(policy, full(77));
  ASSERT_EQ(find_policy("streaming_llm", 77, policy), Status::kOk);
  EXPECT_EQ(policy, streaming_llm(77));
  ASSERT_EQ(find_policy("ems", 77, policy), Status::kOk);
  EXPECT_EQ(policy, ems(77));
  ASSERT_EQ(find_policy("head_kv", 77, policy), Status::kOk);
  EXPECT_EQ(policy, head_kv(77));
  ASSERT_EQ(find_policy("prefix_kv", 77, policy), Status::kOk);
  EXPECT_EQ(policy, prefix_kv(77));
  ASSERT_EQ(find_policy("duo", 77, policy), Status::kOk);
  EXPECT_EQ(policy, duo(77));
  ASSERT_EQ(find_policy("fast_gen", 77, policy), Status::kOk);
  EXPECT_EQ(policy, fast_gen(77));
  ASSERT_EQ(find_policy("ems_fold", 77, policy), Status::kOk);
  EXPECT_EQ(policy, ems_fold(77));
  ASSERT_EQ(find_policy("precise_tail", 77, policy), Status::kOk);
  EXPECT_EQ(policy, precise_tail(77));
  ASSERT_EQ(find_policy("qpruning", 77, policy), Status::kOk);
  EXPECT_EQ(policy, qpruning(77));
  ASSERT_EQ(find_policy("recall", 77, policy), Status::kOk);
  EXPECT_EQ(policy, recall_window(77));
  EXPECT_EQ(names.size(), 19u);
}

TEST(Policy, AnUnknownNameLeavesThePolicyAsItWas) {
  for (const std::string_view name : {"", "ful", "full ", "Full", "fulls", "streaming", "h3o"}) {
    Policy policy = streaming_llm(123, 7);
    EXPECT_EQ(find_policy(name, 50, policy), Status::kBadPolicy) << name;
    EXPECT_EQ(policy, streaming_llm(123, 7)) << name;
  }
}

constexpr Shape kDeep = {.layers = 8, .query_heads = 2, .kv_heads = 2, .head_dim = 64, .max_chunk = 10};

TEST(Policy, PairsAreOfNeighbours) {
  static_assert(pairs_from(3, 8).has(3) && pairs_from(3, 8).has(5) && !pairs_from(3, 8).has(7));
  static_assert(!pairs_from(3, 8).has(4) && !pairs_from(3, 8).has(500) && pairs_from(8, 8).empty());
  static_assert(minicache(100) == full(100) && !has_pairs(full(100)) && has_pairs(minicache(100, pairs_from(4, 8))));
  for (std::uint32_t first = 0; first <= 8; ++first) EXPECT_TRUE(valid(minicache(100, pairs_from(first, 8)), kDeep));
  EXPECT_FALSE(valid(minicache(100, pairs_from(4, 9)), Shape{.layers = 7, .query_heads = 1, .kv_heads = 1}));
  for (std::uint32_t layer = 0; layer < 300; ++layer) {
    Policy policy = full(100);
    policy.fold.keys.add(layer);
    // A layer beyond those that a set can contain is not in it.
    EXPECT_EQ(valid(policy, kDeep), layer < 7 || layer >= kMaxPairedLayers) << layer;
  }
}

TEST(Policy, ALayerIsInOnePair) {
  Policy policy = full(100);
  policy.fold.keys.add(2);
  policy.fold.values.add(2);
  EXPECT_TRUE(valid(policy, kDeep));
  policy.fold.values.add(3);
  EXPECT_FALSE(valid(policy, kDeep));
  policy.fold.values = {};
  policy.fold.values.add(4);
  EXPECT_TRUE(valid(policy, kDeep));
  policy.fold.values.add(1);
  EXPECT_FALSE(valid(policy, kDeep));
}

TEST(Policy, QueriesAreTurnedBackOnlyWherePositionsOfFoldedSlotsAreKnown) {
  Shape shape = {.layers = 4, .query_heads = 2, .kv_heads = 1, .head_dim = 64};
  const LayerSet pairs = pairs_from(0, 4);
  for (const std::uint32_t reach : {0u, 64u}) {
    shape.rotary = {.base = 1e4f, .dims = 64, .reach = reach};
    for (const Policy& policy : {full(64), streaming_llm(64), ems(64), ems_fold(64, pairs)})
      EXPECT_TRUE(valid(policy, shape)) << reach;
    EXPECT_EQ(valid(minicache(64, pairs), shape), reach == 0);
    // Keys are coded at other positions than their own.
    Policy policy = ems(64);
    policy.rephase = true;
    EXPECT_EQ(valid(policy, shape), reach == 0);
    policy.rephase = false;
    policy.position_free = true;
    EXPECT_EQ(valid(policy, shape), reach == 0);
  }
}

TEST(Policy, LayersShareFourBitsUnderPoliciesThatKeepAllOrScoreWithOneBudget) {
  const auto folded = [](Policy policy) {
    policy.fold.keys = policy.fold.values = pairs_from(4, 8);
    return policy;
  };
  EXPECT_TRUE(valid(folded(full(100)), kDeep));
  EXPECT_FALSE(valid(folded(streaming_llm(100)), kDeep));
  EXPECT_TRUE(valid(folded(ems_fold(100)), kDeep));
  EXPECT_FALSE(valid(folded(ems(100)), kDeep)) << "budgets may differ";
  EXPECT_EQ(folded(ems_fold(100)), ems_fold(100, pairs_from(4, 8)));
  EXPECT_TRUE(valid(folded(h2o(100)), kDeep));
  for (const Budget budget : {Budget::kPyramid, Budget::kScores, Budget::kAdaptive, Budget::kTable}) {
    EXPECT_TRUE(valid(with(&Policy::budget, budget), kDeep));
    EXPECT_FALSE(valid(folded(with(&Policy::budget, budget)), kDeep));
  }
  Shape exact = kDeep;
  exact.storage = Storage::kF32;
  EXPECT_TRUE(valid(full(100), exact));
  EXPECT_FALSE(valid(folded(full(100)), exact));
  Policy policy = folded(full(100));
  policy.fold.retained = 128;
  policy.fold.recent = kMaxTokens;
  policy.fold.retain = Retain::kFarRange;
  EXPECT_TRUE(valid(policy, kDeep));
  policy.fold.retained = 129;
  EXPECT_FALSE(valid(policy, kDeep));
  policy = folded(full(100));
  policy.fold.recent = kMaxTokens + 1;
  EXPECT_FALSE(valid(policy, kDeep));
  policy = folded(full(100));
  policy.fold.retain = static_cast<Retain>(3);
  EXPECT_FALSE(valid(policy, kDeep));
}

TEST(Policy, WideLayersExistAndHaveWiderCodes) {
  Shape shape = kShape;
  Policy policy = ems(96);
  policy.wide.add(shape.layers - 1u);
  EXPECT_TRUE(valid(policy, shape));
  policy.wide.add(shape.layers);
  EXPECT_FALSE(valid(policy, shape));
  policy.wide = {};
  policy.wide.add(0);
  // Each width is at least the others', and one is larger.
  constexpr Storage kAll[] = {Storage::kQ4, Storage::kQ8, Storage::kQ8Q4, Storage::kQ4Q2, Storage::kQ2};
  for (const Storage storage : kAll) {
    for (const Storage wide : kAll) {
      shape.storage = storage;
      policy.wide_storage = wide;
      const TileFormat a = format_of(storage), b = format_of(wide);
      const bool wider = a != b && a.key_bits <= b.key_bits && a.value_bits <= b.value_bits;
      EXPECT_EQ(valid(policy, shape), wider) << static_cast<int>(storage) << ", " << static_cast<int>(wide);
    }
  }
  shape.storage = Storage::kQ4;
  policy.wide_storage = Storage::kF32;
  EXPECT_FALSE(valid(policy, shape));
  shape.layers = 2;
  policy = ems_fold(200, pairs_from(0, 2));
  ASSERT_TRUE(valid(policy, shape));
  policy.wide.add(0);
  EXPECT_FALSE(valid(policy, shape));
}

}  // namespace
}  // namespace nibkv::policy_test
