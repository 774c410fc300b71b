#include "bench/eval/metrics/perplexity.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <string>
#include <vector>

#include "bench/runner/text/builtin_text.hpp"
#include "bench/runner/text/tokenizer.hpp"

namespace nibkv::llm::perplexity_test {
namespace {

std::vector<long double> log_softmax(const std::vector<float>& logits) {
  long double sum = 0;
  for (const float logit : logits) sum += std::exp(static_cast<long double>(logit) - logits[0]);
  std::vector<long double> out;
  for (const float logit : logits) out.push_back(logit - (logits[0] + std::log(sum)));
  return out;
}

TEST(ScoreRow, AgreesWithAPlainLogSoftmax) {
  std::mt19937 random(7);
  std::normal_distribution<float> normal(0, 4);
  for (const std::size_t size : {1u, 2u, 33u, 1000u}) {
    for (const float noise : {0.0f, 0.01f, 1.0f}) {
      std::vector<float> reference(size), tested(size);
      for (std::size_t i = 0; i < size; ++i) {
        reference[i] = normal(random);
        tested[i] = reference[i] + noise * normal(random) + 3;
      }
      const auto log_p = log_softmax(reference), log_q = log_softmax(tested);
      long double divergence = 0;
      for (std::size_t i = 0; i < size; ++i) divergence += std::exp(log_p[i]) * (log_p[i] - log_q[i]);
      const auto target = static_cast<std::int32_t>(size / 2);
      const RowScore score = score_row(tested.data(), reference.data(), size, target);
      EXPECT_NEAR(score.loss, static_cast<double>(-log_q[size / 2]), 1e-12) << size << ", noise " << noise;
      EXPECT_NEAR(score.reference_loss, static_cast<double>(-log_p[size / 2]), 1e-12) << size << ", noise " << noise;
      EXPECT_NEAR(score.divergence, static_cast<double>(divergence), 1e-12) << size << ", noise " << noise;
    }
  }
}

TEST(ScoreRow, TakesTheSameRowTwice) {
  const float row[] = {1, 5, -2, 5};
  const RowScore score = score_row(row, row, 4, 3);
  EXPECT_EQ(score.loss, score.reference_loss);
  EXPECT_EQ(score.divergence, 0);
  EXPECT_TRUE(score.same_top);
}

TEST(ScoreRow, StaysFiniteForLogitsFarApart) {
  const float reference[] = {1e30f, 0, -1e30f}, tested[] = {0, 1000, -1000};
  const RowScore score = score_row(tested, reference, 3, 0);
  EXPECT_NEAR(score.loss, 1000, 1e-9);
  EXPECT_NEAR(score.divergence, 1000, 1e-9);
  EXPECT_EQ(score.reference_loss, 0);
  EXPECT_FALSE(score.same_top);
}

/// The tiny model and some text, one token per byte.
class PerplexityTest : public testing::Test {
 protected:
  PerplexityTest() {
    std::string text;
    for (const std::string_view part : builtin_text()) text += std::string(part) + "\n";
    tokens_ = Tokenizer::from(file_).encode(text, false, false);
  }

  PerplexityFigures measure(const PerplexityOptions& options, std::size_t tokens = 100000) {
    const std::span<const std::int32_t> all(tokens_);
    return measure_perplexity(model_, pool_, all.first(std::min(tokens, all.size())), options, {});
  }

  PerplexityOptions options(std::size_t context, std::size_t windows, Storage storage = Storage::kQ4) const {
    PerplexityOptions out;
    out.context = context;
    out.windows = windows;
    out.store.tokens = static_cast<std::uint32_t>(context);
    out.store.storage = storage;
    out.store.workers = pool_.workers();
    return out;
  }

  Gguf file_ = Gguf::open(NIBKV_TINY_MODEL);
  ThreadPool pool_{2};
  Model model_{file_, pool_};
  std::vector<std::int32_t> tokens_;
};

TEST_F(PerplexityTest, ScoresTheSecondHalfOfEachWindow) {
  const Config& config = model_.config();
  for (const std::size_t context : {2u, 3u, 7u, 130u}) {
    const PerplexityOptions exact = options(context, 2, Storage::kF32);
    TileStore store(config, exact.store);
    double loss = 0;
    std::size_t scored = 0;
    for (std::size_t window = 0; window < 2; ++window) {
      store.clear();
      const std::span<const std::int32_t> tokens = std::span(tokens_).subspan(window * context, context);
      std::vector<float> logits(context * config.vocabulary);
      model_.forward(tokens, 0, store, logits.data(), context);
      for (std::size_t row = context / 2 - 1; row + 1 < context; ++row, ++scored) {
        const auto begin = logits.begin() + static_cast<std::ptrdiff_t>(row * config.vocabulary);
        const std::vector<float> copy(begin, begin + static_cast<std::ptrdiff_t>(config.vocabulary));
        loss -= static_cast<double>(log_softmax(copy)[static_cast<std::size_t>(tokens[row + 1])]);
      }
    }
    const PerplexityFigures figures = measure(exact);
    EXPECT_EQ(figures.windows, 2u);
    EXPECT_EQ(figures.scored_tokens, scored);
    EXPECT_EQ(scored, 2 * (context - context / 2));
    EXPECT_NEAR(figures.cross_entropy, loss / static_cast<double>(scored), 1e-9) << "context " << context;
  }
}

TEST_F(PerplexityTest, FindsNoDifferenceBetweenTheReferenceAndItself) {
  const PerplexityFigures figures = measure(options(128, 2, Storage::kF32));
  EXPECT_EQ(figures.kl_divergence, 0);
  EXPECT_EQ(figures.top1_agreement, 1);
  EXPECT_EQ(figures.cross_entropy_f32, figures.cross_entropy);
  EXPECT_GE(figures.bits_per_channel, 32);

  // A budget that is never reached changes nothing, but is still compared with the reference.
  PerplexityOptions bounded = options(128, 2, Storage::kF32);
  bounded.store.policy = "streaming_llm";
  const PerplexityFigures again = measure(bounded);
  EXPECT_EQ(again.cross_entropy, figures.cross_entropy);
  EXPECT_EQ(again.cross_entropy_f32, figures.cross_entropy);
  EXPECT_NEAR(again.kl_divergence, 0, 1e-12);
}

TEST_F(PerplexityTest, FindsASmallDifferenceForFourBitsAndALargerOneForAShortMemory) {
  const double reference = measure(options(256, 2, Storage::kF32)).cross_entropy;
  const PerplexityFigures q4 = measure(options(256, 2));
  EXPECT_EQ(q4.cross_entropy_f32, reference);
  EXPECT_GT(q4.kl_divergence, 0);
  EXPECT_LT(q4.kl_divergence, 0.1);
  EXPECT_LT(q4.bits_per_channel, 7);
  EXPECT_GT(q4.standard_error, 0);
  EXPECT_LE(q4.peak_bytes, q4.arena_bytes);

  PerplexityOptions short_memory = options(256, 2);
  short_memory.store.policy = "streaming_llm";
  short_memory.store.tokens = 20;
  const PerplexityFigures bounded = measure(short_memory);
  EXPECT_EQ(bounded.cross_entropy_f32, reference);
  EXPECT_GT(bounded.kl_divergence, q4.kl_divergence);
  EXPECT_LT(bounded.peak_bytes, q4.peak_bytes);
}

TEST_F(PerplexityTest, GivesTheSameFiguresWithAnyNumberOfWorkers) {
  const PerplexityFigures two = measure(options(128, 2));
  ThreadPool pool(3);
  Model model(file_, pool);
  PerplexityOptions other = options(128, 2);
  other.store.workers = 3;
  const PerplexityFigures three = measure_perplexity(model, pool, tokens_, other, {});
  EXPECT_EQ(three.cross_entropy, two.cross_entropy);
  EXPECT_EQ(three.kl_divergence, two.kl_divergence);
  EXPECT_EQ(three.top1_agreement, two.top1_agreement);
}

TEST_F(PerplexityTest, UsesAsManyWholeWindowsAsTheTextHas) {
  EXPECT_EQ(measure(options(64, 8), 191).windows, 2u);
  EXPECT_EQ(measure(options(64, 8), 192).windows, 3u);
  EXPECT_THROW(measure(options(64, 8), 63), Error);
}

TEST_F(PerplexityTest, RefusesContextsThatTheModelDoesNotHave) {
  EXPECT_THROW(measure(options(1, 1)), Error);
  EXPECT_THROW(measure(options(model_.config().context + 1, 1)), Error);
}

TEST_F(PerplexityTest, ReportsProgressUpToTheEnd) {
  std::vector<PerplexityProgress> seen;
  const PerplexityFigures figures =
      measure_perplexity(model_, pool_, tokens_, options(256, 2), [&](const auto& now) { seen.push_back(now); });
  ASSERT_EQ(seen.size(), 8u) << "64 tokens a step";
  for (std::size_t i = 0; i < seen.size(); ++i) {
    EXPECT_EQ(seen[i].fed, (i + 1) * 64);
    EXPECT_EQ(seen[i].all, 512u);
    EXPECT_EQ(seen[i].windows_done, (i + 1) / 4);
  }
  EXPECT_EQ(seen.front().cross_entropy, 0);
  EXPECT_EQ(seen.back().cross_entropy, figures.cross_entropy);
}

}  // namespace
}  // namespace nibkv::llm::perplexity_test
