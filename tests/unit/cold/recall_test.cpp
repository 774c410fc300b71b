#include "nibkv/recall.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <memory>
#include <set>

#include "nibkv/nibkv.hpp"
#include "tests/support/rig.hpp"
#include "tests/support/rows.hpp"
#include "tests/unit/cold/recalling.hpp"

namespace nibkv::recall_test {
namespace {

using test::append_token;
using test::expect_attention;
using test::positions_of;
using test::Random;
using test::random_token;
using test::recall_and_attend;
using test::Rig;
using test::Token;
using test::with_log;
using test::words;

constexpr Shape kShape = {.layers = 2, .query_heads = 4, .kv_heads = 2, .head_dim = 64, .max_chunk = 8, .workers = 2};

// With space for all of it nothing is lost: what a long window holds, a short one recalls.
TEST(Recall, OfEverythingIsAttentionToEverything) {
  for (const Storage storage : {Storage::kQ4, Storage::kQ8, Storage::kQ8Q4, Storage::kQ2}) {
    Shape shape = kShape;
    shape.storage = storage;
    Rig rig(shape, with_log(352, 256, 256));
    Random random(1);
    std::vector<Token> tokens;
    for (int i = 0; i < 340; ++i) {
      tokens.push_back(random_token(random, shape));
      for (float& query : tokens.back().queries) query *= 0.25f;  // so that no token's share is nothing
      append_token(rig.cache(), tokens.back());
      const std::vector<float> out = recall_and_attend(rig.cache(), tokens.back().queries);
      ASSERT_EQ(rig.cache().held(1, 1), tokens.size());
      if (i % 20 == 0 || i == 339) expect_attention(rig.cache(), tokens, out, storage == Storage::kQ2 ? 0.6 : 0.3);
      ASSERT_EQ(check(rig.cache()), Status::kOk);
    }
    EXPECT_GT(recalled(rig.cache(), 0, 0), 200u);
  }
}

// Signs say little of a logit that is far above the others, so slots are not left empty where the best seems far ahead.
TEST(Recall, FindsWhatSharpQueriesWant) {
  Rig rig(kShape, with_log(128, 2048, 64));
  Random random(12);
  std::vector<Token> tokens;
  std::uint32_t found = 0;
  constexpr std::uint32_t kAsked = 40, kLogged = 1200;
  for (std::uint32_t i = 0; i < 1400; ++i) {
    tokens.push_back(random_token(random, kShape));
    append_token(rig.cache(), tokens.back());
  }
  for (std::uint32_t asked = 0; asked < kAsked; ++asked) {
    tokens.push_back(random_token(random, kShape));
    Token& last = tokens.back();
    std::copy_n(last.queries.begin(), 64, last.queries.begin() + 64);  // the group wants the same
    for (float& query : last.queries) query *= 16;
    std::uint32_t wanted = 0;
    float most = -std::numeric_limits<float>::infinity();
    for (std::uint32_t token = 4; token < kLogged; ++token) {
      float dot = 0;
      for (std::uint32_t c = 0; c < 64; ++c) dot += tokens[token].keys[c] * last.queries[c];
      if (dot > most) most = dot, wanted = token;
    }
    append_token(rig.cache(), last);
    recall_and_attend(rig.cache(), last.queries);
    const std::vector<std::uint32_t> held = positions_of(rig.cache(), 0, 0);
    found += static_cast<std::uint32_t>(std::count(held.begin(), held.end(), wanted));
    EXPECT_EQ(recalled(rig.cache(), 0, 0), 64u);
  }
  EXPECT_GE(found, kAsked * 9 / 10);
}

// Which tokens are held: the sinks, the newest, and of the others those that a query wants.
TEST(Recall, HoldsSinksTheNewestAndWhatTheQueryWants) {
  const Policy policy = with_log(128, 2048, 64);
  Rig rig(kShape, policy);
  Random random(2);
  std::vector<Token> tokens;
  for (int i = 0; i < 1500; ++i) {
    tokens.push_back(random_token(random, kShape));
    append_token(rig.cache(), tokens.back());
  }
  std::uint32_t found = 0, asked = 0;
  for (std::uint32_t wanted = 40; wanted < 1300; wanted += 60, ++asked) {
    tokens.push_back(random_token(random, kShape));
    Token& last = tokens.back();
    for (std::uint32_t query = 0; query < 4; ++query) {
      for (std::uint32_t c = 0; c < 64; ++c) last.queries[query * 64 + c] = tokens[wanted].keys[query / 2 * 64 + c] * 2;
    }
    append_token(rig.cache(), last);
    const std::vector<float> out = recall_and_attend(rig.cache(), last.queries);
    expect_attention(rig.cache(), tokens, out, 0.3);
    for (std::uint32_t head = 0; head < 2; ++head) {
      const std::vector<std::uint32_t> held = positions_of(rig.cache(), 1, head);
      const std::set<std::uint32_t> all(held.begin(), held.end());
      ASSERT_EQ(all.size(), held.size()) << "a token twice";
      for (std::uint32_t sink = 0; sink < policy.sinks; ++sink) EXPECT_TRUE(all.contains(sink));
      for (std::size_t newest = tokens.size() - 60; newest < tokens.size(); ++newest)
        EXPECT_TRUE(all.contains(static_cast<std::uint32_t>(newest)));
      found += all.contains(wanted) ? 1 : 0;
      EXPECT_LE(recalled(rig.cache(), 1, head), 64u);
      EXPECT_EQ(rig.cache().held(1, head), held.size());
    }
    ASSERT_EQ(check(rig.cache()), Status::kOk);
  }
  EXPECT_EQ(found, 2 * asked) << "a key that a query points at has the most of its attention";
}

// What is chosen, and the bytes of attention, do not depend on what was recalled before, on the parts, on which worker
// takes them, or on the port.
TEST(Recall, GivesTheSameBytesHoweverOneComesThere) {
  const Policy policy = with_log(160, 512, 96);
  Rig often(kShape, policy), once(kShape, policy), parts(kShape, policy);
  std::vector<std::unique_ptr<Rig>> ports;
  for (const std::string& port : test::running_ports()) ports.push_back(std::make_unique<Rig>(kShape, policy, port));
  Random random(3);
  for (int i = 0; i < 600; ++i) {
    const Token token = random_token(random, kShape);
    for (Rig* rig : {&often, &once, &parts}) append_token(rig->cache(), token);
    for (const auto& rig : ports) append_token(rig->cache(), token);
    const std::vector<float> out = recall_and_attend(often.cache(), token.queries);
    if (i % 50 != 49) continue;
    ASSERT_TRUE(test::same_bytes(recall_and_attend(once.cache(), token.queries), out)) << i;
    for (const auto& rig : ports) {
      ASSERT_TRUE(test::same_bytes(recall_and_attend(rig->cache(), token.queries), out)) << rig->cache().port() << i;
      ASSERT_EQ(rig->copy_state(), ports[0]->copy_state()) << rig->cache().port() << i;
    }
    for (std::uint32_t layer = 0; layer < 2; ++layer) {
      for (const std::uint32_t head : {1u, 0u}) {
        const Part part{.first_head = head, .heads = 1, .worker = 1 - head};
        ASSERT_EQ(recall(parts.cache(), layer, token.queries, part), Status::kOk);
      }
      const std::vector<float> layer_out = test::attend_all(parts.cache(), layer, token.queries);
      ASSERT_TRUE(test::same_bytes(layer_out, std::span(out).subspan(layer * layer_out.size(), layer_out.size())));
    }
  }
  const RecallUsage usage = recall_usage(often.cache());
  EXPECT_EQ(usage.written_pages, 4 * ((600u - often.cache().held(0, 0) + recalled(often.cache(), 0, 0)) / 32));
  EXPECT_GT(usage.found_tokens, usage.chosen_tokens / 20);
  EXPECT_LT(usage.found_tokens, usage.chosen_tokens);
  EXPECT_EQ(usage.lost_pages, 0u);
  EXPECT_EQ(usage.forgotten_pages, 4 * (usage.written_pages / 4 - 512 / 32));
}

// A log is for so many tokens. Then it forgets the oldest, recalled ones too.
TEST(Recall, ForgetsTheOldestWhenTheLogIsFull) {
  const Policy policy = with_log(128, 96, 64);
  Rig rig(kShape, policy);
  Random random(4);
  for (std::uint32_t i = 0; i < 700; ++i) {
    const Token token = random_token(random, kShape);
    append_token(rig.cache(), token);
    if (i % 3 == 0) (void)recall_and_attend(rig.cache(), token.queries);
    ASSERT_EQ(check(rig.cache()), Status::kOk) << i;
    ASSERT_LE(logged(rig.cache(), 0, 0), 96u);
    const std::uint32_t own = rig.cache().held(0, 0) - recalled(rig.cache(), 0, 0);
    for (const std::uint32_t position : positions_of(rig.cache(), 0, 0)) {
      ASSERT_LT(position, i + 1);
      ASSERT_TRUE(position < policy.sinks || position + own + 96 >= i + 1);
    }
  }
  EXPECT_EQ(logged(rig.cache(), 0, 0), 96u);
}

// The heads with the largest scores have an index; the others keep a longer window in the same bytes.
TEST(Recall, IndexesTheHeadsThatLookThingsUp) {
  Shape shape = kShape;
  shape.layers = 6;
  shape.outlier_channels = 4;
  const Policy policy = with_log(128, 512, 64, 86);
  Rig rig(shape, policy);
  ProfileView profile;
  ASSERT_EQ(profile.open(rig.profile(), shape), Status::kOk);
  std::uint32_t least = 0xffffffff, most = 0, indexed = 0;
  for (std::uint32_t layer = 0; layer < 6; ++layer) {
    for (std::uint32_t head = 0; head < 2; ++head) {
      const std::uint32_t score = profile.head(layer, head).head_score;
      const bool chosen = is_indexed(rig.cache(), layer, head);
      if (chosen) least = std::min(least, score);
      if (!chosen) most = std::max(most, score);
      indexed += chosen ? 1 : 0;
      EXPECT_EQ(rig.cache().budget(layer, head), chosen ? 64u : 128u);
    }
  }
  EXPECT_EQ(indexed, 4u);  // of 12, 86 / 256
  EXPECT_GE(least, most);
  Random random(5);
  for (int i = 0; i < 500; ++i) {
    Token token = random_token(random, shape);
    append_token(rig.cache(), token);
    (void)recall_and_attend(rig.cache(), token.queries);
  }
  EXPECT_EQ(check(rig.cache()), Status::kOk);
  for (std::uint32_t layer = 0; layer < 6; ++layer) {
    for (std::uint32_t head = 0; head < 2; ++head) {
      const bool chosen = is_indexed(rig.cache(), layer, head);
      EXPECT_EQ(recalled(rig.cache(), layer, head), chosen ? 64u : 0u);
      EXPECT_EQ(logged(rig.cache(), layer, head) != 0, chosen);
      EXPECT_GE(rig.cache().held(layer, head), 128u);
    }
  }
  // Beside the log the arena is that of the window alone, but for workspace.
  Policy window = streaming_llm(128);
  const std::size_t bytes = footprint(shape, policy) - cold_space_of(shape, policy).total;
  EXPECT_NEAR(static_cast<double>(bytes), static_cast<double>(footprint(shape, window)), 24000.0);
  EXPECT_EQ(cold_bytes(shape, policy), 4u * 16 * cold_page_bytes(shape, policy));
}

// Outlier channels are in the index, too: a token that a query wants by them alone is found.
TEST(Recall, FindsByOutlierChannels) {
  Shape shape = kShape;
  shape.outlier_channels = 4;
  Rig rig(shape, with_log(128, 1024, 32));
  const std::vector<std::uint32_t> channels = test::planted_channels(shape, 1, 0, 0);
  ASSERT_FALSE(channels.empty());
  Random random(6);
  std::vector<float> wanted;
  for (std::uint32_t i = 0; i < 900; ++i) {
    std::vector<float> keys = test::keys_of_profile(shape, 1, 0, 1, random);
    if (i == 300) {
      for (const std::uint32_t channel : channels) keys[channel] *= 3;
      wanted = keys;
    }
    ASSERT_EQ(append(rig.cache(), 0, keys, random.bells(128)), Status::kOk);
    ASSERT_EQ(append(rig.cache(), 1, keys, random.bells(128)), Status::kOk);
  }
  std::vector<float> queries(256);
  for (const std::uint32_t channel : channels) queries[channel] = queries[64 + channel] = wanted[channel] > 0 ? 1 : -1;
  ASSERT_EQ(recall(rig.cache(), 0, queries), Status::kOk);
  const std::vector<std::uint32_t> held = positions_of(rig.cache(), 0, 0);
  EXPECT_TRUE(std::find(held.begin(), held.end(), 300u) != held.end());
}

// A part of a chunk's queries has the choice, and then the attention, that they would have had alone.
TEST(Recall, OfSomeOfTheQueriesIsTheirs) {
  const Policy policy = with_log(160, 512, 96);
  Rig chunks(kShape, policy), single(kShape, policy);
  Random random(10);
  for (int i = 0; i < 80; ++i) {
    const std::vector<float> keys = random.bells(5 * 128), values = random.bells(5 * 128),
                             queries = random.bells(5 * 256);
    ASSERT_EQ(append(chunks.cache(), 0, keys, values), Status::kOk);
    std::vector<float> out(queries.size());
    for (std::uint32_t query = 0; query < 5; ++query) {
      const Part part{.first_query = query, .queries = 1};
      ASSERT_EQ(recall(chunks.cache(), 0, queries, part), Status::kOk);
      ASSERT_EQ(attend(chunks.cache(), 0, queries, out, part), Status::kOk);
    }
    if (i < 79) {
      ASSERT_EQ(append(single.cache(), 0, keys, values), Status::kOk);
      continue;
    }
    // Space was made for the whole chunk, so in the other cache it is made before, too.
    for (std::uint32_t query = 0; query < 5; ++query) {
      const auto row = [&](const std::vector<float>& rows, std::size_t size) {
        return std::span(rows).subspan(query * size, size);
      };
      ASSERT_EQ(append(single.cache(), 0, row(keys, 128), row(values, 128)), Status::kOk);
      ASSERT_EQ(recall(single.cache(), 0, row(queries, 256)), Status::kOk);
      const auto alone = test::attend_all(single.cache(), 0, row(queries, 256));
      if (logged(single.cache(), 0, 0) != logged(chunks.cache(), 0, 0)) continue;
      EXPECT_TRUE(test::same_bytes(alone, row(out, 256))) << query;
    }
  }
}

TEST(Recall, GoesBackWithTruncate) {
  const Policy policy = with_log(128, 512, 64);
  Rig rig(kShape, policy), straight(kShape, policy);
  Random random(7);
  std::vector<Token> tokens;
  for (int i = 0; i < 300; ++i) tokens.push_back(random_token(random, kShape));
  for (const Token& token : tokens) {
    append_token(rig.cache(), token);
    append_token(straight.cache(), token);
  }
  int exact_rounds = 0;
  for (int round = 0; round < 40; ++round) {
    const std::uint32_t seen = rig.cache().seen(0);
    const std::uint32_t drafts = 1 + random.below(6);
    for (std::uint32_t i = 0; i < drafts; ++i) append_token(rig.cache(), random_token(random, kShape));
    (void)recall_and_attend(rig.cache(), random_token(random, kShape).queries);
    ASSERT_LE(oldest_reachable(rig.cache()), seen);
    ASSERT_EQ(truncate(rig.cache(), seen), Status::kOk);
    ASSERT_EQ(check(rig.cache()), Status::kOk);
    const bool exact =
        oldest_exact(rig.cache()) <= seen && rig.cache().held(0, 0) - recalled(rig.cache(), 0, 0) ==
                                                 straight.cache().held(0, 0) - recalled(straight.cache(), 0, 0);
    const Token token = random_token(random, kShape);
    append_token(rig.cache(), token);
    append_token(straight.cache(), token);
    const std::vector<float> one = recall_and_attend(rig.cache(), token.queries);
    const std::vector<float> other = recall_and_attend(straight.cache(), token.queries);
    ASSERT_TRUE(!exact || test::same_bytes(one, other)) << round;
    exact_rounds += exact ? 1 : 0;
  }
  EXPECT_GT(exact_rounds, 15);
}

// Recalled tokens are not among those last appended, of which attend has the queries.
TEST(Recall, DoesNotStandInForTokensThatAreGone) {
  Policy policy = with_log(97, 512, 64);
  policy.sinks = 0;
  Rig rig(kShape, policy);
  Random random(9);
  for (int i = 0; i < 400; ++i) append_token(rig.cache(), random_token(random, kShape));
  const std::vector<float> queries = random.bells(8 * 256);
  for (const std::uint32_t layer : {0u, 1u}) ASSERT_EQ(recall(rig.cache(), layer, queries), Status::kOk);
  for (std::uint32_t seen = 400; seen-- > oldest_reachable(rig.cache());) {
    ASSERT_EQ(truncate(rig.cache(), seen), Status::kOk);
    ASSERT_EQ(recalled(rig.cache(), 0, 0), 64u);
    const std::uint32_t own = rig.cache().held(0, 0) - 64;
    for (const std::uint32_t count : {1u, 8u}) {
      std::vector<float> out(count * 256u);
      EXPECT_EQ(attend(rig.cache(), 0, std::span(queries).first(out.size()), out),
                count <= own ? Status::kOk : Status::kBadArgument);
    }
    const Status shared = attend_share(rig.cache(), 0, tokens_first(queries.data(), Number::kF32, 4, 64), {0, 1, 0});
    EXPECT_EQ(shared, own != 0 ? Status::kOk : Status::kBadArgument);
  }
  EXPECT_EQ(rig.cache().held(0, 0), 64u) << "nothing else is left";
}

TEST(Recall, RefusesWhatItCannotDo) {
  Rig rig(kShape, with_log(128, 512, 64));
  Random random(8);
  Cache none;
  std::vector<float> queries = random.bells(256);
  EXPECT_EQ(recall(none, 0, queries), Status::kNotReady);
  EXPECT_EQ(recall(rig.cache(), 2, queries), Status::kBadArgument);
  EXPECT_EQ(recall(rig.cache(), 0, std::span(queries).first(255)), Status::kBadArgument);
  EXPECT_EQ(recall(rig.cache(), 0, {}), Status::kBadArgument);
  EXPECT_EQ(recall(rig.cache(), 0, random.bells(9 * 256)), Status::kBadArgument);
  EXPECT_EQ(recall(rig.cache(), 0, queries, {.worker = 2}), Status::kBadArgument);
  EXPECT_EQ(recall(rig.cache(), 0, queries, {.first_head = 2}), Status::kBadArgument);
  EXPECT_EQ(recall(rig.cache(), 0, queries, {.first_head = 1, .heads = 2}), Status::kBadArgument);
  EXPECT_EQ(recall(rig.cache(), 0, queries, {.first_query = 1}), Status::kBadArgument);
  EXPECT_EQ(recall(rig.cache(), 0, queries, {.queries = 2}), Status::kBadArgument);
  EXPECT_EQ(recall(rig.cache(), 0, random.bells(2 * 256), {.first_query = 1, .queries = 2}), Status::kBadArgument);
  queries[3] = std::numeric_limits<float>::infinity();
  EXPECT_EQ(recall(rig.cache(), 0, queries), Status::kBadArgument);
  EXPECT_EQ(recall(rig.cache(), 0, queries, {.first_head = 1}), Status::kOk) << "that of another head";
  // Nothing in it.
  queries[3] = 0;
  EXPECT_EQ(recall(rig.cache(), 0, queries), Status::kOk);
  EXPECT_EQ(rig.cache().held(0, 0), 0u);
  // Other policies have nothing to do.
  Rig full_one(kShape, full(64));
  EXPECT_EQ(recall(full_one.cache(), 0, queries), Status::kOk);
  EXPECT_EQ(recalled(full_one.cache(), 0, 0), 0u);
  EXPECT_EQ(recall_usage(full_one.cache()).written_pages, 0u);
  // Out of range.
  EXPECT_FALSE(is_indexed(rig.cache(), 2, 0));
  EXPECT_EQ(logged(rig.cache(), 0, 2), 0u);
  EXPECT_EQ(recall_usage(rig.cache(), 0, 2).read_pages, 0u);
  // Plans of a caller's own, and what would need the store's pages twice.
  for (int i = 0; i < 200; ++i) append_token(rig.cache(), random_token(random, kShape));
  std::vector<std::uint32_t> target(rig.cache().held(0, 0));
  EXPECT_EQ(plan(rig.cache(), 0, 0, 0, target), Status::kBadPolicy);
  for (std::uint32_t i = 0; i < target.size(); ++i) target[i] = i;
  EXPECT_EQ(compact(rig.cache(), 0, 0, target), Status::kBadPolicy);
  Rig other(kShape, with_log(128, 512, 64));
  EXPECT_EQ(move_to(rig.cache(), other.cache()), Status::kBadPolicy);
  std::vector<std::byte> memory(rig.arena().bytes().size() + kArenaAlignment);
  Cache copy;
  EXPECT_EQ(clone(rig.cache(), aligned(memory), copy), Status::kBadArgument) << "without a store of its own";
}

TEST(Recall, NeedsAStoreAndHeadScores) {
  const Policy policy = with_log(128, 512, 64);
  std::vector<std::byte> memory(footprint(kShape, policy) + kArenaAlignment);
  std::vector<std::byte> pages(static_cast<std::size_t>(cold_bytes(kShape, policy)));
  Cache cache;
  EXPECT_EQ(cache.init(aligned(memory), kShape, policy), Status::kBadArgument);
  ColdStore store = memory_store(pages.data());
  store.read = nullptr;
  EXPECT_EQ(cache.init(aligned(memory), kShape, policy, {.store = &store}), Status::kBadArgument);
  store = memory_store(pages.data());
  store.write = nullptr;
  EXPECT_EQ(cache.init(aligned(memory), kShape, policy, {.store = &store}), Status::kBadArgument);
  store = memory_store(pages.data());
  EXPECT_EQ(cache.init(aligned(memory), kShape, policy, {.store = &store}), Status::kOk);
  Policy third = policy;
  third.indexed = 86;
  std::vector<std::byte> less(footprint(kShape, third) + kArenaAlignment);
  EXPECT_EQ(cache.init(aligned(less), kShape, third, {.store = &store}), Status::kBadProfile);
  Shape shape = kShape;
  shape.outlier_channels = 4;  // so that there is a profile, with head scores
  Rig rig(shape, third);
  std::vector<std::byte> profile(rig.profile().begin(), rig.profile().end());
  less.resize(footprint(shape, third) + kArenaAlignment);
  EXPECT_EQ(cache.init(aligned(less), shape, third, {.profile = profile, .store = &store}), Status::kOk);
  const std::vector<float> unknown(std::size_t{shape.layers} * shape.kv_heads);
  ASSERT_EQ(set_head_scores(profile, shape, unknown), Status::kOk);
  EXPECT_EQ(cache.init(aligned(less), shape, third, {.profile = profile, .store = &store}), Status::kBadProfile);
}

TEST(Recall, KnowsWhichPoliciesFit) {
  const auto fits = [](auto change) {
    Policy policy = with_log(128, 512, 64);
    Shape shape = kShape;
    change(policy, shape);
    return valid(policy, shape);
  };
  EXPECT_TRUE(fits([](Policy&, Shape&) {}));
  EXPECT_FALSE(fits([](Policy& policy, Shape&) { policy.log = 500; }));
  EXPECT_FALSE(fits([](Policy& policy, Shape&) { policy.log = kMaxTokens + 32; }));
  EXPECT_FALSE(fits([](Policy& policy, Shape&) { policy.recall = 0; }));
  EXPECT_FALSE(fits([](Policy& policy, Shape&) { policy.recall = 65; }));
  EXPECT_FALSE(fits([](Policy& policy, Shape&) { policy.recall = 128; }));
  EXPECT_FALSE(fits([](Policy& policy, Shape&) { policy.indexed = 0; }));
  EXPECT_FALSE(fits([](Policy& policy, Shape&) { policy.indexed = 257; }));
  EXPECT_FALSE(fits([](Policy& policy, Shape&) { policy.wide_first = true; }));
  EXPECT_FALSE(fits([](Policy& policy, Shape&) { policy.budget = Budget::kRetrieval; }));
  EXPECT_FALSE(fits([](Policy& policy, Shape&) { policy.keep = Keep::kAll; }));
  EXPECT_FALSE(fits([](Policy&, Shape& shape) { shape.storage = Storage::kF32; }));
  EXPECT_FALSE(fits([](Policy& policy, Shape&) { policy.log = 0; }));
  EXPECT_FALSE(fits([](Policy&, Shape& shape) {
    shape.rotary.base = 10000;
    shape.rotary.dims = 64;
    shape.rotary.reach = 512;
  }));
  EXPECT_FALSE(has_log(recall_window(63)));
  EXPECT_TRUE(has_log(recall_window(64)));
  EXPECT_EQ(recall_window(64).log, 512u);
  EXPECT_EQ(recall_window(kMaxTokens).log, kMaxTokens);
}

}  // namespace
}  // namespace nibkv::recall_test
