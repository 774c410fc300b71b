#include "nibkv/compact.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

#include "tests/reference/arena_model.hpp"
#include "tests/support/effort.hpp"
#include "tests/support/model_of.hpp"
#include "tests/support/rig.hpp"

namespace nibkv::compact_test {
namespace {

using reference::Slot;
using test::model_of;
using test::Random;
using test::Rig;
using test::running_ports;

std::vector<std::uint32_t> plan_of(const std::vector<bool>& keep) {
  std::vector<std::uint32_t> target;
  std::uint32_t next = 0;
  for (const bool kept : keep) target.push_back(kept ? next++ : kDrop);
  return target;
}

// Plans of all kinds: nothing, everything, single slots, runs, whole tiles, one end, a coin for each slot.
std::vector<bool> random_keep(Random& random, std::uint32_t used) {
  const std::uint32_t kind = random.below(7);
  const std::uint32_t edge = random.below(used + 1);
  const std::uint32_t odds = random.within(1, 15);
  bool run = true;
  std::vector<bool> keep;
  for (std::uint32_t i = 0; i < used; ++i) {
    if (random.below(12) == 0) run = !run;
    switch (kind) {
      case 0:
        keep.push_back(true);
        break;
      case 1:
        keep.push_back(i == edge);
        break;
      case 2:
        keep.push_back(run);
        break;
      case 3:
        keep.push_back((edge >> i / kTileSlots & 1) != 0);
        break;
      case 4:
        keep.push_back(i < edge);
        break;
      case 5:
        keep.push_back(i >= edge);
        break;
      default:
        keep.push_back(random.below(16) < odds);
    }
  }
  return keep;
}

template <typename T>
std::vector<T> kept_of(const std::vector<T>& all, const std::vector<bool>& keep) {
  std::vector<T> kept;
  for (std::size_t i = 0; i < all.size(); ++i) {
    if (keep[i]) kept.push_back(all[i]);
  }
  return kept;
}

TEST(Compact, DoesWhatAPlainVectorDoes) {
  Random random(61);
  for (const std::string& port : running_ports()) {
    for (const std::uint16_t outliers : std::initializer_list<std::uint16_t>{0, 4, 12}) {
      const Shape shape = {
          .layers = 1, .query_heads = 2, .kv_heads = 2, .head_dim = 48, .outlier_channels = outliers, .max_chunk = 64};
      Rig rig(shape, full(224), port);
      std::vector<std::vector<Slot>> model(2);
      for (unsigned round = 0; round < test::turns(60, 8); ++round) {
        const std::uint32_t most = std::max(rig.cache().held(0, 0), rig.cache().held(0, 1));
        if (most < 224) {
          const std::uint32_t count = random.within(1, std::min<std::uint32_t>(64, 224 - most));
          const auto keys = random.bells(std::size_t{count} * 2 * 48);
          const auto values = random.bells(std::size_t{count} * 2 * 48);
          ASSERT_EQ(append(rig.cache(), 0, keys, values), Status::kOk);
          for (std::uint32_t head = 0; head < 2; ++head) {
            const auto slots = model_of(rig).slots(0, head);
            model[head].insert(model[head].end(), slots.end() - count, slots.end());
          }
        }
        const std::uint32_t head = random.below(2);
        const std::vector<bool> keep = random_keep(random, rig.cache().held(0, head));
        ASSERT_EQ(compact(rig.cache(), 0, head, plan_of(keep)), Status::kOk);
        model[head] = kept_of(model[head], keep);
        ASSERT_EQ(rig.cache().held(0, head), model[head].size()) << "round " << round << ", port " << port;
        for (std::uint32_t h = 0; h < 2; ++h)
          ASSERT_EQ(model_of(rig).slots(0, h), model[h]) << "round " << round << ", port " << port;
        ASSERT_EQ(model_of(rig).check_chains(), rig.cache().usage().used_tiles) << "round " << round;
      }
      EXPECT_TRUE(rig.arena().guards_intact());
    }
  }
}

TEST(Compact, MovesF32RowsWhole) {
  constexpr Shape kShape = {.layers = 1,
                            .query_heads = 1,
                            .kv_heads = 1,
                            .head_dim = 32,
                            .max_chunk = 150,
                            .workers = 1,
                            .storage = Storage::kF32};
  Random random(62);
  for (int round = 0; round < 40; ++round) {
    Rig rig(kShape, full(150));
    const std::uint32_t count = random.within(1, 150);
    const auto keys = random.bells(count * 32u);
    const auto values = random.bells(count * 32u);
    ASSERT_EQ(append(rig.cache(), 0, keys, values), Status::kOk);
    const std::vector<bool> keep = random_keep(random, count);
    ASSERT_EQ(compact(rig.cache(), 0, 0, plan_of(keep)), Status::kOk);
    std::uint32_t slot = 0;
    for (std::uint32_t i = 0; i < count; ++i) {
      if (!keep[i]) continue;
      ASSERT_TRUE(test::same_bytes(model_of(rig).key_f32(0, 0, slot), std::span(keys).subspan(i * 32u, 32)))
          << round << ", slot " << i;
      ASSERT_TRUE(test::same_bytes(model_of(rig).value_f32(0, 0, slot), std::span(values).subspan(i * 32u, 32)))
          << round << ", slot " << i;
      ++slot;
    }
    ASSERT_EQ(rig.cache().held(0, 0), slot);
  }
}

TEST(Compact, RefusesABadPlanAndChangesNothing) {
  constexpr Shape kShape = {.layers = 2, .query_heads = 4, .kv_heads = 2, .head_dim = 16, .max_chunk = 50};
  Rig rig(kShape, full(64));
  const auto rows = Random(63).bells(50 * 2 * 16);
  ASSERT_EQ(append(rig.cache(), 1, rows, rows), Status::kOk);
  const std::vector<std::byte> before = rig.arena().copy();
  std::vector<std::uint32_t> good(50);
  std::iota(good.begin(), good.end(), 0u);

  EXPECT_EQ(compact(rig.cache(), 2, 0, good), Status::kBadArgument);
  EXPECT_EQ(compact(rig.cache(), 1, 2, good), Status::kBadArgument);
  EXPECT_EQ(compact(rig.cache(), 0xffffffff, 0xffffffff, good), Status::kBadArgument);
  EXPECT_EQ(compact(rig.cache(), 0, 0, good), Status::kBadPlan);
  EXPECT_EQ(compact(rig.cache(), 1, 0, {}), Status::kBadPlan);
  EXPECT_EQ(compact(rig.cache(), 1, 0, std::span(good).first(49)), Status::kBadPlan);
  std::vector<std::uint32_t> longer = good;
  longer.push_back(50);
  EXPECT_EQ(compact(rig.cache(), 1, 0, longer), Status::kBadPlan);
  for (const std::uint32_t at : {0u, 1u, 31u, 32u, 49u}) {
    for (const std::uint32_t value : std::initializer_list<std::uint32_t>{at + 1, 50, 0xfffffffe, 0x80000000}) {
      std::vector<std::uint32_t> bad = good;
      bad[at] = value;
      EXPECT_EQ(compact(rig.cache(), 1, 0, bad), Status::kBadPlan) << at << " to " << value;
    }
    if (at == 49) continue;
    std::vector<std::uint32_t> gap = good;
    gap[at] = kDrop;  // the slots after it do not move up
    EXPECT_EQ(compact(rig.cache(), 1, 0, gap), Status::kBadPlan) << at;
  }
  EXPECT_EQ(rig.arena().copy(), before);
  EXPECT_EQ(compact(rig.cache(), 1, 0, good), Status::kOk);
  EXPECT_EQ(rig.arena().copy(), before) << "a plan that keeps all";
  EXPECT_EQ(compact(rig.cache(), 0, 0, {}), Status::kOk);
}

TEST(Compact, LinksWholeTilesWithoutCopying) {
  constexpr Shape kShape = {.layers = 1, .query_heads = 1, .kv_heads = 1, .head_dim = 16, .max_chunk = 160};
  Random random(64);
  const auto rows = random.bells(160 * 16);
  // Whichever whole tiles are dropped, the remaining tiles are the same ones, in order.
  for (std::uint32_t dropped = 0; dropped < 32; ++dropped) {
    for (const std::uint32_t used : {160u, 150u, 129u}) {
      Rig rig(kShape, full(160));
      ASSERT_EQ(append(rig.cache(), 0, std::span(rows).first(used * 16), std::span(rows).first(used * 16)),
                Status::kOk);
      const std::vector<std::uint32_t> before = model_of(rig).tiles(0, 0);
      std::vector<bool> keep;
      for (std::uint32_t i = 0; i < used; ++i) keep.push_back((dropped >> i / 32 & 1) == 0);
      std::vector<bool> keep_tile;
      for (std::uint32_t tile = 0; tile < 5; ++tile) keep_tile.push_back((dropped >> tile & 1) == 0);
      ASSERT_EQ(compact(rig.cache(), 0, 0, plan_of(keep)), Status::kOk);
      EXPECT_EQ(model_of(rig).tiles(0, 0), kept_of(before, keep_tile))
          << "dropped tiles, as bits: " << dropped << ", used " << used;
    }
  }
}

TEST(Compact, TilesBehindAGapOfWholeTilesStayThemselves) {
  constexpr Shape kShape = {.layers = 1, .query_heads = 1, .kv_heads = 1, .head_dim = 16, .max_chunk = 192};
  Rig rig(kShape, full(192));
  const auto rows = Random(65).bells(192 * 16);
  ASSERT_EQ(append(rig.cache(), 0, rows, rows), Status::kOk);
  const std::vector<std::uint32_t> before = model_of(rig).tiles(0, 0);
  std::vector<bool> keep(192, true);
  for (std::uint32_t i = 4; i < 36; ++i) keep[i] = false;  // what streaming_llm drops: 32 slots after 4 sinks
  ASSERT_EQ(compact(rig.cache(), 0, 0, plan_of(keep)), Status::kOk);
  const std::vector<std::uint32_t> after = model_of(rig).tiles(0, 0);
  ASSERT_EQ(after.size(), 5u);
  EXPECT_EQ(std::vector<std::uint32_t>(after.begin() + 1, after.end()),
            std::vector<std::uint32_t>(before.begin() + 2, before.end()));
}

TEST(Compact, FreedTilesServeOtherHeads) {
  constexpr Shape kShape = {.layers = 2, .query_heads = 1, .kv_heads = 1, .head_dim = 16, .max_chunk = 32};
  Rig rig(kShape, full(64));
  const auto rows = Random(66).bells(32 * 16);
  for (int i = 0; i < 4; ++i) ASSERT_EQ(append(rig.cache(), 0, rows, rows), Status::kOk);
  ASSERT_EQ(append(rig.cache(), 1, rows, rows), Status::kFull);
  std::vector<bool> keep(128, false);
  keep[127] = true;
  ASSERT_EQ(compact(rig.cache(), 0, 0, plan_of(keep)), Status::kOk);
  EXPECT_EQ(rig.cache().usage().used_tiles, 1u);
  for (int i = 0; i < 3; ++i) ASSERT_EQ(append(rig.cache(), 1, rows, rows), Status::kOk) << i;
  EXPECT_EQ(append(rig.cache(), 1, rows, rows), Status::kFull);
  EXPECT_EQ(rig.cache().held(0, 0), 1u);
  EXPECT_EQ(rig.cache().held(1, 0), 96u);
}

}  // namespace
}  // namespace nibkv::compact_test
