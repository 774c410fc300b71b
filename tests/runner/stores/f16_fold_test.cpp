#include "bench/runner/stores/f16_fold.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <numbers>
#include <set>
#include <string>
#include <vector>

#include "bench/runner/gguf/gguf.hpp"
#include "tests/support/random.hpp"

namespace nibkv::llm {
namespace {

using test::Random;
using Row = std::vector<float>;

constexpr double kPublished = 0.6;

TEST(ShareDirection, GivesTheVectorsOfThePaper) {
  Row lower = {1, 0}, upper = {0, 2};
  share_direction(lower, upper, kPublished);
  for (const auto& [row, norm] : {std::pair{lower, 1.0}, std::pair{upper, 2.0}}) {
    EXPECT_NEAR(row[0], norm * 0.587785, 0.0005);  // sin 36
    EXPECT_NEAR(row[1], norm * 0.809017, 0.0005);
  }
  lower = {3, 0}, upper = {1, 1};
  share_direction(lower, upper, kPublished);
  EXPECT_NEAR(lower[0], 3 * 0.891007, 0.0015);
  EXPECT_NEAR(lower[1], 3 * 0.453990, 0.0015);
  EXPECT_NEAR(angle_between(Row{1, 0}, Row{0, 2}), std::numbers::pi / 2, 1e-12);
  EXPECT_NEAR(angle_between(Row{1, 0}, Row{1, 1e-6f}), 1e-6, 1e-12);
}

// By the formula, with the error of f16: 2^-11 of the norm and of each channel.
TEST(ShareDirection, IsSphericalInterpolationWithBothNorms) {
  Random random(61);
  for (int round = 0; round < 500; ++round) {
    const std::size_t dim = 16 * random.within(1, 8);
    Row rows[2];
    double norms[2] = {}, cosine = 0;
    for (std::size_t c = 0; c < dim; ++c) {
      const float common = random.bell();
      for (Row& row : rows) row.push_back(common + static_cast<float>(round % 4) * random.bell());
      for (int w = 0; w < 2; ++w) norms[w] += std::pow(static_cast<double>(rows[w][c]), 2);
      cosine += static_cast<double>(rows[0][c]) * static_cast<double>(rows[1][c]);
    }
    for (double& norm : norms) norm = std::sqrt(norm);
    const double angle = std::acos(std::min(1.0, cosine / norms[0] / norms[1]));
    const double t = random.below(256) / 256.0;
    Row shared[2] = {rows[0], rows[1]};
    share_direction(shared[0], shared[1], t);
    for (int w = 0; w < 2; ++w) {
      double error = 0, size = 0;
      for (std::size_t c = 0; c < dim; ++c) {
        const double a = static_cast<double>(rows[0][c]) / norms[0], b = static_cast<double>(rows[1][c]) / norms[1];
        const double way =
            angle < 1e-4 ? a : (std::sin((1 - t) * angle) * a + std::sin(t * angle) * b) / std::sin(angle);
        error += std::pow(static_cast<double>(shared[w][c]) - norms[w] * way, 2);
        size += std::pow(static_cast<double>(shared[w][c]), 2);
      }
      EXPECT_LE(std::sqrt(error), norms[w] * 0x1p-10) << "round " << round << ", t " << t << ", angle " << angle;
      EXPECT_NEAR(std::sqrt(size), norms[w], norms[w] * 0x1.01p-11);
    }
  }
}

TEST(ShareDirection, ZeroRowsStayAndOppositeOnesGiveTheNearer) {
  Row lower = {0, 0}, upper = {3, 4};
  share_direction(lower, upper, kPublished);
  EXPECT_EQ(lower, Row({0, 0}));
  EXPECT_NEAR(upper[0], 3, 0.002);
  EXPECT_NEAR(upper[1], 4, 0.002);
  EXPECT_EQ(angle_between(lower, upper), 0);
  lower = {2, 0}, upper = {-1, 0};
  share_direction(lower, upper, kPublished);
  EXPECT_EQ(lower, Row({-2, 0}));
  EXPECT_EQ(upper, Row({-1, 0}));
  lower = upper = {0, 0};
  share_direction(lower, upper, kPublished);
  EXPECT_EQ(upper, Row({0, 0}));
}

constexpr std::size_t kDim = 16, kHeads = 2, kTokens = 128, kChunk = 8;

// Slots at a larger angle than others: in head 0 the first sixteen, in head 1 from the twentieth on, by less.
float angle_of(std::size_t slot, std::size_t head) {
  const float more = 0.001f * static_cast<float>(slot);
  if (head == 0) return slot < 16 ? 1.0f + more : 0.1f + more;
  return slot >= 20 && slot < 36 ? 0.5f + more : 0.1f + more;
}

struct Fed {
  Fed(const char* name, Retain retain, std::size_t tokens, std::uint8_t retained = 32)
      : cache({.layers = 3, .query_heads = 2, .kv_heads = kHeads, .head_dim = kDim, .max_chunk = kChunk},
              policy(retain, retained), name) {
    ThreadPool pool(1);
    for (std::size_t at = 0; at < tokens; at += kChunk) {
      for (int layer = 0; layer < 3; ++layer) {
        std::vector<float> keys(kChunk * kHeads * kDim), values(keys.size(), 1.0f);
        for (std::size_t i = 0; i < kChunk * kHeads; ++i) {
          const float angle = layer == 2 ? angle_of(at + i / kHeads, i % kHeads) : 0;
          keys[i * kDim] = std::cos(angle);
          keys[i * kDim + 1] = std::sin(angle);
        }
        cache.append(layer, kChunk, keys.data(), values.data(), pool);
      }
    }
  }

  static Policy policy(Retain retain, std::uint8_t retained) {
    Policy policy = full(kTokens);
    policy.fold.keys.add(1);
    policy.fold.retain = retain;
    policy.fold.retained = retained;  // of 256: 32 are 16 of 128 tokens
    return policy;
  }

  // The slots whose key has changed, in both layers.
  std::set<std::size_t> folded(std::size_t head, std::size_t tokens) {
    std::set<std::size_t> slots;
    for (std::size_t slot = 0; slot < tokens; ++slot) {
      const float lower = cache.keys(1, head)[slot * kDim + 1];
      const float upper = cache.keys(2, head)[slot * kDim + 1];
      const double angle = static_cast<double>(angle_of(slot, head));
      EXPECT_EQ(cache.keys(0, head)[slot * kDim], 1.0f);
      if (lower == 0) {
        EXPECT_NEAR(upper, std::sin(angle), 0x1p-11);
        continue;
      }
      EXPECT_NEAR(lower, std::sin(154 / 256.0 * angle), 0x1p-10) << slot;
      EXPECT_EQ(lower, upper);
      slots.insert(slot);
    }
    return slots;
  }

  F16Fold cache;
};

std::set<std::size_t> slots_from(std::size_t first, std::size_t end) {
  std::set<std::size_t> slots;
  while (first < end) slots.insert(first++);
  return slots;
}

// Of 80 tokens 48 are old: 32 that fold and 16 that are retained.
TEST(F16Fold, EachHeadRetainsThoseThatAreFarthestApart) {
  EXPECT_TRUE(Fed(kF16Fold, Retain::kFar, 72).folded(0, 72).empty());
  Fed fed(kF16Fold, Retain::kFar, 80);
  EXPECT_EQ(fed.folded(0, 80), slots_from(16, 48));
  std::set<std::size_t> expected = slots_from(0, 20);
  expected.merge(slots_from(36, 48));
  EXPECT_EQ(fed.folded(1, 80), expected);
  // 80 tokens, 3 layers, 2 heads, keys and values, 32 bytes; minus 28 for a folded key, plus 4 for
  // a retained slot's position.
  EXPECT_EQ(fed.cache.bytes(), 80u * 3 * 2 * 2 * 32 - 32 * 2 * 28 + 16 * 2 * 4);
  EXPECT_EQ(fed.cache.peak_bytes(), fed.cache.bytes());
  EXPECT_DOUBLE_EQ(fed.cache.bits_per_channel(), 8.0 * static_cast<double>(fed.cache.bytes()) / (80 * 3 * 2 * 2 * 16));
  fed.cache.clear();
  EXPECT_EQ(fed.cache.bytes(), 0u);
}

TEST(F16Fold, AllHeadsMayRetainTheSameTokens) {
  Fed fed(kF16FoldTokens, Retain::kFar, 80);
  EXPECT_EQ(fed.folded(0, 80), slots_from(16, 48));
  EXPECT_EQ(fed.folded(1, 80), slots_from(16, 48));
  EXPECT_EQ(fed.cache.bytes(), 80u * 3 * 2 * 2 * 32 - 32 * 2 * 28 + 16 * 4);
}

TEST(F16Fold, NearAndFarRangeAreTheOtherRules) {
  Fed near(kF16Fold, Retain::kNear, 80);
  std::set<std::size_t> expected = slots_from(0, 16);  // 16 to 31 are nearest
  expected.merge(slots_from(32, 48));
  EXPECT_EQ(near.folded(0, 80), expected);
  // Angles range from 0.116 to 1.015, and sixteen are in the upper half of that, although
  // 64 could be retained.
  Fed range(kF16Fold, Retain::kFarRange, 80, 128);
  EXPECT_EQ(range.folded(0, 80), slots_from(16, 48));
  EXPECT_TRUE(Fed(kF16Fold, Retain::kFar, kTokens - kChunk, 128).folded(0, kTokens - kChunk).empty());
}

TEST(F16Fold, RefusesMoreTokensThanItsPolicyHas) {
  EXPECT_NO_THROW(Fed(kF16Fold, Retain::kFar, kTokens));
  EXPECT_THROW(Fed(kF16Fold, Retain::kFar, kTokens + kChunk), Error);
}

}  // namespace
}  // namespace nibkv::llm
