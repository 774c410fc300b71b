#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "nibkv/nibkv.hpp"
#include "tests/property/take_back.hpp"
#include "tests/reference/arena_model.hpp"
#include "tests/reference/attention.hpp"
#include "tests/support/exact_query.hpp"
#include "tests/support/rig.hpp"
#include "tests/support/snapshots.hpp"

namespace nibkv::test {

using reference::ArenaModel;
using reference::Notes;
using reference::Slot;

// A cache of Keep::kScore in which layers 1 and 2 share codes, driven by random operations.
// Whatever their order, both layers stay in step, and attention matches what the arena holds.
class FoldWalk {
 public:
  /// @param seed  of the profile, minus 1
  /// @param small  a cache that a fuzzer tries many of in a second
  FoldWalk(const Random& random, std::uint64_t seed, const std::string& port, bool small = false)
      : random_(random),
        small_(small),
        shape_(random_shape()),
        policy_(random_policy()),
        rig_(shape_, policy_, port, seed + 1) {}

  bool shares() const { return layout_of(shape_, policy_).views != 0; }
  std::uint32_t merged_into_folded() const { return merged_into_folded_; }

  void steps(int count) {
    for (int i = 0; i < count && !testing::Test::HasFailure(); ++i) {
      const std::uint32_t kind = random_.below(100);
      if (kind < 60) {
        append_all();
      } else if (kind < 75) {
        carry_out_its_plan();
      } else if (kind < 90) {
        compact_some();
      } else if (kind < 96) {
        ASSERT_EQ(compact_now(rig_.cache(), random_.within(policy_.sinks + policy_.recent + 1, policy_.tokens),
                              Budget::kUniform),
                  Status::kOk)
            << what();
      } else if (kind < 97) {
        refuse();
      } else if (kind < 99) {
        std::vector<std::uint32_t> seen(shape_.layers, rig_.cache().seen(0));
        take_back(rig_.cache(), random_, seen);
        fork(rig_, random_);
      } else {
        ASSERT_EQ(rig_.cache().clear(), Status::kOk);
      }
      if (i % 6 == 0) come_back(rig_.cache());
      check();
      if (i % 5 == 4) attend_exactly();
    }
    EXPECT_TRUE(rig_.arena().guards_intact()) << what();
  }

 private:
  static constexpr std::uint32_t kLower = 1;

  Shape random_shape() {
    Shape shape = {.query_heads = 4, .kv_heads = 2};
    shape.layers = small_ ? 3 : 4;
    shape.head_dim = static_cast<std::uint16_t>(16 * random_.within(1, small_ ? 1 : 3));
    shape.max_chunk = static_cast<std::uint16_t>(random_.within(1, small_ ? 12 : 24));
    if (random_.below(2) == 0) shape.rotary = random_rotary_and_reach(random_, shape.head_dim);
    return shape;
  }

  Policy random_policy() {
    Policy policy;
    do {
      policy = random_scored_policy(random_, shape_, small_ ? 240 : 700);
      policy.tokens = small_ ? random_.within(160, 240) : random_.within(300, 700);
      policy.budget = Budget::kUniform;
      policy.fold = {};
      if (random_.below(3) != 0) policy.fold.keys.add(kLower);
      if (policy.fold.keys.empty() || random_.below(2) == 0) policy.fold.values.add(kLower);
      policy.fold.recent = random_.below(40);
      policy.fold.retained = static_cast<std::uint8_t>(random_.below(60));
      policy.fold.retain = static_cast<Retain>(random_.below(3));
      policy.fold.t = static_cast<std::uint8_t>(random_.below(256));
    } while (!valid(policy, shape_));
    return policy;
  }

  std::string what() const { return words(shape_, policy_, rig_.cache().port()); }
  ArenaModel model() const { return {rig_.arena().bytes(), shape_, policy_}; }

  std::vector<float> rows_of(std::uint32_t count, std::uint32_t heads) {
    return rows_of_sizes(random_, std::size_t{count} * heads, shape_.head_dim);
  }

  void append_all() {
    for (std::uint32_t round = random_.within(1, small_ ? 4 : 6); round != 0; --round) {
      const std::uint32_t count = random_.below(2) == 0 ? shape_.max_chunk : random_.within(1, shape_.max_chunk);
      const auto keys = rows_of(count, 2);
      const auto values = rows_of(count, 2);
      for (std::uint32_t layer = 0; layer < shape_.layers; ++layer) {
        auto near_keys = rows_of(count, 2);
        auto near_values = rows_of(count, 2);
        const bool near = random_.below(4) != 0;
        for (std::size_t i = 0; near && i < keys.size(); ++i) {
          near_keys[i] = keys[i] + 0.3f * near_keys[i];
          near_values[i] = 2 * values[i] + 0.3f * near_values[i];
        }
        ASSERT_EQ(append_both_ways(rig_.cache(), random_, small_, layer, near_keys, near_values), Status::kOk)
            << what();
        ASSERT_EQ(nibkv::check(rig_.cache()), Status::kOk) << what() << ", layer " << layer;
        if (random_.below(6) != 0) attend_all(rig_.cache(), layer, rows_of(count, 4));
      }
    }
  }

  void carry_out_its_plan() {
    const std::uint32_t layer = random_.below(shape_.layers);
    std::vector<std::uint32_t> target(rig_.cache().held(layer, 0));
    const std::vector<std::byte> before = rig_.copy_state();
    ASSERT_EQ(plan(rig_.cache(), layer, 0, random_.within(0, shape_.max_chunk), target), Status::kOk) << what();
    ASSERT_EQ(rig_.copy_state(), before) << what();
    ASSERT_EQ(check_plan(target), Status::kOk) << what();
    carry_out(layer, 0, target);
  }

  void compact_some() {
    const std::uint32_t layer = random_.below(shape_.layers);
    const std::uint32_t head = random_.below(2);
    const std::uint32_t odds = random_.within(8, 16);
    carry_out(layer, head, random_plan(random_, rig_.cache().held(layer, head), odds, merges(policy_)));
  }

  void carry_out(std::uint32_t layer, std::uint32_t head, const std::vector<std::uint32_t>& target) {
    const bool pair = shares() && (layer == kLower || layer == kLower + 1);
    const std::uint32_t first = pair ? kLower : layer;
    const std::uint32_t last = pair ? kLower + 1 : layer;
    std::vector<Slot> slots[2];
    std::vector<Notes> notes[2];
    for (std::uint32_t l = first; l <= last; ++l) {
      slots[l - first] = model().slots(l, head);
      notes[l - first] = model().notes(l, head);
    }
    const std::uint32_t folded = model().folded(first, head).used;
    std::uint32_t folded_after = 0;
    for (std::uint32_t i = 0; i < folded; ++i) folded_after += target[i] < kMember ? 1 : 0;
    ASSERT_EQ(compact(rig_.cache(), layer, head, target), Status::kOk) << what();
    ASSERT_EQ(model().folded(first, head).used, folded_after) << what();
    for (std::uint32_t l = first; l <= last; ++l) {
      const std::vector<Slot> after = model().slots(l, head);
      const std::vector<Notes> after_notes = model().notes(l, head);
      for (std::uint32_t i = 0; i < target.size(); ++i) {
        if (target[i] >= kMember) continue;
        ASSERT_EQ(after_notes.at(target[i]).position, notes[l - first][i].position) << what();
        if (std::find(target.begin(), target.end(), kMember + target[i]) != target.end()) {
          merged_into_folded_ += i < folded ? 1 : 0;
          continue;
        }
        ASSERT_EQ(after.at(target[i]), slots[l - first][i]) << what();
        ASSERT_EQ(after_notes.at(target[i]), notes[l - first][i]) << what();
      }
    }
  }

  void refuse() {
    if (!shares()) return;
    const std::vector<std::byte> before = rig_.copy_state();
    const auto rows = rows_of(1, 2);
    EXPECT_EQ(append(rig_.cache(), kLower + 1, rows, rows), Status::kBadArgument) << what();
    EXPECT_EQ(compact_now(rig_.cache(), policy_.tokens, Budget::kPyramid), Status::kBadPolicy) << what();
    EXPECT_EQ(rig_.copy_state(), before) << what();
  }

  void check() {
    ASSERT_NO_THROW((void)model().check_chains()) << what();
    ASSERT_EQ(nibkv::check(rig_.cache()), Status::kOk) << what();
    if (!shares()) return;
    if (policy_.keep == Keep::kScore) check_reach(rig_.cache());
    for (std::uint32_t head = 0; head < 2; ++head) {
      const auto part = model().folded(kLower, head);
      const auto lower = model().slots(kLower, head);
      const auto upper = model().slots(kLower + 1, head);
      const auto lower_notes = model().notes(kLower, head);
      const auto upper_notes = model().notes(kLower + 1, head);
      ASSERT_EQ(lower.size(), upper.size()) << what();
      for (std::uint32_t i = 0; i < lower.size(); ++i) {
        ASSERT_EQ(lower_notes[i].position, upper_notes[i].position) << what();
        ASSERT_EQ(lower_notes[i].merged, upper_notes[i].merged) << what();
        if (i >= part.used) continue;
        ASSERT_TRUE(policy_.fold.keys.empty() || lower[i].key_codes == upper[i].key_codes) << what();
        ASSERT_TRUE(policy_.fold.values.empty() || lower[i].value_codes == upper[i].value_codes) << what();
      }
    }
  }

  void attend_exactly() {
    for (std::uint32_t layer = 0; layer < shape_.layers; ++layer) {
      const std::uint32_t head = random_.below(2);
      std::uint32_t least = shape_.max_chunk;
      for (std::uint32_t h = 0; h < 2; ++h) least = std::min(least, rig_.cache().held(layer, h));
      if (least == 0) continue;
      const std::uint32_t count = random_.within(1, least);
      Random random(random_.word());  // a fuzzer need not choose rows
      const auto queries = exact_queries(random, shape_, count, 0.02);
      const auto slots = model().slots(layer, head);
      std::vector<int> biases;
      for (const Notes& notes : model().notes(layer, head)) biases.push_back(static_cast<int>(notes.bias));
      const auto out = attend_all(rig_.cache(), layer, test::rows_of(queries));
      for (const float x : out) ASSERT_TRUE(std::isfinite(x)) << what();
      if (shape_.rotary.reach != 0) continue;  // codes of turned queries are not exact
      const std::uint32_t token = random_.below(count);
      const std::size_t row = token * 4u + head * 2u + random_.below(2);
      const auto wanted =
          reference::fixed_point_case(queries[row].codes, 0.02, slots, slots.size() - (count - 1 - token), biases,
                                      shares() ? model().folded(layer, head).used : 0);
      const auto got =
          reference::rotated(reference::widen(std::span(out).subspan(row * shape_.head_dim, shape_.head_dim)));
      ASSERT_LE(reference::distance(got, wanted.exact), wanted.norm_bound) << what() << ", layer " << layer;
    }
  }

  Random random_;
  bool small_;
  Shape shape_;
  Policy policy_;
  Rig rig_;
  std::uint32_t merged_into_folded_ = 0;
};

}  // namespace nibkv::test
