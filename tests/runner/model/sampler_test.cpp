#include "bench/runner/model/sampler.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "bench/runner/gguf/gguf.hpp"

namespace nibkv::llm {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

SamplerOptions drawing(double temperature, double top_p, std::uint64_t seed = 1) {
  SamplerOptions options;
  options.temperature = temperature;
  options.top_p = top_p;
  options.seed = seed;
  return options;
}

std::vector<double> drawn_shares(Sampler sampler, const std::vector<float>& logits, int draws) {
  std::vector<double> shares(logits.size());
  for (int i = 0; i < draws; ++i) ++shares[static_cast<std::size_t>(sampler.sample(logits))];
  for (double& share : shares) share /= draws;
  return shares;
}

std::vector<float> random_logits(std::size_t count, unsigned seed) {
  std::mt19937 random(seed);
  std::vector<float> logits(count);
  for (float& logit : logits) logit = static_cast<float>(random() % 1000) / 100.0f;
  return logits;
}

TEST(Sampler, GreedyTakesTheLargestLogitAndTheLowestIdOfEquals) {
  Sampler greedy(drawing(0, 1));
  EXPECT_EQ(greedy.sample(std::vector<float>{-3, -1, -2}), 1);
  EXPECT_EQ(greedy.sample(std::vector<float>{0, 5, 5, 5}), 1);
  EXPECT_EQ(greedy.sample(std::vector<float>{kNan, -kInfinity, -7, kNan}), 2);
  EXPECT_EQ(greedy.sample(std::vector<float>{4}), 0);
}

TEST(Sampler, RefusesLogitsOfWhichNoneIsFinite) {
  for (const double temperature : {0.0, 1.0}) {
    Sampler sampler(drawing(temperature, 1));
    EXPECT_THROW(sampler.sample(std::vector<float>{kNan, kNan}), Error);
    EXPECT_THROW(sampler.sample(std::vector<float>{-kInfinity}), Error);
    EXPECT_THROW(sampler.sample(std::vector<float>{1, kInfinity}), Error);
  }
}

TEST(Sampler, DrawsWithTheSharesOfTheSoftmax) {
  const std::vector<float> logits = {1.0f, 0.0f, 2.0f, -1.0f, kNan, -kInfinity};
  for (const double temperature : {0.5, 1.0, 3.0}) {
    double sum = 0;
    for (int id = 0; id < 4; ++id) sum += std::exp(logits[static_cast<std::size_t>(id)] / temperature);
    const std::vector<double> drawn = drawn_shares(Sampler(drawing(temperature, 1)), logits, 40000);
    for (std::size_t id = 0; id < 4; ++id) {
      // Five standard deviations of a share are at most 0.0125.
      EXPECT_NEAR(drawn[id], std::exp(logits[id] / temperature) / sum, 0.0125) << "id " << id << " at " << temperature;
    }
    EXPECT_EQ(drawn[4], 0);
    EXPECT_EQ(drawn[5], 0);
  }
}

TEST(Sampler, KeepsTheFewestTokensThatReachTopP) {
  // Shares 0.5, 0.25, 0.125, 0.125 in units of the logarithm.
  const std::vector<float> logits = {std::log(0.125f), std::log(0.5f), std::log(0.125f), std::log(0.25f)};
  const auto drawn = [&](double top_p) { return drawn_shares(Sampler(drawing(1, top_p)), logits, 20000); };
  EXPECT_EQ(drawn(0.0)[1], 1) << "the likeliest stays";
  EXPECT_EQ(drawn(0.4)[1], 1);
  const std::vector<double> two = drawn(0.7);
  EXPECT_NEAR(two[1], 2.0 / 3, 0.02);
  EXPECT_NEAR(two[3], 1.0 / 3, 0.02);
  const std::vector<double> three = drawn(0.8);
  EXPECT_GT(three[0], 0.1) << "of equals the lower id stays";
  EXPECT_EQ(three[2], 0);
}

TEST(Sampler, GivesTheSameTokensForTheSameSeedAndOthersForAnother) {
  const std::vector<float> logits = random_logits(500, 7);
  const auto sequence = [&](std::uint64_t seed) {
    Sampler sampler(drawing(0.8, 0.95, seed));
    std::vector<std::int32_t> ids;
    for (int i = 0; i < 50; ++i) ids.push_back(sampler.sample(logits));
    return ids;
  };
  EXPECT_EQ(sequence(3), sequence(3));
  EXPECT_NE(sequence(3), sequence(4));
}

TEST(Sampler, MakesTokensOfLatelyLessLikely) {
  SamplerOptions options = drawing(0, 1);
  options.repeat_penalty = 1.5;
  Sampler greedy(options);
  using Logits = std::vector<float>;
  using Ids = std::vector<std::int32_t>;
  EXPECT_EQ(greedy.sample(Logits{3, 2.5f, 1}), 0) << "nothing came before";
  EXPECT_EQ(greedy.sample(Logits{3, 2.5f, 1}, Ids{0}), 1) << "2 and 2.5";
  EXPECT_EQ(greedy.sample(Logits{3, 2.5f, 1}, Ids{0, 1}), 0) << "2 and 1.67";
  EXPECT_EQ(greedy.sample(Logits{3, 1.5f, 1}, Ids{0, 0, 0}), 0) << "once, however often it came";
  EXPECT_EQ(greedy.sample(Logits{-2, -2.5f, -4}, Ids{0}), 1) << "-3 and -2.5";
  Ids long_ago(kRepeatTokens + 1, 2);
  long_ago[0] = 0;
  EXPECT_EQ(greedy.sample(Logits{3, 2.5f, 1}, long_ago), 0);
  long_ago[1] = 0;
  EXPECT_EQ(greedy.sample(Logits{3, 2.5f, 1}, long_ago), 1);
  // Without a penalty, what came before changes nothing.
  const std::vector<float> logits = random_logits(500, 7);
  Sampler one(drawing(0.8, 0.95)), other(drawing(0.8, 0.95));
  for (int i = 0; i < 50; ++i) EXPECT_EQ(one.sample(logits), other.sample(logits, Ids{1, 2, 3}));
}

TEST(Sampler, GivesTheseTokensOnEveryMachine) {
  Sampler sampler(drawing(1.0, 0.9, 42));
  std::vector<std::int32_t> ids;
  std::vector<float> logits(64);
  for (std::size_t id = 0; id < logits.size(); ++id) logits[id] = static_cast<float>(id * 37 % 64) / 16.0f;
  for (int i = 0; i < 16; ++i) ids.push_back(sampler.sample(logits));
  const std::vector<std::int32_t> expected = {27, 38, 10, 43, 5, 46, 8, 17, 38, 12, 50, 43, 50, 17, 10, 57};
  EXPECT_EQ(ids, expected);
}

TEST(Sampler, BecomesGreedyAsTheTemperatureGoesToZero) {
  const std::vector<float> logits = {1, 3, 2.999f, 0};
  for (const double temperature : {1e-5, 1e-300, 5e-324}) {
    EXPECT_EQ(drawn_shares(Sampler(drawing(temperature, 1)), logits, 100)[1], 1.0) << temperature;
  }
}

TEST(Sampler, TakesEveryTokenWhenTheTemperatureIsHigh) {
  for (const double share : drawn_shares(Sampler(drawing(100, 1)), {5, 0, -5, 1}, 4000)) EXPECT_NEAR(share, 0.25, 0.06);
}

TEST(Exp2Negative, IsWithinTwoUnitsOfTheTruth) {
  std::mt19937_64 random(11);
  for (int i = 0; i < 20000; ++i) {
    const std::uint64_t x = random() >> (27 + i % 5);  // up to 32
    const double truth = std::ldexp(std::exp2(-std::ldexp(static_cast<double>(x), -32)), 32);
    ASSERT_NEAR(static_cast<double>(exp2_negative(x)), truth, 2) << x;
  }
  EXPECT_EQ(exp2_negative(0), std::uint64_t{1} << 32);
  EXPECT_EQ(exp2_negative(std::uint64_t{1} << 32), std::uint64_t{1} << 31);
}

}  // namespace
}  // namespace nibkv::llm
