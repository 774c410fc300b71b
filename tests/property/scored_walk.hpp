#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "nibkv/nibkv.hpp"
#include "tests/property/take_back.hpp"
#include "tests/reference/arena_model.hpp"
#include "tests/support/model_of.hpp"
#include "tests/support/rig.hpp"
#include "tests/support/rows.hpp"
#include "tests/support/snapshots.hpp"

namespace nibkv::test {

using reference::ArenaModel;
using reference::Notes;
using reference::Slot;

// A cache of Keep::kScore driven by random operations, compared with what the
// reference reads in its arena.
class ScoredWalk {
 public:
  /// @param seed    of the profile, minus 1
  /// @param preset  which of scored_presets(), or one past them for a random policy
  /// @param small   a cache that a fuzzer tries many of in a second
  ScoredWalk(const Random& random, std::uint64_t seed, std::size_t preset, const std::string& port, bool small = false)
      : random_(random),
        small_(small),
        shape_(random_shape()),
        policy_(policy_for(preset)),
        rig_(shape_, policy_, port, seed + 1) {
    seen_.resize(shape_.layers);
  }

  void steps(int count) {
    for (int i = 0; i < count && !testing::Test::HasFailure(); ++i) {
      const std::uint32_t kind = random_.below(100);
      if (kind < 50) {
        append_and_attend();
      } else if (kind < 65) {
        attend_again();
      } else if (kind < 75) {
        carry_out_its_plan();
      } else if (kind < 88) {
        compact_some();
      } else if (kind < 90) {
        classify_some();
      } else if (kind < 95) {
        compact_all();
      } else if (kind < 96) {
        refuse_some();
      } else if (kind < 98) {
        take_back(rig_.cache(), random_, seen_);
      } else if (kind < 99) {
        fork(rig_, random_);
      } else {
        ASSERT_EQ(rig_.cache().clear(), Status::kOk);
        std::fill(seen_.begin(), seen_.end(), 0);
      }
      check(!small_ && i % 6 == 0);
    }
    check(true);
    EXPECT_TRUE(rig_.arena().guards_intact()) << what();
  }

  std::string what() const { return words(shape_, policy_, rig_.cache().port()); }

 private:
  Shape random_shape() {
    const MostShape most = small_ ? MostShape{.layers = 2, .kv_heads = 2, .group = 2, .blocks = 2, .chunk = 16}
                                  : MostShape{.layers = 3, .kv_heads = 4, .group = 5, .blocks = 4, .chunk = 50};
    Shape shape = test::random_shape(random_, most);
    shape.workers = static_cast<std::uint16_t>(random_.within(1, 3));
    shape.outlier_channels = static_cast<std::uint16_t>(4 * random_.below(4));
    if (random_.below(2) == 0) shape.rotary = random_rotary_and_reach(random_, shape.head_dim);
    shape.storage = random_storage(random_);
    return shape;
  }

  Policy policy_for(std::size_t preset) {
    const auto list = scored_presets(shape_, small_ ? random_.within(40, 90) : random_.within(120, 260));
    Policy policy =
        preset < list.size() ? list[preset].policy : random_scored_policy(random_, shape_, small_ ? 80 : 200);
    widen_layers(random_, shape_, policy);
    return policy;
  }

  ArenaModel model() const { return {rig_.arena().bytes(), shape_, policy_}; }

  std::vector<float> rows_of(std::uint32_t count, std::uint32_t heads) {
    return rows_of_sizes(random_, std::size_t{count} * heads, shape_.head_dim);
  }

  void append_and_attend() {
    const std::uint32_t layer = random_.below(shape_.layers);
    const std::uint32_t count = random_.below(2) == 0 ? shape_.max_chunk : random_.within(1, shape_.max_chunk);
    const std::vector<float> keys = rows_of(count, shape_.kv_heads);
    const std::vector<float> values = rows_of(count, shape_.kv_heads);
    ASSERT_EQ(append_both_ways(rig_.cache(), random_, small_, layer, keys, values), Status::kOk) << what();
    seen_[layer] += count;
    if (policy_.budget != Budget::kAdaptive) {
      for (std::uint32_t head = 0; head < shape_.kv_heads; ++head) {
        const std::uint32_t held = rig_.cache().held(layer, head);
        const std::uint32_t budget = rig_.cache().budget(layer, head);
        ASSERT_LE(held, budget + most_beyond(shape_, policy_)) << what();
      }
    }
    if (random_.below(8) != 0) run_attend(layer, count);
  }

  void attend_again() {
    const std::uint32_t layer = random_.below(shape_.layers);
    run_attend(layer, random_.within(1, shape_.max_chunk));
  }

  void run_attend(std::uint32_t layer, std::uint32_t count) {
    std::uint32_t least = count;
    for (std::uint32_t head = 0; head < shape_.kv_heads; ++head)
      least = std::min(least, rig_.cache().held(layer, head));
    const std::vector<float> queries = rows_of(count, shape_.query_heads);
    std::vector<float> out(queries.size(), 5e30f);
    const Status status = attend(rig_.cache(), layer, queries, out);
    ASSERT_EQ(status, least < count ? Status::kBadArgument : Status::kOk) << what();
    for (const float x : out) {
      ASSERT_EQ(x == 5e30f, status != Status::kOk) << what();
      ASSERT_TRUE(std::isfinite(x)) << what();
    }
  }

  void carry_out_its_plan() {
    const std::uint32_t layer = random_.below(shape_.layers);
    const std::uint32_t head = random_.below(shape_.kv_heads);
    std::vector<std::uint32_t> target(rig_.cache().held(layer, head));
    const std::vector<std::byte> before = rig_.copy_state();
    ASSERT_EQ(plan(rig_.cache(), layer, head, random_.within(0, shape_.max_chunk), target), Status::kOk);
    ASSERT_EQ(rig_.copy_state(), before) << what();
    ASSERT_EQ(check_plan(target), Status::kOk) << what();
    carry_out(layer, head, target);
  }

  // A caller's own plan: random slots stay; of the others, some are merged into random kept slots.
  void compact_some() {
    const std::uint32_t layer = random_.below(shape_.layers);
    const std::uint32_t head = random_.below(shape_.kv_heads);
    const std::uint32_t odds = random_.below(17);
    carry_out(layer, head,
              test::random_plan(random_, rig_.cache().held(layer, head), odds, merges(policy_),
                                model().faint(layer, head).used, policy_.faint));
  }

  void carry_out(std::uint32_t layer, std::uint32_t head, const std::vector<std::uint32_t>& target) {
    const std::vector<Slot> slots = model().slots(layer, head);
    const std::vector<Notes> notes = model().notes(layer, head);
    std::uint32_t kept = 0;
    for (const std::uint32_t to : target) kept += to < kMember || to == kFaint ? 1 : 0;
    ASSERT_EQ(compact(rig_.cache(), layer, head, target), Status::kOk) << what();
    ASSERT_EQ(rig_.cache().held(layer, head), kept) << what();
    const std::vector<Slot> after = model().slots(layer, head);
    const std::vector<Notes> after_notes = model().notes(layer, head);
    for (std::size_t i = 0; i < target.size(); ++i) {
      if (target[i] >= kMember) continue;
      const std::size_t now = model().faint(layer, head).used + target[i];
      ASSERT_EQ(after_notes[now].position, notes[i].position) << what();
      if (std::find(target.begin(), target.end(), kMember + target[i]) != target.end()) continue;
      Slot moved = slots[i];
      if (policy_.wide_first && target[i] < 32) reference::widen(moved, format_of(policy_.wide_storage));
      ASSERT_EQ(after[now], moved) << what();
      ASSERT_EQ(after_notes[now], notes[i]) << what();
    }
    check_faint(slots, notes, target, after, after_notes);
  }

  // Those that stay faint come first, as they were, then those that become so, coded again.
  void check_faint(const std::vector<Slot>& slots, const std::vector<Notes>& notes,
                   const std::vector<std::uint32_t>& target, const std::vector<Slot>& after,
                   const std::vector<Notes>& after_notes) {
    std::size_t now = 0;
    for (std::size_t i = 0; i < target.size(); ++i) {
      if (target[i] != kFaint) continue;
      ASSERT_EQ(after_notes[now], notes[i]) << what();
      ASSERT_TRUE(test::is_lower_coding(slots[i], after[now])) << what();
      ++now;
    }
  }

  void compact_all() {
    const std::uint32_t tokens =
        random_.within(policy_.sinks + std::max(policy_.recent, policy_.tail) + 1, policy_.tokens);
    const std::uint32_t any = random_.below(8);
    const auto how = static_cast<Budget>(any < 4 ? any : any + 1);  // no table
    const bool known = how == Budget::kScores || how == Budget::kRetrieval ? !rig_.profile().empty()
                       : how == Budget::kRules                             ? needs_attention(policy_)
                                                                           : true;
    ASSERT_EQ(compact_now(rig_.cache(), tokens, how), known ? Status::kOk : Status::kBadProfile) << what();
  }

  void classify_some() {
    const std::uint32_t seen = seen_[0], oldest = oldest_reachable(rig_.cache());
    std::vector<TokenClass> classes(random_.below(40));
    for (TokenClass& each : classes) each = static_cast<TokenClass>(random_.below(3));
    const bool in_step = std::all_of(seen_.begin(), seen_.end(), [&](std::uint32_t each) { return each == seen; });
    const Status expected = !keeps_classes(policy_)                                       ? Status::kBadPolicy
                            : !in_step || seen < oldest || classes.size() > seen - oldest ? Status::kBadArgument
                                                                                          : Status::kOk;
    ASSERT_EQ(classify(rig_.cache(), classes), expected) << what();
  }

  void refuse_some() {
    const std::uint32_t layer = random_.below(shape_.layers);
    const std::vector<std::byte> before = rig_.copy_state();
    std::vector<std::uint32_t> bad(rig_.cache().held(layer, 0) + 1, kDrop);
    EXPECT_EQ(compact(rig_.cache(), layer, 0, bad), Status::kBadPlan) << what();
    bad.pop_back();
    if (!bad.empty()) {
      bad.back() = kMember + random_.below(1000);
      EXPECT_EQ(compact(rig_.cache(), layer, 0, bad), Status::kBadPlan) << what();
    }
    EXPECT_EQ(compact_now(rig_.cache(), policy_.tokens + 1, Budget::kUniform), Status::kBadArgument) << what();
    EXPECT_EQ(compact_now(rig_.cache(), policy_.tokens, Budget::kTable), Status::kBadPolicy) << what();
    const auto rows = rows_of(shape_.max_chunk + 1u, shape_.kv_heads);
    EXPECT_EQ(append(rig_.cache(), layer, rows, rows), Status::kBadArgument) << what();
    EXPECT_EQ(rig_.copy_state(), before) << what();
  }

  void check(bool contents) {
    if (contents) come_back(rig_.cache());
    if (contents) check_reach(rig_.cache());
    std::uint32_t tiles = 0;
    ASSERT_NO_THROW(tiles = model().check_chains()) << what();
    ASSERT_EQ(nibkv::check(rig_.cache()), Status::kOk) << what();
    const Usage usage = rig_.cache().usage();
    ASSERT_EQ(usage.used_tiles, tiles) << what();
    ASSERT_LE(usage.peak_tiles, usage.tiles) << what();
    ASSERT_LE(usage.peak_bytes, usage.arena_bytes) << what();
    for (std::uint32_t layer = 0; layer < shape_.layers; ++layer) {
      ASSERT_EQ(rig_.cache().seen(layer), seen_[layer]) << what();
      for (std::uint32_t head = 0; contents && head < shape_.kv_heads; ++head) check_chain(layer, head);
    }
  }

  void check_chain(std::uint32_t layer, std::uint32_t head) {
    const std::vector<Notes> notes = model().notes(layer, head);
    const std::vector<Slot> slots = model().slots(layer, head);
    const std::vector<SlotInfo> infos = explain_all(rig_.cache(), layer, head);
    ASSERT_EQ(infos.size(), notes.size()) << what();
    for (std::size_t i = 0; i < notes.size(); ++i) {
      const bool first = i == 0 || i <= model().faint(layer, head).used;  // faint ones are in no order
      ASSERT_TRUE(first || notes[i].position > notes[i - 1].position) << what() << ", slot " << i;
      ASSERT_LT(notes[i].position, seen_[layer]) << what() << ", slot " << i;
      ASSERT_LE(notes[i].bias, 32u) << what() << ", slot " << i;
      ASSERT_EQ((Notes{infos[i].position, infos[i].global, infos[i].local, infos[i].bias, infos[i].merged}), notes[i]);
      for (const std::uint16_t scale : {slots[i].key_scale, slots[i].value_scale}) {
        ASSERT_TRUE(scale == 0 || (scale >= 256 && scale <= (127 + 100) << 8)) << what() << ", slot " << i;
      }
    }
  }

  Random random_;
  bool small_;
  Shape shape_;
  Policy policy_;
  Rig rig_;
  std::vector<std::uint32_t> seen_;
};

}  // namespace nibkv::test
