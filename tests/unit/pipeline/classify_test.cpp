// What tokens are, and what heads with rules keep of them (FastGen).
#include "nibkv/classify.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "nibkv/nibkv.hpp"
#include "tests/support/rig.hpp"
#include "tests/support/rows.hpp"

namespace nibkv::classify_test {
namespace {

using test::explain_all;
using test::Random;
using test::Rig;

constexpr Shape kShape = {.layers = 2, .query_heads = 4, .kv_heads = 2, .head_dim = 16, .max_chunk = 16};
constexpr std::uint32_t kTokens = 64;

void feed(Cache& cache, Random& random, std::uint32_t count) {
  for (std::uint32_t layer = 0; layer < kShape.layers; ++layer) {
    const auto rows = random.bells(std::size_t{count} * kShape.kv_heads * kShape.head_dim);
    ASSERT_EQ(append(cache, layer, rows, rows), Status::kOk);
    (void)test::attend_all(cache, layer, random.bells(std::size_t{count} * kShape.query_heads * kShape.head_dim));
  }
}

// The budgets of a mean of kTokens, and what each rule keeps.
TEST(Classify, HeadsKeepWhatTheirRuleSays) {
  const Policy policy = fast_gen(kTokens);
  for (std::uint32_t rule = 0; rule <= kAttentionRules; ++rule) {
    Random random(rule + 1);
    std::vector<HeadAttention> attention(4);
    for (HeadAttention& head : attention) {
      for (std::uint32_t i = rule; i < kAttentionRules; ++i) head.recovered[i] = 65535;
    }
    const std::vector<std::byte> plain = test::make_profile(kShape, 1);
    std::vector<std::byte> profile(profile_bytes(kShape, false, true));
    ASSERT_EQ(add_attention(plain, kShape, attention, profile), Status::kOk);
    test::Arena arena(footprint(kShape, policy));
    Cache cache;
    ASSERT_EQ(cache.init(arena.bytes(), kShape, policy, {{}, profile}), Status::kOk);
    std::vector<TokenClass> all;
    while (all.size() < 400) {
      feed(cache, random, 8);
      std::vector<TokenClass> classes(8);
      for (TokenClass& each : classes) {
        const std::uint32_t kind = random.below(40);
        each = kind < 2 ? TokenClass::kSpecial : kind < 13 ? TokenClass::kPunctuation : TokenClass::kOrdinary;
      }
      ASSERT_EQ(classify(cache, classes), Status::kOk);
      all.insert(all.end(), classes.begin(), classes.end());
    }
    const std::uint32_t budget = cache.budget(0, 0);
    ASSERT_EQ(budget, kTokens) << "all heads have the same rule";
    ASSERT_EQ(compact_now(cache, kTokens, Budget::kUniform), Status::kOk);
    const std::vector<SlotInfo> slots = explain_all(cache, 0, 0);
    ASSERT_EQ(slots.size(), kTokens);
    std::set<std::uint32_t> held;
    for (const SlotInfo& slot : slots) held.insert(slot.position);
    std::uint32_t special = 0, old_punctuation = 0, punctuation = 0, oldest_newest = 400;
    for (const std::uint32_t position : held) {
      if (position < policy.sinks) continue;
      if (all[position] == TokenClass::kPunctuation) {
        ++punctuation;
        old_punctuation += position + kTokens < 400 ? 1 : 0;
      }
    }
    // Every special token ever seen, since they are few.
    for (std::uint32_t position = 0; position < 400; ++position) {
      if (all[position] != TokenClass::kSpecial) continue;
      ++special;
      EXPECT_TRUE(held.contains(position)) << "rule " << rule << ", position " << position;
    }
    EXPECT_GT(special, 4u);
    while (held.contains(oldest_newest - 1)) --oldest_newest;
    const std::uint32_t newest = 400 - oldest_newest;
    EXPECT_GE(newest, policy.recent);
    if (rule >= static_cast<std::uint32_t>(HeadRule::kPunctuation)) {
      EXPECT_GE(punctuation, kTokens / 4) << "rule " << rule;
    }
    if (rule == static_cast<std::uint32_t>(HeadRule::kSpecial)) {
      EXPECT_EQ(
          held.size(), policy.sinks + newest + [&] {
            std::uint32_t others = 0;
            for (std::uint32_t p = policy.sinks; p < oldest_newest; ++p) others += held.contains(p) ? 1 : 0;
            EXPECT_EQ(old_punctuation, 0u);
            return others;
          }());
    }
    if (rule == static_cast<std::uint32_t>(HeadRule::kNewest)) {
      EXPECT_GE(newest, kTokens / 2);
    }
  }
}

TEST(Classify, RefusesWhatItCannotDoAndChangesNothing) {
  Cache none;
  const TokenClass marks[] = {TokenClass::kPunctuation, TokenClass::kSpecial};
  EXPECT_EQ(classify(none, marks), Status::kNotReady);
  Rig other(kShape, ems(kTokens));
  EXPECT_EQ(classify(other.cache(), marks), Status::kBadPolicy);
  Rig rig(kShape, fast_gen(kTokens));
  EXPECT_EQ(classify(rig.cache(), marks), Status::kBadArgument) << "nothing is held";
  EXPECT_EQ(classify(rig.cache(), {}), Status::kOk);
  Random random(1);
  for (int i = 0; i < 20; ++i) feed(rig.cache(), random, 16);
  const std::vector<std::byte> before = rig.copy_state();
  std::vector<TokenClass> many(320 - oldest_reachable(rig.cache()));
  EXPECT_EQ(classify(rig.cache(), many), Status::kOk);
  EXPECT_EQ(rig.copy_state(), before) << "all are ordinary at first";
  many.push_back(TokenClass::kOrdinary);
  EXPECT_EQ(classify(rig.cache(), many), Status::kBadArgument);
  const TokenClass wrong[] = {TokenClass::kSpecial, static_cast<TokenClass>(3)};
  EXPECT_EQ(classify(rig.cache(), wrong), Status::kBadArgument);
  EXPECT_EQ(rig.copy_state(), before);
  const auto rows = random.bells(kShape.kv_heads * kShape.head_dim);
  ASSERT_EQ(append(rig.cache(), 0, rows, rows), Status::kOk);
  EXPECT_EQ(classify(rig.cache(), marks), Status::kBadArgument) << "layer 1 has not seen the token";
}

// They come back with a snapshot, and a slot that is used again is ordinary.
TEST(Classify, ClassesStayWithTheirSlots) {
  Rig rig(kShape, fast_gen(kTokens)), to(kShape, fast_gen(kTokens));
  Random random(2);
  for (int i = 0; i < 10; ++i) {
    feed(rig.cache(), random, 16);
    std::vector<TokenClass> classes(16);
    for (TokenClass& each : classes) each = static_cast<TokenClass>(random.below(3));
    ASSERT_EQ(classify(rig.cache(), classes), Status::kOk);
  }
  std::vector<std::byte> snapshot(static_cast<std::size_t>(snapshot_bytes(rig.cache())));
  ASSERT_EQ(save(rig.cache(), snapshot), Status::kOk);
  ASSERT_EQ(restore(to.cache(), snapshot), Status::kOk);
  Random a(3), b(3);
  for (int i = 0; i < 10; ++i) {
    feed(rig.cache(), a, 16);
    feed(to.cache(), b, 16);
  }
  for (std::uint32_t head = 0; head < kShape.kv_heads; ++head) {
    const auto slots = explain_all(rig.cache(), 1, head), restored = explain_all(to.cache(), 1, head);
    ASSERT_EQ(slots.size(), restored.size());
    for (std::size_t i = 0; i < slots.size(); ++i) EXPECT_EQ(slots[i].position, restored[i].position);
  }
  ASSERT_EQ(rig.cache().clear(), Status::kOk);
  feed(rig.cache(), a, 16);
  const std::vector<std::byte> before = rig.copy_state();
  ASSERT_EQ(classify(rig.cache(), std::vector<TokenClass>(16)), Status::kOk);
  EXPECT_EQ(rig.copy_state(), before);
}

}  // namespace
}  // namespace nibkv::classify_test
