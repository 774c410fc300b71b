// However tokens are appended, in chunks or one by one, every query sees what its policy promises.
#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "tests/support/effort.hpp"
#include "tests/support/rig.hpp"

namespace nibkv {
namespace {

using test::Random;
using test::Rig;
using test::words;

constexpr std::uint16_t kChunks[] = {1, 8, 32, 60, 512};

// rasbt/LLMs-from-scratch#1008: with a window and more than one query, the first query of a chunk
// has lost a part of its window. Each token's key is one of 61 channels in turn; each query asks
// for the token 30 before it, and gets that token's value if it is still there.
TEST(Chunks, EveryQueryFindsATokenOfItsWindow) {
  constexpr std::uint32_t kPeriod = 61;
  constexpr std::uint32_t kBefore = 30;
  for (const std::uint16_t chunk : kChunks) {
    const Shape shape = {.layers = 1, .query_heads = 1, .kv_heads = 1, .head_dim = 64, .max_chunk = chunk};
    Rig rig(shape, streaming_llm(64));
    const auto one = [](std::uint32_t channel, float size) {
      std::vector<float> row(64, 0.0f);
      row[channel] = size;
      return row;
    };
    const auto add = [](std::vector<float>& rows, const std::vector<float>& row) {
      rows.insert(rows.end(), row.begin(), row.end());
    };
    std::uint32_t asked = 0;
    for (std::uint32_t seen = 0; seen < 1024; seen += chunk) {
      std::vector<float> keys, values, queries;
      for (std::uint32_t position = seen; position < seen + chunk; ++position) {
        // Sinks have separate channels.
        const std::uint32_t channel = position < 4 ? kPeriod + position % 3 : position % kPeriod;
        add(keys, one(channel, 16.0f));
        add(values, one(channel, 1.0f));
        add(queries, one((position + kPeriod - kBefore) % kPeriod, 16.0f));
      }
      ASSERT_EQ(append(rig.cache(), 0, keys, values), Status::kOk);
      const std::vector<float> out = test::attend_all(rig.cache(), 0, queries);
      for (std::uint32_t i = 0; i < chunk; ++i) {
        const std::uint32_t position = seen + i;
        if (position < 4 + kBefore) continue;
        const float* row = out.data() + i * 64;
        ASSERT_EQ(std::max_element(row, row + 64) - row, (position - kBefore) % kPeriod)
            << "position " << position << ", chunks of " << chunk;
        ++asked;
      }
    }
    EXPECT_GE(asked, 960u) << chunk;
  }
}

// The positions that a query of the newest chunk sees, except the merged ones.
std::set<std::uint32_t> seen_by(const Rig& rig, std::uint32_t layer, std::uint32_t head, std::uint32_t position) {
  std::vector<SlotInfo> slots(rig.cache().held(layer, head));
  EXPECT_EQ(explain(rig.cache(), layer, head, slots), Status::kOk);
  std::set<std::uint32_t> positions;
  for (const SlotInfo& slot : slots) {
    if (slot.position <= position) positions.insert(slot.position);
  }
  return positions;
}

void check_windows(Policy policy, const std::string& name) {
  for (const std::uint16_t chunk : kChunks) {
    Shape shape = {.layers = 2, .query_heads = 4, .kv_heads = 2, .head_dim = 16, .max_chunk = chunk};
    if (policy.budget == Budget::kScores) shape.outlier_channels = 4;
    ASSERT_TRUE(valid(policy, shape)) << name << ", chunks of " << chunk;
    Rig rig(shape, policy);
    const std::string what = name + ", chunks of " + std::to_string(chunk) + ", " + words(shape, policy);
    Random random(chunk);
    const std::uint32_t turns = std::max<std::uint32_t>(4, test::turns(400, 160) / chunk);
    for (std::uint32_t turn = 0; turn < turns; ++turn) {
      const std::uint32_t first = turn * chunk;
      for (std::uint32_t layer = 0; layer < 2; ++layer) {
        const auto rows = random.bells(std::size_t{chunk} * 2 * 16);
        ASSERT_EQ(append(rig.cache(), layer, rows, rows), Status::kOk) << what;
        (void)test::attend_all(rig.cache(), layer, random.bells(std::size_t{chunk} * 4 * 16));
        for (std::uint32_t head = 0; head < 2; ++head) {
          // Budgets of competing heads have changed since this one was cut back.
          const std::uint32_t always = policy.sinks + recent_of(policy, first);
          const std::uint32_t least = policy.budget == Budget::kAdaptive ? always : rig.cache().budget(layer, head);
          ASSERT_GE(rig.cache().held(layer, head) - (chunk - 1), std::min(first + 1, least)) << what;
          const auto positions = seen_by(rig, layer, head, first);
          ASSERT_TRUE(positions.count(first) == 1) << what;
          for (std::uint32_t i = 0; i <= std::min(first, recent_of(policy, first)); ++i) {
            ASSERT_TRUE(positions.count(first - i) == 1) << i << " before " << first << ", " << what;
          }
          for (std::uint32_t sink = 0; sink < std::min(first, policy.sinks); ++sink) {
            ASSERT_TRUE(positions.count(sink) == 1) << "sink " << sink << " at " << first << ", " << what;
          }
        }
      }
    }
  }
}

TEST(Chunks, EveryQuerySeesSinksWindowAndAsManySlotsAsTheBudget) {
  for (std::uint32_t i = 0; !policy_name(i).empty(); ++i) {
    for (const std::uint32_t tokens : {64u, 100u}) {
      Policy policy;
      ASSERT_EQ(find_policy(policy_name(i), tokens, policy), Status::kOk);
      if (policy.keep == Keep::kScore) check_windows(policy, std::string(policy_name(i)));
    }
  }
}

}  // namespace
}  // namespace nibkv
