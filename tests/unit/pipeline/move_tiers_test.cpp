#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <optional>

#include "nibkv/nibkv.hpp"
#include "tests/reference/attention.hpp"
#include "tests/support/feed.hpp"
#include "tests/support/model_of.hpp"
#include "tests/support/rows.hpp"
#include "tests/support/snapshots.hpp"

namespace nibkv::move_tiers_test {
namespace {

using reference::Notes;
using reference::Slot;
using test::feed;
using test::model_of;
using test::Random;
using test::Rig;

constexpr Shape kShape = {
    .layers = 2, .query_heads = 4, .kv_heads = 2, .head_dim = 32, .outlier_channels = 4, .max_chunk = 8};

Policy tiered(Policy policy, std::uint32_t tail, std::uint32_t faint = 0, Storage tail_storage = Storage::kQ8,
              Storage faint_storage = Storage::kQ2) {
  policy.tail = tail;
  policy.faint = faint;
  policy.tail_storage = tail_storage;
  policy.faint_storage = faint_storage;
  return policy;
}

struct Case {
  const char* name;
  Policy policy;
};

Policy wide_first(Policy policy) {
  policy.wide_first = true;
  return policy;
}

// None merges, so that a slot is known by its position.
std::vector<Case> cases() {
  return {{"full", full(320)},
          {"tail", precise_tail(320, 32)},
          {"long tail", precise_tail(320, 96)},
          {"tail of 4 bits", tiered(full(320), 40, 0, Storage::kQ4)},
          {"tail of 8 and 4 bits", tiered(full(320), 1, 0, Storage::kQ8Q4)},
          {"streaming", streaming_llm(120, 4)},
          {"h2o", h2o(200)},
          {"small ems_no_merge", ems_no_merge(90)},
          {"ems_no_merge, tail", tiered(ems_no_merge(300), 1)},
          {"small, tail", tiered(tova(100), 48)},
          {"faint", qpruning(224)},
          {"more faint", tiered(snapkv(300), 40, 128)},
          {"fewer faint", tiered(tova(160), 32, 32)},
          {"faint of 4 and 2 bits", tiered(snapkv(224), 32, 64, Storage::kQ8Q4, Storage::kQ4Q2)},
          {"adaptive, faint", [] {
             Policy policy = tiered(snapkv(192), 32, 32);
             policy.budget = Budget::kAdaptive;
             return policy;
           }()}};
}

std::optional<std::size_t> index_of(const std::vector<SlotInfo>& slots, std::uint32_t position) {
  for (std::size_t i = 0; i < slots.size(); ++i) {
    if (slots[i].position == position) return i;
  }
  return std::nullopt;
}

// What `before` is in a tile of these widths: the same codes, wider ones of the same row, or coded again.
void expect_row(const Slot& before, const Slot& after) {
  Slot wider = before;
  reference::widen(wider, {static_cast<std::uint8_t>(after.key_bits), static_cast<std::uint8_t>(after.value_bits)});
  if (after.key_bits >= before.key_bits) {
    EXPECT_EQ(after.key_codes, wider.key_codes);
    EXPECT_EQ(after.key_scale, wider.key_scale);
  }
  if (after.value_bits >= before.value_bits) {
    EXPECT_EQ(after.value_codes, wider.value_codes);
    EXPECT_EQ(after.value_scale, wider.value_scale);
  }
  // Keys are coded for their queries, so more of a row may be missing.
  const auto error = [](const auto& row, const auto& coded) {
    return reference::distance(row, coded) / (reference::norm(row) + 1e-30);
  };
  EXPECT_EQ(after.outliers, before.outliers);
  EXPECT_LT(error(before.rotated_key(), after.rotated_key()), 0.9);
  EXPECT_LT(error(before.rotated_value(), after.rotated_value()), 0.5);
}

// What attention gives for the same queries, relative to the norm of what it gave before.
double change(const Rig& before, const Rig& after) {
  Random random(77);
  const auto queries = random.bells(std::size_t{kShape.query_heads} * kShape.head_dim);
  std::vector<float> out[2] = {std::vector<float>(queries.size()), std::vector<float>(queries.size())};
  Cache caches[2] = {before.cache(), after.cache()};
  for (int i = 0; i < 2; ++i) EXPECT_EQ(attend(caches[i], 1, queries, out[i], {.drafts = true}), Status::kOk);
  const auto old = reference::widen(out[0]), now = reference::widen(out[1]);
  return reference::distance(old, now) / reference::norm(old);
}

void expect_moved(const Rig& from, const Rig& to, bool known) {
  // Faint slots that come among the others may go through a tail.
  const bool twice = has_tiers(to.policy()) && from.policy().faint > to.policy().faint;
  for (std::uint32_t layer = 0; layer < kShape.layers; ++layer) {
    for (std::uint32_t head = 0; head < kShape.kv_heads; ++head) {
      const auto old = test::explain_all(from.cache(), layer, head), now = test::explain_all(to.cache(), layer, head);
      const auto old_slots = model_of(from).slots(layer, head), slots = model_of(to).slots(layer, head);
      const std::uint32_t faint = model_of(to).faint(layer, head).used;
      ASSERT_LE(now.size(), old.size());
      for (std::size_t i = 0; known && i < now.size(); ++i) {
        const auto at = index_of(old, now[i].position);
        ASSERT_TRUE(at) << now[i].position;
        if (!twice) expect_row(old_slots[*at], slots[i]);
        const bool global = keeps_global(from.policy()) && keeps_global(to.policy());
        const bool local = keeps_local(from.policy()) && keeps_local(to.policy());
        ASSERT_TRUE(!global || now[i].global == old[*at].global);
        ASSERT_TRUE(!local || now[i].local == old[*at].local);
        ASSERT_TRUE(i <= faint || now[i].position > now[i - 1].position);
      }
      for (std::uint32_t back = 1; known && oldest_reachable(to.cache()) + back <= 300; ++back)
        ASSERT_EQ(now.at(now.size() - back).position, 300 - back);
    }
  }
}

TEST(MoveTiers, AnyToAnyOther) {
  unsigned refused = 0, cut = 0, whole = 0;
  for (const Case& of : cases()) {
    Rig from(kShape, of.policy);
    Random random(4);
    feed(from.cache(), random, 300);
    test::come_back(from.cache());  // what it then says of its history is all that a snapshot does
    for (const Case& into : cases()) {
      SCOPED_TRACE(std::string(of.name) + " to " + into.name);
      Shape shape = kShape;
      shape.max_chunk = static_cast<std::uint16_t>(1 + (refused + cut + whole) % 40);
      Rig to(shape, into.policy), imported(shape, into.policy);
      const Status status = move_to(from.cache(), to.cache());
      ASSERT_EQ(import_snapshot(imported.cache(), kShape, of.policy, test::saved(from.cache())), status);
      ASSERT_EQ(imported.copy_state(), to.copy_state());
      if (status != Status::kOk) {
        EXPECT_EQ(status, Status::kFull);
        ++refused;
        continue;
      }
      ASSERT_EQ(check(to.cache()), Status::kOk);
      // Positions that are not stored are those of slots in order.
      const bool known = to.policy().keep == Keep::kScore || of.policy.keep == Keep::kAll;
      expect_moved(from, to, known);
      std::uint32_t held[2] = {};
      for (std::uint32_t i = 0; i < 4; ++i)
        held[0] += from.cache().held(i / 2, i % 2), held[1] += to.cache().held(i / 2, i % 2);
      if (held[0] == held[1]) {
        ++whole;
        EXPECT_LT(change(from, to), into.policy.faint != 0 ? 0.35 : 0.2);
      } else {
        ++cut;
        EXPECT_NE(into.policy.keep, Keep::kAll);
        EXPECT_EQ(oldest_exact(to.cache()), 300u);
      }
      EXPECT_LE(oldest_reachable(to.cache()), 299u);
      ASSERT_EQ(truncate(to.cache(), std::max(oldest_reachable(to.cache()), 280u)), Status::kOk);
      ASSERT_EQ(check(to.cache()), Status::kOk);
      Random more(6);
      const std::uint32_t space = room(to.cache());
      feed(to.cache(), more, std::min(space, 60u));
      ASSERT_EQ(check(to.cache()), Status::kOk);
      EXPECT_TRUE(to.arena().guards_intact() && imported.arena().guards_intact());
      EXPECT_EQ(restore(imported.cache(), test::saved(to.cache())), Status::kOk);
      if (HasFailure()) return;
    }
  }
  EXPECT_GT(whole, 20u);
  EXPECT_GT(cut, 20u);
}

// A cache of the same tiers holds the same, tier by tier.
TEST(MoveTiers, LikeTiersTakeTheirSlotsAsTheyAre) {
  for (const Policy& policy : {precise_tail(320, 32), qpruning(224), tiered(ems(300), 40, 96)}) {
    Rig from(kShape, policy);
    Random random(4);
    feed(from.cache(), random, 300);
    Shape shape = kShape;
    shape.max_chunk = 20;
    Rig to(shape, policy);
    ASSERT_EQ(move_to(from.cache(), to.cache()), Status::kOk);
    EXPECT_EQ(oldest_exact(to.cache()), oldest_exact(from.cache()));
    EXPECT_EQ(oldest_reachable(to.cache()), oldest_reachable(from.cache()));
    EXPECT_GT(oldest_exact(to.cache()), 0u);
    EXPECT_LT(oldest_exact(to.cache()), 300u);
    for (std::uint32_t head = 0; head < 2; ++head) {
      EXPECT_EQ(model_of(to).slots(1, head), model_of(from).slots(1, head));
      if (policy.keep == Keep::kScore) {
        EXPECT_EQ(model_of(to).notes(1, head), model_of(from).notes(1, head));
      }
      EXPECT_EQ(model_of(to).kept(1, head).used, model_of(from).kept(1, head).used);
    }
  }
}

// A longer tail gets wider codes of the same rows; when they leave it, these are what they were.
TEST(MoveTiers, ATailLosesNothingOfWhatComesWithFewerBits) {
  for (const Storage storage : {Storage::kQ4, Storage::kQ2, Storage::kQ4Q2}) {
    Shape shape = kShape;
    shape.storage = storage;
    Rig from(shape, full(320)), to(shape, precise_tail(320, 96));
    Random random(4);
    feed(from.cache(), random, 150);
    ASSERT_EQ(move_to(from.cache(), to.cache()), Status::kOk);
    EXPECT_EQ(model_of(to).kept(0, 0).used, 54u);
    EXPECT_EQ(model_of(to).slots(0, 0)[54].key_bits, 8);
    EXPECT_EQ(oldest_exact(to.cache()), 150u) << "what a tail holds depends on all tokens";
    Random more(5);
    feed(to.cache(), more, 140);
    ASSERT_GT(model_of(to).kept(0, 0).used, 150u);
    const auto before = model_of(from).slots(0, 0), after = model_of(to).slots(0, 0);
    for (std::size_t i = 0; i < before.size(); ++i) ASSERT_EQ(after[i], before[i]) << i;
  }
}

// Where no faint slots may be, they have their places among the others again.
TEST(MoveTiers, FaintSlotsComeAtTheirPositionsWhereTheyHaveNoTier) {
  Rig from(kShape, qpruning(224)), all(kShape, full(320)), scored(kShape, h2o(320));
  Random random(4);
  feed(from.cache(), random, 190);
  const std::uint32_t faint = model_of(from).faint(0, 0).used;
  ASSERT_GT(faint, 10u);
  ASSERT_EQ(from.cache().held(0, 0), 190u) << "nothing is gone";
  EXPECT_GT(oldest_reachable(from.cache()), 0u);
  for (Rig* to : {&all, &scored}) {
    ASSERT_EQ(move_to(from.cache(), to->cache()), Status::kOk);
    EXPECT_EQ(oldest_reachable(to->cache()), 0u) << "each token has a slot, in order";
    const auto infos = test::explain_all(to->cache(), 0, 0);
    ASSERT_EQ(infos.size(), 190u);
    for (std::uint32_t i = 0; i < 190; ++i) ASSERT_EQ(infos[i].position, i);
    EXPECT_LT(change(from, *to), 0.1);
    ASSERT_EQ(truncate(to->cache(), 20), Status::kOk);
    EXPECT_EQ(check(to->cache()), Status::kOk);
  }
}

// The smaller tier gets the best of the faint and the others; the scores decide.
TEST(MoveTiers, ASmallerBudgetKeepsTheBestSlots) {
  Policy smaller = tiered(tova(130), 32, 32);
  Rig from(kShape, tiered(tova(300), 32, 128)), to(kShape, smaller);
  Random random(4);
  feed(from.cache(), random, 400);
  ASSERT_EQ(move_to(from.cache(), to.cache()), Status::kOk);
  EXPECT_EQ(model_of(to).faint(0, 0).used, 32u);
  const auto old = test::explain_all(from.cache(), 0, 0), now = test::explain_all(to.cache(), 0, 0);
  std::uint32_t least_kept = 0xffffffff, most_faint = 0, least_faint = 0xffffffff, most_gone = 0;
  const std::size_t lowered = 32 + model_of(to).kept(0, 0).used;
  for (std::size_t i = 0; i < lowered; ++i) {
    std::uint32_t& least = i < 32 ? least_faint : least_kept;
    least = std::min<std::uint32_t>(least, now[i].local);
    if (i < 32) most_faint = std::max<std::uint32_t>(most_faint, now[i].local);
  }
  for (const SlotInfo& slot : old) {
    if (!index_of(now, slot.position)) most_gone = std::max<std::uint32_t>(most_gone, slot.local);
  }
  EXPECT_LE(most_faint, least_kept);
  EXPECT_LE(most_gone, least_faint);
  EXPECT_GT(least_kept, 0u);
}

TEST(MoveTiers, WhatDoesNotFitIsRefused) {
  Rig from(kShape, full(320)), tail(kShape, precise_tail(150, 32)), wide(kShape, wide_first(precise_tail(320, 32)));
  Random random(4);
  feed(from.cache(), random, 200);
  const auto before = tail.copy_state();
  EXPECT_EQ(move_to(from.cache(), tail.cache()), Status::kFull);
  EXPECT_EQ(tail.copy_state(), before);
  EXPECT_EQ(move_to(from.cache(), wide.cache()), Status::kOtherPolicy) << "only tiers may differ";
  // As many as append takes, to the last.
  ASSERT_EQ(truncate(from.cache(), room(tail.cache()) + 1), Status::kOk);
  EXPECT_EQ(move_to(from.cache(), tail.cache()), Status::kFull);
  ASSERT_EQ(truncate(from.cache(), room(tail.cache())), Status::kOk);
  ASSERT_EQ(move_to(from.cache(), tail.cache()), Status::kOk);
  EXPECT_EQ(room(tail.cache()), 0u);
  EXPECT_EQ(check(tail.cache()), Status::kOk);
}

}  // namespace
}  // namespace nibkv::move_tiers_test
