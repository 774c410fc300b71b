// Faults reported in other caches, which this one must not have: at the limit of its
// space, and after that.
#include <gtest/gtest.h>

#include <numeric>
#include <vector>

#include "nibkv/nibkv.hpp"
#include "tests/support/feed.hpp"
#include "tests/support/snapshots.hpp"

namespace nibkv::reports_limits_test {
namespace {

using test::feed;
using test::Random;
using test::Rig;
using test::saved;

using Bytes = std::vector<std::byte>;

constexpr Shape kOneHead = {.layers = 1, .query_heads = 1, .kv_heads = 1, .head_dim = 64};
constexpr Shape kTwoLayers = {.layers = 2, .query_heads = 1, .kv_heads = 1, .head_dim = 64};

// 1bit-MONSTER/1bit-MONSTER#693: the position is not compared with the capacity
// before keys are written.
TEST(ReportsLimits, OneTokenTooManyIsRefusedAndWritesNothing) {
  for (const std::string& port : test::running_ports()) {
    Rig rig(kTwoLayers, full(40), port);
    Random random(1);
    (void)feed(rig.cache(), random, 64);
    const Bytes before = saved(rig.cache());
    const auto rows = random.bells(64);
    for (const std::uint32_t layer : {0u, 1u}) EXPECT_EQ(append(rig.cache(), layer, rows, rows), Status::kFull) << port;
    EXPECT_EQ(saved(rig.cache()), before) << port;
    EXPECT_TRUE(rig.arena().guards_intact()) << port;
  }
}

// google-ai-edge/LiteRT-LM#3444: a conversation ends while space is left, because the smallest
// batch is larger than that.
TEST(ReportsLimits, AnyRestIsTakenToTheLastSlot) {
  Shape shape = kOneHead;
  shape.max_chunk = 32;
  Rig rig(shape, full(40));
  const auto rows = Random(2).bells(32 * 64);
  struct Chunk {
    std::size_t tokens;
    Status status;
    std::uint32_t held;
  };
  for (const auto& [tokens, status, held] :
       {Chunk{32, Status::kOk, 32}, Chunk{20, Status::kOk, 52}, Chunk{13, Status::kFull, 52},
        Chunk{12, Status::kOk, 64}, Chunk{1, Status::kFull, 64}}) {
    const auto chunk = std::span(rows).first(tokens * 64);
    EXPECT_EQ(append(rig.cache(), 0, chunk, chunk), status) << tokens;
    EXPECT_EQ(rig.cache().held(0, 0), held) << tokens;
  }
}

// jundot/omlx#422: after one failure the cache stays unusable until the program is restarted.
TEST(ReportsLimits, ARefusalCostsNothingAndAfterClearAllIsNew) {
  Rig rig(kOneHead, full(32)), fresh(kOneHead, full(32));
  Random random(3);
  (void)feed(rig.cache(), random, 32);
  Bytes damaged = saved(rig.cache());
  const Bytes before = damaged;
  damaged[damaged.size() / 2] ^= std::byte{4};
  const auto rows = random.bells(64);
  const std::span<const float> all = rows;
  EXPECT_EQ(append(rig.cache(), 0, all, all), Status::kFull);
  EXPECT_EQ(append(rig.cache(), 1, all, all), Status::kBadArgument);
  EXPECT_EQ(append(rig.cache(), 0, all.first(63), all), Status::kBadArgument);
  EXPECT_EQ(restore(rig.cache(), damaged), Status::kBadSnapshot);
  EXPECT_EQ(saved(rig.cache()), before);
  ASSERT_EQ(rig.cache().clear(), Status::kOk);
  Random same = random;
  EXPECT_TRUE(test::same_bytes(feed(rig.cache(), random, 32), feed(fresh.cache(), same, 32)));
  EXPECT_EQ(saved(rig.cache()), saved(fresh.cache()));
}

// warpfront/hipfire#557: the buffer for scores is sized for one length, and attention over more
// reads or writes outside it.
TEST(ReportsLimits, AttentionOverSixteenThousandTokensIsTheMeanOfAllOfThem) {
  constexpr Shape kLong = {.layers = 1, .query_heads = 1, .kv_heads = 1, .head_dim = 16, .max_chunk = 64};
  Rig rig(kLong, full(20000));
  Random random(4);
  std::vector<double> sum(16);
  const std::vector<float> zeros(16);
  for (const std::uint32_t end : {14'999u, 15'000u, 15'001u, 15'871u, 15'873u, 16'384u, 16'385u}) {
    while (rig.cache().seen(0) < end) {
      const std::uint32_t count = std::min<std::uint32_t>(64, end - rig.cache().seen(0));
      const auto keys = random.bells(count * 16u);
      auto values = random.bells(keys.size());
      for (std::size_t i = 0; i < values.size(); ++i) {
        // Late tokens differ, so that the mean shows them.
        if (rig.cache().seen(0) >= 14'000) values[i] += i % 16 < 3 ? 6.0f : 0.0f;
        sum[i % 16] += values[i];
      }
      ASSERT_EQ(append(rig.cache(), 0, keys, values), Status::kOk);
    }
    const std::vector<float> out = test::attend_all(rig.cache(), 0, zeros);
    for (std::size_t c = 0; c < 16; ++c) EXPECT_NEAR(out[c], sum[c] / end, 0.02) << end << " tokens, channel " << c;
    EXPECT_TRUE(rig.arena().guards_intact()) << end;
  }
}

// LostRuins/koboldcpp#2151: a new conversation still answers from the previous one.
TEST(ReportsLimits, AfterClearNothingIsLeftOfWhatWasBefore) {
  Rig rig(kTwoLayers, ems(64)), fresh(kTwoLayers, ems(64));
  Random random(5);
  (void)feed(rig.cache(), random, 500);
  ASSERT_EQ(rig.cache().clear(), Status::kOk);
  Random same = random;
  EXPECT_TRUE(test::same_bytes(feed(rig.cache(), random, 100), feed(fresh.cache(), same, 100)));
  EXPECT_EQ(saved(rig.cache()), saved(fresh.cache()));
}

}  // namespace
}  // namespace nibkv::reports_limits_test
