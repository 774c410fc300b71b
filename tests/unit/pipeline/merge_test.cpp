// What happens to merged slots: compact() under policies with Merge::kValues and Merge::kBoth.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "nibkv/nibkv.hpp"
#include "tests/reference/arena_model.hpp"
#include "tests/reference/attention.hpp"
#include "tests/reference/rotary.hpp"
#include "tests/reference/scores.hpp"
#include "tests/support/effort.hpp"
#include "tests/support/exact_query.hpp"
#include "tests/support/model_of.hpp"
#include "tests/support/rig.hpp"

namespace nibkv::merge_test {
namespace {

using reference::Notes;
using reference::Slot;
using test::model_of;
using test::Random;
using test::Rig;
using test::words;

constexpr std::uint16_t kDim = 64;
constexpr Shape kShape = {.layers = 1, .query_heads = 2, .kv_heads = 1, .head_dim = kDim, .max_chunk = 32};

Policy merging(Merge merge, Mass mass) {
  Policy policy = ems(96);
  policy.score = Score::kLocal;  // weights that a test can compute
  policy.merge = merge;
  policy.mass = mass;
  policy.threshold = 0;
  policy.sinks = policy.recent = 0;
  return policy;
}

std::vector<int> biases_of(const Rig& rig) {
  std::vector<int> biases;
  for (const Notes& notes : model_of(rig).notes(0, 0)) biases.push_back(static_cast<int>(notes.bias));
  return biases;
}

// The weight of a slot in merging, in any unit.
std::vector<double> weights_of(const Rig& rig) {
  const auto slots = test::explain_all(rig.cache(), 0, 0);
  std::vector<double> weights = reference::importance(rig.policy(), rig.cache().seen(0), slots);
  for (double& weight : weights) weight += 1.0 / 4096;
  return weights;
}

// All slots stay except `members`, which are merged into the slot `centre`.
std::vector<std::uint32_t> join(std::uint32_t used, std::uint32_t centre, const std::vector<std::uint32_t>& members) {
  std::vector<std::uint32_t> target;
  std::uint32_t next = 0;
  for (std::uint32_t i = 0; i < used; ++i) {
    const bool member = std::find(members.begin(), members.end(), i) != members.end();
    target.push_back(member ? kMember : next++);
  }
  for (const std::uint32_t member : members) target[member] = kMember + target[centre];
  return target;
}

double relative_distance(const std::vector<double>& got, const std::vector<double>& expected) {
  return reference::distance(got, expected) / reference::norm(expected);
}

TEST(Merge, EqualKeysBecomeOneWithTheMeanValueAndTheMassOfBoth) {
  for (const std::string& port : test::running_ports()) {
    for (const Mass mass : {Mass::kShare, Mass::kCount, Mass::kNone}) {
      Rig rig(kShape, merging(Merge::kValues, mass), port);
      Random random(91);
      auto keys = random.gaussians(12 * kDim);
      std::copy_n(keys.begin() + 3 * kDim, kDim, keys.begin() + 7 * kDim);
      ASSERT_EQ(append(rig.cache(), 0, keys, random.gaussians(12 * kDim)), Status::kOk);
      const auto queries = test::exact_queries(random, kShape, 1, 0.03);
      const auto rows = test::rows_of(queries);
      const std::vector<float> before = test::attend_all(rig.cache(), 0, rows);
      const std::vector<Slot> slots = model_of(rig).slots(0, 0);
      ASSERT_EQ(slots[3].key_codes, slots[7].key_codes);
      const std::vector<Notes> notes = model_of(rig).notes(0, 0);

      ASSERT_EQ(compact(rig.cache(), 0, 0, join(12, 3, {7})), Status::kOk);
      const std::vector<Slot> after = model_of(rig).slots(0, 0);
      ASSERT_EQ(after.size(), 11u);
      std::vector<double> mean = slots[3].rotated_value();
      for (std::size_t c = 0; c < kDim; ++c) mean[c] = (mean[c] + slots[7].rotated_value()[c]) / 2;
      EXPECT_LT(relative_distance(after[3].rotated_value(), mean), 0.13) << port;
      EXPECT_EQ(after[3].key_codes, slots[3].key_codes);
      EXPECT_EQ(after[3].key_scale, slots[3].key_scale);
      const Notes centre = model_of(rig).notes(0, 0)[3];
      EXPECT_EQ(centre.bias, mass == Mass::kNone ? 0u : 16u) << "an octave";
      EXPECT_EQ(centre.merged, 1u);
      EXPECT_EQ(centre.position, 3u);
      EXPECT_EQ(centre.local, mass == Mass::kNone ? notes[3].local : notes[3].local + notes[7].local);

      const std::vector<float> out = test::attend_all(rig.cache(), 0, rows);
      for (std::size_t member = 0; member < 2; ++member) {
        const auto got = reference::rotated(reference::widen(std::span(out).subspan(member * kDim, kDim)));
        const auto old = reference::rotated(reference::widen(std::span(before).subspan(member * kDim, kDim)));
        const auto expected = reference::fixed_point_case(queries[member].codes, 0.03, after, 11, biases_of(rig));
        EXPECT_LE(reference::distance(got, expected.exact), expected.norm_bound) << port;
        if (mass == Mass::kNone) continue;
        const auto weights = reference::weigh_row(queries[member].codes, 0.03, slots, 12).weights;
        EXPECT_LE(reference::distance(got, old),
                  (weights[3] + weights[7]) * 0.13 * reference::norm(mean) + 2 * expected.norm_bound)
            << "port " << port;
      }
    }
  }
}

TEST(Merge, WeighsByImportanceAndAddsWhatIsKnown) {
  for (const Merge merge : {Merge::kValues, Merge::kBoth}) {
    for (const Mass mass : {Mass::kShare, Mass::kCount}) {
      Policy policy = merging(merge, mass);
      policy.score = Score::kGlobalLocal;
      Rig rig(kShape, policy);
      Random random(92);
      for (int round = 0; round < 6; ++round) {
        ASSERT_EQ(append(rig.cache(), 0, random.gaussians(8 * kDim), random.gaussians(8 * kDim)), Status::kOk);
        (void)test::attend_all(rig.cache(), 0, random.gaussians(8 * 2 * kDim));
        const auto slots = model_of(rig).slots(0, 0);
        const auto notes = model_of(rig).notes(0, 0);
        const auto weights = weights_of(rig);
        const auto used = static_cast<std::uint32_t>(slots.size());
        const std::uint32_t centre = 4 + random.below(used - 6);
        const std::vector<std::uint32_t> members = {centre - 3, centre - 1, centre + 1};
        std::vector<double> mean(kDim, 0.0);
        double total = 0;
        double count = 0;
        for (const std::uint32_t slot : {centre, members[0], members[1], members[2]}) {
          for (std::size_t c = 0; c < kDim; ++c) mean[c] += weights[slot] * slots[slot].rotated_value()[c];
          total += weights[slot];
          count += notes[slot].merged + 1;
        }
        for (double& x : mean) x /= total;
        ASSERT_EQ(compact(rig.cache(), 0, 0, join(used, centre, members)), Status::kOk);
        const Notes got = model_of(rig).notes(0, 0)[centre - 2];
        const std::string what = words(kShape, policy) + ", round " + std::to_string(round);
        if (total > 1.26 * weights[centre]) {
          EXPECT_LT(relative_distance(model_of(rig).slots(0, 0)[centre - 2].rotated_value(), mean), 0.13) << what;
        }
        const double ratio = mass == Mass::kShare ? total / weights[centre] : count / (notes[centre].merged + 1);
        EXPECT_NEAR(got.bias, std::min(32.0, notes[centre].bias + 16 * std::log2(ratio)), 0.6) << what;
        EXPECT_EQ(got.merged, count - 1) << what;
        // Its scores are those of the class as the bias says it.
        const double raised = std::exp2((got.bias - notes[centre].bias) / 16.0);
        EXPECT_NEAR(got.global, notes[centre].global * raised, 0.003 * got.global + 1) << what;
        EXPECT_NEAR(got.local, std::min(65535.0, notes[centre].local * raised), 0.003 * got.local + 1) << what;
        EXPECT_EQ(got.position, notes[centre].position) << what;
      }
    }
  }
}

TEST(Merge, ALightClassLeavesTheValueOfItsCentreAsItIs) {
  constexpr Shape kFlat = {.layers = 1, .query_heads = 1, .kv_heads = 1, .head_dim = kDim, .max_chunk = 2};
  Rig rig(kFlat, merging(Merge::kBoth, Mass::kShare));
  std::vector<float> keys(2 * kDim, 0.0f);
  keys[0] = 8.0f;
  const auto values = Random(93).gaussians(2 * kDim);
  std::vector<float> query(kDim, 0.0f);
  query[0] = 1.8f;  // 1.8 octaves and more: a weight of 0.15 for the other slot
  ASSERT_EQ(append(rig.cache(), 0, keys, values), Status::kOk);
  (void)test::attend_all(rig.cache(), 0, query);
  const auto weights = weights_of(rig);
  ASSERT_LT(weights[1], 0.24 * weights[0]);
  ASSERT_GT(weights[1], 0.1 * weights[0]);
  const Slot before = model_of(rig).slot(0, 0, 0);
  ASSERT_EQ(compact(rig.cache(), 0, 0, join(2, 0, {1})), Status::kOk);
  EXPECT_EQ(model_of(rig).slot(0, 0, 0), before);
  EXPECT_NEAR(model_of(rig).notes(0, 0)[0].bias, 16 * std::log2(1 + weights[1] / weights[0]), 0.6);
  EXPECT_EQ(model_of(rig).notes(0, 0)[0].merged, 1u);
}

TEST(Merge, BiasEndsAtTwoOctavesAndTheCountAt255) {
  for (const Mass mass : {Mass::kShare, Mass::kCount}) {
    Rig rig(kShape, merging(Merge::kValues, mass));
    const auto rows = Random(94).gaussians(32 * kDim);
    std::uint32_t absorbed = 0;
    for (int round = 0; round < 12; ++round) {
      ASSERT_EQ(append(rig.cache(), 0, rows, rows), Status::kOk);
      const std::uint32_t used = rig.cache().held(0, 0);
      std::vector<std::uint32_t> members(used - 1);
      std::iota(members.begin(), members.end(), 1u);
      ASSERT_EQ(compact(rig.cache(), 0, 0, join(used, 0, members)), Status::kOk);
      absorbed += used - 1;
      const Notes notes = model_of(rig).notes(0, 0).at(0);
      EXPECT_EQ(notes.merged, std::min<std::uint32_t>(255, absorbed));
      EXPECT_EQ(notes.bias, 32u);
    }
  }
}

TEST(Merge, OnlyCentresChange) {
  for (const Merge merge : {Merge::kValues, Merge::kBoth}) {
    Shape shape = kShape;
    shape.outlier_channels = 4;
    Policy policy = ems(80);
    policy.merge = merge;
    policy.threshold = 20;
    Rig rig(shape, policy);
    Random random(95);
    std::size_t centres = 0;
    for (int step = 0; step < 40; ++step) {
      const auto keys = test::keys_of_profile(shape, 1, 0, 16, random);
      std::vector<std::uint32_t> target(rig.cache().held(0, 0));
      ASSERT_EQ(plan(rig.cache(), 0, 0, 16, target), Status::kOk);
      const auto slots = model_of(rig).slots(0, 0);
      const auto notes = model_of(rig).notes(0, 0);
      ASSERT_EQ(append(rig.cache(), 0, keys, random.bells(16 * kDim)), Status::kOk);
      const auto after = model_of(rig).slots(0, 0);
      const auto after_notes = model_of(rig).notes(0, 0);
      for (std::size_t i = 0; i < target.size(); ++i) {
        if (target[i] >= kMember) continue;
        const bool centre = std::find(target.begin(), target.end(), kMember + target[i]) != target.end();
        centres += centre ? 1 : 0;
        const Slot& now = after[target[i]];
        if (!centre) {
          ASSERT_EQ(now, slots[i]) << "slot " << i;
          ASSERT_EQ(after_notes[target[i]], notes[i]) << "slot " << i;
        } else if (merge == Merge::kValues) {
          ASSERT_EQ(now.key_codes, slots[i].key_codes) << "slot " << i;
          ASSERT_EQ(now.key_scale, slots[i].key_scale) << "slot " << i;
          ASSERT_EQ(now.outliers, slots[i].outliers) << "slot " << i;
        }
        ASSERT_EQ(after_notes[target[i]].position, notes[i].position) << "slot " << i;
      }
      (void)test::attend_all(rig.cache(), 0, random.bells(16 * 2 * kDim));
    }
    EXPECT_GT(centres, 100u);
  }
}

TEST(Merge, BothAveragesDirectionsAndKeepsTheNorm) {
  for (const std::uint16_t outliers : std::initializer_list<std::uint16_t>{0, 8}) {
    Shape shape = kShape;
    shape.outlier_channels = outliers;
    Random random(96);
    for (int round = 0; round < 20; ++round) {
      Rig rig(shape, merging(Merge::kBoth, Mass::kShare));
      // One direction with noise, in two sizes.
      auto keys = test::keys_of_profile(shape, 1, 0, 2, random);
      for (std::size_t c = 0; c < kDim; ++c) keys[kDim + c] = 0.6f * keys[c] + 0.2f * keys[kDim + c];
      ASSERT_EQ(append(rig.cache(), 0, keys, random.gaussians(2 * kDim)), Status::kOk);
      const auto slots = model_of(rig).slots(0, 0);
      ProfileView profile;
      if (outliers != 0) {
        ASSERT_EQ(profile.open(rig.profile(), shape), Status::kOk);
      }
      Slot zero = slots[0];
      zero.key_scale = 0;
      std::fill(zero.outliers.begin(), zero.outliers.end(), 0);
      const auto mean_key = reference::decode_key(zero, profile, 0, 0);
      const auto key_of = [&](const Slot& slot) {
        auto key = reference::decode_key(slot, profile, 0, 0);
        for (std::size_t c = 0; c < kDim; ++c) key[c] -= mean_key[c];
        return key;
      };
      const auto a = key_of(slots[0]);
      const auto b = key_of(slots[1]);
      ASSERT_EQ(compact(rig.cache(), 0, 0, join(2, 0, {1})), Status::kOk);  // no attention: equal weights
      const double norm = (reference::norm(a) + reference::norm(b)) / 2;
      std::vector<double> direction;
      for (std::size_t c = 0; c < kDim; ++c) direction.push_back(a[c] / reference::norm(a) + b[c] / reference::norm(b));
      const double length = reference::norm(direction);
      for (double& x : direction) x *= norm / length;
      const auto got = key_of(model_of(rig).slot(0, 0, 0));
      EXPECT_LT(relative_distance(got, direction), 0.15) << "round " << round;
      EXPECT_NEAR(reference::norm(got) / norm, 1, 0.02) << "round " << round;
    }
  }
}

// Tokens of `key` before rotary embedding, at the next `count` positions.
std::vector<float> embedded(const std::vector<double>& key, const Rotary& rotary, std::uint32_t first,
                            std::uint32_t count) {
  std::vector<float> rows;
  for (std::uint32_t i = 0; i < count; ++i) {
    const auto row = reference::turned(key, rotary, first + i);
    rows.insert(rows.end(), row.begin(), row.end());
  }
  return rows;
}

ProfileView view_of(const Rig& rig) {
  ProfileView profile;
  if (!rig.profile().empty()) {
    EXPECT_EQ(profile.open(rig.profile(), rig.shape()), Status::kOk);
  }
  return profile;
}

// What a slot decodes to without codes.
std::vector<double> mean_key_of(const Rig& rig) {
  Slot zero = model_of(rig).slot(0, 0, 0);
  zero.key_scale = 0;
  std::fill(zero.outliers.begin(), zero.outliers.end(), 0);
  return reference::decode_key(zero, view_of(rig), 0, 0);
}

TEST(Merge, KeysThatAreEqualBeforeRotaryEmbeddingGiveBackTheCentresOnlyInPhase) {
  for (const std::string& port : test::running_ports()) {
    for (const std::uint16_t outliers : std::initializer_list<std::uint16_t>{0, 8}) {
      for (const bool adjacent : {true, false}) {
        Shape shape = kShape;
        shape.outlier_channels = outliers;
        shape.rotary = {.base = 1e4f, .dims = kDim, .adjacent = adjacent};
        Policy policy = merging(Merge::kBoth, Mass::kShare);
        for (const bool rephase : {true, false}) {
          policy.rephase = rephase;
          Rig rig(shape, policy, port);
          const auto key = reference::widen(Random(100).bells(kDim));
          ASSERT_EQ(append(rig.cache(), 0, embedded(key, shape.rotary, 0, 32), Random(101).bells(32 * kDim)),
                    Status::kOk);
          // Members before and after their centre.
          ASSERT_EQ(compact(rig.cache(), 0, 0, join(32, 13, {2, 30})), Status::kOk);
          const auto got = reference::decode_key(model_of(rig).slot(0, 0, 12), view_of(rig), 0, 0);
          const double error = relative_distance(got, reference::turned(key, shape.rotary, 13));
          const std::string what = words(shape, policy, port);
          if (rephase) {
            EXPECT_LT(error, outliers == 0 ? 0.11 : 0.16) << what;
          } else {
            EXPECT_GT(error, 0.3) << what;
          }
        }
      }
    }
  }
}

TEST(Merge, InPhaseMembersAreAveragedWhereTheirCentreIs) {
  for (const std::uint16_t outliers : std::initializer_list<std::uint16_t>{0, 8}) {
    Random random(102);
    for (int round = 0; round < 20; ++round) {
      Shape shape = kShape;
      shape.outlier_channels = outliers;
      shape.rotary = test::random_rotary(random, kDim);
      Policy policy = merging(Merge::kBoth, Mass::kShare);
      policy.rephase = true;
      Rig rig(shape, policy);
      // One key with noise, in two sizes, anywhere.
      std::vector<float> keys = random.bells(32 * kDim);
      const std::uint32_t centre = random.below(16);
      const std::uint32_t member = 16 + random.below(16);
      const auto near = reference::turned(reference::widen(std::span(keys).subspan(centre * kDim, kDim)), shape.rotary,
                                          static_cast<double>(member) - centre);
      for (std::size_t c = 0; c < kDim; ++c) {
        float& channel = keys[member * kDim + c];
        channel = static_cast<float>(0.6 * near[c] + 0.3 * channel);
      }
      ASSERT_EQ(append(rig.cache(), 0, keys, random.bells(32 * kDim)), Status::kOk);
      const auto mean = mean_key_of(rig);
      const auto key_of = [&](std::uint32_t slot, double positions) {
        auto key = reference::turned(reference::decode_key(model_of(rig).slot(0, 0, slot), view_of(rig), 0, 0),
                                     shape.rotary, positions);
        for (std::size_t c = 0; c < kDim; ++c) key[c] -= mean[c];
        return key;
      };
      const auto a = key_of(centre, 0);
      const auto b = key_of(member, static_cast<double>(centre) - member);
      ASSERT_EQ(compact(rig.cache(), 0, 0, join(32, centre, {member})), Status::kOk);  // equal weights
      const double norm = (reference::norm(a) + reference::norm(b)) / 2;
      std::vector<double> direction;
      for (std::size_t c = 0; c < kDim; ++c) direction.push_back(a[c] / reference::norm(a) + b[c] / reference::norm(b));
      const double length = reference::norm(direction);
      for (double& x : direction) x *= norm / length;
      EXPECT_LT(relative_distance(key_of(centre, 0), direction), 0.13) << words(shape, policy) << ", round " << round;
    }
  }
}

TEST(Merge, KeysThatCancelLeaveTheCentresOwn) {
  Rig rig(kShape, merging(Merge::kBoth, Mass::kShare));
  auto keys = Random(97).gaussians(2 * kDim);
  for (std::size_t c = 0; c < kDim; ++c) keys[kDim + c] = -keys[c];
  ASSERT_EQ(append(rig.cache(), 0, keys, keys), Status::kOk);
  const Slot before = model_of(rig).slot(0, 0, 0);
  ASSERT_EQ(compact(rig.cache(), 0, 0, join(2, 0, {1})), Status::kOk);
  EXPECT_EQ(model_of(rig).slot(0, 0, 0).key_codes, before.key_codes);
  EXPECT_EQ(model_of(rig).slot(0, 0, 0).key_scale, before.key_scale);
}

TEST(Merge, IsRefusedUnderAPolicyWithoutIt) {
  for (const Policy& policy : {full(96), streaming_llm(96), ems_no_merge(96), h2o(96), l2_norm(96)}) {
    Rig rig(kShape, policy);
    const auto rows = Random(98).gaussians(10 * kDim);
    ASSERT_EQ(append(rig.cache(), 0, rows, rows), Status::kOk);
    const std::vector<std::byte> before = rig.copy_state();
    const auto target = join(10, 3, {5});
    ASSERT_EQ(check_plan(target), Status::kOk);
    EXPECT_EQ(compact(rig.cache(), 0, 0, target), Status::kBadPlan) << words(kShape, policy);
    EXPECT_EQ(rig.copy_state(), before) << words(kShape, policy);
  }
}

TEST(Merge, AttentionOverMergedSlotsIsExactWithinTheBound) {
  for (const std::string& port : test::running_ports()) {
    for (const Merge merge : {Merge::kValues, Merge::kBoth}) {
      Policy policy = ems(64);
      policy.merge = merge;
      policy.threshold = 0;
      Rig rig(kShape, policy, port);
      Random random(99);
      int most = 0;
      for (std::uint32_t step = 0; step < test::turns(300, 150); ++step) {
        ASSERT_EQ(append(rig.cache(), 0, random.gaussians(kDim), random.gaussians(kDim)), Status::kOk);
        const double scale = 0.01 * (1 + step % 5);
        const auto queries = test::exact_queries(random, kShape, 1, scale);
        const std::vector<Slot> slots = model_of(rig).slots(0, 0);
        const std::vector<int> biases = biases_of(rig);
        most = std::max(most, *std::max_element(biases.begin(), biases.end()));
        const std::vector<float> out = test::attend_all(rig.cache(), 0, test::rows_of(queries));
        for (std::size_t member = 0; member < 2; ++member) {
          const auto expected = reference::fixed_point_case(queries[member].codes, scale, slots, slots.size(), biases);
          const auto got = reference::rotated(reference::widen(std::span(out).subspan(member * kDim, kDim)));
          ASSERT_LE(reference::distance(got, expected.exact), expected.norm_bound) << "step " << step << ", " << port;
        }
      }
      EXPECT_GT(most, 4);
      EXPECT_LE(most, 32);
    }
  }
}

}  // namespace
}  // namespace nibkv::merge_test
