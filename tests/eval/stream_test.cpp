#include "bench/eval/metrics/stream.hpp"

#include <gtest/gtest.h>

#include <numeric>
#include <string>
#include <vector>

#include "bench/runner/text/builtin_text.hpp"
#include "bench/runner/text/tokenizer.hpp"

namespace nibkv::llm::stream_test {
namespace {

// The tiny model and some text, one token per byte, in bins of 100.
TEST(StreamTest, SaysHowWellABinIsPredictedAndWhatIsHeldOfIt) {
  const Gguf file = Gguf::open(NIBKV_TINY_MODEL);
  ThreadPool pool(2);
  Model model(file, pool);
  std::string text;
  for (const std::string_view part : builtin_text()) text += std::string(part) + "\n";
  std::vector<std::int32_t> tokens = Tokenizer::from(file).encode(text, false, false);
  tokens.resize(351);
  StoreOptions options;
  options.workers = pool.workers();

  options.tokens = 352;
  const StreamFigures all = measure_stream(model, pool, tokens, options, 100, {});
  ASSERT_EQ(all.bins.size(), 4u);
  EXPECT_EQ(all.bins[0].rows, 100u);
  EXPECT_EQ(all.bins[3].rows, 50u);
  EXPECT_TRUE(all.held.empty()) << "full holds everything";

  options.policy = "ems";
  options.tokens = 64;
  const StreamFigures some = measure_stream(model, pool, tokens, options, 100, {});
  EXPECT_EQ(some.bins[0].rows, 100u);
  EXPECT_NE(some.bins[3].mean(some.bins[3].loss), all.bins[3].mean(all.bins[3].loss));
  ASSERT_EQ(some.held.size(), 4u);
  EXPECT_NEAR(std::accumulate(some.held.begin(), some.held.end(), 0.0), 1, 1e-9);
  // 32 of the 50 newest tokens are recent: 18 others at most, of 28 slots to 60 a head.
  EXPECT_LT(some.held[3], 18.0 / 28);
  EXPECT_GT(some.held[2] + some.held[3], 0.25);
}

}  // namespace
}  // namespace nibkv::llm::stream_test
