#include "nibkv/policy.hpp"

#include <gtest/gtest.h>

#include <set>

#include "tests/support/rig.hpp"

namespace nibkv {
namespace {

constexpr Shape kShape = {.layers = 1, .query_heads = 1, .kv_heads = 1, .head_dim = 64, .max_chunk = 10};

TEST(Policy, FullKeepsAllWithoutSinks) {
  static_assert(full(100) == Policy{Keep::kAll, 100, 0});
  static_assert(valid(full(1), kShape) && valid(full(kMaxTokens), kShape));
  static_assert(!valid(full(0), kShape) && !valid(full(kMaxTokens + 1), kShape));
  EXPECT_FALSE(valid(Policy{Keep::kAll, 100, 1}, kShape));
}

TEST(Policy, StreamingKeepsFourSinksUnlessToldOtherwise) {
  static_assert(streaming_llm(100) == Policy{Keep::kRecent, 100, 4});
  static_assert(streaming_llm(100, 0).sinks == 0);
}

TEST(Policy, SinksLeaveRoomForAChunk) {
  for (const std::uint32_t tokens : {1u, 9u, 10u, 11u, 100u}) {
    for (std::uint32_t sinks = 0; sinks <= 110; ++sinks) {
      EXPECT_EQ(valid(streaming_llm(tokens, sinks), kShape), sinks + 10 <= tokens)
          << tokens << " tokens, " << sinks << " sinks";
    }
  }
  EXPECT_FALSE(valid(streaming_llm(100, 0xffffffff), kShape));
  EXPECT_FALSE(valid(streaming_llm(kMaxTokens + 1), kShape));
  EXPECT_FALSE(valid(Policy{static_cast<Keep>(3), 100, 4}, kShape));
}

TEST(Policy, PresetsAreFoundByTheNamesThatAreListed) {
  std::set<std::string_view> names;
  for (std::uint32_t i = 0; !policy_name(i).empty(); ++i) {
    ASSERT_TRUE(names.insert(policy_name(i)).second) << policy_name(i);
    Policy policy;
    EXPECT_EQ(find_policy(policy_name(i), 256, policy), Status::kOk) << policy_name(i);
    EXPECT_EQ(policy.tokens, 256u) << policy_name(i);
    EXPECT_TRUE(valid(policy, kShape)) << policy_name(i);
  }
  EXPECT_TRUE(names.count("full") == 1 && names.count("streaming_llm") == 1);
  EXPECT_TRUE(policy_name(static_cast<std::uint32_t>(names.size())).empty());
  EXPECT_TRUE(policy_name(0xffffffff).empty());

  Policy policy;
  ASSERT_EQ(find_policy("full", 77, policy), Status::kOk);
  EXPECT_EQ(policy, full(77));
  ASSERT_EQ(find_policy("streaming_llm", 77, policy), Status::kOk);
  EXPECT_EQ(policy, streaming_llm(77));
}

TEST(Policy, AnUnknownNameLeavesThePolicyAsItWas) {
  for (const std::string_view name : {"", "ful", "full ", "Full", "fulls", "streaming", "h3o"}) {
    Policy policy = streaming_llm(123, 7);
    EXPECT_EQ(find_policy(name, 50, policy), Status::kBadPolicy) << name;
    EXPECT_EQ(policy, streaming_llm(123, 7)) << name;
  }
}

}  // namespace
}  // namespace nibkv
