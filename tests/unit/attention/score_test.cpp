#include "nibkv/score.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "nibkv/nibkv.hpp"
#include "tests/reference/arena_model.hpp"
#include "tests/reference/scores.hpp"
#include "tests/reference/streaming.hpp"
#include "tests/support/effort.hpp"
#include "tests/support/exact_query.hpp"
#include "tests/support/model_of.hpp"
#include "tests/support/rig.hpp"
#include "tests/support/snapshots.hpp"
#include "tests/support/workers.hpp"

namespace nibkv::score_test {
namespace {

using reference::Notes;
using reference::ScoreModel;
using reference::Slot;
using test::ExactQuery;
using test::explain_all;
using test::model_of;
using test::Random;
using test::Rig;
using test::running_ports;
using test::words;

// The weights of the query rows of one KV head over what the cache holds.
std::vector<reference::WeighedRow> weigh(const Rig& rig, const std::vector<ExactQuery>& queries, double scale,
                                         std::uint32_t kv_head) {
  const Shape& shape = rig.shape();
  const std::vector<Slot> slots = model_of(rig).slots(0, kv_head);
  const std::size_t count = queries.size() / shape.query_heads;
  std::vector<reference::WeighedRow> rows;
  for (std::size_t i = 0; i < count; ++i) {
    for (std::size_t member = 0; member < shape.group(); ++member) {
      const ExactQuery& query = queries[i * shape.query_heads + kv_head * shape.group() + member];
      rows.push_back(reference::weigh_row(query.codes, scale, slots, slots.size() - (count - 1 - i)));
    }
  }
  return rows;
}

void expect_scores(const std::vector<ScoreModel::Score>& expected, const std::vector<double>& got, double slack,
                   const std::string& what, double& worst) {
  ASSERT_LE(expected.size(), got.size()) << what;
  for (std::size_t t = 0; t < expected.size(); ++t) {
    const double error = std::abs(got[t] - expected[t].value);
    ASSERT_LE(error, expected[t].bound + slack)
        << what << ", slot " << t << ": " << got[t] << ", exact " << expected[t].value;
    worst = std::max(worst, error / (expected[t].bound + slack));
  }
}

TEST(Score, GlobalAndLocalAreTheExactAttentionWithinTheBound) {
  for (const std::string& port : running_ports()) {
    std::size_t turn = 0;
    double worst = 0;
    for (const std::uint16_t group : std::initializer_list<std::uint16_t>{1, 3, 4, 7, 16, 20}) {
      for (const std::uint16_t chunk : std::initializer_list<std::uint16_t>{1, 5, 24}) {
        for (const Group kind : {Group::kMean, Group::kMax}) {
          if (kind == Group::kMax && group > kMaxRows) continue;  // a maximum needs all of them in one pass
          if (turn++ % test::kEvery != 0) continue;
          const Shape shape = {.layers = 1,
                               .query_heads = static_cast<std::uint16_t>(2 * group),
                               .kv_heads = 2,
                               .head_dim = 32,
                               .max_chunk = chunk};
          Policy policy = ems_no_merge(256);
          policy.group = kind;
          policy.window = chunk == 5 ? 4 : 32;
          Rig rig(shape, policy, port);
          Random random(group * 100u + chunk);
          std::vector<ScoreModel> models(2, ScoreModel(shape, policy));
          for (std::uint32_t step = 0, seen = 0; step < 9; ++step) {
            const std::uint32_t count = step == 0 ? chunk : random.within(1, chunk);
            const double scale = 0.02 * (1 + step % 4);
            const auto rows = random.gaussians(count * 2u * 32u);
            ASSERT_EQ(append(rig.cache(), 0, rows, rows), Status::kOk);
            seen += count;
            const auto queries = test::exact_queries(random, shape, count, scale);
            (void)test::attend_all(rig.cache(), 0, test::rows_of(queries));
            for (std::uint32_t head = 0; head < 2; ++head) {
              models[head].attend(weigh(rig, queries, scale, head));
              std::vector<double> global;
              std::vector<double> local;
              for (const SlotInfo& slot : explain_all(rig.cache(), 0, head)) {
                global.push_back(slot.global);
                local.push_back(slot.local);
              }
              ASSERT_EQ(global.size(), seen);
              const std::string what = words(shape, policy, port) + ", step " + std::to_string(step);
              expect_scores(models[head].global(), global, 0, what + ", global", worst);
              expect_scores(models[head].local(), local, 0, what + ", local", worst);
              if (HasFatalFailure()) return;
            }
          }
        }
      }
    }
    std::printf("[ measured ] port %s: scores within %.3f of their bounds\n", port.c_str(), worst);
  }
}

// Keys and queries along one channel: `sign` decides which keys a query sees.
std::vector<float> along(std::uint32_t count, std::uint32_t dim, float size) {
  std::vector<float> rows(std::size_t{count} * dim, 0.0f);
  for (std::size_t i = 0; i < rows.size(); i += dim) rows[i] = size;
  return rows;
}

// One slot that gets nearly all of the attention, from rows whose shares round up and down.
TEST(Score, NoScorePassesTheBoundThatItsChainKeeps) {
  for (const std::string& port : running_ports()) {
    double worst = 0;
    for (const std::uint16_t group : std::initializer_list<std::uint16_t>{1, 3, 5, 8, 16}) {
      for (const std::uint16_t chunk : std::initializer_list<std::uint16_t>{1, 2, 3, 16}) {
        for (const Group kind : {Group::kMean, Group::kMax}) {
          const Shape shape = {.layers = 1, .query_heads = group, .kv_heads = 1, .head_dim = 16, .max_chunk = chunk};
          Policy policy = ems_no_merge(64);
          policy.sinks = 0;
          policy.group = kind;
          Rig rig(shape, policy, port);
          Random random(group * 100u + chunk);
          std::vector<float> keys = along(chunk, 16, -30.0f);
          keys[0] = 30.0f;
          std::vector<float> queries(std::size_t{chunk} * group * 16);
          for (unsigned turn = 0; turn < test::turns(400, 40); ++turn) {
            ASSERT_EQ(rig.cache().clear(), Status::kOk);
            ASSERT_EQ(append(rig.cache(), 0, keys, keys), Status::kOk);
            for (std::size_t at = 0; at < queries.size(); at += 16) {
              queries[at] = 0.01f + static_cast<float>(random.below(1000)) * 0.001f;
            }
            (void)test::attend_all(rig.cache(), 0, queries);
            ASSERT_EQ(check(rig.cache()), Status::kOk) << words(shape, policy, port) << ", turn " << turn;
            const double most = explain_all(rig.cache(), 0, 0)[0].global;
            worst = std::max(worst, most / (chunk * 0x1p24) - 1);
          }
        }
      }
    }
    std::printf("[ measured ] port %s: a weight of 1 counts as up to 1 + %.2g\n", port.c_str(), worst);
  }
}

TEST(Score, LocalFadesByOneOverTheWindowWithEveryQuery) {
  constexpr Shape kShape = {.layers = 1, .query_heads = 1, .kv_heads = 1, .head_dim = 16};
  for (const std::string& port : running_ports()) {
    for (const std::uint16_t window : std::initializer_list<std::uint16_t>{1, 2, 16, 4096}) {
      Policy policy = snapkv(256);
      policy.window = window;
      Rig rig(kShape, policy, port);
      const auto key = along(1, 16, 8.0f);
      const auto other = along(1, 16, -8.0f);
      ASSERT_EQ(append(rig.cache(), 0, key, key), Status::kOk);
      (void)test::attend_all(rig.cache(), 0, key);
      EXPECT_NEAR(explain_all(rig.cache(), 0, 0)[0].local, 16384, 3);
      double expected = 16384;
      for (std::uint32_t i = 1; i <= 100; ++i) {  // queries that do not attend to it
        ASSERT_EQ(append(rig.cache(), 0, other, other), Status::kOk);
        (void)test::attend_all(rig.cache(), 0, other);
        expected *= 1 - 1.0 / window;
        const double local = explain_all(rig.cache(), 0, 0)[0].local;
        ASSERT_NEAR(local, expected, std::min<double>(i, window) + 3) << "window " << window << ", query " << i;
      }
    }
  }
}

TEST(Score, LocalOfAChunkIsThatOfItsLastQueries) {
  constexpr Shape kShape = {.layers = 1, .query_heads = 1, .kv_heads = 1, .head_dim = 16, .max_chunk = 64};
  for (const std::string& port : running_ports()) {
    Policy policy = tova(256);
    policy.window = 8;
    Rig rig(kShape, policy, port);
    const auto keys = along(64, 16, 8.0f);
    auto queries = along(64, 16, 8.0f);
    ASSERT_EQ(append(rig.cache(), 0, keys, keys), Status::kOk);
    (void)test::attend_all(rig.cache(), 0, queries);
    double expected = 0;
    for (std::uint32_t i = 56; i < 64; ++i) expected += 16384.0 / (i + 1);
    EXPECT_NEAR(explain_all(rig.cache(), 0, 0)[0].local, expected, 0.003 * expected + 5) << port;
    EXPECT_NEAR(explain_all(rig.cache(), 0, 0)[63].local, 16384.0 / 64, 0.003 * 16384 / 64 + 5) << port;
  }
}

TEST(Score, HalvedScoresKeepTheirRatiosAndNothingWraps) {
  constexpr Shape kShape = {.layers = 1, .query_heads = 2, .kv_heads = 1, .head_dim = 32};
  constexpr double kScale = 0.02;
  for (const std::string& port : running_ports()) {
    Rig rig(kShape, h2o(64), port);
    Random random(71);
    const auto keys = random.gaussians(6 * 32);
    for (std::size_t i = 0; i < 6; ++i)
      ASSERT_EQ(append(rig.cache(), 0, std::span(keys).subspan(i * 32, 32), std::span(keys).first(32)), Status::kOk);
    ScoreModel model(kShape, h2o(64));
    // The same set of queries again and again, so that the weights are known without
    // computing them again.
    const auto queries = test::exact_queries(random, kShape, 1, kScale);
    const auto rows = weigh(rig, queries, kScale, 0);
    const std::vector<float> floats = test::rows_of(queries);
    std::uint32_t exponent = 0;
    for (std::uint32_t i = 0; i < 5000; ++i) {
      (void)test::attend_all(rig.cache(), 0, floats);
      model.attend(rows);
      const Chain chain = model_of(rig).chain(0, 0);
      ASSERT_GE(chain.exponent, exponent);
      exponent = chain.exponent;
      if (i % 97 != 0 && i != 4999) continue;
      std::vector<double> global;
      for (const SlotInfo& slot : explain_all(rig.cache(), 0, 0)) {
        ASSERT_LT(slot.global, 0xffffffffu) << "saturated at query " << i;
        global.push_back(std::ldexp(slot.global, static_cast<int>(exponent)));
      }
      double worst = 0;
      expect_scores(model.global(), global, std::ldexp(model.roundings() + exponent, static_cast<int>(exponent)),
                    "query " + std::to_string(i) + ", port " + port, worst);
      if (HasFatalFailure()) return;
    }
    EXPECT_GE(exponent, 2u) << "5000 queries on 6 slots do not fit 256 times a weight of 1";
  }
}

// A call of as many queries as the window leaves nothing of what local scores were before, also where only later queries
// see a slot: more than 16 rows pass over a chain one after another.
TEST(Score, LocalScoresOfTheNewestSlotsFadeToo) {
  constexpr Shape kShape = {.layers = 1, .query_heads = 1, .kv_heads = 1, .head_dim = 16, .max_chunk = 32};
  for (const std::string& port : running_ports()) {
    for (std::uint32_t before = 200; before < 232; before += 5) {
      Rig rig(kShape, snapkv(140), port);
      Random random(before);
      for (std::uint32_t seen = 0; seen < before; ++seen) {
        ASSERT_EQ(append(rig.cache(), 0, random.bells(16), random.bells(16)), Status::kOk);
        (void)test::attend_all(rig.cache(), 0, random.bells(16));
      }
      ASSERT_GT(model_of(rig).chain(0, 0).level, 100u) << "with which slots start";
      const auto away = along(32, 16, -8.0f);  // from all queries: the new slots get no attention
      ASSERT_EQ(append(rig.cache(), 0, away, away), Status::kOk);
      (void)test::attend_all(rig.cache(), 0, along(32, 16, 8.0f));
      const std::vector<SlotInfo> slots = explain_all(rig.cache(), 0, 0);
      for (std::size_t i = slots.size() - 31; i < slots.size(); ++i)
        ASSERT_EQ(slots[i].local, 0) << "slot " << i << " of " << slots.size() << ", port " << port;
    }
  }
}

TEST(Score, ASinkMaySaturateAndCostsTheOthersNothing) {
  constexpr Shape kShape = {.layers = 1, .query_heads = 1, .kv_heads = 1, .head_dim = 16};
  for (const std::string& port : running_ports()) {
    Policy policy = ems_no_merge(64);
    policy.sinks = 1;
    policy.per_query = false;
    Rig rig(kShape, policy, port);
    // A weight of about 0.98 for the sink and of 0.02 for the other.
    ASSERT_EQ(append(rig.cache(), 0, along(1, 16, 2.0f), along(1, 16, 1.0f)), Status::kOk);
    ASSERT_EQ(append(rig.cache(), 0, along(1, 16, -2.0f), along(1, 16, 1.0f)), Status::kOk);
    const auto query = along(1, 16, 4.0f);
    std::uint32_t first = 0;
    for (std::uint32_t i = 1; i <= 3000; ++i) {
      (void)test::attend_all(rig.cache(), 0, query);
      const auto slots = explain_all(rig.cache(), 0, 0);
      if (i == 1) first = slots[1].global;
      ASSERT_GE(first, 1u << 17);
      ASSERT_EQ(slots[1].global, first * i) << "query " << i << ", port " << port;
      ASSERT_TRUE(i < 300 || slots[0].global == 0xffffffffu) << "query " << i << ", port " << port;
    }
    EXPECT_EQ(model_of(rig).chain(0, 0).exponent, 0u);
  }
}

TEST(Explain, SaysWhatTheArenaHoldsUnderEveryPreset) {
  const Shape shape = {
      .layers = 2, .query_heads = 4, .kv_heads = 2, .head_dim = 32, .outlier_channels = 4, .max_chunk = 8};
  for (const test::Preset& preset : test::scored_presets(shape, 96)) {
    if (preset.policy.budget == Budget::kAdaptive) continue;
    Rig rig(shape, preset.policy);
    Random random(72);
    bool merged = false;
    for (std::uint32_t step = 0; step < 60; ++step) {
      const std::uint32_t count = random.within(1, 8);
      const auto rows = random.bells(count * 2u * 32u);
      ASSERT_EQ(append(rig.cache(), 1, rows, rows), Status::kOk);
      (void)test::attend_all(rig.cache(), 1, random.bells(count * 4u * 32u));
      for (std::uint32_t head = 0; head < 2; ++head) {
        const std::vector<Notes> notes = model_of(rig).notes(1, head);
        const std::vector<SlotInfo> slots = explain_all(rig.cache(), 1, head);
        ASSERT_EQ(slots.size(), notes.size());
        for (std::size_t i = 0; i < slots.size(); ++i) {
          const SlotInfo& slot = slots[i];
          ASSERT_EQ((Notes{slot.position, slot.global, slot.local, slot.bias, slot.merged}), notes[i])
              << preset.name << ", slot " << i;
          const std::size_t faint = model_of(rig).faint(1, head).used;  // they come first, in no order
          ASSERT_TRUE(i == 0 || i <= faint || slot.position > slots[i - 1].position) << preset.name << ", slot " << i;
          ASSERT_TRUE(i >= preset.policy.sinks || slot.position == i) << preset.name << ", slot " << i;
          merged = merged || slot.merged != 0;
        }
        ASSERT_EQ(slots.back().position, rig.cache().seen(1) - 1) << preset.name;
      }
    }
    EXPECT_EQ(merged, preset.policy.merge != Merge::kNone) << preset.name;
  }
}

TEST(Explain, KnowsPositionsUnderEveryPolicy) {
  for (const Policy& policy : {full(200), streaming_llm(64, 3)}) {
    constexpr Shape kShape = {.layers = 1, .query_heads = 1, .kv_heads = 1, .head_dim = 16, .max_chunk = 7};
    Rig rig(kShape, policy);
    const auto rows = Random(73).bells(7 * 16);
    for (std::uint32_t seen = 7; seen <= 196; seen += 7) {
      ASSERT_EQ(append(rig.cache(), 0, rows, rows), Status::kOk);
      std::vector<std::uint32_t> positions;
      for (const SlotInfo& slot : explain_all(rig.cache(), 0, 0)) {
        positions.push_back(slot.position);
        EXPECT_TRUE(slot.global == 0 && slot.local == 0 && slot.bias == 0 && slot.merged == 0);
      }
      EXPECT_EQ(positions, reference::streaming_positions(seen, rig.cache().held(0, 0), policy.sinks)) << seen;
    }
  }
}

TEST(Explain, RefusesIndicesAndSizesOutOfRangeAndWritesNothing) {
  constexpr Shape kShape = {.layers = 2, .query_heads = 2, .kv_heads = 2, .head_dim = 16};
  Rig rig(kShape, ems(64));
  const std::vector<float> row(2 * 16, 1.0f);
  for (int i = 0; i < 3; ++i) ASSERT_EQ(append(rig.cache(), 1, row, row), Status::kOk);
  const std::vector<std::byte> before = rig.arena().copy();
  std::vector<SlotInfo> slots(4);
  for (SlotInfo& slot : slots) slot.position = 77;
  const auto first = [&](std::size_t count) { return std::span(slots).first(count); };
  EXPECT_EQ(explain(Cache{}, 0, 0, {}), Status::kNotReady);
  EXPECT_EQ(explain(rig.cache(), 2, 0, first(3)), Status::kBadArgument);
  EXPECT_EQ(explain(rig.cache(), 1, 2, first(3)), Status::kBadArgument);
  EXPECT_EQ(explain(rig.cache(), 0xffffffff, 0xffffffff, first(3)), Status::kBadArgument);
  EXPECT_EQ(explain(rig.cache(), 1, 0, first(2)), Status::kBadArgument);
  EXPECT_EQ(explain(rig.cache(), 1, 0, first(4)), Status::kBadArgument);
  EXPECT_EQ(explain(rig.cache(), 0, 0, first(3)), Status::kBadArgument);
  for (const SlotInfo& slot : slots) EXPECT_EQ(slot.position, 77u);
  EXPECT_EQ(explain(rig.cache(), 0, 0, {}), Status::kOk);
  EXPECT_EQ(explain(rig.cache(), 1, 1, first(3)), Status::kOk);
  EXPECT_EQ(slots[2].position, 2u);
  EXPECT_EQ(slots[3].position, 77u);
  EXPECT_EQ(rig.arena().copy(), before);
}

TEST(Scoring, NeedsAllQueriesOfAChunkInOneCall) {
  constexpr Shape kShape = {.layers = 1, .query_heads = 4, .kv_heads = 2, .head_dim = 16, .max_chunk = 6};
  for (const test::Preset& preset : test::scored_presets(kShape, 64)) {
    Rig rig(kShape, preset.policy);
    Random random(74);
    const auto rows = random.bells(6 * 2 * 16);
    ASSERT_EQ(append(rig.cache(), 0, rows, rows), Status::kOk);
    const auto queries = random.bells(6 * 4 * 16);
    std::vector<float> out(queries.size(), 9.0f);
    const std::vector<std::byte> before = rig.arena().copy();
    const Status expected = scores_attention(preset.policy) ? Status::kBadArgument : Status::kOk;
    EXPECT_EQ(attend(rig.cache(), 0, queries, out, {.first_query = 1}), expected) << preset.name;
    EXPECT_EQ(attend(rig.cache(), 0, queries, out, {.queries = 5}), expected) << preset.name;
    EXPECT_EQ(attend(rig.cache(), 0, queries, out, {.heads = 1, .queries = 1}), expected) << preset.name;
    if (expected != Status::kOk) {
      EXPECT_EQ(rig.arena().copy(), before) << preset.name;
      EXPECT_EQ(out, std::vector<float>(queries.size(), 9.0f)) << preset.name;
    }
    EXPECT_EQ(attend(rig.cache(), 0, queries, out, {.first_query = 1, .drafts = true}), Status::kOk) << preset.name;
    EXPECT_EQ(attend(rig.cache(), 0, queries, out, {.queries = 6}), Status::kOk) << preset.name;
  }
}

// Speculative decoding: drafts are attended to, go back, and what was right comes again, as tokens.
TEST(Scoring, DraftsThatGoBackLeaveTheBytesOfNone) {
  constexpr Shape kShape = {.layers = 2, .query_heads = 6, .kv_heads = 2, .head_dim = 48, .max_chunk = 5};
  for (const std::string& port : running_ports()) {
    for (const test::Preset& preset : test::scored_presets(kShape, 64)) {
      Rig plain(kShape, preset.policy, port), drafting(kShape, preset.policy, port);
      Random random(77);
      int made = 0;
      for (std::uint32_t step = 0; step < test::turns(60, 50); ++step) {
        const auto rows = random.bells(5 * 2 * 48), queries = random.bells(5 * 6 * 48);
        std::uint32_t space = 5;
        for (std::uint32_t layer = 0; layer < 2; ++layer) {
          for (std::uint32_t head = 0; head < 2; ++head) {
            const Cache& cache = plain.cache();
            std::uint32_t most = cache.budget(layer, head) + 32, held = cache.held(layer, head);
            if (has_tiers(preset.policy)) {
              most = preset.policy.tail + kShape.max_chunk + 31;
              held -= model_of(plain).kept(layer, head).used + model_of(plain).faint(layer, head).used;
            }
            space = std::min(space, most - held);
          }
        }
        made += space == 0 ? 1 : 0;
        const std::uint32_t count = std::max<std::uint32_t>(space, 1), right = random.within(1, count),
                            seen = plain.cache().seen(0);
        std::vector<float> drafted(queries.size()), out(6 * 48);
        for (std::uint32_t layer = 0; layer < 2; ++layer) {
          ASSERT_EQ(
              append(drafting.cache(), layer, std::span(rows).first(count * 96), std::span(rows).first(count * 96)),
              Status::kOk);
          ASSERT_EQ(attend(drafting.cache(), layer, std::span(queries).first(count * 288),
                           std::span(drafted).first(count * 288), {.drafts = true}),
                    Status::kOk);
        }
        ASSERT_EQ(truncate(drafting.cache(), seen), Status::kOk) << preset.name;
        for (std::uint32_t token = 0; token < right; ++token) {
          const auto row = std::span(rows).subspan(token * 96, 96);
          for (std::uint32_t layer = 0; layer < 2; ++layer) {
            for (Cache* cache : {&plain.cache(), &drafting.cache()}) {
              ASSERT_EQ(append(*cache, layer, row, row), Status::kOk);
              ASSERT_EQ(attend(*cache, layer, std::span(queries).subspan(token * 288, 288), out), Status::kOk);
            }
          }
          ASSERT_TRUE(test::same_bytes(out, std::span(drafted).subspan(token * 288, 288))) << preset.name;
        }
        ASSERT_EQ(test::saved(drafting.cache()), test::saved(plain.cache())) << preset.name << ", step " << step;
      }
      EXPECT_GT(made, 0) << preset.name;
    }
  }
}

TEST(Scoring, WorkersThatShareTheHeadsLeaveTheBytesOfOne) {
  for (const std::string& port : running_ports()) {
    for (const Policy& policy : {ems(64), h2o(64), snapkv(64), pyramid_kv(64)}) {
      constexpr Shape kShape = {
          .layers = 2, .query_heads = 9, .kv_heads = 3, .head_dim = 48, .max_chunk = 10, .workers = 3};
      Rig one(kShape, policy, port);
      Rig three(kShape, policy, port);
      Random random(75);
      for (std::uint32_t step = 0; step < test::turns(40, 10); ++step) {
        const std::uint32_t count = random.within(1, 10);
        const auto rows = random.bells(count * 3u * 48u);
        const auto queries = random.bells(count * 9u * 48u);
        ASSERT_EQ(append(one.cache(), step % 2, rows, rows), Status::kOk);
        ASSERT_EQ(append(three.cache(), step % 2, rows, rows), Status::kOk);
        const std::vector<float> expected = test::attend_all(one.cache(), step % 2, queries);
        std::vector<float> out(queries.size());
        std::vector<Status> statuses(3, Status::kFull);
        test::run_workers(3, [&](std::uint32_t head) {
          statuses[head] =
              attend(three.cache(), step % 2, queries, out, {.first_head = head, .heads = 1, .worker = head});
        });
        ASSERT_EQ(statuses, std::vector<Status>(3, Status::kOk));
        ASSERT_TRUE(test::same_bytes(out, expected)) << "step " << step << ", port " << port;
        ASSERT_EQ(one.copy_state(), three.copy_state()) << "step " << step << ", port " << port;
      }
    }
  }
}

TEST(Scoring, DoesNotChangeWhatAttendComputes) {
  for (const std::uint16_t group : std::initializer_list<std::uint16_t>{1, 3, 7, 20}) {
    const Shape shape = {.layers = 1, .query_heads = group, .kv_heads = 1, .head_dim = 32, .max_chunk = 9};
    Rig plain(shape, full(160));
    Rig scored(shape, ems(160));
    Random random(76);
    for (std::uint32_t step = 0; step < 20; ++step) {
      const std::uint32_t count = random.within(1, 9);
      const auto rows = random.bells(count * 32u);
      const auto queries = random.bells(count * group * 32u);
      ASSERT_EQ(append(plain.cache(), 0, rows, rows), Status::kOk);
      ASSERT_EQ(append(scored.cache(), 0, rows, rows), Status::kOk);
      ASSERT_TRUE(
          test::same_bytes(test::attend_all(plain.cache(), 0, queries), test::attend_all(scored.cache(), 0, queries)))
          << "group " << group << ", step " << step;
    }
  }
}

TEST(Scoring, ATileCarriesOnlyWhatItsPolicyReads) {
  for (const std::uint16_t outliers : std::initializer_list<std::uint16_t>{0, 8}) {
    const Shape shape = {.layers = 1, .query_heads = 1, .kv_heads = 1, .head_dim = 32, .outlier_channels = outliers};
    const auto side = [&](const Policy& policy) { return layout_of(shape, policy).side_bytes; };
    const std::uint32_t plain = 128u + 32u * outliers;
    EXPECT_EQ(side(full(64)), plain);
    EXPECT_EQ(side(streaming_llm(64)), plain);
    EXPECT_EQ(side(l2_norm(64)), plain + 64) << "positions";
    EXPECT_EQ(side(h2o(64)), plain + 64 + 128) << "and global scores";
    EXPECT_EQ(side(tova(64)), plain + 64 + 64) << "and local scores";
    EXPECT_EQ(side(snapkv(64)), plain + 64 + 64);
    EXPECT_EQ(side(ems_no_merge(64)), plain + 64 + 128 + 64);
    EXPECT_EQ(side(ems(64)), plain + 64 + 128 + 64 + 64) << "and biases and counts";
    EXPECT_EQ(layout_of(shape, full(64)).bases, layout_of(shape, full(64)).sides) << "no bases";
    EXPECT_EQ(layout_of(shape, full(64)).plan, layout_of(shape, full(64)).encoding) << "no plan";
  }
}

}  // namespace
}  // namespace nibkv::score_test
