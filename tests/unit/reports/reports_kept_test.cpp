// Faults reported in other caches, which this one must not have: what is kept of a long text.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "nibkv/nibkv.hpp"
#include "tests/support/effort.hpp"
#include "tests/support/feed.hpp"
#include "tests/support/snapshots.hpp"

namespace nibkv::reports_kept_test {
namespace {

using test::feed;
using test::Random;
using test::Rig;
using test::saved;
using test::words;

constexpr Shape kOneHead = {.layers = 1, .query_heads = 1, .kv_heads = 1, .head_dim = 64};

constexpr std::uint16_t kDim = test::kShorter == 1 ? 64 : 16;

// The budget of every head is at least what is always kept plus one slot, and no chain is
// cut below its budget.
void expect_budgets_kept(const Policy& policy, std::span<const float> rows, std::uint32_t tokens) {
  constexpr Shape kShape = {.layers = 2, .query_heads = 4, .kv_heads = 2, .head_dim = kDim};
  if (!valid(policy, kShape)) return;
  Rig rig(kShape, policy);
  const std::string what = words(kShape, policy);
  std::vector<float> out(4 * kDim);
  for (std::uint32_t token = 0; token < tokens; ++token) {
    for (std::uint32_t layer = 0; layer < 2; ++layer) {
      const std::uint32_t before[] = {rig.cache().held(layer, 0), rig.cache().held(layer, 1)};
      const auto row = rows.subspan((token * 2 + layer) * 4 * kDim, 4 * kDim);
      const Status status = append(rig.cache(), layer, row.first(2 * kDim), row.last(2 * kDim));
      if (policy.keep == Keep::kAll && status == Status::kFull) return;
      ASSERT_EQ(status, Status::kOk) << what;
      ASSERT_EQ(attend(rig.cache(), layer, row, out), Status::kOk) << what;
      for (std::uint32_t head = 0; head < 2; ++head) {
        const std::uint32_t held = rig.cache().held(layer, head), budget = rig.cache().budget(layer, head);
        ASSERT_GE(budget, policy.sinks + policy.recent + 1) << what << ", layer " << layer << ", head " << head;
        ASSERT_LE(held, budget + test::most_beyond(kShape, policy)) << what;
        if (held <= before[head]) {
          ASSERT_GE(held, budget) << what << ", layer " << layer << ", head " << head << ", token " << token;
        }
      }
    }
  }
}

// NVIDIA/kvpress#264: a small budget is rounded down to 0, and everything is silently dropped.
TEST(ReportsKept, NoBudgetIsRoundedToNothing) {
  const std::uint32_t tokens = test::kShorter == 1 ? 400 : 120;
  const std::vector<float> rows = Random(1).bells(std::size_t{tokens} * 2 * 4 * kDim);
  std::size_t turn = 0;
  for (std::uint32_t i = 0; !policy_name(i).empty(); ++i) {
    for (std::uint32_t budget = 1; budget <= 70; ++budget) {
      Policy policy;
      ASSERT_EQ(find_policy(policy_name(i), budget, policy), Status::kOk);
      if (turn++ % test::kShorter == 0) expect_budgets_kept(policy, rows, tokens);
      if (HasFatalFailure()) return;
    }
  }
}

// NVIDIA/kvpress#277: a protected window that is rounded to 0 protects everything instead of nothing.
TEST(ReportsKept, AWindowOfNothingProtectsNothing) {
  Rig rig(kOneHead, tova(64));
  ASSERT_EQ(rig.policy().recent + rig.policy().sinks, 0u);
  Random random(2);
  for (int token = 0; token < 500; ++token) {
    (void)feed(rig.cache(), random, 1);
    ASSERT_LE(rig.cache().held(0, 0), 64u + 32u) << token;
  }
}

std::uint32_t sum_of_budgets(const Cache& cache, std::uint32_t layers) {
  std::uint32_t sum = 0;
  for (std::uint32_t layer = 0; layer < layers; ++layer) {
    for (std::uint32_t head = 0; head < cache.shape().kv_heads; ++head) sum += cache.budget(layer, head);
  }
  return sum;
}

// rajveer43/VeloxQuant-MLX#76: budgets that decrease from layer to layer add up to more
// than the requested mean.
TEST(ReportsKept, BudgetsThatDifferAddUpToNoMoreThanTheirMean) {
  constexpr Shape kShape = {.layers = 8, .query_heads = 2, .kv_heads = 2, .head_dim = 32};
  for (const std::uint32_t tokens : {1u, 20u, 31u, 33u, 50u, 64u, 95u, 100u, 512u}) {
    for (const Policy& policy : {pyramid_kv(tokens), ada_kv(tokens), head_kv(tokens)}) {
      Rig rig(kShape, policy);
      const std::string what = words(kShape, policy);
      EXPECT_EQ(sum_of_budgets(rig.cache(), 8), tokens * 16) << what;
      // Competing heads do so from the first cut on.
      Random random(tokens);
      if (policy.budget != Budget::kAdaptive || tokens > 100) continue;
      (void)feed(rig.cache(), random, tokens + 50);
      EXPECT_EQ(sum_of_budgets(rig.cache(), 8), tokens * 16) << what;
      EXPECT_EQ(check(rig.cache()), Status::kOk) << what;
      test::come_back(rig.cache());
    }
  }
}

// NVIDIA/kvpress#276: many scores are equal, and which tokens stay depends on how ties are broken.
TEST(ReportsKept, EqualScoresFallTheSameWayEverywhere) {
  std::vector<std::byte> first;
  for (int run = 0; run < 2; ++run) {
    for (const std::string& port : test::running_ports()) {
      Rig rig(kOneHead, l2_norm(64), port);
      Random random(3);
      const std::vector<float> key = random.bells(64);
      for (int token = 0; token < 300; ++token) {
        ASSERT_EQ(append(rig.cache(), 0, key, random.bells(64)), Status::kOk);
        (void)test::attend_all(rig.cache(), 0, random.bells(64));
      }
      const std::vector<std::byte> snapshot = saved(rig.cache());
      if (first.empty()) first = snapshot;
      EXPECT_EQ(snapshot, first) << port;
    }
  }
}

// anhtuanhsgs/GitMerge3D#3: merged tokens should weigh as much as the tokens they stand for, but
// the term for it has no effect.
TEST(ReportsKept, MergedTokensWeighAsManyAsTheyStandFor) {
  Policy policy = ems(64);
  policy.mass = Mass::kCount;
  policy.threshold = 0;
  Rig rig(kOneHead, policy);
  Random random(4);
  const std::vector<float> direction = random.bells(64), zeros(64);
  for (int token = 0; token < 97; ++token) {
    std::vector<float> key = random.bells(64);
    for (std::size_t c = 0; c < 64; ++c) key[c] = direction[c] + key[c] / 16;
    ASSERT_EQ(append(rig.cache(), 0, key, random.bells(64)), Status::kOk);
    (void)test::attend_all(rig.cache(), 0, zeros);
  }
  std::uint32_t tokens = 0, most = 0;
  for (const SlotInfo& slot : test::explain_all(rig.cache(), 0, 0)) {
    tokens += slot.merged + 1;
    most = std::max<std::uint32_t>(most, slot.merged);
    const double octaves = std::log2(slot.merged + 1.0);
    EXPECT_EQ(slot.bias, std::min(32.0, std::round(16 * octaves))) << int{slot.merged} << " merged";
  }
  EXPECT_EQ(tokens, 97u);
  EXPECT_GE(most, 2u) << "three tokens in one slot";
}

}  // namespace
}  // namespace nibkv::reports_kept_test
