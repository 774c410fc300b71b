#include "nibkv/shape.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <limits>

#include "tests/support/rig.hpp"

namespace nibkv::shape_test {
namespace {

constexpr Shape kGood = {
    .layers = 2, .query_heads = 6, .kv_heads = 2, .head_dim = 64, .outlier_channels = 4, .max_chunk = 8, .workers = 2};

// Calls `check` with every value of a field.
template <typename Field, typename Check>
void for_every_value(Field Shape::*field, Check check) {
  for (std::uint32_t value = 0; value <= 65535; ++value) {
    Shape shape = kGood;
    shape.*field = static_cast<Field>(value);
    ASSERT_EQ(valid(shape), check(value)) << "value " << value << " in " << testing::PrintToString(shape);
  }
}

TEST(Shape, IsCheckedWhenCompiled) {
  static_assert(valid(kGood));
  static_assert(!valid(Shape{}));
  static_assert(kGood.group() == 3);
}

TEST(Shape, LayersAreOneTo1024) {
  for_every_value(&Shape::layers, [](std::uint32_t value) { return value >= 1 && value <= 1024; });
}

TEST(Shape, QueryHeadsAreAMultipleOfTheKvHeadsUpTo1024) {
  for_every_value(&Shape::query_heads,
                  [](std::uint32_t value) { return value >= 1 && value <= 1024 && value % 2 == 0; });
}

TEST(Shape, KvHeadsDivideTheQueryHeads) {
  for_every_value(&Shape::kv_heads, [](std::uint32_t value) { return value != 0 && 6 % value == 0; });
}

TEST(Shape, HeadDimIsAMultipleOf16UpTo256) {
  for_every_value(&Shape::head_dim, [](std::uint32_t value) { return value >= 16 && value <= 256 && value % 16 == 0; });
}

TEST(Shape, OutlierChannelsAreAMultipleOf4UpTo16) {
  for_every_value(&Shape::outlier_channels, [](std::uint32_t value) { return value <= 16 && value % 4 == 0; });
}

TEST(Shape, ChunksAreOneTo4096AndWorkersOneTo256) {
  for_every_value(&Shape::max_chunk, [](std::uint32_t value) { return value >= 1 && value <= 4096; });
  for_every_value(&Shape::workers, [](std::uint32_t value) { return value >= 1 && value <= 256; });
}

TEST(Shape, StorageIsOneOfSixAndF32HasNoOutlierChannels) {
  Shape shape = kGood;
  shape.storage = static_cast<Storage>(6);
  EXPECT_FALSE(valid(shape));
  for (const Storage storage : {Storage::kQ4, Storage::kQ8, Storage::kQ8Q4, Storage::kQ4Q2, Storage::kQ2}) {
    shape.storage = storage;
    EXPECT_TRUE(valid(shape));
    EXPECT_TRUE(has_codes(storage));
  }
  EXPECT_EQ(format_of(Storage::kQ8Q4), (TileFormat{8, 4}));
  EXPECT_EQ(format_of(Storage::kQ4Q2), (TileFormat{4, 2}));
  shape.storage = Storage::kF32;
  EXPECT_FALSE(valid(shape));
  shape.outlier_channels = 0;
  EXPECT_TRUE(valid(shape));
}

TEST(Shape, RotaryEmbeddingIsUnknownOrWithinItsRanges) {
  const auto check = [](const Rotary& rotary) {
    Shape shape = kGood;
    shape.rotary = rotary;
    return valid(shape);
  };
  static_assert(!Rotary{}.known());
  for (std::uint32_t dims = 0; dims <= 300; ++dims) {
    const bool good = dims >= 2 && dims <= 64 && dims % 2 == 0;
    EXPECT_EQ(check({.base = 1e4f, .dims = static_cast<std::uint16_t>(dims)}), good) << dims;
  }
  EXPECT_TRUE(check({}));
  EXPECT_FALSE(check({.scale = 0.5f}));
  EXPECT_FALSE(check({.adjacent = false}));
  constexpr float kInfinite = std::numeric_limits<float>::infinity();
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  for (const float base : {1.0f, 1e4f, 0x1p100f}) EXPECT_TRUE(check({.base = base, .dims = 64})) << base;
  for (const float base : {0.0f, 0.99f, -1e4f, 0x1.1p100f, kInfinite, kNan}) {
    EXPECT_FALSE(check({.base = base, .dims = 64})) << base;
  }
  for (const float scale : {1.0f, 0.25f, 0x1p-100f}) {
    EXPECT_TRUE(check({.base = 1e4f, .scale = scale, .dims = 64})) << scale;
  }
  for (const float scale : {0.0f, -1.0f, 1.01f, kInfinite, kNan}) {
    EXPECT_FALSE(check({.base = 1e4f, .scale = scale, .dims = 64})) << scale;
  }
}

TEST(Shape, TheReachIsNoneOrTwoTo2To24TokensOfAKnownEmbedding) {
  const auto check = [](const Rotary& rotary) {
    Shape shape = kGood;
    shape.rotary = rotary;
    return valid(shape);
  };
  for (const std::uint32_t reach : {0u, 2u, 3u, 4096u, 1u << 24}) {
    EXPECT_TRUE(check({.base = 1e4f, .dims = 64, .reach = reach})) << reach;
  }
  for (const std::uint32_t reach : {1u, (1u << 24) + 1, 0xffffffffu}) {
    EXPECT_FALSE(check({.base = 1e4f, .dims = 64, .reach = reach})) << reach;
  }
  EXPECT_FALSE(check({.reach = 4096}));
}

TEST(Shape, QueriesAreTurnedBackByStepsToWithinTheReach) {
  EXPECT_EQ((Rotary{.reach = 8192}.step()), 4096u);
  EXPECT_EQ((Rotary{.reach = 8191}.step()), 2048u);
  for (const std::uint32_t reach : {2u, 3u, 64u, 1000u, 1u << 24}) {
    const Rotary rotary = {.base = 1e4f, .dims = 64, .reach = reach};
    const std::uint32_t step = rotary.step();
    for (std::uint64_t d : {std::uint64_t{0}, std::uint64_t{1}, std::uint64_t{reach} - 1, std::uint64_t{reach},
                            std::uint64_t{reach} + 1, std::uint64_t{reach} + step, std::uint64_t{reach} + step + 1,
                            std::uint64_t{reach} * 7 + 5, std::uint64_t{1} << 31}) {
      const auto distance = static_cast<std::uint32_t>(d);
      const std::uint32_t shift = rotary.shift_of(distance);
      if (distance <= reach) {
        EXPECT_EQ(shift, 0u) << reach << ", " << distance;
        continue;
      }
      EXPECT_EQ(shift % step, 0u) << reach << ", " << distance;
      EXPECT_LE(distance - shift, reach) << reach << ", " << distance;
      EXPECT_GT(distance - shift, reach - step) << reach << ", " << distance;
    }
  }
  EXPECT_EQ((Rotary{.base = 1e4f, .dims = 64}.shift_of(0xffffffff)), 0u);
}

// From where it was wrapped, a query is turned by this many numbers of steps, all of which occur.
TEST(Shape, AQueryHasFewTurns) {
  EXPECT_EQ((Rotary{.reach = 0}.turns()), 0u);
  EXPECT_EQ((Rotary{.reach = 4096}.turns()), 2u);
  for (std::uint32_t reach = 2; reach <= 40; ++reach) {
    const Rotary rotary = {.base = 1e4f, .dims = 64, .reach = reach};
    std::uint32_t most = 0;
    for (std::uint32_t query = 0; query < 5 * reach; ++query) {
      for (std::uint32_t slot = 0; slot <= query; ++slot) {
        const std::uint32_t turn = rotary.wrap_of(slot) + rotary.shift_of(query - slot);
        ASSERT_LE(turn, rotary.wrap_of(query)) << reach << ", " << query << ", " << slot;
        most = std::max(most, (rotary.wrap_of(query) - turn) / rotary.step());
      }
    }
    EXPECT_EQ(most, rotary.turns()) << reach;
    EXPECT_LE(most, Rotary::kMostTurns) << reach;
  }
}

TEST(Shape, RowsAreTheQueriesOfAChunkButAtMostSixteen) {
  for (const std::uint16_t group : std::initializer_list<std::uint16_t>{1, 3, 4, 8, 32}) {
    for (const std::uint16_t chunk : std::initializer_list<std::uint16_t>{1, 2, 5, 16, 4096}) {
      Shape shape = kGood;
      shape.query_heads = static_cast<std::uint16_t>(group * shape.kv_heads);
      shape.max_chunk = chunk;
      EXPECT_EQ(shape.group(), group);
      EXPECT_EQ(shape.rows(), std::min(16, group * chunk)) << group << " heads a group, chunk " << chunk;
    }
  }
}

}  // namespace
}  // namespace nibkv::shape_test
