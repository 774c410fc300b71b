// Plans under Keep::kScore: which slots stay, and into which the others are merged.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "nibkv/nibkv.hpp"
#include "profile/format.hpp"
#include "tests/reference/arena_model.hpp"
#include "tests/reference/attention.hpp"
#include "tests/reference/rotary.hpp"
#include "tests/reference/scores.hpp"
#include "tests/support/effort.hpp"
#include "tests/support/exact_query.hpp"
#include "tests/support/model_of.hpp"
#include "tests/support/rig.hpp"

namespace nibkv::plan_score_test {
namespace {

using reference::Slot;
using test::explain_all;
using test::model_of;
using test::Random;
using test::Rig;
using test::words;

std::vector<std::uint32_t> plan_of(Rig& rig, std::uint32_t head, std::uint32_t incoming) {
  std::vector<std::uint32_t> target(rig.cache().held(0, head));
  EXPECT_EQ(plan(rig.cache(), 0, head, incoming, target), Status::kOk) << words(rig.shape(), rig.policy());
  EXPECT_EQ(check_plan(target), Status::kOk) << words(rig.shape(), rig.policy());
  return target;
}

std::uint32_t kept_of(const std::vector<std::uint32_t>& target) {
  return static_cast<std::uint32_t>(std::count_if(target.begin(), target.end(), [](auto to) { return to < kMember; }));
}

// Every kept slot outranks every other one, if their `scores` differ by more than `slack` times
// the larger plus the two bounds.
void expect_best_kept(const Policy& policy, std::uint32_t seen, const std::vector<std::uint32_t>& target,
                      const std::vector<double>& scores, const std::vector<double>& bounds, double slack,
                      const std::string& what) {
  double most_lost = -1e300;
  double least_kept = 1e300;
  for (std::size_t i = policy.sinks; i + recent_of(policy, seen) < target.size(); ++i) {
    const double bound = (bounds.empty() ? 0 : bounds[i]) + slack * std::abs(scores[i]);
    if (target[i] < kMember) least_kept = std::min(least_kept, scores[i] + bound);
    if (target[i] >= kMember) most_lost = std::max(most_lost, scores[i] - bound);
  }
  EXPECT_GE(least_kept, most_lost) << what;
}

// Appends tokens one by one or in chunks, with one attend each.
void feed(Rig& rig, Random& random, std::uint32_t tokens) {
  const Shape& shape = rig.shape();
  while (tokens != 0) {
    const std::uint32_t count = std::min<std::uint32_t>(tokens, random.within(1, shape.max_chunk));
    const auto keys = random.bells(std::size_t{count} * shape.kv_heads * shape.head_dim);
    const auto values = random.bells(std::size_t{count} * shape.kv_heads * shape.head_dim);
    ASSERT_EQ(append(rig.cache(), 0, keys, values), Status::kOk) << words(shape, rig.policy());
    auto queries = random.bells(std::size_t{count} * shape.query_heads * shape.head_dim);
    for (float& x : queries) x *= 1.5f;
    (void)test::attend_all(rig.cache(), 0, queries);
    tokens -= count;
  }
}

constexpr Shape kShape = {.layers = 1, .query_heads = 4, .kv_heads = 2, .head_dim = 32, .max_chunk = 16};

Policy random_policy(Random& random) {
  Policy policy = ems_no_merge(random.within(50, 130));
  policy.sinks = random.below(8);
  policy.recent = random.below(40);
  policy.score = static_cast<Score>(random.below(3));
  policy.group = static_cast<Group>(random.below(2));
  policy.combine = static_cast<Combine>(random.below(2));
  policy.value_norms = random.below(2) == 0;
  policy.per_query = random.below(2) == 0;
  policy.window = static_cast<std::uint16_t>(1u << random.below(8));
  policy.pool = static_cast<std::uint8_t>(1 + 2 * random.below(8));
  policy.merge = static_cast<Merge>(random.below(3));
  return policy;
}

TEST(PlanByScore, KeepsSinksRecentAndTheMostImportantUpToTheBudget) {
  Random random(81);
  for (unsigned round = 0; round < test::turns(120, 12); ++round) {
    const Policy policy = random_policy(random);
    Rig rig(kShape, policy);
    for (int step = 0; step < 4; ++step) {
      feed(rig, random, random.within(1, 90));
      const std::vector<std::byte> before = rig.copy_state();
      for (std::uint32_t head = 0; head < 2; ++head) {
        const std::uint32_t held = rig.cache().held(0, head);
        const std::uint32_t incoming = random.below(17);
        const std::vector<std::uint32_t> target = plan_of(rig, head, incoming);
        const std::string what = words(kShape, policy) + ", held " + std::to_string(held);
        if (held + incoming <= policy.tokens + kTileSlots) {
          std::vector<std::uint32_t> same(held);
          std::iota(same.begin(), same.end(), 0u);
          ASSERT_EQ(target, same) << what;
          continue;
        }
        ASSERT_EQ(kept_of(target), policy.tokens) << what;
        for (std::uint32_t i = 0; i < held; ++i) {
          if (i >= policy.sinks && i + recent_of(policy, rig.cache().seen(0)) < held) continue;
          ASSERT_LT(target[i], kMember) << what << ", slot " << i;
        }
        const auto slots = explain_all(rig.cache(), 0, head);
        const auto scores = reference::ranks(policy, reference::importance(policy, rig.cache().seen(0), slots),
                                             model_of(rig).slots(0, head));
        expect_best_kept(policy, rig.cache().seen(0), target, reference::pooled(scores, policy.pool), {}, 0.002, what);
      }
      ASSERT_EQ(rig.copy_state(), before) << "a plan changes nothing";
    }
  }
}

TEST(PlanByScore, OfEqualSlotsTheNewestStay) {
  Rig rig(kShape, h2o(40));
  const auto rows = Random(82).bells(16 * 2 * 32);
  for (int i = 0; i < 4; ++i) ASSERT_EQ(append(rig.cache(), 0, rows, rows), Status::kOk);  // no attention
  const std::vector<std::uint32_t> target = plan_of(rig, 0, 16);
  for (std::uint32_t i = 0; i < 64; ++i) EXPECT_EQ(target[i], i < 24 ? kDrop : i - 24) << i;
}

// All keys are the same, so that all slots get the same attention.
TEST(PlanByScore, UnderValueNormsLargeValuesStay) {
  for (const bool value_norms : {false, true}) {
    Policy policy = ems_no_merge(100);
    policy.value_norms = value_norms;
    Rig rig(kShape, policy);
    Random random(88);
    const auto key = random.gaussians(32);
    for (std::uint32_t seen = 0; seen < 132; ++seen) {
      auto keys = key;
      keys.insert(keys.end(), key.begin(), key.end());
      auto values = random.gaussians(2 * 32);
      for (float& value : values) value *= seen % 5 == 3 ? 6.0f : 1.0f;
      ASSERT_EQ(append(rig.cache(), 0, keys, values), Status::kOk);
      (void)test::attend_all(rig.cache(), 0, random.gaussians(4 * 32));
    }
    const std::vector<std::uint32_t> target = plan_of(rig, 0, 1);
    std::uint32_t lost = 0;
    for (std::uint32_t i = 4; i < target.size(); ++i) {
      if (i % 5 == 3 && target[i] >= kMember) ++lost;
    }
    EXPECT_EQ(lost == 0, value_norms) << lost << " large values went";
  }
}

// The second of 8 slots that most of the attention goes to has a value of 0, then one that makes all others small.
TEST(PlanByScore, NeitherAValueOfZeroNorAHugeOneDecidesAlone) {
  for (const float size : {0.0f, 1e12f}) {
    Rig rig(kShape, ems_no_merge(100));
    Random random(89);
    const auto heavy = [](std::uint32_t seen) { return seen % 9 == 4 && seen >= 20 && seen < 20 + 8 * 9; };
    for (std::uint32_t seen = 0; seen < 132; ++seen) {
      const auto keys = std::vector<float>(2 * 32, heavy(seen) ? 1.0f : -1.0f);
      auto values = random.gaussians(2 * 32);
      for (float& value : values) value *= seen == 31 ? size : 1.0f;
      ASSERT_EQ(append(rig.cache(), 0, keys, values), Status::kOk);
      (void)test::attend_all(rig.cache(), 0, std::vector<float>(4 * 32, 0.5f));
    }
    ASSERT_TRUE(heavy(31));
    const std::vector<std::uint32_t> target = plan_of(rig, 0, 1);
    for (std::uint32_t i = 0; i < target.size(); ++i)
      EXPECT_TRUE(!heavy(i) || target[i] < kMember) << i << ", " << size;
  }
}

// Chains that lose no slots before the plan, with queries whose exact weights are known.
void expect_plan_by_weights(const Policy& policy, bool local, std::uint64_t seed) {
  for (const std::string& port : test::running_ports()) {
    Rig rig(kShape, policy, port);
    Random random(seed);
    std::vector<reference::ScoreModel> models(2, reference::ScoreModel(kShape, policy));
    for (std::uint32_t seen = 0; seen < policy.tokens + kTileSlots; ++seen) {
      const auto rows = random.gaussians(2 * 32);
      ASSERT_EQ(append(rig.cache(), 0, rows, rows), Status::kOk);
      const auto queries = test::exact_queries(random, kShape, 1, 0.05);
      (void)test::attend_all(rig.cache(), 0, test::rows_of(queries));
      for (std::uint32_t head = 0; head < 2; ++head) {
        const std::vector<Slot> slots = model_of(rig).slots(0, head);
        std::vector<reference::WeighedRow> weights;
        for (std::uint32_t member = 0; member < 2; ++member) {
          weights.push_back(reference::weigh_row(queries[head * 2 + member].codes, 0.05, slots, slots.size()));
        }
        models[head].attend(weights);
      }
    }
    for (std::uint32_t head = 0; head < 2; ++head) {
      std::vector<double> scores;
      std::vector<double> bounds;
      for (const auto& score : local ? models[head].local() : models[head].global()) {
        scores.push_back(score.value);
        bounds.push_back(score.bound);
      }
      const std::vector<std::uint32_t> target = plan_of(rig, head, 1);
      EXPECT_EQ(kept_of(target), policy.tokens);
      expect_best_kept(policy, rig.cache().seen(0), target, reference::pooled(scores, policy.pool),
                       reference::pooled(bounds, policy.pool), 0, words(kShape, policy, port));
    }
  }
}

TEST(PlanByScore, TovaKeepsWhatTheLastQuerySees) {
  expect_plan_by_weights(tova(70), true, 83);
}
TEST(PlanByScore, H2oKeepsWhatAllQueriesSaw) {
  expect_plan_by_weights(h2o(96), false, 84);
}
TEST(PlanByScore, SnapKvKeepsTheNeighboursOfWhatTheLastQueriesSaw) {
  expect_plan_by_weights(snapkv(90), true, 85);
}

TEST(PlanByScore, L2NormKeepsTheSmallestKeys) {
  for (const std::uint16_t outliers : std::initializer_list<std::uint16_t>{0, 8}) {
    Shape shape = kShape;
    shape.outlier_channels = outliers;
    Rig rig(shape, l2_norm(80));
    Random random(86);
    for (int i = 0; i < 7; ++i) {
      auto keys = test::keys_of_profile(shape, 1, 0, 16, random);
      for (std::size_t row = 0; row < 32; ++row) {
        const float size = row % 7 == 3 ? 0.0f : 0.5f + 0.1f * static_cast<float>(random.below(10));
        for (std::size_t c = 0; c < 32; ++c) keys[row * 32 + c] *= size;
      }
      ASSERT_EQ(append(rig.cache(), 0, keys, keys), Status::kOk);
    }
    ProfileView profile;
    if (outliers != 0) {
      ASSERT_EQ(profile.open(rig.profile(), shape), Status::kOk);
    }
    for (std::uint32_t head = 0; head < 2; ++head) {
      const std::vector<std::uint32_t> target = plan_of(rig, head, 16);
      std::vector<double> scores;
      for (const Slot& slot : model_of(rig).slots(0, head))
        scores.push_back(-reference::norm(reference::decode_key(slot, profile, 0, head)));
      EXPECT_EQ(kept_of(target), 80u);
      expect_best_kept(rig.policy(), rig.cache().seen(0), target, scores, {}, 1e-5, words(shape, rig.policy()));
    }
  }
}

// Keys in a few directions, so that some are similar and some are not.
std::vector<float> clustered(Random& random, std::uint32_t count, std::uint32_t dim) {
  std::vector<float> rows;
  for (std::uint32_t i = 0; i < count; ++i) {
    Random centre(random.below(12));
    const float spread = 0.1f * static_cast<float>(random.below(12));
    for (std::uint32_t c = 0; c < dim; ++c) rows.push_back(centre.bell() + spread * random.bell());
  }
  return rows;
}

double clamped_cosine(const std::vector<double>& a, const std::vector<double>& b) {
  double dot = 0;
  for (std::size_t c = 0; c < a.size(); ++c) dot += a[c] * b[c];
  const double norms = reference::norm(a) * reference::norm(b);
  return norms > 0 ? std::max(0.0, dot / norms) : 0;
}

// What similarity compares: the row that a tile holds, and its outlier channels.
std::vector<double> tile_key(const Slot& slot, const std::vector<double>& mean, std::vector<double> decoded) {
  for (std::size_t c = 0; c < decoded.size(); ++c) decoded[c] -= mean[c];
  return slot.outliers.empty() ? slot.rotated_key() : decoded;
}

// A bound on the error of the dot product of two keys' outlier channels: those of the first,
// times the squares of their scales, become codes of at most 127, each with an error of half
// a step or slightly more.
double outlier_error(const Slot& candidate, const Slot& centre, const ProfileView& profile, std::uint32_t head) {
  double most = 0;
  double codes = 0;
  for (std::size_t n = 0; n < candidate.outliers.size(); ++n) {
    const double scale = reference::scale16_value(u16_at(profile.head(0, head).outlier_scales, n));
    most = std::max(most, std::abs(candidate.outliers[n]) * scale * scale);
    codes += std::abs(centre.outliers[n]);
  }
  return 0.5001 / 127 * most * codes;
}

// Rows [token][head of 2], the first at `position`, after rotary embedding.
void embed(std::vector<float>& rows, const Rotary& rotary, std::uint32_t dim, std::uint32_t position) {
  for (std::size_t at = 0; at < rows.size(); at += dim) {
    const auto turned = reference::turned(reference::widen(std::span(rows).subspan(at, dim)), rotary,
                                          position + static_cast<double>(at / dim / 2));
    for (std::size_t c = 0; c < dim; ++c) rows[at + c] = static_cast<float>(turned[c]);
  }
}

TEST(Members, JoinTheMostSimilarCentreOrNone) {
  Random random(87);
  std::size_t joined = 0;
  std::size_t lost = 0;
  for (unsigned round = 0; round < test::turns(80, 8); ++round) {
    Shape shape = kShape;
    if (round % 4 == 3) shape.outlier_channels = 8;
    Policy policy = ems(random.within(50, 100));
    policy.recent = random.below(30);
    policy.similarity = round % 3 == 0 ? Similarity::kKeyValue : Similarity::kKey;
    policy.threshold = static_cast<std::uint8_t>(random.below(3) == 0 ? 0 : random.below(256));
    policy.mean_threshold = random.below(4) == 0;
    policy.merge = round % 2 == 0 ? Merge::kValues : Merge::kBoth;
    if (round % 5 < 2) {
      shape.rotary = test::random_rotary(random, 32);
      policy.position_free = true;
    }
    Rig rig(shape, policy, test::running_ports()[round % test::running_ports().size()]);
    while (rig.cache().held(0, 0) + 16 <= policy.tokens + kTileSlots) {
      auto keys = clustered(random, 32, 32);
      embed(keys, shape.rotary, 32, rig.cache().seen(0));
      ASSERT_EQ(append(rig.cache(), 0, keys, clustered(random, 32, 32)), Status::kOk);
      (void)test::attend_all(rig.cache(), 0, random.bells(16 * 4 * 32));
    }
    ProfileView profile;
    if (shape.outlier_channels != 0) {
      ASSERT_EQ(profile.open(rig.profile(), shape), Status::kOk);
    }
    for (std::uint32_t head = 0; head < 2; ++head) {
      const std::vector<Slot> slots = model_of(rig).slots(0, head);
      Slot zero = slots[0];
      std::fill(zero.outliers.begin(), zero.outliers.end(), 0);
      zero.key_scale = 0;
      const std::vector<double> mean = reference::decode_key(zero, profile, 0, head);
      std::vector<std::vector<double>> keys;
      for (std::size_t i = 0; i < slots.size(); ++i) {
        const auto key = reference::decode_key(slots[i], profile, 0, head);
        const double position = model_of(rig).notes(0, head)[i].position;
        keys.push_back(policy.position_free ? reference::turned(key, shape.rotary, -position)
                                            : tile_key(slots[i], mean, key));
      }
      const auto similarity = [&](std::size_t a, std::size_t b) {
        const double key = clamped_cosine(keys[a], keys[b]);
        const double value = clamped_cosine(slots[a].rotated_value(), slots[b].rotated_value());
        return policy.similarity == Similarity::kKey ? key : key * value;
      };
      // A key's outlier channels are compared as 8-bit codes of 8-bit codes, unless it is rotated.
      const auto error = [&](std::size_t a, std::size_t b) {
        return policy.position_free ? 0.0
                                    : outlier_error(slots[a], slots[b], profile, head) /
                                          (reference::norm(keys[a]) * reference::norm(keys[b]));
      };
      const std::vector<std::uint32_t> target = plan_of(rig, head, 16);
      ASSERT_EQ(kept_of(target), policy.tokens);
      // The minimum and maximum of the similarity to the best centre.
      std::vector<double> least(slots.size(), 0.0);
      double least_sum = 0;
      double most_sum = 0;
      std::size_t candidates = 0;
      for (std::size_t i = 0; i < slots.size(); ++i) {
        if (target[i] < kMember) continue;
        double most = 0;
        for (std::size_t j = policy.sinks; j + recent_of(policy, rig.cache().seen(0)) < slots.size(); ++j) {
          if (target[j] >= kMember) continue;
          least[i] = std::max(least[i], similarity(i, j) - error(i, j));
          most = std::max(most, similarity(i, j) + error(i, j));
        }
        least_sum += least[i];
        most_sum += most;
        ++candidates;
      }
      // With mean_threshold, it is the mean of the similarities as they are compared.
      const auto threshold = [&](double sum) {
        return policy.mean_threshold ? sum / static_cast<double>(candidates) : policy.threshold / 256.0;
      };
      constexpr double kRounding = 1e-5;
      for (std::size_t i = 0; i < slots.size(); ++i) {
        const std::string what = words(shape, policy) + ", slot " + std::to_string(i);
        if (target[i] < kMember) continue;
        if (target[i] == kDrop) {
          ASSERT_LE(least[i], std::max(threshold(most_sum), 1e-9) + kRounding) << what;
          ++lost;
          continue;
        }
        const auto centre =
            static_cast<std::size_t>(std::find(target.begin(), target.end(), target[i] - kMember) - target.begin());
        ASSERT_TRUE(centre >= policy.sinks && centre + recent_of(policy, rig.cache().seen(0)) < slots.size()) << what;
        const double found = similarity(i, centre) + error(i, centre) + kRounding;
        ASSERT_GE(found, least[i]) << what;
        ASSERT_GE(found, threshold(least_sum)) << what;
        ++joined;
      }
    }
  }
  EXPECT_GT(joined, 500u / test::kShorter);
  EXPECT_GT(lost, 500u / test::kShorter);
}

TEST(Members, EqualKeysAreAlikeAtAnyPositionsWithoutTheirEmbedding) {
  // Each token has one of few keys before rotary embedding: as they are cached, no two are similar.
  constexpr std::uint32_t kDim = 64;
  Shape shape = {.layers = 1, .query_heads = 1, .kv_heads = 1, .head_dim = kDim, .max_chunk = 1};
  shape.rotary = {.base = 100, .dims = kDim};
  Policy policy = ems(64);
  policy.threshold = 240;  // a cosine of 0.94: quantising both keys costs 0.01 to 0.02
  const std::vector<float> kinds = Random(89).bells(6 * kDim);
  for (const bool position_free : {false, true}) {
    policy.position_free = position_free;
    Rig rig(shape, policy);
    Random random(90);
    std::vector<std::uint32_t> kind_of;
    while (rig.cache().held(0, 0) < policy.tokens + kTileSlots) {
      kind_of.push_back(random.below(6));
      const auto kind = reference::widen(std::span(kinds).subspan(kind_of.back() * kDim, kDim));
      const auto key = reference::turned(kind, shape.rotary, rig.cache().seen(0));
      const std::vector<float> row(key.begin(), key.end());
      ASSERT_EQ(append(rig.cache(), 0, row, row), Status::kOk);
      (void)test::attend_all(rig.cache(), 0, random.bells(kDim));
    }
    const std::vector<std::uint32_t> target = plan_of(rig, 0, 1);
    std::uint32_t joined = 0;
    for (std::size_t i = 0; i < target.size(); ++i) {
      if (target[i] < kMember || target[i] == kDrop) continue;
      const auto centre = std::find(target.begin(), target.end(), target[i] - kMember) - target.begin();
      EXPECT_EQ(kind_of[i], kind_of[static_cast<std::size_t>(centre)]) << "slot " << i;
      ++joined;
    }
    const std::uint32_t candidates = static_cast<std::uint32_t>(target.size()) - kept_of(target);
    EXPECT_EQ(candidates, 32u);
    EXPECT_LE(joined, position_free ? 32u : 8u);
    EXPECT_GE(joined, position_free ? 28u : 0u);
  }
}

TEST(Members, AreOnlyTheSlotsThatHoldTheCandidateMass) {
  Random random(88);
  for (const std::uint32_t share : {1u, 64u, 160u, 200u, 255u}) {
    Policy policy = ems(64);
    policy.threshold = 0;
    Rig all(kShape, policy);
    policy.candidate_mass = static_cast<std::uint8_t>(share);
    Rig rig(kShape, policy);
    for (Rig* each : {&all, &rig}) {
      Random same(share);
      feed(*each, same, 90);
    }
    const std::vector<std::uint32_t> every = plan_of(all, 0, 16);
    const std::vector<std::uint32_t> target = plan_of(rig, 0, 16);
    const auto scores = reference::importance(policy, rig.cache().seen(0), explain_all(rig.cache(), 0, 0));
    const std::vector<double> inner(scores.begin() + policy.sinks,
                                    scores.end() - recent_of(policy, rig.cache().seen(0)));
    std::vector<double> sorted = inner;
    std::sort(sorted.rbegin(), sorted.rend());
    const double wanted = std::accumulate(sorted.begin(), sorted.end(), 0.0) * share / 256;
    double limit = 0;
    double mass = 0;
    for (std::size_t i = 0; mass < wanted; ++i) mass += limit = sorted[i];
    for (std::size_t i = 0; i < target.size(); ++i) {
      const std::string what = "share " + std::to_string(share) + ", slot " + std::to_string(i);
      EXPECT_TRUE(target[i] == every[i] || (target[i] == kDrop && every[i] >= kMember)) << what;
      if (target[i] < kMember || std::abs(scores[i] - limit) < 0.01) continue;
      EXPECT_EQ(target[i], scores[i] > limit ? every[i] : kDrop) << what;
    }
  }
}

TEST(CheckPlan, MembersJoinKeptSlotsOnly) {
  const auto check = [](std::initializer_list<std::uint32_t> target) {
    return check_plan(std::span(target.begin(), target.size()));
  };
  EXPECT_EQ(check({0, kMember}), Status::kOk);
  EXPECT_EQ(check({kMember, 0}), Status::kOk) << "a centre may come later";
  EXPECT_EQ(check({kMember + 1, 0, kDrop, kMember, 1, kMember + 1}), Status::kOk);
  EXPECT_EQ(check({kMember}), Status::kBadPlan);
  EXPECT_EQ(check({0, kMember + 1}), Status::kBadPlan);
  EXPECT_EQ(check({kMember + 2, 0, 1}), Status::kBadPlan);
  EXPECT_EQ(check({kDrop, kMember}), Status::kBadPlan);
  EXPECT_EQ(check({0, kDrop - 2}), Status::kBadPlan);
  EXPECT_EQ(check({0, kFaint, kMember}), Status::kOk) << "faint slots have no numbers";
  EXPECT_EQ(check({0, kMember, 2}), Status::kBadPlan);
  EXPECT_EQ(check({0, kMember - 1}), Status::kBadPlan);
}

}  // namespace
}  // namespace nibkv::plan_score_test
