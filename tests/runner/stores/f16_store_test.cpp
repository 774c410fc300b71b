#include "bench/runner/stores/f16_store.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "bench/runner/text/builtin_text.hpp"
#include "bench/runner/text/tokenizer.hpp"

namespace nibkv::llm {
namespace {

/// The tiny model and some text, one token per byte.
class F16StoreTest : public testing::Test {
 protected:
  Gguf file_ = Gguf::open(NIBKV_TINY_MODEL);
  ThreadPool pool_{2};
  Model model_{file_, pool_};
  std::vector<std::int32_t> tokens_ = Tokenizer::from(file_).encode(builtin_text()[1], false, false);
};

TEST_F(F16StoreTest, IsNearlyExactWhereItHoldsEverything) {
  const Config& config = model_.config();
  const std::uint64_t token_bytes = 4 * config.layers * config.kv_heads * config.head_dim;
  PlainStore exact(config.layers, config.query_heads, config.kv_heads, config.head_dim);
  std::vector<float> logits(config.vocabulary), expected(config.vocabulary);
  const std::span<const std::int32_t> tokens = std::span(tokens_).first(256);
  model_.forward(tokens, 0, exact, expected.data(), 1);
  for (const char* name : {"f16_last", "f16_sinks"}) {
    double distance[2] = {};
    for (const std::uint64_t kept : {256, 32}) {
      F16Store cache(config, name, kept * token_bytes + token_bytes - 1);
      EXPECT_EQ(cache.tokens, kept);
      EXPECT_EQ(cache.bytes, kept * token_bytes);
      model_.forward(tokens, 0, cache.store, logits.data(), 1);
      double sum = 0;
      for (std::size_t i = 0; i < logits.size(); ++i) sum += std::pow(logits[i] - expected[i], 2);
      distance[kept == 32] = std::sqrt(sum / static_cast<double>(logits.size()));
    }
    // Rounding keys changes how the inputs of later products are rounded.
    EXPECT_LT(distance[0], 0.1) << name;
    EXPECT_GT(distance[1], 4 * distance[0]) << name << ": an eighth is not everything";
  }
}

TEST_F(F16StoreTest, TheSmallestF16CacheHasOneTokenAndNoSinks) {
  const Config& config = model_.config();
  for (const char* name : {"f16_last", "f16_sinks"}) {
    F16Store cache(config, name, 0);
    EXPECT_EQ(cache.tokens, 1u);
    EXPECT_EQ(cache.bytes, 4 * config.layers * config.kv_heads * config.head_dim);
    std::vector<float> logits(config.vocabulary);
    model_.forward(std::span(tokens_).first(9), 0, cache.store, logits.data(), 1);
    for (const float logit : logits) ASSERT_TRUE(std::isfinite(logit)) << name;
  }
  EXPECT_TRUE(is_f16("f16_last"));
  EXPECT_FALSE(is_f16("f16"));
}

TEST(PlainStore, KeepsTheLastTokensAsF16) {
  constexpr std::size_t kDim = 16, kWindow = 3;
  PlainStore store(1, 1, 1, kDim);
  store.keep_f16(0, kWindow);
  ThreadPool pool(1);
  const std::vector<float> zeros(2 * kDim);
  std::vector<float> values(2 * kDim), out(2 * kDim);
  // With equal logits the result is the mean of the values.
  for (std::size_t token = 0; token < 100; token += 2) {
    for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(token + i / kDim);
    store.append(0, 2, zeros.data(), values.data(), pool);
    store.attend(0, 2, zeros.data(), out.data(), pool);
    for (std::size_t t = token; t < token + 2; ++t) {
      const float mean = t < kWindow ? static_cast<float>(t) / 2 : static_cast<float>(t - 1);
      EXPECT_NEAR(out[(t - token) * kDim], mean, 1e-5f) << t;
    }
  }
  EXPECT_LE(store.size(), 2 * (kWindow + 2));

  const float given[kDim] = {1.0f / 3, 2049, 2051, -1e6f, 1e-8f, 1e-7f, 6.1e-5f, 0x1.ffep-15f, -0.1f, 0};
  const float held[kDim] = {0x1.554p-2f, 2048, 2052, -65504, 0, 0x1p-23f, 0x1.ff8p-15f, 0x1p-14f, -0x1.998p-4f, 0};
  store.clear();
  store.append(0, 1, zeros.data(), given, pool);
  store.attend(0, 1, zeros.data(), out.data(), pool);
  for (std::size_t i = 0; i < kDim; ++i) EXPECT_EQ(out[i], held[i]) << given[i];
}

TEST(PlainStore, KeepsTheFirstTokensAndTheLastAsF16) {
  constexpr std::size_t kDim = 16, kSinks = 2, kTokens = 5, kChunk = 3;
  PlainStore store(1, 1, 1, kDim);
  store.keep_f16(kSinks, kTokens);
  ThreadPool pool(1);
  const std::vector<float> zeros(kChunk * kDim);
  std::vector<float> values(kChunk * kDim), out(kChunk * kDim);
  for (std::size_t first = 0; first < 99; first += kChunk) {
    for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(first + i / kDim);
    store.append(0, kChunk, zeros.data(), values.data(), pool);
    store.attend(0, kChunk, zeros.data(), out.data(), pool);
    for (std::size_t t = first; t < first + kChunk; ++t) {
      // Of 0, 1, t - 2, t - 1, t.
      const float mean = t < kTokens ? static_cast<float>(t) / 2 : static_cast<float>(3 * t - 2) / 5;
      EXPECT_NEAR(out[(t - first) * kDim], mean, 1e-5f) << t;
    }
  }
  EXPECT_LE(store.size(), 2 * (kTokens + kChunk));
}

}  // namespace
}  // namespace nibkv::llm
