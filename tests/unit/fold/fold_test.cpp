// What append does with layers that share codes.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "fold/fold_row.hpp"
#include "nibkv/nibkv.hpp"
#include "tests/reference/attention.hpp"
#include "tests/support/effort.hpp"
#include "tests/support/model_of.hpp"
#include "tests/support/rig.hpp"

namespace nibkv::fold_test {
namespace {

using reference::Slot;
using test::model_of;
using test::Random;
using test::Rig;

constexpr Shape kShape = {.layers = 4, .query_heads = 4, .kv_heads = 2, .head_dim = 64, .max_chunk = 16};

// Layers 1 and 2 share: keys, values, or both.
Policy sharing(std::uint32_t tokens, bool keys, bool values) {
  Policy policy = full(tokens);
  if (keys) policy.fold.keys.add(1);
  if (values) policy.fold.values.add(1);
  return policy;
}

// Keys and values of a chunk for all layers: layers 1 and 2 are equal except for noise; every
// ninth token differs.
struct Rows {
  std::vector<std::vector<float>> keys;
  std::vector<std::vector<float>> values;
};

Rows rows_of(Random& random, const Shape& shape, std::uint32_t first, std::uint32_t count) {
  Rows rows;
  const std::size_t size = std::size_t{count} * shape.kv_heads * shape.head_dim;
  const auto like = [&](const std::vector<float>& other) {
    std::vector<float> out = random.bells(size);
    for (std::size_t i = 0; i < size; ++i) {
      const std::size_t token = first + i / (shape.kv_heads * shape.head_dim);
      if (token % 9 != 5) out[i] = other[i] * 2.5f + out[i] * 0.7f;
    }
    return out;
  };
  for (std::uint32_t layer = 0; layer < shape.layers; ++layer) {
    rows.keys.push_back(layer == 2 ? like(rows.keys[1]) : random.bells(size));
    rows.values.push_back(layer == 2 ? like(rows.values[1]) : random.bells(size));
  }
  return rows;
}

// Appends to all layers until they hold `tokens`.
void fill(Cache& cache, Random& random, std::uint32_t tokens) {
  const Shape& shape = cache.shape();
  while (cache.seen(0) < tokens) {
    const std::uint32_t count = std::min<std::uint32_t>(random.within(1, shape.max_chunk), tokens - cache.seen(0));
    const Rows rows = rows_of(random, shape, cache.seen(0), count);
    for (std::uint32_t layer = 0; layer < shape.layers; ++layer)
      ASSERT_EQ(append(cache, layer, rows.keys[layer], rows.values[layer]), Status::kOk) << cache.seen(0);
    ASSERT_EQ(check(cache), Status::kOk) << cache.seen(0);
  }
}

double angle(const std::vector<double>& a, const std::vector<double>& b) {
  const double dot = std::inner_product(a.begin(), a.end(), b.begin(), 0.0);
  return std::acos(std::clamp(dot / reference::norm(a) / reference::norm(b), -1.0, 1.0));
}

// Rounded like the library's, so that the slots at the limit are the same.
std::uint32_t rounded_angle(const std::vector<int>& a, const std::vector<int>& b) {
  std::int8_t levels[2][kMaxHeadDim];
  for (std::size_t c = 0; c < a.size(); ++c) {
    levels[0][c] = static_cast<std::int8_t>(reference::kCodebook[a[c]]);
    levels[1][c] = static_cast<std::int8_t>(reference::kCodebook[b[c]]);
  }
  return Arc(levels[0], levels[1], static_cast<std::uint32_t>(a.size())).angle();
}

// The positions of the slots of layers 1 and 2 according to the rules: folded, retained, the rest.
// Of the old slots, the farthest are retained.
std::vector<std::uint32_t> expected_order(const std::vector<Slot>& lower, const std::vector<Slot>& upper,
                                          const Policy& policy, const Shape& shape, std::uint32_t* folded_count) {
  std::vector<std::uint32_t> far(lower.size(), 0);
  for (std::uint32_t i = 0; i < lower.size(); ++i) {
    if (!policy.fold.keys.empty()) far[i] += rounded_angle(lower[i].key_codes, upper[i].key_codes);
    if (!policy.fold.values.empty()) far[i] += rounded_angle(lower[i].value_codes, upper[i].value_codes);
  }
  const double share = policy.fold.retained / 256.0;
  const std::uint32_t entries = layout_of(shape, policy).paired_entries;
  const auto most = static_cast<std::uint32_t>(entries * 32 * share / (1 - share) + 1e-9);
  const std::uint32_t recent = std::max<std::uint32_t>(policy.fold.recent, shape.max_chunk);
  std::vector<std::uint32_t> folded;
  std::vector<std::uint32_t> own(lower.size());
  std::iota(own.begin(), own.end(), 0u);
  while (own.size() >= 32 + most + recent && folded.size() + 32 <= entries * 32) {
    std::vector<std::uint32_t> order(own.begin(), own.begin() + 32 + most);
    // Of equal ones the newest fold.
    std::sort(order.begin(), order.end(),
              [&](std::uint32_t a, std::uint32_t b) { return far[a] != far[b] ? far[a] < far[b] : a > b; });
    order.resize(32);
    std::sort(order.begin(), order.end());
    folded.insert(folded.end(), order.begin(), order.end());
    std::erase_if(own, [&](std::uint32_t i) { return std::binary_search(order.begin(), order.end(), i); });
  }
  *folded_count = static_cast<std::uint32_t>(folded.size());
  folded.insert(folded.end(), own.begin(), own.end());
  return folded;
}

std::vector<double> between(const std::vector<double>& a, const std::vector<double>& b, double t) {
  const double whole = angle(a, b);
  std::vector<double> out;
  for (std::size_t c = 0; c < a.size(); ++c) {
    out.push_back(std::sin((1 - t) * whole) * a[c] / reference::norm(a) +
                  std::sin(t * whole) * b[c] / reference::norm(b));
  }
  return out;
}

void expect_folded(const std::vector<double>& now, const std::vector<double>& was, const std::vector<double>& between) {
  EXPECT_NEAR(reference::norm(now) / reference::norm(was), 1, 0.003);
  EXPECT_LE(angle(now, between), 0.2);
}

TEST(Fold, OldSlotsShareADirectionAndTheFarthestAreRetained) {
  std::size_t turn = 0;
  for (const auto& [keys, values] : {std::pair{true, true}, {false, true}, {true, false}}) {
    for (const std::uint8_t share : {13, 0, 60, 128}) {
      if (turn++ % test::kEvery != 0) continue;
      Policy policy = sharing(1800, keys, values);
      policy.fold.retained = share;
      Rig rig(kShape, policy);
      Rig plain(kShape, full(1500));
      Random random(101);
      Random same(101);
      fill(rig.cache(), random, 1500);
      fill(plain.cache(), same, 1500);
      for (std::uint32_t head = 0; head < 2; ++head) {
        const auto lower = model_of(plain).slots(1, head);
        const auto upper = model_of(plain).slots(2, head);
        std::uint32_t folded = 0;
        const auto order = expected_order(lower, upper, policy, kShape, &folded);
        ASSERT_EQ(model_of(rig).folded(1, head).used, folded);
        ASSERT_GT(folded, share < 100 ? 900u : 500u);
        const auto a = model_of(rig).slots(1, head);
        const auto b = model_of(rig).slots(2, head);
        ASSERT_EQ(a.size(), 1500u);
        ASSERT_EQ(b.size(), 1500u);
        for (std::uint32_t i = 0; i < 1500; ++i) {
          const Slot& was_a = lower[order[i]];
          const Slot& was_b = upper[order[i]];
          if (i >= folded) {
            ASSERT_EQ(a[i], was_a) << i << ", share " << int{share};
            ASSERT_EQ(b[i], was_b) << i;
            continue;
          }
          ASSERT_EQ(a[i].key_codes == b[i].key_codes, keys) << i;
          ASSERT_EQ(a[i].value_codes == b[i].value_codes, values) << i;
          const double t = policy.fold.t / 256.0;
          if (keys) {
            const auto middle = between(was_a.rotated_key(), was_b.rotated_key(), t);
            expect_folded(a[i].rotated_key(), was_a.rotated_key(), middle);
            expect_folded(b[i].rotated_key(), was_b.rotated_key(), middle);
          } else {
            ASSERT_EQ(a[i].rotated_key(), was_a.rotated_key()) << i;
            ASSERT_EQ(b[i].rotated_key(), was_b.rotated_key()) << i;
          }
          if (values) {
            const auto middle = between(was_a.rotated_value(), was_b.rotated_value(), t);
            expect_folded(a[i].rotated_value(), was_a.rotated_value(), middle);
            expect_folded(b[i].rotated_value(), was_b.rotated_value(), middle);
          } else {
            ASSERT_EQ(a[i].rotated_value(), was_a.rotated_value()) << i;
            ASSERT_EQ(b[i].rotated_value(), was_b.rotated_value()) << i;
          }
        }
      }
    }
  }
}

TEST(Fold, NearRetainsThoseThatAreMostAlike) {
  Policy policy = sharing(1800, true, true);
  policy.fold.retain = Retain::kNear;
  policy.fold.retained = 128;  // half of the slots
  Rig rig(kShape, policy);
  Random random(102);
  fill(rig.cache(), random, 1500);
  policy.fold.retain = Retain::kFar;
  Rig far(kShape, policy);
  Random same(102);
  fill(far.cache(), same, 1500);
  double mean[2] = {0, 0};
  for (int which = 0; which < 2; ++which) {
    const auto model = model_of(which == 0 ? rig : far);
    const auto part = model.folded(1, 0);
    ASSERT_GT(part.retained, 60u);
    const auto a = model.slots(1, 0);
    const auto b = model.slots(2, 0);
    for (std::uint32_t i = part.used; i < part.used + part.retained; ++i)
      mean[which] += angle(a[i].rotated_key(), b[i].rotated_key()) / part.retained;
  }
  EXPECT_LT(mean[0], mean[1] * 0.8);
}

TEST(Fold, LayersApartAreThoseOfACacheWithoutPairs) {
  Rig rig(kShape, sharing(400, true, true));
  Rig plain(kShape, full(400));
  Random random(103);
  Random same(103);
  fill(rig.cache(), random, 400);
  fill(plain.cache(), same, 400);
  for (const std::uint32_t layer : {0u, 3u}) {
    for (std::uint32_t head = 0; head < 2; ++head)
      EXPECT_EQ(model_of(rig).slots(layer, head), model_of(plain).slots(layer, head));
  }
}

TEST(Fold, AttendReadsFoldedSlotsAsWhatTheyHold) {
  for (const auto& [keys, values] : {std::pair{true, true}, {false, true}, {true, false}}) {
    for (const std::string& port : test::running_ports()) {
      Rig rig(kShape, sharing(500, keys, values), port);
      Random random(104);
      for (int round = 0; round < 5; ++round) {
        fill(rig.cache(), random, rig.cache().seen(0) + 90);
        if (test::kShorter != 1 && round < 4) continue;
        for (std::uint32_t layer = 0; layer < kShape.layers; ++layer) {
          const std::uint32_t count = random.within(1, test::kShorter == 1 ? kShape.max_chunk : 3);
          auto queries = random.bells(count * kShape.query_heads * kShape.head_dim);
          for (float& x : queries) x *= 0.25f;
          const auto out = test::attend_all(rig.cache(), layer, queries);
          for (std::uint32_t q = 0; q < kShape.query_heads; ++q) {
            reference::Rows key_rows;
            reference::Rows value_rows;
            for (const Slot& slot : model_of(rig).slots(layer, q / 2)) {
              key_rows.push_back(reference::decode_key(slot, {}, layer, q / 2));
              value_rows.push_back(reference::decode_value(slot));
            }
            for (std::uint32_t i = 0; i < count; ++i) {
              const std::size_t at = (std::size_t{i} * kShape.query_heads + q) * kShape.head_dim;
              const auto query = reference::widen(std::span(queries).subspan(at, kShape.head_dim));
              const auto exact = reference::attention(query, key_rows, value_rows, key_rows.size() - (count - 1 - i));
              const auto got = reference::widen(std::span(out).subspan(at, kShape.head_dim));
              ASSERT_LE(reference::distance(got, exact), 0.03 * reference::norm(exact) + 0.003)
                  << "port " << port << ", layer " << layer;
            }
          }
        }
      }
    }
  }
}

TEST(Fold, ASharingLayerHoldsItsTokensInTheArenaThatWasComputed) {
  std::size_t turn = 0;
  for (const std::uint32_t tokens : {320u, 1024u, 1500u}) {
    for (const std::uint8_t share : {0, 13, 128}) {
      if (turn++ % test::kEvery != 0) continue;
      Policy policy = sharing(tokens, true, true);
      policy.fold.retained = share;
      policy.fold.recent = 64;
      Rig rig(kShape, policy);
      const std::uint32_t room = (tokens + 31) / 32 * 32;
      Random random(105);
      fill(rig.cache(), random, room);
      const Usage usage = rig.cache().usage();
      EXPECT_LE(usage.peak_bytes, usage.arena_bytes);
      EXPECT_LE(usage.used_bytes, usage.peak_bytes);
      const std::vector<std::byte> before = rig.copy_state();
      const auto row = random.bells(kShape.kv_heads * kShape.head_dim);
      for (std::uint32_t layer = 0; layer < 2; ++layer)
        EXPECT_EQ(append(rig.cache(), layer, row, row), Status::kFull) << layer;
      EXPECT_TRUE(rig.copy_state() == before);
      ASSERT_EQ(rig.cache().clear(), Status::kOk);
      EXPECT_EQ(check(rig.cache()), Status::kOk);
      fill(rig.cache(), random, room);
      EXPECT_TRUE(rig.arena().guards_intact());
    }
  }
}

TEST(Fold, TheUpperLayerFollowsTheLowerOne) {
  Rig rig(kShape, sharing(200, true, true));
  Random random(106);
  const auto rows = random.bells(3u * kShape.kv_heads * kShape.head_dim);
  const auto fewer = std::span(rows).first(2u * kShape.kv_heads * kShape.head_dim);
  std::vector<std::byte> before = rig.copy_state();
  EXPECT_EQ(append(rig.cache(), 2, rows, rows), Status::kBadArgument);
  EXPECT_TRUE(rig.copy_state() == before);
  ASSERT_EQ(append(rig.cache(), 1, rows, rows), Status::kOk);
  ASSERT_EQ(append(rig.cache(), 0, rows, rows), Status::kOk);
  EXPECT_EQ(check(rig.cache()), Status::kOk);
  before = rig.copy_state();
  EXPECT_EQ(append(rig.cache(), 1, rows, rows), Status::kBadArgument);
  EXPECT_EQ(append(rig.cache(), 2, fewer, fewer), Status::kBadArgument);
  const std::vector<std::uint32_t> target = {0, 1, 2};
  EXPECT_EQ(compact(rig.cache(), 1, 0, target), Status::kBadArgument);
  EXPECT_TRUE(rig.copy_state() == before);
  EXPECT_EQ(append(rig.cache(), 2, rows, rows), Status::kOk);
  EXPECT_EQ(compact(rig.cache(), 2, 0, target), Status::kOk);
}

TEST(Fold, PositionsAreKnownOfSlotsInOrder) {
  Rig rig(kShape, sharing(300, true, true));
  Random random(107);
  fill(rig.cache(), random, 300);
  const auto part = model_of(rig).folded(1, 0);
  const auto slots = test::explain_all(rig.cache(), 1, 0);
  for (std::uint32_t i = 0; i < 300; ++i) EXPECT_EQ(slots[i].position, i < part.used + part.retained ? kNoPosition : i);
}

// Appends and callers' plans in any order.
TEST(Fold, AnyOrderOfCallsKeepsPairsInStep) {
  int sharing_runs = 0;
  for (const std::string& port : test::running_ports()) {
    for (std::uint64_t seed = 0; seed < test::turns(12, 2); ++seed) {
      Random random(seed + 300);
      Shape shape = {.layers = 5, .query_heads = 2, .kv_heads = 2, .head_dim = 32};
      shape.max_chunk = static_cast<std::uint16_t>(random.within(1, 40));
      shape.outlier_channels = static_cast<std::uint16_t>(4 * random.below(3));
      Policy policy = full(random.within(500, 1500));
      if (random.below(3) != 0) policy.fold.keys.add(0);
      if (policy.fold.keys.empty() || random.below(2) == 0) policy.fold.values.add(0);
      if (random.below(2) == 0) policy.fold.values.add(3);
      if (random.below(2) == 0) policy.fold.keys.add(3);
      policy.fold.retained = static_cast<std::uint8_t>(random.below(129));
      policy.fold.recent = random.below(70);
      policy.fold.retain = random.below(2) == 0 ? Retain::kFar : Retain::kNear;
      Rig rig(shape, policy, port);
      const bool shares = layout_of(shape, policy).views != 0;
      sharing_runs += shares ? 1 : 0;
      for (unsigned step = 0; step < test::turns(80, 40); ++step) {
        const std::uint32_t count = random.within(1, shape.max_chunk);
        const Rows rows = rows_of(random, shape, rig.cache().seen(0), count);
        bool full = false;
        for (std::uint32_t layer = 0; layer < shape.layers && !full; ++layer) {
          const Status status = append(rig.cache(), layer, rows.keys[layer], rows.values[layer]);
          full = status == Status::kFull;
          ASSERT_TRUE(full || status == Status::kOk) << test::words(shape, policy, port) << ": " << text(status);
          ASSERT_EQ(check(rig.cache()), Status::kOk) << test::words(shape, policy, port) << ", step " << step;
          if (!full) test::attend_all(rig.cache(), layer, random.bells(count * 2u * shape.head_dim));
        }
        if (full) {
          ASSERT_EQ(rig.cache().clear(), Status::kOk);
          continue;
        }
        if (random.below(3) != 0) continue;
        const std::uint32_t odds = random.within(4, 16);
        const std::uint32_t begin = random.below(rig.cache().held(0, 0));
        for (std::uint32_t layer = 0; layer < shape.layers; ++layer) {
          const bool pair = shares && (policy.fold.keys.has(layer) || policy.fold.values.has(layer));
          for (std::uint32_t head = 0; head < 2; ++head) {
            std::vector<std::uint32_t> target(rig.cache().held(layer, head));
            std::uint32_t next = 0;
            // The newest stay, so that there is something to attend to.
            for (std::uint32_t i = 0; i < target.size(); ++i) {
              const bool stays = i < begin || i + shape.max_chunk >= target.size() || random.below(16) < odds;
              target[i] = stays ? next++ : kDrop;
            }
            const std::uint32_t named = pair ? layer + random.below(2) : layer;
            const auto lower = model_of(rig).slots(layer, head);
            const auto upper = model_of(rig).slots(pair ? layer + 1 : layer, head);
            ASSERT_EQ(compact(rig.cache(), named, head, target), Status::kOk);
            const auto lower_after = model_of(rig).slots(layer, head);
            const auto upper_after = model_of(rig).slots(pair ? layer + 1 : layer, head);
            for (std::uint32_t i = 0; i < target.size(); ++i) {
              if (target[i] == kDrop) continue;
              ASSERT_EQ(lower_after.at(target[i]), lower[i]) << i;
              ASSERT_EQ(upper_after.at(target[i]), upper[i]) << i;
            }
            ASSERT_EQ(check(rig.cache()), Status::kOk) << test::words(shape, policy, port) << ", step " << step;
          }
          if (pair) ++layer;  // that was both layers
        }
      }
      EXPECT_TRUE(rig.arena().guards_intact());
    }
  }
  EXPECT_GT(sharing_runs, test::kShorter == 1 ? 5 : 0);
}

// A small cache of slots with scores; layers 1 and 2 share.
Policy scored_pairs(std::uint32_t tokens, Merge merge = Merge::kNone) {
  Policy policy = snapkv(tokens);
  policy.sinks = 4;
  policy.recent = tokens / 2;
  policy.pool = 1;
  policy.merge = merge;
  policy.fold.keys.add(1);
  policy.fold.values.add(1);
  return policy;
}

void fill_and_attend(Cache& cache, Random& random, std::uint32_t tokens) {
  while (cache.seen(0) < tokens) {
    fill(cache, random, std::min(tokens, cache.seen(0) + random.within(1, kShape.max_chunk)));
    for (std::uint32_t layer = 0; layer < kShape.layers; ++layer)
      test::attend_all(cache, layer, random.bells(kShape.query_heads * kShape.head_dim));
  }
}

TEST(Fold, APairPlansByTheSumOfBothLayersScores) {
  const Policy policy = scored_pairs(400);
  Rig rig(kShape, policy);
  Random random(109);
  fill_and_attend(rig.cache(), random, 400);
  constexpr std::uint32_t kLeave = 250;
  const auto part = model_of(rig).folded(1, 0);
  ASSERT_GT(part.used, 200u);
  std::vector<std::uint64_t> sums(400, 0);
  std::vector<bool> may_go(400);
  for (const std::uint32_t layer : {1u, 2u}) {
    const auto slots = test::explain_all(rig.cache(), layer, 0);
    std::uint64_t locals = 0;
    std::uint64_t count = 0;
    for (std::uint32_t i = 0; i < 400; ++i) {
      may_go[i] = slots[i].position >= 4 && slots[i].position < 400 - policy.recent;
      locals += may_go[i] ? slots[i].local : 0;
      count += may_go[i] ? 1 : 0;
    }
    ASSERT_EQ(count, 400u - 4 - policy.recent);
    for (std::uint32_t i = 0; i < 400; ++i)
      sums[i] += std::uint64_t{slots[i].local} * 256 * 4096 / (locals * 256 / count);
  }
  ASSERT_EQ(compact_now(rig.cache(), kLeave, Budget::kPyramid), Status::kBadPolicy);
  const auto before = test::explain_all(rig.cache(), 1, 0);
  ASSERT_EQ(compact_now(rig.cache(), kLeave, Budget::kUniform), Status::kOk);
  EXPECT_EQ(check(rig.cache()), Status::kOk);
  std::vector<std::uint32_t> kept[2];
  for (const std::uint32_t layer : {1u, 2u}) {
    for (const SlotInfo& slot : test::explain_all(rig.cache(), layer, 0)) kept[layer - 1].push_back(slot.position);
  }
  EXPECT_EQ(kept[0], kept[1]);
  EXPECT_EQ(kept[0].size(), kLeave);
  std::uint64_t least_kept = ~std::uint64_t{0};
  std::uint64_t most_dropped = 0;
  for (std::uint32_t i = 0; i < 400; ++i) {
    const bool stays = std::find(kept[0].begin(), kept[0].end(), before[i].position) != kept[0].end();
    EXPECT_TRUE(stays || may_go[i]) << before[i].position;
    if (may_go[i] && stays) least_kept = std::min(least_kept, sums[i]);
    if (!stays) most_dropped = std::max(most_dropped, sums[i]);
  }
  EXPECT_GT(most_dropped, 0u);
  EXPECT_GE(least_kept, most_dropped);
}

TEST(Fold, EitherLayerNamesThePlanOfBoth) {
  Rig rig(kShape, scored_pairs(300, Merge::kValues));
  Random random(110);
  fill_and_attend(rig.cache(), random, 325);
  std::vector<std::uint32_t> lower(rig.cache().held(1, 1));
  std::vector<std::uint32_t> upper(lower.size());
  ASSERT_EQ(plan(rig.cache(), 1, 1, 16, lower), Status::kOk);
  ASSERT_EQ(plan(rig.cache(), 2, 1, 16, upper), Status::kOk);
  EXPECT_EQ(lower, upper);
  EXPECT_GE(*std::max_element(lower.begin(), lower.end()), kMember);
  const auto row = random.bells(kShape.kv_heads * kShape.head_dim);
  ASSERT_EQ(append(rig.cache(), 1, row, row), Status::kOk);
  const std::vector<std::byte> before = rig.copy_state();
  lower.resize(rig.cache().held(1, 1));
  EXPECT_EQ(plan(rig.cache(), 1, 1, 16, lower), Status::kBadArgument) << "the upper layer is behind";
  EXPECT_EQ(compact_now(rig.cache(), 200, Budget::kUniform), Status::kBadArgument);
  EXPECT_TRUE(rig.copy_state() == before);
}

// Of three slots with equal weights, as both layers held them.
std::vector<double> mean_of(const std::vector<Slot>& slots, std::initializer_list<std::uint32_t> which, bool keys) {
  std::vector<double> mean(kShape.head_dim, 0.0);
  double norms = 0;
  for (const std::uint32_t i : which) {
    const auto row = keys ? slots[i].rotated_key() : slots[i].rotated_value();
    const double norm = reference::norm(row);
    norms += norm / 3;
    for (std::size_t c = 0; c < mean.size(); ++c) mean[c] += row[c] / (keys ? norm : 3.0);
  }
  if (!keys) return mean;
  // Directions and norms are averaged separately.
  const double length = reference::norm(mean);
  for (double& x : mean) x *= norms / length;
  return mean;
}

TEST(Fold, WhatJoinsAFoldedSlotIsFoldedWithIt) {
  for (const auto& [keys, values] : {std::pair{true, true}, {false, true}, {true, false}}) {
    Policy policy = scored_pairs(2000, Merge::kBoth);
    policy.mass = Mass::kCount;
    if (!keys) policy.fold.keys = {};
    if (!values) policy.fold.values = {};
    Rig rig(kShape, policy);
    Random random(111);
    fill(rig.cache(), random, 400);  // without attention, all weights are equal
    const auto part = model_of(rig).folded(1, 0);
    ASSERT_GT(part.used, 100u);
    const std::uint32_t centre = 40;
    const std::uint32_t folded = 90;
    const std::uint32_t own = part.used + 20;
    std::vector<std::uint32_t> target;
    std::uint32_t next = 0;
    for (std::uint32_t i = 0; i < 400; ++i) target.push_back(i == folded || i == own ? kMember + centre : next++);
    const std::vector<Slot> was[2] = {model_of(rig).slots(1, 0), model_of(rig).slots(2, 0)};
    ASSERT_EQ(compact(rig.cache(), 2, 0, target), Status::kOk);
    ASSERT_EQ(check(rig.cache()), Status::kOk);
    const std::vector<Slot> now[2] = {model_of(rig).slots(1, 0), model_of(rig).slots(2, 0)};
    for (std::uint32_t w = 0; w < 2; ++w) {
      for (std::uint32_t i = 0; i < 400; ++i) {
        if (target[i] >= kMember || i == centre) continue;
        ASSERT_EQ(now[w][target[i]], was[w][i]) << i;
      }
      const auto notes = model_of(rig).notes(1 + w, 0)[centre];
      EXPECT_EQ(notes.merged, 2u);
      EXPECT_EQ(notes.bias, 25u) << "16 log2(3)";
      for (const bool key : {true, false}) {
        const auto got = key ? now[w][centre].rotated_key() : now[w][centre].rotated_value();
        const auto mean = mean_of(was[w], {centre, folded, own}, key);
        EXPECT_NEAR(reference::norm(got) / reference::norm(mean), 1, 0.03);
        const bool shared = key ? keys : values;
        const auto wanted = shared ? between(mean_of(was[0], {centre, folded, own}, key),
                                             mean_of(was[1], {centre, folded, own}, key), policy.fold.t / 256.0)
                                   : mean;
        EXPECT_LE(angle(got, wanted), 0.25) << (key ? "key" : "value");
      }
    }
    EXPECT_EQ(now[0][centre].key_codes == now[1][centre].key_codes, keys);
    EXPECT_EQ(now[0][centre].value_codes == now[1][centre].value_codes, values);
  }
}

// Recent keys are not folded yet: the difference is the mean in the profile.
TEST(Fold, SharedKeysKeepTheirMeanUnlessTheyAreCentred) {
  Shape shape = kShape;
  shape.outlier_channels = 4;
  double off[2] = {};
  for (const bool centred : {false, true}) {
    Policy policy = sharing(1000, true, true);
    policy.fold.centred = centred;
    Rig rig(shape, policy, {}, 5);
    ProfileView profile;
    ASSERT_EQ(profile.open(rig.profile(), shape), Status::kOk);
    Random random(113);
    for (const std::uint32_t layer : {0u, 1u, 2u, 3u}) {
      const auto keys = test::keys_of_profile(shape, 5, layer, 4, random);
      ASSERT_EQ(append(rig.cache(), layer, keys, random.bells(4u * shape.kv_heads * shape.head_dim)), Status::kOk);
      const Slot slot = model_of(rig).slots(layer, 1)[2];
      const auto key = reference::widen(std::span(keys).subspan((2u * 2 + 1) * shape.head_dim, shape.head_dim));
      const auto less_mean = reference::decode_key(slot, profile, layer, 1);
      std::vector<double> whole = less_mean;
      Slot nothing = slot;
      nothing.key_scale = 0;
      for (int& code : nothing.outliers) code = 0;
      const auto mean = reference::decode_key(nothing, profile, layer, 1);
      for (std::size_t c = 0; c < whole.size(); ++c) whole[c] -= mean[c];
      const bool paired = layer == 1 || layer == 2;
      const double error = reference::distance(paired && !centred ? whole : less_mean, key) / reference::norm(key);
      EXPECT_LT(error, 0.1) << layer;
      if (paired) off[centred ? 1 : 0] += error;
    }
  }
  EXPECT_NE(off[0], off[1]);
}

// Two layers whose values differ by a rotation of all channels, and whose keys differ by a rotation
// of each rotary pair.
class Turned {
 public:
  explicit Turned(const Shape& shape) : shape_(shape), random_(114) {
    constexpr CalibrationOptions kAlign = {.align = true, .rotary = {.adjacent = true, .count = 0}};
    std::vector<double> memory(calibration_bytes(shape, kAlign) / 8 + 1);
    Calibrator calibrator;
    EXPECT_EQ(calibrator.init(std::as_writable_bytes(std::span(memory)), shape, kAlign), Status::kOk);
    for (int round = 0; round < 40; ++round) {
      for (std::uint32_t layer = 0; layer < shape.layers; ++layer) {
        if (layer == 0) next(kCalibrationChunk);
        const auto queries = random_.bells(kCalibrationChunk * shape.query_heads * shape.head_dim);
        EXPECT_EQ(calibrator.observe(layer, queries, keys(layer), values(layer)), Status::kOk);
      }
    }
    profile_.resize(profile_bytes(shape, true));
    EXPECT_EQ(calibrator.write(profile_), Status::kOk);
  }

  void restart() { random_ = Random(116); }
  void next(std::size_t count) {
    for (std::vector<float>* rows : {&keys_[0], &values_[0]}) *rows = random_.bells(count * shape_.head_dim);
    keys_[1] = keys_[0];
    values_[1] = values_[0];
    const std::uint32_t dim = shape_.head_dim;
    for (std::size_t row = 0; row < count * dim; row += dim) {
      for (std::uint32_t c = 0; c < dim; ++c) {
        keys_[1][row + c] = keys_[0][row + (c ^ 1)] * (c % 2 == 0 ? -1.5f : 1.5f);  // a quarter of a turn
        values_[1][row + c] = values_[0][row + (c + 1) % dim];
      }
    }
  }
  const std::vector<float>& keys(std::uint32_t layer) const { return keys_[layer]; }
  const std::vector<float>& values(std::uint32_t layer) const { return values_[layer]; }
  std::span<const std::byte> profile() const { return profile_; }

 private:
  Shape shape_;
  Random random_;
  std::vector<float> keys_[2];
  std::vector<float> values_[2];
  std::vector<std::byte> profile_;
};

TEST(Fold, AlignedLayersShareWhatOnlyTheirBasesHide) {
  const Shape shape = {.layers = 2, .query_heads = 1, .kv_heads = 1, .head_dim = 32, .max_chunk = 8};
  Turned rows(shape);
  ProfileView view;
  ASSERT_EQ(view.open(rows.profile(), shape), Status::kOk);
  Policy gate = minicache(600);
  EXPECT_TRUE(fold_pairs(shape, gate, view, 0).fold.aligned_values.has(0));
  EXPECT_FALSE(fold_pairs(shape, gate, view, 0).fold.keys.has(0));
  gate.fold.centred = true;
  gate = fold_pairs(shape, gate, view, 0);
  EXPECT_TRUE(gate.fold.aligned_values.has(0) && gate.fold.aligned_keys.has(0));
  Policy direct = gate;
  direct.fold.aligned_keys = direct.fold.aligned_values = {};
  ASSERT_NE(layout_of(shape, gate).views, 0u);
  double errors[2] = {};
  std::vector<float> first_port;  // the result of aligned layers with the first port
  for (const std::string& port : test::running_ports()) {
    for (const bool aligned : {true, false}) {
      const Policy& policy = aligned ? gate : direct;
      test::Arena arena(footprint(shape, policy));
      Cache cache;
      ASSERT_EQ(cache.init(arena.bytes(), shape, policy, {port, rows.profile(), {}}), Status::kOk);
      reference::Rows keys[2];
      reference::Rows values[2];
      Random random(115);
      rows.restart();
      double error = 0;
      std::vector<float> outs;
      for (int step = 0; step < 70; ++step) {
        rows.next(8);
        for (std::uint32_t layer = 0; layer < 2; ++layer) {
          ASSERT_EQ(append(cache, layer, rows.keys(layer), rows.values(layer)), Status::kOk);
          for (std::size_t at = 0; at < 8 * 32; at += 32) {
            keys[layer].push_back(reference::widen(std::span(rows.keys(layer)).subspan(at, 32)));
            values[layer].push_back(reference::widen(std::span(rows.values(layer)).subspan(at, 32)));
          }
          const auto query = random.bells(32);
          const auto out = test::attend_all(cache, layer, query);
          const auto exact =
              reference::attention(reference::widen(query), keys[layer], values[layer], keys[layer].size());
          outs.insert(outs.end(), out.begin(), out.end());
          error += reference::distance(reference::widen(out), exact) / reference::norm(exact) / 140;
        }
      }
      ASSERT_EQ(check(cache), Status::kOk);
      errors[aligned ? 0 : 1] = error;
      if (!aligned) continue;
      if (first_port.empty()) first_port = outs;
      EXPECT_TRUE(test::same_bytes(outs, first_port)) << port;
      EXPECT_GT(cache.usage().peak_bytes, 0u);
    }
    EXPECT_LT(errors[0], 0.25) << port;
    EXPECT_GT(errors[1], 2 * errors[0]) << port;
  }
}

TEST(Fold, AligningNeedsTheMaps) {
  const Shape shape = {.layers = 2, .query_heads = 1, .kv_heads = 1, .head_dim = 32, .max_chunk = 8};
  const Turned rows(shape);
  Policy policy = minicache(600, pairs_from(0, 2));
  policy.fold.aligned_values = policy.fold.values;
  test::Arena arena(footprint(shape, policy));
  Cache cache;
  EXPECT_EQ(cache.init(arena.bytes(), shape, policy), Status::kBadProfile);
  const std::vector<std::byte> plain = test::make_profile(shape, 1);
  EXPECT_EQ(cache.init(arena.bytes(), shape, policy, {{}, plain, {}}), Status::kBadProfile);
  EXPECT_EQ(cache.init(arena.bytes(), shape, policy, {{}, rows.profile(), {}}), Status::kOk);
  policy.fold.values = {};
  EXPECT_FALSE(valid(policy, shape)) << "what is aligned must be shared";
  policy.fold = {};
  policy.fold.aligned_keys.add(0);
  EXPECT_FALSE(valid(policy, shape));
}

TEST(Fold, FarRangeRetainsNoMoreThanTheShareAndOnlyTheFarthest) {
  Policy policy = sharing(1800, true, true);
  policy.fold.retained = 26;
  Rig share(kShape, policy);
  policy.fold.retain = Retain::kFarRange;
  Rig range(kShape, policy);
  Random random(112);
  Random same(112);
  fill(share.cache(), random, 900);
  fill(range.cache(), same, 900);
  const auto by_share = model_of(share).folded(1, 0);
  const auto by_range = model_of(range).folded(1, 0);
  EXPECT_GT(by_range.retained, 0u);
  EXPECT_LT(by_range.retained, by_share.retained);
  const auto a = model_of(range).slots(1, 0);
  const auto b = model_of(range).slots(2, 0);
  // Angles of keys and values: for dissimilar tokens they add up to about half a turn, for others
  // to less than half of that.
  for (std::uint32_t i = by_range.used; i < by_range.used + by_range.retained; ++i) {
    EXPECT_GT(angle(a[i].rotated_key(), b[i].rotated_key()) + angle(a[i].rotated_value(), b[i].rotated_value()), 2.0);
  }
}

TEST(Fold, IsTheSameOnAllPorts) {
  std::vector<std::byte> wanted;
  for (const std::string& port : test::running_ports()) {
    Shape shape = kShape;
    shape.outlier_channels = 4;
    Rig rig(shape, sharing(500, true, true), port);
    Random random(108);
    fill(rig.cache(), random, 500);
    if (wanted.empty()) wanted = rig.copy_state();
    EXPECT_TRUE(rig.copy_state() == wanted) << port;
  }
}

}  // namespace
}  // namespace nibkv::fold_test
