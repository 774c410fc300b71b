// Whether policies that adapt let go of what was important once: scores must not freeze.
#include <gtest/gtest.h>

#include <cstdio>
#include <string>
#include <vector>

#include "nibkv/nibkv.hpp"
#include "tests/support/effort.hpp"
#include "tests/support/rig.hpp"

namespace nibkv::adapt_test {
namespace {

using test::explain_all;
using test::Random;
using test::Rig;

constexpr Shape kShape = {.layers = 1, .query_heads = 1, .kv_heads = 1, .head_dim = 64};
constexpr std::uint32_t kBudget = 128;

// The slots of a head right after space was made, but for the newest 64.
struct Census {
  std::uint32_t slots = 0;
  std::uint32_t first = 0;  // of the first 128 tokens
  std::uint32_t since = 0;  // of those from a token on
};

template <typename Token>
Census census(const Policy& policy, std::uint32_t tokens, std::uint32_t since, Token token) {
  Rig rig(kShape, policy);
  std::vector<float> out(64);
  for (std::uint32_t i = 0;; ++i) {
    const auto [key, value, query] = token(i);
    const std::uint32_t held = rig.cache().held(0, 0);
    EXPECT_EQ(append(rig.cache(), 0, key, value), Status::kOk);
    if (i >= tokens && rig.cache().held(0, 0) <= held) break;
    EXPECT_EQ(attend(rig.cache(), 0, query, out), Status::kOk);
  }
  Census all;
  for (const SlotInfo& slot : explain_all(rig.cache(), 0, 0)) {
    if (slot.position + 64 >= rig.cache().seen(0)) continue;
    ++all.slots;
    all.first += slot.position < 128 ? 1 : 0;
    all.since += slot.position >= since ? 1 : 0;
  }
  return all;
}

struct Rows {
  std::vector<float> key, value, query;
};

std::vector<float> scaled(std::vector<float> row, float factor) {
  for (float& number : row) number *= factor;
  return row;
}

const char* const kAdaptive[] = {"ems",     "ems_no_merge", "tova",   "snapkv",
                                 "l2_norm", "pyramid_kv",   "ada_kv", "fast_gen"};

Policy policy_of(const char* name) {
  Policy policy;
  EXPECT_EQ(find_policy(name, kBudget, policy), Status::kOk);
  return policy;
}

// Keys that say nothing: nearly uniform attention for small queries, a few heavy keys for large ones.
TEST(Adapt, TheFirstTokensDoNotStayForBeingFirst) {
  const std::uint32_t tokens = test::turns(8000, 2000);
  for (const float size : {0.05f, 0.3f, 1.0f}) {
    const auto first_of = [&](const char* name) {
      Random random(18);
      return census(policy_of(name), tokens, 0, [&](std::uint32_t) {
        return Rows{random.bells(64), random.bells(64), scaled(random.bells(64), size)};
      });
    };
    for (const char* name : kAdaptive) {
      const Census all = first_of(name);
      std::printf("[ measured ] %s, queries of %g: %u of %u slots are from the first 128 tokens\n", name,
                  static_cast<double>(size), static_cast<unsigned>(all.first), static_cast<unsigned>(all.slots));
      EXPECT_GE(all.slots, 60u) << name;
      EXPECT_LE(all.first, 24u) << name << ", queries of " << size;
    }
    EXPECT_GE(first_of("h2o").first, 60u) << "its published rule: the sum of all attention";
  }
}

// Half of the text is about one thing, then it is about another: a direction that keys and queries share.
TEST(Adapt, ANewTopicHasItsShareSoon) {
  constexpr std::uint32_t kSwitch = 2048;
  for (const char* name : kAdaptive) {
    if (std::string(name) == "l2_norm") continue;  // it looks at keys alone
    Random random(19);
    const std::vector<float> topics[2] = {random.bells(64), random.bells(64)};
    const Census all = census(policy_of(name), kSwitch + 512, kSwitch, [&](std::uint32_t i) {
      Rows rows{random.bells(64), random.bells(64), scaled(random.bells(64), 0.5f)};
      const std::vector<float>& topic = topics[i < kSwitch ? 0 : 1];
      for (std::size_t c = 0; c < 64; ++c) {
        rows.key[c] += topic[c];
        rows.query[c] += topic[c];
      }
      return rows;
    });
    EXPECT_GE(4 * all.since, all.slots) << name;
  }
}

}  // namespace
}  // namespace nibkv::adapt_test
