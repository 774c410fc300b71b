#include <gtest/gtest.h>

#include <algorithm>

#include "nibkv/nibkv.hpp"
#include "tests/reference/attention.hpp"
#include "tests/support/feed.hpp"
#include "tests/support/model_of.hpp"
#include "tests/support/rows.hpp"
#include "tests/support/snapshots.hpp"

namespace nibkv::tiers_test {
namespace {

using reference::ArenaModel;
using reference::Slot;
using test::Random;
using test::Rig;
using test::words;

constexpr Shape kShape = {
    .layers = 2, .query_heads = 4, .kv_heads = 2, .head_dim = 48, .outlier_channels = 4, .max_chunk = 20};

Policy with_tail(Policy policy, std::uint32_t tail, Storage storage = Storage::kQ8) {
  policy.tail = tail;
  policy.tail_storage = storage;
  return policy;
}

// Two tiers whose codes are the same hold, and give, what one does.
TEST(Tiers, OfTheSameCodesGiveTheBytesOfOne) {
  for (const Storage storage : {Storage::kQ4, Storage::kQ2, Storage::kQ8Q4}) {
    for (const bool wide : {false, true}) {
      Shape shape = kShape;
      shape.storage = storage;
      Policy policy = full(600);
      if (wide && storage == Storage::kQ4) policy.wide.add(1);
      policy.wide_storage = Storage::kQ4;
      if (!valid(policy, shape)) continue;
      Rig one(shape, policy), two(shape, with_tail(policy, 64, storage));
      Random random(3), same(3);
      for (int step = 0; step < 25; ++step) {
        ASSERT_EQ(test::feed(two.cache(), random, 20), test::feed(one.cache(), same, 20)) << words(shape, policy);
      }
      for (std::uint32_t layer = 0; layer < 2; ++layer)
        EXPECT_EQ(model_of(two).slots(layer, 1), model_of(one).slots(layer, 1)) << words(shape, policy);
      EXPECT_GT(model_of(two).kept(0, 0).used, 300u);
    }
  }
}

// The newest tokens have the tail's codes, the others those of their layer, as good as these are.
TEST(Tiers, OlderTokensHaveFewerBits) {
  for (const Storage storage : {Storage::kQ4, Storage::kQ2, Storage::kQ4Q2, Storage::kQ8Q4}) {
    Shape shape = kShape;
    shape.outlier_channels = 0;
    shape.storage = storage;
    const Policy policy = with_tail(full(500), 96);
    Rig rig(shape, policy);
    Random random(5);
    std::vector<float> all_keys, all_values;
    for (int step = 0; step < 20; ++step) {
      const auto keys = random.bells(20 * 2 * 48), values = random.bells(20 * 2 * 48);
      ASSERT_EQ(append(rig.cache(), 0, keys, values), Status::kOk);
      all_keys.insert(all_keys.end(), keys.begin(), keys.end());
      all_values.insert(all_values.end(), values.begin(), values.end());
      for (std::uint32_t head = 0; head < 2; ++head) {
        const ArenaModel model = model_of(rig);
        const std::vector<Slot> slots = model.slots(0, head);
        ASSERT_EQ(slots.size(), (step + 1) * 20u);
        const std::size_t kept = model.kept(0, head).used;
        ASSERT_LE(slots.size() - kept, 96u + 31 + 20);
        ASSERT_TRUE(kept == 0 || slots.size() - kept >= 96);
        for (std::size_t t = 0; t < slots.size(); ++t) {
          const TileFormat format = format_of(t < kept ? storage : Storage::kQ8);
          ASSERT_EQ(slots[t].key_bits, format.key_bits);
          ASSERT_EQ(slots[t].value_bits, format.value_bits);
          const auto error = [&](const std::vector<float>& rows, const std::vector<double>& held) {
            const auto row = reference::widen(std::span(rows).subspan((t * 2 + head) * 48, 48));
            return reference::distance(row, held) / reference::norm(row);
          };
          const auto most = [](int bits) { return bits == 2 ? 0.5 : bits == 4 ? 0.13 : 0.02; };
          ASSERT_LT(error(all_keys, reference::decode_key(slots[t], {}, 0, head)), most(format.key_bits));
          ASSERT_LT(error(all_values, reference::decode_value(slots[t])), most(format.value_bits));
        }
      }
    }
  }
}

// What is dropped from the other tokens becomes faint first, by score.
TEST(Tiers, FaintSlotsAreTheNextBest) {
  Policy policy = with_tail(tova(160), 32);
  policy.faint = 64;
  Rig rig(kShape, policy);
  Random random(7);
  for (int step = 0; step < 40; ++step) {
    (void)test::feed(rig.cache(), random, 20);
    for (std::uint32_t head = 0; head < 2; ++head) {
      const ArenaModel model = model_of(rig);
      const std::uint32_t faint = model.faint(1, head).used;
      ASSERT_LE(faint, 64u);
      ASSERT_LE(model.kept(1, head).used, 64u);
      ASSERT_TRUE(rig.cache().seen(1) <= 400 || faint == 64u);
      const std::vector<Slot> slots = model.slots(1, head);
      for (std::size_t i = 0; i < slots.size(); ++i) ASSERT_EQ(slots[i].key_bits == 2, i < faint);
      // A plan says what append does: the faint ones have lower scores than the kept ones, and higher than those dropped.
      std::vector<std::uint32_t> target(slots.size());
      ASSERT_EQ(plan(rig.cache(), 1, head, 20, target), Status::kOk);
      const auto infos = test::explain_all(rig.cache(), 1, head);
      std::uint32_t least_kept = 0xffffffff, most_faint = 0, least_faint = 0xffffffff, most_dropped = 0;
      const std::size_t end = faint + model.kept(1, head).used;
      bool any = false;
      for (std::size_t i = 0; i < end; ++i) {
        const std::uint32_t score = infos[i].local;
        any = any || (i >= faint && target[i] == kFaint);
        if (target[i] < kMember) least_kept = std::min(least_kept, score);
        if (target[i] == kFaint && i >= faint) most_faint = std::max(most_faint, score);
        if (target[i] == kFaint) least_faint = std::min(least_faint, score);
        if (target[i] == kDrop) most_dropped = std::max(most_dropped, score);
      }
      ASSERT_TRUE(!any || most_faint <= least_kept);
      ASSERT_TRUE(most_dropped == 0 || most_dropped <= least_faint);
    }
  }
}

TEST(Tiers, PlansThatImproveFaintSlotsOrHaveTooManyAreRefused) {
  Policy policy = with_tail(ems(160), 32);
  policy.faint = 32;
  Rig rig(kShape, policy);
  Random random(7);
  (void)test::feed(rig.cache(), random, 20);
  for (int step = 0; step < 15; ++step) (void)test::feed(rig.cache(), random, 20);
  const std::uint32_t faint = model_of(rig).faint(0, 0).used;
  ASSERT_EQ(faint, 32u);
  std::vector<std::uint32_t> target(rig.cache().held(0, 0), kDrop);
  const auto before = rig.copy_state();
  target[3] = 0;
  EXPECT_EQ(compact(rig.cache(), 0, 0, target), Status::kBadPlan) << "better codes";
  std::fill(target.begin(), target.begin() + 33, kFaint);
  EXPECT_EQ(compact(rig.cache(), 0, 0, target), Status::kBadPlan) << "33 of 32";
  EXPECT_EQ(rig.copy_state(), before);
  target[0] = kDrop;
  EXPECT_EQ(compact(rig.cache(), 0, 0, target), Status::kOk);
  EXPECT_EQ(rig.cache().held(0, 0), 32u);
  EXPECT_EQ(check(rig.cache()), Status::kOk);
  Rig plain(kShape, ems(160));
  (void)test::feed(plain.cache(), random, 20);
  std::vector<std::uint32_t> of_plain(20, kFaint);
  EXPECT_EQ(compact(plain.cache(), 0, 0, of_plain), Status::kBadPlan) << "nothing is faint there";
}

// room() is what can be appended, to the last token; then all that is held can go back.
TEST(Tiers, AFullCacheTakesWhatRoomSaysAndGivesItBack) {
  for (const std::uint32_t chunk : {1u, 7u, 20u}) {
    Rig rig(kShape, with_tail(full(300), 64));
    Random random(11);
    const std::uint32_t space = room(rig.cache());
    EXPECT_GE(space, 300u);
    std::uint32_t seen = 0;
    while (seen < space) {
      const std::uint32_t count = std::min(chunk, space - seen);
      ASSERT_EQ(room(rig.cache()), space - seen);
      (void)test::feed(rig.cache(), random, count);
      seen += count;
    }
    EXPECT_EQ(room(rig.cache()), 0u);
    const auto row = random.bells(2 * 48);
    EXPECT_EQ(append(rig.cache(), 0, row, row), Status::kFull);
    EXPECT_EQ(oldest_reachable(rig.cache()), 0u);
    for (const std::uint32_t back : {space - 5, 250u, 200u, 3u, 0u}) {
      ASSERT_EQ(truncate(rig.cache(), back), Status::kOk);
      ASSERT_EQ(check(rig.cache()), Status::kOk);
      ASSERT_EQ(rig.cache().held(1, 1), back);
      ASSERT_EQ(model_of(rig).slots(1, 1).size(), back);
    }
    EXPECT_EQ(room(rig.cache()), space);
  }
}

// Groups for which the scratch of scores is as small as can be: a pass has the heads of one query.
TEST(Tiers, ScoresOfLargeGroupsFitTheirScratch) {
  for (const std::uint16_t group : {std::uint16_t{3}, std::uint16_t{8}, std::uint16_t{12}, std::uint16_t{15}}) {
    for (const bool table : {false, true}) {
      Shape shape = {.layers = 1, .query_heads = 0, .kv_heads = 2, .head_dim = 16, .max_chunk = 33};
      shape.query_heads = static_cast<std::uint16_t>(2 * group);
      Policy policy = with_tail(snapkv(table ? 160 : 96), 32);
      policy.recent = 0;
      policy.faint = 32;
      if (table) policy.budget = Budget::kTable;
      Rig rig(shape, policy, {}, 1, table ? std::vector<std::uint32_t>{224, 96} : std::vector<std::uint32_t>{});
      ASSERT_EQ(rig.made(), Status::kOk);
      Random random(3);
      for (int step = 0; step < 30; ++step) {
        const std::uint32_t count = random.within(1, 33);
        const auto rows = random.bells(std::size_t{count} * 2 * 16);
        ASSERT_EQ(append(rig.cache(), 0, rows, rows), Status::kOk);
        (void)test::attend_all(rig.cache(), 0, random.bells(std::size_t{count} * shape.query_heads * 16));
        ASSERT_TRUE(rig.arena().guards_intact());
        ASSERT_EQ(check(rig.cache()), Status::kOk);
      }
    }
  }
}

// A sink's score may be above all bounds; where a caller's plan makes it faint, it counts like any other.
TEST(Tiers, ASinkMayBecomeFaint) {
  Shape shape = {.layers = 1, .query_heads = 1, .kv_heads = 1, .head_dim = 16, .max_chunk = 4};
  Policy policy = with_tail(h2o(160), 32);
  policy.sinks = 4;
  policy.recent = 64;
  policy.faint = 32;
  Rig rig(shape, policy);
  const std::vector<float> row(16, 1.0f), first(16, 3.0f), query(16, 30.0f);
  std::vector<float> out(16);
  for (int token = 0; token < 400; ++token) {
    ASSERT_EQ(append(rig.cache(), 0, token == 0 ? first : row, row), Status::kOk);
    ASSERT_EQ(attend(rig.cache(), 0, query, out), Status::kOk);
  }
  const std::uint32_t faint = model_of(rig).faint(0, 0).used;
  ASSERT_EQ(test::explain_all(rig.cache(), 0, 0)[faint].global, 0xffffffffu);
  std::vector<std::uint32_t> target(rig.cache().held(0, 0));
  std::uint32_t next = 0;
  for (std::uint32_t i = 0; i < target.size(); ++i) target[i] = i == 0 ? kDrop : i <= faint ? kFaint : next++;
  ASSERT_EQ(compact(rig.cache(), 0, 0, target), Status::kOk);
  EXPECT_EQ(check(rig.cache()), Status::kOk);
  for (int token = 0; token < 40; ++token) {
    ASSERT_EQ(append(rig.cache(), 0, row, row), Status::kOk);
    ASSERT_EQ(attend(rig.cache(), 0, query, out), Status::kOk);
    ASSERT_EQ(check(rig.cache()), Status::kOk);
  }
}

// The recent window is of tokens, wherever they lie.
TEST(Tiers, TheRecentWindowGoesOnInTheKeptTier) {
  Policy policy = with_tail(snapkv(192), 32);
  ASSERT_EQ(policy.recent, 32u);
  Rig rig(kShape, policy);
  Random random(5);
  (void)test::feed(rig.cache(), random, 160);
  ASSERT_EQ(truncate(rig.cache(), 90), Status::kOk);
  ASSERT_EQ(compact_now(rig.cache(), 40, Budget::kUniform), Status::kOk);
  for (std::uint32_t head = 0; head < 2; ++head) {
    const auto slots = test::explain_all(rig.cache(), 1, head);
    ASSERT_EQ(slots.size(), 40u);
    for (std::uint32_t back = 1; back <= 32; ++back) EXPECT_EQ(slots[slots.size() - back].position, 90 - back);
  }
  EXPECT_LE(oldest_reachable(rig.cache()), 58u);
}

// Rows as large as floats go leave codes that rows have, at every width, also once they have moved.
TEST(Tiers, HugeRowsLeaveASoundCache) {
  for (const float size : {1e30f, 1e36f, 1e38f, 3e38f}) {
    for (const Storage storage : {Storage::kQ4, Storage::kQ2, Storage::kQ8}) {
      Shape shape = kShape;
      shape.outlier_channels = 0;
      shape.storage = storage;
      for (const bool first : {false, true}) {
        Policy policy = with_tail(snapkv(160), 32);
        policy.wide_first = first && storage == Storage::kQ2;
        policy.wide_storage = Storage::kQ4;
        Rig rig(shape, policy), again(shape, policy);
        Random random(9);
        for (int step = 0; step < 20; ++step) {
          auto rows = random.bells(20 * 2 * 48);
          for (float& channel : rows) channel = std::max(-1.0f, std::min(channel, 1.0f)) * size;
          for (std::uint32_t layer = 0; layer < 2; ++layer)
            ASSERT_EQ(append(rig.cache(), layer, rows, rows), Status::kOk);
          ASSERT_EQ(check(rig.cache()), Status::kOk) << size << ", " << static_cast<int>(storage);
          std::vector<std::uint32_t> target(rig.cache().held(0, 0));
          std::uint32_t next = 0;
          for (std::uint32_t i = 0; i < target.size(); ++i) target[i] = i % 5 == 1 ? kDrop : next++;
          ASSERT_EQ(compact(rig.cache(), 0, 0, target), Status::kOk);
          ASSERT_EQ(check(rig.cache()), Status::kOk) << size << ", " << static_cast<int>(storage);
        }
        EXPECT_EQ(restore(again.cache(), test::saved(rig.cache())), Status::kOk);
      }
    }
  }
}

TEST(Tiers, AreValidInTheirRanges) {
  const auto is_valid = [](auto change, Storage storage = Storage::kQ4) {
    Shape shape = kShape;
    shape.storage = storage;
    Policy policy = ems(512);
    policy.tail = 64;
    change(policy);
    return valid(policy, shape);
  };
  EXPECT_TRUE(is_valid([](Policy&) {}));
  EXPECT_TRUE(is_valid([](Policy& p) { p.tail = 1; }));
  EXPECT_TRUE(is_valid([](Policy& p) { p.tail = 476; }));
  EXPECT_TRUE(is_valid([](Policy& p) { p.tail = 448; }));
  EXPECT_FALSE(is_valid([](Policy& p) { p.tail = 480; })) << "4 sinks";
  EXPECT_FALSE(is_valid([](Policy& p) { p.tail = 1u << 31; }));
  EXPECT_FALSE(is_valid([](Policy& p) { p.tail_storage = Storage::kF32; }));
  EXPECT_FALSE(is_valid([](Policy& p) { p.tail_storage = Storage::kQ2; })) << "narrower";
  EXPECT_FALSE(
      is_valid([](Policy& p) { p.wide.add(0), p.wide_storage = Storage::kQ8, p.tail_storage = Storage::kQ4; }));
  EXPECT_TRUE(is_valid([](Policy& p) { p.wide.add(0), p.wide_storage = Storage::kQ8; }));
  EXPECT_TRUE(is_valid([](Policy& p) { p.faint = 192; }));
  EXPECT_FALSE(is_valid([](Policy& p) { p.faint = 256; })) << "beside the recent window";
  EXPECT_FALSE(is_valid([](Policy& p) { p.faint = 33; }));
  EXPECT_FALSE(is_valid([](Policy& p) { p.faint = 0xffffffe0; }));
  EXPECT_FALSE(is_valid([](Policy& p) { p.faint = 64, p.tail = 0; }));
  EXPECT_FALSE(is_valid([](Policy& p) { p.faint = 64, p.faint_storage = Storage::kQ8; })) << "wider";
  EXPECT_FALSE(is_valid([](Policy& p) { p.faint = 64, p.faint_storage = Storage::kF32; }));
  EXPECT_FALSE(is_valid([](Policy& p) { p = full(512), p.tail = 64, p.faint = 64; }));
  EXPECT_TRUE(is_valid([](Policy& p) { p = full(512), p.tail = 64; }));
  EXPECT_FALSE(is_valid([](Policy& p) { p = streaming_llm(512), p.tail = 64; }));
  EXPECT_FALSE(is_valid([](Policy& p) { p = minicache(512, pairs_from(0, 2)), p.tail = 64; }));
  EXPECT_FALSE(is_valid([](Policy& p) { p = full(512), p.tail = 64; }, Storage::kF32));
}

}  // namespace
}  // namespace nibkv::tiers_test
