#include "bench/eval/metrics/speculative.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "bench/runner/text/builtin_text.hpp"
#include "bench/runner/text/tokenizer.hpp"

namespace nibkv::llm::speculative_test {
namespace {

/// The tiny model and some text, one token per byte.
class SpeculativeTest : public testing::Test {
 protected:
  SpeculativeTest() {
    std::string text;
    for (const std::string_view part : builtin_text()) text += std::string(part) + "\n";
    tokens_ = Tokenizer::from(file_).encode(text, false, false);
    options_.length = 300;
    options_.store.tokens = 304;
    options_.store.workers = pool_.workers();
  }

  SpeculativeFigures measure() { return measure_speculative(model_, pool_, tokens_, options_); }

  Gguf file_ = Gguf::open(NIBKV_TINY_MODEL);
  ThreadPool pool_{2};
  Model model_{file_, pool_};
  std::vector<std::int32_t> tokens_;
  SpeculativeOptions options_;
};

TEST_F(SpeculativeTest, UnderFullNoDraftLeavesATrace) {
  // The cross-entropy of the text, in one pass and summed up here.
  TileStore store(model_.config(), options_.store);
  const std::size_t vocabulary = model_.config().vocabulary;
  std::vector<float> logits(options_.length * vocabulary);
  model_.forward(std::span(tokens_).first(options_.length), 0, store, logits.data(), options_.length);
  double loss = 0;
  for (std::size_t row = 0; row < options_.length; ++row) {
    const float* at = logits.data() + row * vocabulary;
    double sum = 0;
    for (std::size_t i = 0; i < vocabulary; ++i) sum += std::exp(static_cast<double>(at[i]));
    loss += std::log(sum) - static_cast<double>(at[tokens_[row + 1]]);
  }
  for (const std::size_t right : {0u, 30u, 70u, 100u}) {
    options_.right = right;
    const SpeculativeFigures figures = measure();
    EXPECT_EQ(figures.totals.rows, 300u) << right;
    EXPECT_EQ(figures.same_rows, 300u) << right;
    EXPECT_EQ(figures.totals.same_top, 300u) << right;
    EXPECT_EQ(figures.worst, 0) << right;
    EXPECT_EQ(figures.passes + figures.accepted, 300u) << right;
    EXPECT_NEAR(figures.totals.loss, loss, 1e-3 * loss) << right;
    // Of 4 drafts, p + p^2 + p^3 + p^4 are accepted on average: none, 0.43, 1.77, all.
    const double p = static_cast<double>(right) / 100;
    const double wanted = p + p * p + p * p * p + p * p * p * p;
    const double chance = right == 30 || right == 70 ? 0.4 : 0;
    EXPECT_NEAR(static_cast<double>(figures.accepted) / static_cast<double>(figures.passes), wanted, chance) << right;
  }
}

// Policies without scores of attention drop the same slots, drafts or not, if they do it before the same tokens.
TEST_F(SpeculativeTest, WithoutScoresOnlyPassesBeyondTheSpaceLeaveATrace) {
  for (const char* policy : {"streaming_llm", "l2_norm"}) {
    options_.store.policy = policy;
    options_.store.tokens = 64;
    options_.within_space = true;
    SpeculativeFigures figures = measure();
    EXPECT_EQ(figures.same_rows, 300u) << policy;
    options_.within_space = false;
    figures = measure();
    EXPECT_GT(figures.same_rows, 60u) << policy << ": nothing is dropped before";
    EXPECT_LT(figures.same_rows, 300u) << policy;
    EXPECT_GT(figures.worst, 0) << policy;
  }
}

TEST_F(SpeculativeTest, ScoresRememberDrafts) {
  options_.store.policy = "ems";
  options_.store.tokens = 64;
  options_.within_space = true;
  const SpeculativeFigures figures = measure();
  EXPECT_LT(figures.same_rows, 300u);
  EXPECT_GT(figures.totals.divergence, 0);
  EXPECT_LT(figures.totals.mean(figures.totals.divergence), 0.1);
  options_.seed = 2;
  EXPECT_NE(measure().accepted, figures.accepted);
}

TEST_F(SpeculativeTest, WhatIsReplayedLeavesNoTrace) {
  options_.store.tokens = 64;
  options_.replay = true;
  for (const char* policy : {"ems", "h2o", "ada_kv", "streaming_llm"}) {
    options_.store.policy = policy;
    // Space that a pass of several tokens makes is made before the first of them.
    options_.within_space = false;
    EXPECT_LT(measure().same_rows, 300u) << policy;
    options_.within_space = true;
    const SpeculativeFigures figures = measure();
    EXPECT_EQ(figures.same_rows, 300u) << policy;
    EXPECT_GT(figures.drafted, figures.accepted) << policy;
  }
}

TEST_F(SpeculativeTest, WhatCannotBeReadIsRefused) {
  const auto refuses = [&](const char* words) {
    try {
      measure();
      ADD_FAILURE() << words;
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find(words), std::string::npos) << error.what();
    }
  };
  options_.drafts = 64;
  refuses("longer than the cache's chunks of 64");
  options_.drafts = 4;
  options_.length = tokens_.size();
  refuses("are needed");
  options_.length = model_.config().context;
  tokens_.resize(options_.length + 1, tokens_[0]);
  refuses("more than the model's context");
}

}  // namespace
}  // namespace nibkv::llm::speculative_test
