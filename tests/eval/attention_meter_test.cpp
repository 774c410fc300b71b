#include "bench/eval/metrics/attention_meter.hpp"

#include <gtest/gtest.h>

#include <cmath>

namespace nibkv::llm {
namespace {

constexpr std::size_t kContext = 64;

Config one_head() {
  Config config;
  config.layers = 1;
  config.query_heads = 2;
  config.kv_heads = 1;
  config.head_dim = 16;
  return config;
}

// Queries all alike; the key of token t has a logit of `logit(t)` with each of them.
template <typename Logit>
HeadAttention measure(const std::vector<TokenClass>& classes, Logit logit) {
  ThreadPool pool(1);
  AttentionMeter meter(one_head(), classes);
  std::vector<float> queries(kContext * 32), keys(kContext * 16);
  for (std::size_t t = 0; t < kContext; ++t) {
    queries[t * 32] = queries[t * 32 + 16] = 4;  // the square root of head_dim
    keys[t * 16] = logit(t);
  }
  for (std::size_t first = 0; first < kContext; first += 16)
    meter.observe(0, first, 16, queries.data() + first * 32, keys.data() + first * 16, nullptr);
  const std::vector<HeadAttention> all = meter.measure(pool);
  EXPECT_EQ(all.size(), 1u);
  return all[0];
}

TEST(AttentionMeter, EqualAttentionIsSpreadOverTheTokens) {
  std::vector<TokenClass> classes(kContext);
  for (std::size_t t = 4; t < kContext; t += 8) classes[t] = TokenClass::kPunctuation;
  const HeadAttention spread = measure(classes, [](std::size_t) { return 0.0f; });
  // Queries at 16, 32 and 48 see 17, 33 and 49 tokens: 4 sinks, then 2, 4 and 6 that are punctuation.
  EXPECT_NEAR(spread.recovered[0], 65535.0 / 3 * (4.0 / 17 + 4.0 / 33 + 4.0 / 49), 2);
  EXPECT_NEAR(spread.recovered[1], 65535.0 / 3 * (6.0 / 17 + 8.0 / 33 + 10.0 / 49), 2);
  // The newest 30 % are 5, 9 and 14 tokens, 1, 1 and 2 of them punctuation.
  EXPECT_NEAR(spread.recovered[2], 65535.0 / 3 * ((6.0 + 4) / 17 + (8.0 + 8) / 33 + (10.0 + 12) / 49), 2);
  EXPECT_GT(spread.recovered[3], spread.recovered[2]);
  EXPECT_EQ(spread.tokens[kAttentionPoints - 1], 49) << "the newest query at 48 is the last";
  EXPECT_LT(spread.tokens[7], 49 * 3 / 4);
}

TEST(AttentionMeter, ATokenWithAllAttentionIsEnough) {
  const std::vector<TokenClass> classes(kContext);
  const HeadAttention first = measure(classes, [](std::size_t t) { return t == 2 ? 30.0f : 0.0f; });
  EXPECT_EQ(first.recovered[0], 65535);
  EXPECT_EQ(first.tokens[14], 1);
  const HeadAttention middle = measure(classes, [](std::size_t t) { return t == 8 ? 30.0f : 0.0f; });
  EXPECT_EQ(middle.recovered[1], 0) << "neither a sink nor punctuation";
  EXPECT_EQ(middle.recovered[2], 0);
  EXPECT_EQ(middle.recovered[3], 65535) << "attended to most";
  EXPECT_EQ(middle.tokens[14], 1);
}

}  // namespace
}  // namespace nibkv::llm
