#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "nibkv/nibkv.hpp"
#include "tests/reference/arena_model.hpp"
#include "tests/reference/attention.hpp"
#include "tests/reference/rotary.hpp"
#include "tests/support/effort.hpp"
#include "tests/support/model_of.hpp"
#include "tests/support/rig.hpp"
#include "tests/support/snapshots.hpp"
#include "tests/support/workers.hpp"

// Attention over slots further behind than Rotary::reach.
namespace nibkv::attend_far_test {
namespace {

using test::attend_all;
using test::model_of;
using test::Random;
using test::Rig;
using test::words;

constexpr std::uint32_t kReach = 64;
constexpr std::uint64_t kSeed = 1;  // of the profile that a Rig makes

Shape shape_with(std::uint16_t outliers, bool adjacent, std::uint32_t reach = kReach) {
  Shape shape = {
      .layers = 1, .query_heads = 6, .kv_heads = 2, .head_dim = 48, .outlier_channels = outliers, .max_chunk = 7};
  shape.rotary = {.base = 1e4f, .scale = 0.5f, .dims = 32, .adjacent = adjacent, .reach = reach};
  return shape;
}

struct Rows {
  std::vector<float> keys, values, queries;
};

Rows rows_of(const Shape& shape, Random& random, std::size_t count) {
  Rows rows;
  rows.keys = shape.outlier_channels != 0 ? test::keys_of_profile(shape, kSeed, 0, count, random)
                                          : random.bells(count * shape.kv_heads * shape.head_dim);
  rows.values = random.bells(count * shape.kv_heads * shape.head_dim);
  rows.queries = random.bells(count * shape.query_heads * shape.head_dim);
  return rows;
}

// Reads `tokens` tokens in chunks; returns what attention gave.
std::vector<float> read(Cache& cache, Random& random, std::uint32_t tokens, std::uint32_t chunk) {
  std::vector<float> all;
  for (std::uint32_t done = 0; done < tokens;) {
    const std::uint32_t count = std::min(chunk, tokens - done);
    const Rows rows = rows_of(cache.shape(), random, count);
    EXPECT_EQ(append(cache, 0, rows.keys, rows.values), Status::kOk);
    const std::vector<float> out = attend_all(cache, 0, rows.queries);
    all.insert(all.end(), out.begin(), out.end());
    done += count;
  }
  return all;
}

struct Expected {
  std::vector<double> turned, unturned;
};

// What a head holds, in double precision: keys as they were appended, but for quantisation.
struct Held {
  Rotary rotary;
  std::vector<std::uint32_t> positions;
  std::vector<double> biases;
  reference::Rows keys, values;
};

Held held_by(const Cache& cache, const reference::ArenaModel& model, const ProfileView& profile, std::uint32_t kv_head,
             std::uint32_t layer = 0) {
  Held held = {cache.shape().rotary, {}, {}, {}, {}};
  for (const SlotInfo& info : test::explain_all(cache, layer, kv_head)) {
    held.positions.push_back(info.position);
    held.biases.push_back(info.bias / 16.0 * std::log(2.0));
  }
  for (const reference::Slot& slot : model.slots(layer, kv_head)) {
    // A key is coded where the profile knows keys.
    const std::uint32_t wrapped = held.rotary.wrap_of(held.positions[held.keys.size()]);
    held.keys.push_back(reference::turned(reference::decode_key(slot, profile, layer, kv_head), held.rotary, wrapped));
    held.values.push_back(reference::decode_value(slot));
  }
  return held;
}

Held held_by(const Rig& rig, std::uint32_t kv_head) {
  ProfileView profile;
  if (!rig.profile().empty()) {
    EXPECT_EQ(profile.open(rig.profile(), rig.shape()), Status::kOk);
  }
  return held_by(rig.cache(), model_of(rig), profile, kv_head);
}

// Attention of one query over the first slots of what is held.
Expected expect(const Held& held, std::span<const float> query, std::uint32_t position, std::size_t visible) {
  const std::vector<double> row = reference::widen(query);
  const double root = std::sqrt(static_cast<double>(row.size()));
  std::vector<double> turned, unturned;
  for (std::size_t t = 0; t < visible; ++t) {
    const double shift = reference::shift_of(held.rotary, position, held.positions[t]);
    const std::vector<double> back = reference::turned(row, held.rotary, -shift);
    double dot = 0, plain = 0;
    for (std::size_t c = 0; c < row.size(); ++c) {
      dot += back[c] * held.keys[t][c];
      plain += row[c] * held.keys[t][c];
    }
    turned.push_back(dot / root + held.biases[t]);
    unturned.push_back(plain / root + held.biases[t]);
  }
  const auto weigh = [&](std::vector<double> logits) {
    const double most = *std::max_element(logits.begin(), logits.end());
    double mass = 0;
    for (double& logit : logits) mass += logit = std::exp(logit - most);
    std::vector<double> out(row.size(), 0.0);
    for (std::size_t t = 0; t < visible; ++t) {
      for (std::size_t c = 0; c < out.size(); ++c) out[c] += logits[t] / mass * held.values[t][c];
    }
    return out;
  };
  return {weigh(turned), weigh(unturned)};
}

// The mean distances of what attention gave from what it should, and from what it would be unturned.
struct Distances {
  double right = 0;
  double unturned = 0;
};

Distances distances(Rig& rig, std::uint32_t tokens) {
  const Shape& shape = rig.shape();
  Random random(7);
  read(rig.cache(), random, tokens, 5);
  const Rows rows = rows_of(shape, random, shape.max_chunk);
  EXPECT_EQ(append(rig.cache(), 0, rows.keys, rows.values), Status::kOk);
  std::vector<std::vector<Expected>> expected(shape.max_chunk);
  const Held held[] = {held_by(rig, 0), held_by(rig, 1)};
  for (std::uint32_t i = 0; i < shape.max_chunk; ++i) {  // before attend changes scores
    for (std::uint32_t head = 0; head < shape.query_heads; ++head) {
      const std::uint32_t kv_head = head / shape.group();
      const std::size_t visible = rig.cache().held(0, kv_head) - (shape.max_chunk - 1 - i);
      const std::span query =
          std::span(rows.queries).subspan((i * shape.query_heads + head) * shape.head_dim, shape.head_dim);
      expected[i].push_back(expect(held[kv_head], query, tokens + i, visible));
    }
  }
  const std::vector<float> out = attend_all(rig.cache(), 0, rows.queries);
  Distances sum;
  for (std::uint32_t i = 0; i < shape.max_chunk; ++i) {
    for (std::uint32_t head = 0; head < shape.query_heads; ++head) {
      const auto got =
          reference::widen(std::span(out).subspan((i * shape.query_heads + head) * shape.head_dim, shape.head_dim));
      const Expected& want = expected[i][head];
      sum.right += reference::distance(got, want.turned) / reference::norm(want.turned);
      sum.unturned += reference::distance(got, want.unturned) / reference::norm(want.turned);
    }
  }
  const double count = shape.max_chunk * shape.query_heads;
  return {sum.right / count, sum.unturned / count};
}

TEST(AttendFar, SlotsBeyondTheReachMeetAQueryTurnedBackToIt) {
  for (const std::string& port : test::running_ports()) {
    for (const std::uint16_t outliers : std::initializer_list<std::uint16_t>{0, 8}) {
      for (const bool adjacent : {true, false}) {
        const Shape shape = shape_with(outliers, adjacent);
        for (const Policy& policy : {full(320), streaming_llm(96), ems(96), snapkv(96)}) {
          Rig rig(shape, policy, port);
          const Distances mean = distances(rig, 300);
          const std::string what = words(shape, policy, port);
          EXPECT_LT(mean.right, 0.04) << what;
          EXPECT_GT(mean.unturned, 0.3) << what;
        }
      }
    }
  }
}

TEST(AttendFar, AProfileWithoutOutlierChannelsLeavesTheMeanKeyIn) {
  const Shape shape = shape_with(0, true);
  const std::vector<std::byte> profile = test::make_profile(shape, kSeed);
  test::Arena arena(footprint(shape, ems(96)));
  Cache cache;
  ASSERT_EQ(cache.init(arena.bytes(), shape, ems(96), {.profile = profile}), Status::kOk);
  Random random(13);
  read(cache, random, 300, 7);
  const Rows rows = rows_of(shape, random, 1);
  ASSERT_EQ(append(cache, 0, rows.keys, rows.values), Status::kOk);
  const reference::ArenaModel model(arena.bytes(), shape, ems(96));
  const Expected want =
      expect(held_by(cache, model, {}, 0), std::span(rows.queries).first(shape.head_dim), 300, cache.held(0, 0));
  const std::vector<float> out = attend_all(cache, 0, rows.queries);
  const auto got = reference::widen(std::span(out).first(shape.head_dim));
  EXPECT_LT(reference::distance(got, want.turned), 0.04 * reference::norm(want.turned));
  EXPECT_GT(reference::distance(got, want.unturned), 0.2 * reference::norm(want.turned));
}

TEST(AttendFar, ExactRowsDoTheSame) {
  for (const bool adjacent : {true, false}) {
    Shape shape = shape_with(0, adjacent);
    shape.storage = Storage::kF32;
    Rig rig(shape, streaming_llm(96));
    Random random(8);
    read(rig.cache(), random, 300, 5);
    const Rows rows = rows_of(shape, random, 1);
    ASSERT_EQ(append(rig.cache(), 0, rows.keys, rows.values), Status::kOk);
    const std::vector<float> out = attend_all(rig.cache(), 0, rows.queries);
    const std::vector<SlotInfo> infos = test::explain_all(rig.cache(), 0, 1);
    const auto query = reference::widen(std::span(rows.queries).subspan(4 * shape.head_dim, shape.head_dim));
    std::vector<double> logits, sums(shape.head_dim, 0.0);
    double mass = 0;
    std::uint32_t far = 0;
    for (std::uint32_t t = 0; t < infos.size(); ++t) {
      const std::uint32_t shift = reference::shift_of(shape.rotary, 300, infos[t].position);
      far += shift != 0 ? 1 : 0;
      const auto back = reference::turned(query, shape.rotary, -static_cast<double>(shift));
      const std::vector<float> key = model_of(rig).key_f32(0, 1, t), value = model_of(rig).value_f32(0, 1, t);
      double dot = 0;
      for (std::size_t c = 0; c < shape.head_dim; ++c) dot += back[c] * static_cast<double>(key[c]);
      const double weight = std::exp(dot / std::sqrt(static_cast<double>(shape.head_dim)));
      mass += weight;
      for (std::size_t c = 0; c < shape.head_dim; ++c) sums[c] += weight * static_cast<double>(value[c]);
    }
    EXPECT_GT(far, 4u);
    for (std::size_t c = 0; c < shape.head_dim; ++c) EXPECT_NEAR(out[4 * shape.head_dim + c], sums[c] / mass, 1e-5);
  }
}

TEST(AttendFar, EveryPortWritesTheSameBytes) {
  for (const std::uint16_t outliers : std::initializer_list<std::uint16_t>{0, 8}) {
    for (const Policy& policy : {streaming_llm(96), ems(96)}) {
      const Shape shape = shape_with(outliers, outliers != 0);
      Rig scalar(shape, policy, "scalar");
      Random first(9);
      const std::vector<float> expected = read(scalar.cache(), first, 400, 7);
      for (const std::string& port : test::running_ports()) {
        Rig rig(shape, policy, port);
        Random random(9);
        EXPECT_TRUE(test::same_bytes(read(rig.cache(), random, 400, 7), expected)) << words(shape, policy, port);
        EXPECT_EQ(rig.copy_state(), scalar.copy_state()) << words(shape, policy, port);
      }
    }
  }
}

// The same rows whatever the chunks: rows are drawn token by token.
TEST(AttendFar, ChunksPartsAndWorkersChangeNothing) {
  Shape shape = shape_with(8, true);
  shape.workers = 3;
  Random random(10);
  constexpr std::uint32_t kTokens = 210;
  const Rows rows = rows_of(shape, random, kTokens);
  const std::size_t kv = std::size_t{shape.kv_heads} * shape.head_dim,
                    wide = std::size_t{shape.query_heads} * shape.head_dim;
  std::vector<std::vector<float>> outs;
  for (const std::uint32_t chunk : {1u, 7u, 5u}) {
    Rig rig(shape, full(256));
    std::vector<float> out(rows.queries.size());
    for (std::uint32_t at = 0; at < kTokens; at += chunk) {
      const std::uint32_t count = std::min(chunk, kTokens - at);
      ASSERT_EQ(append(rig.cache(), 0, std::span(rows.keys).subspan(at * kv, count * kv),
                       std::span(rows.values).subspan(at * kv, count * kv)),
                Status::kOk);
      const auto queries = std::span(rows.queries).subspan(at * wide, count * wide);
      const auto to = std::span(out).subspan(at * wide, count * wide);
      if (chunk != 5) {
        ASSERT_EQ(attend(rig.cache(), 0, queries, to), Status::kOk);
        continue;
      }
      test::run_workers(std::min<std::uint32_t>(count, 3), [&](std::uint32_t worker) {
        const std::uint32_t first = worker * count / 3;
        const std::uint32_t end = worker == std::min<std::uint32_t>(count, 3) - 1 ? count : (worker + 1) * count / 3;
        if (end > first) {
          EXPECT_EQ(
              attend(rig.cache(), 0, queries, to, {.first_query = first, .queries = end - first, .worker = worker}),
              Status::kOk);
        }
      });
    }
    outs.push_back(std::move(out));
  }
  EXPECT_TRUE(test::same_bytes(outs[0], outs[1]));
  EXPECT_TRUE(test::same_bytes(outs[0], outs[2]));
}

TEST(AttendFar, BeforeTheFirstStepNoByteChanges) {
  for (const Policy& policy : {full(320), streaming_llm(96), ems(96)}) {
    Rig with(shape_with(8, true, 512), policy), without(shape_with(8, true, 0), policy);  // a step of 256
    Random first(11), second(11);
    EXPECT_TRUE(test::same_bytes(read(with.cache(), first, 256, 7), read(without.cache(), second, 256, 7)));
    EXPECT_EQ(with.copy_state(), without.copy_state());
    EXPECT_FALSE(test::same_bytes(read(with.cache(), first, 1, 1), read(without.cache(), second, 1, 1)))
        << "the first token that is wrapped";
  }
}

// Spans whose tokens all see each other, so that a query sees slots that were wrapped further than it is.
TEST(AttendFar, AMaskMayShowSlotsThatAreWrappedFurther) {
  for (const std::uint16_t outliers : std::initializer_list<std::uint16_t>{0, 8}) {
    for (const std::uint32_t reach :
         std::initializer_list<std::uint32_t>{4, kReach}) {  // a step of 2: spans of 7 have four
      const Shape shape = shape_with(outliers, true, reach);
      Rig rig(shape, ems(96));
      Random random(14);
      read(rig.cache(), random, 28, 7);  // the next tokens are 28 to 34
      const Rows rows = rows_of(shape, random, shape.max_chunk);
      ASSERT_EQ(append(rig.cache(), 0, rows.keys, rows.values), Status::kOk);
      const Held held[] = {held_by(rig, 0), held_by(rig, 1)};
      const std::vector<std::uint32_t> mask(shape.max_chunk, 0x7f);
      std::vector<float> out(rows.queries.size());
      ASSERT_EQ(attend(rig.cache(), 0, shape.max_chunk,
                       tokens_first(rows.queries.data(), Number::kF32, shape.query_heads, shape.head_dim), mask,
                       tokens_first(out.data(), Number::kF32, shape.query_heads, shape.head_dim)),
                Status::kOk);
      for (std::uint32_t i = 0; i < shape.max_chunk; ++i) {
        for (std::uint32_t head = 0; head < shape.query_heads; ++head) {
          const std::size_t at = (i * shape.query_heads + head) * std::size_t{shape.head_dim};
          const Expected want = expect(held[head / shape.group()], std::span(rows.queries).subspan(at, shape.head_dim),
                                       28 + i, rig.cache().held(0, head / shape.group()));
          const auto got = reference::widen(std::span(out).subspan(at, shape.head_dim));
          EXPECT_LT(reference::distance(got, want.turned), 0.08 * reference::norm(want.turned))
              << words(shape, ems(96), rig.cache().port()) << ", query " << i << ", head " << head;
        }
      }
    }
  }
}

TEST(AttendFar, LayersThatShareCodesAreTurnedToo) {
  Shape shape = shape_with(0, true);
  shape.layers = 2;
  LayerSet pair;
  pair.add(0);
  Policy policy = ems_fold(160, pair);
  policy.fold.recent = 8;
  Rig rig(shape, policy);
  Random random(15);
  Rows rows;
  for (std::uint32_t done = 0; done < 300; done += 5) {
    rows = rows_of(shape, random, 5);
    for (std::uint32_t layer = 0; layer < 2; ++layer) {
      ASSERT_EQ(append(rig.cache(), layer, rows.keys, rows.values), Status::kOk);
      if (done < 295) attend_all(rig.cache(), layer, rows.queries);
    }
  }
  const reference::ArenaModel model = model_of(rig);
  for (std::uint32_t layer = 0; layer < 2; ++layer) {
    EXPECT_GT(model.folded(layer, 0).used, 16u);
    const Held held = held_by(rig.cache(), model, {}, 0, layer);
    const std::size_t at = std::size_t{4} * shape.query_heads * shape.head_dim;  // the newest query
    const Expected want =
        expect(held, std::span(rows.queries).subspan(at, shape.head_dim), 299, rig.cache().held(layer, 0));
    const std::vector<float> out = attend_all(rig.cache(), layer, rows.queries);
    const auto got = reference::widen(std::span(out).subspan(at, shape.head_dim));
    EXPECT_LT(reference::distance(got, want.turned), 0.06 * reference::norm(want.turned));
    EXPECT_GT(reference::distance(got, want.unturned), 0.2 * reference::norm(want.turned));
  }
}

// A caller's plans keep the first tokens alone, while tens of thousands go by; then new ones come into their tile, which
// spans more positions than it stores.
TEST(AttendFar, ATileMaySpanAnyNumberOfPositions) {
  Shape shape = shape_with(0, true);
  shape.max_chunk = 64;
  constexpr std::uint32_t kFirst = 20, kNew = 9, kTokens = test::kShorter == 1 ? 140000 : 66000;
  for (const Policy& policy : {ems_no_merge(96), ems(96)}) {
    Rig rig(shape, policy);
    Cache& cache = rig.cache();
    Random random(16);
    std::vector<std::uint32_t> positions(kFirst);
    for (std::uint32_t i = 0; i < kFirst; ++i) positions[i] = i;
    Rows rows = rows_of(shape, random, kFirst);
    ASSERT_EQ(append(cache, 0, rows.keys, rows.values), Status::kOk);
    rows = rows_of(shape, random, 64);
    while (cache.seen(0) < kTokens) {
      ASSERT_EQ(append(cache, 0, rows.keys, rows.values), Status::kOk);
      for (std::uint32_t head = 0; head < 2; ++head) {
        std::vector<std::uint32_t> plan(cache.held(0, head), kDrop);
        for (std::uint32_t i = 0; i < kFirst; ++i) plan[i] = i;
        ASSERT_EQ(compact(cache, 0, head, plan), Status::kOk);
      }
    }
    for (std::uint32_t i = 0; i < kNew; ++i) positions.push_back(cache.seen(0) + i);
    rows = rows_of(shape, random, kNew);
    ASSERT_EQ(append(cache, 0, rows.keys, rows.values), Status::kOk);
    ASSERT_EQ(check(cache), Status::kOk);
    ASSERT_EQ(test::explain_all(cache, 0, 0).back().position, positions.back());
    Held held = held_by(rig, 0);
    ASSERT_EQ(held.positions.size(), positions.size());
    for (std::size_t i = 0; i < positions.size(); ++i) {
      EXPECT_EQ(held.positions[i] % shape.rotary.step(), positions[i] % shape.rotary.step()) << i;
      // As it was wrapped.
      const std::uint32_t wrong = shape.rotary.wrap_of(held.positions[i]);
      held.keys[i] = reference::turned(held.keys[i], shape.rotary,
                                       static_cast<double>(shape.rotary.wrap_of(positions[i])) - wrong);
    }
    held.positions = positions;
    const std::size_t at = (kNew - 1) * std::size_t{shape.query_heads} * shape.head_dim;
    const Expected want =
        expect(held, std::span(rows.queries).subspan(at, shape.head_dim), positions.back(), positions.size());
    const std::vector<float> out = attend_all(cache, 0, rows.queries);
    const auto got = reference::widen(std::span(out).subspan(at, shape.head_dim));
    EXPECT_LT(reference::distance(got, want.turned), 0.04 * reference::norm(want.turned));
    // What is saved comes back, and goes on.
    const std::vector<std::byte> snapshot = test::saved(cache);
    Rig other(shape, policy);
    ASSERT_EQ(restore(other.cache(), snapshot), Status::kOk);
    EXPECT_EQ(test::saved(other.cache()), snapshot);
  }
}

// Where positions are not stored, a plan of the caller's may drop what the policy itself would drop.
TEST(AttendFar, APlanThatChangesPositionsIsRefused) {
  const Shape shape = shape_with(0, true), plain = shape_with(0, true, 0);
  for (const Policy& policy : {full(128), streaming_llm(96, 4)}) {
    Rig rig(shape, policy), without(plain, policy);
    Random first(17), second(17);
    read(rig.cache(), first, 90, 7);
    read(without.cache(), second, 90, 7);
    std::vector<std::uint32_t> plan(rig.cache().held(0, 0), kDrop);
    for (std::uint32_t i = 0; i < 40; ++i) plan[i] = i;
    const auto before = rig.copy_state();
    EXPECT_EQ(compact(rig.cache(), 0, 0, plan), Status::kBadPlan);
    EXPECT_EQ(rig.copy_state(), before);
    EXPECT_EQ(compact(without.cache(), 0, 0, plan), Status::kOk);
    // The sinks and the newest stay.
    std::fill(plan.begin(), plan.end(), kDrop);
    std::uint32_t next = 0;
    for (std::uint32_t i = 0; i < policy.sinks; ++i) plan[i] = next++;
    for (std::size_t i = plan.size() - 40; i < plan.size(); ++i) plan[i] = next++;
    EXPECT_EQ(compact(rig.cache(), 0, 0, plan), Status::kOk);
    EXPECT_EQ(test::explain_all(rig.cache(), 0, 0).back().position, 89u);
  }
}

// A row of zeros, and rows of sizes from 2^-40 to 2^30, where the largest logit takes all: what is far must not overflow
// or vanish.
TEST(AttendFar, QueriesOfEverySizeGiveFiniteRows) {
  const Shape shape = shape_with(8, false);
  Rig rig(shape, ems(96));
  Random random(12);
  read(rig.cache(), random, 300, 7);
  for (const float size : {0.0f, 0x1p-40f, 0x1p-8f, 1.0f, 0x1p30f}) {
    Rows rows = rows_of(shape, random, 1);
    for (float& number : rows.queries) number *= size;
    ASSERT_EQ(append(rig.cache(), 0, rows.keys, rows.values), Status::kOk);
    const std::size_t held = rig.cache().held(0, 0);
    const Expected want =
        expect(held_by(rig, 0), std::span(rows.queries).first(shape.head_dim), rig.cache().seen(0) - 1, held);
    const std::vector<float> out = attend_all(rig.cache(), 0, rows.queries);
    for (const float number : out) EXPECT_TRUE(std::isfinite(number)) << size;
    const auto got = reference::widen(std::span(out).first(shape.head_dim));
    if (size > 1) continue;
    EXPECT_LT(reference::distance(got, want.turned), 0.08 * reference::norm(want.turned)) << size;
  }
}

}  // namespace
}  // namespace nibkv::attend_far_test
