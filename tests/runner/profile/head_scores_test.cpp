#include "bench/runner/profile/head_scores.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <string>
#include <vector>

#include "bench/runner/text/builtin_text.hpp"
#include "tests/support/effort.hpp"

namespace nibkv::llm::head_scores_test {
namespace {

Config tiny_shape() {
  Config config;
  config.layers = 2;
  config.query_heads = 4;
  config.kv_heads = 2;
  config.head_dim = 16;
  return config;
}

std::vector<float> bells(std::size_t count, std::mt19937& random) {
  std::normal_distribution<float> normal(0, 1);
  std::vector<float> rows(count);
  for (float& x : rows) x = normal(random);
  return rows;
}

TEST(WatchedStore, AddsUpTheShareOfTheBestQueryHead) {
  const Config config = tiny_shape();
  WatchedStore store(config);
  PlainStore plain(2, 4, 2, 16);
  ThreadPool pool(2);
  std::mt19937 random(5);
  constexpr std::size_t kTokens = 40;
  std::vector<std::vector<float>> keys(2);
  std::vector<double> expected(4);
  const auto step = [&](std::size_t count, bool watched) {
    for (int layer = 0; layer < 2; ++layer) {
      const auto k = bells(count * 2 * 16, random), v = bells(count * 2 * 16, random), q = bells(count * 64, random);
      std::vector<float>& seen = keys[static_cast<std::size_t>(layer)];
      seen.insert(seen.end(), k.begin(), k.end());
      std::vector<float> out(q.size()), same(q.size());
      store.append(layer, count, k.data(), v.data(), pool);
      store.attend(layer, count, q.data(), out.data(), pool);
      plain.append(layer, count, k.data(), v.data(), pool);
      plain.attend(layer, count, q.data(), same.data(), pool);
      EXPECT_EQ(out, same);
      if (!watched) continue;
      for (std::size_t h = 0; h < 2; ++h) {
        double most = 0;
        for (std::size_t g = 0; g < 2; ++g) {
          double sum = 0, part = 0;
          for (std::size_t t = 0; t < seen.size() / 32; ++t) {
            double dot = 0;
            for (std::size_t c = 0; c < 16; ++c) {
              dot += static_cast<double>(q[(h * 2 + g) * 16 + c]) * static_cast<double>(seen[(t * 2 + h) * 16 + c]);
            }
            const double weight = std::exp(dot / 4);
            sum += weight;
            if (t >= 10 && t < 15) part += weight;
          }
          most = std::max(most, part / sum);
        }
        expected[static_cast<std::size_t>(layer) * 2 + h] += most;
      }
    }
  };
  step(kTokens, false);
  EXPECT_EQ(store.steps(), 0u);
  store.watch(10, 5);
  for (int i = 0; i < 3; ++i) step(1, true);
  EXPECT_EQ(store.steps(), 3u);
  ASSERT_EQ(store.shares().size(), 4u);
  for (std::size_t i = 0; i < 4; ++i) EXPECT_NEAR(store.shares()[i], expected[i], 1e-5) << i;
  store.clear();
  EXPECT_EQ(store.steps(), 0u);
  for (const double share : store.shares()) EXPECT_EQ(share, 0);
}

class HeadScoresTest : public testing::Test {
 protected:
  HeadScoresTest() {
    std::string text;
    for (const std::string_view part : builtin_text()) text += std::string(part) + "\n";
    tokens_ = tokenizer_.encode(text, false, false);
  }

  HeadScores measure(NeedleKind kind) {
    HeadScoreOptions options;
    options.kind = kind;
    options.lengths = {300};
    if (test::kShorter == 1) options.lengths.push_back(600);
    options.depths = 3;
    options.seeds = test::turns(2, 1);
    done_ = 0;
    return measure_head_scores(model_, tokenizer_, Haystack(tokenizer_, tokens_), options,
                               [&](std::size_t done, std::size_t all) {
                                 EXPECT_GT(done, done_);
                                 EXPECT_LE(done, all);
                                 all_ = all;
                                 done_ = done;
                               });
  }

  Gguf file_ = Gguf::open(NIBKV_TINY_MODEL);
  Tokenizer tokenizer_ = Tokenizer::from(file_);
  ThreadPool pool_{2};
  Model model_{file_, pool_};
  std::vector<std::int32_t> tokens_;
  std::size_t done_ = 0, all_ = 0;
};

TEST_F(HeadScoresTest, TellHeadsThatLookUpFromOthers) {
  const HeadScores measured = measure(NeedleKind::kCode);
  EXPECT_EQ(measured.asked, test::kShorter == 1 ? 12u : 3u);
  EXPECT_GE(measured.answered, measured.asked * 10 / 12);
  EXPECT_EQ(done_, all_);
  ASSERT_EQ(measured.scores.size(), model_.config().layers * model_.config().kv_heads);
  float least = 1, most = 0;
  for (const float score : measured.scores) {
    EXPECT_GE(score, 0);
    EXPECT_LE(score, 1);
    least = std::min(least, score);
    most = std::max(most, score);
  }
  EXPECT_GT(most, 0.3f) << "the model does find the codes";
  EXPECT_LT(least, most / 4);
  EXPECT_EQ(measure(NeedleKind::kCode).scores, measured.scores);
}

TEST_F(HeadScoresTest, RefusesAModelThatFindsNothing) {
  EXPECT_THROW(measure(NeedleKind::kSentence), Error);
}

}  // namespace
}  // namespace nibkv::llm::head_scores_test
