#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <string>
#include <vector>

#include "nibkv/nibkv.hpp"
#include "tests/property/take_back.hpp"
#include "tests/reference/arena_model.hpp"
#include "tests/reference/attention.hpp"
#include "tests/reference/rotary.hpp"
#include "tests/reference/streaming.hpp"
#include "tests/support/model_of.hpp"
#include "tests/support/rig.hpp"
#include "tests/support/snapshots.hpp"

namespace nibkv::test {

using reference::ArenaModel;
using reference::Slot;

// What a chain must hold, in plain vectors.
struct PlainChain {
  std::vector<Slot> slots;               // if it has codes
  std::vector<std::vector<float>> keys;  // Storage::kF32
  std::vector<std::vector<float>> values;
  std::size_t size = 0;

  /// @param first  the format of the first 32 slots, or null if it is that of all
  void keep(const std::vector<std::uint32_t>& target, const TileFormat* first = nullptr) {
    std::size_t next = 0;
    for (std::size_t i = 0; i < target.size(); ++i) {
      if (target[i] == kDrop) continue;
      if (!slots.empty()) slots[next] = slots[i];
      if (!slots.empty() && first != nullptr && next < 32) reference::widen(slots[next], *first);
      if (!keys.empty()) keys[next] = keys[i];
      if (!values.empty()) values[next] = values[i];
      ++next;
    }
    size = next;
    slots.resize(std::min(slots.size(), next));
    keys.resize(std::min(keys.size(), next));
    values.resize(std::min(values.size(), next));
  }
};

// A cache of a random shape and policy, and a plain model of it, driven by random operations.
class Walk {
 public:
  /// @param small  a cache that a fuzzer tries many of in a second
  Walk(const Random& random, const std::string& port, bool small = false)
      : random_(random), small_(small), shape_(random_shape()), policy_(random_policy()), rig_(shape_, policy_, port) {
    chains_.resize(std::size_t{shape_.layers} * shape_.kv_heads);
    seen_.resize(shape_.layers);
  }

  void steps(int count) {
    for (int i = 0; i < count && !testing::Test::HasFailure(); ++i) {
      const std::uint32_t kind = random_.below(100);
      if (kind < 60) {
        append_some();
      } else if (kind < 75) {
        attend_some(i % 4 == 0);
      } else if (kind < 90) {
        compact_some();
      } else if (kind < 95) {
        refuse_some();
      } else if (kind < 98) {
        take_some_back();
      } else if (kind < 99) {
        fork(rig_, random_);
      } else {
        ASSERT_EQ(rig_.cache().clear(), Status::kOk);
        std::fill(chains_.begin(), chains_.end(), PlainChain{});
        std::fill(seen_.begin(), seen_.end(), 0);
      }
      check(!small_ && i % 8 == 0);
    }
    check(true);
    EXPECT_TRUE(rig_.arena().guards_intact()) << what();
  }

  std::string what() const { return words(shape_, policy_, rig_.cache().port()); }

 private:
  Shape random_shape() {
    const MostShape most = small_ ? MostShape{.layers = 2, .kv_heads = 2, .group = 2, .blocks = 2, .chunk = 12}
                                  : MostShape{.layers = 3, .kv_heads = 3, .group = 4, .blocks = 3, .chunk = 40};
    Shape shape = test::random_shape(random_, most);
    shape.workers = static_cast<std::uint16_t>(random_.within(1, 3));
    shape.storage = random_.below(3) == 0 ? Storage::kF32 : random_storage(random_);
    if (has_codes(shape.storage)) shape.outlier_channels = static_cast<std::uint16_t>(4 * random_.below(4));
    if (random_.below(2) == 0) shape.rotary = random_rotary_and_reach(random_, shape.head_dim);
    return shape;
  }

  Policy random_policy() {
    Policy policy = random_plain_policy();
    widen_layers(random_, shape_, policy);
    return policy;
  }

  Policy random_plain_policy() {
    if (random_.below(2) == 0) return full(random_.within(1, small_ ? 70 : 150));
    const std::uint32_t sinks = random_.below(small_ ? 9 : 36);
    Policy policy = streaming_llm(sinks + 1 + random_.below(small_ ? 40 : 130), sinks);
    constexpr Budget kBudgets[] = {Budget::kUniform, Budget::kUniform, Budget::kPyramid,
                                   Budget::kScores,  Budget::kPrefix,  Budget::kRetrieval};
    policy.budget = kBudgets[random_.below(6)];
    policy.most = static_cast<std::uint8_t>(random_.within(1, 6));
    return policy;
  }

  // That of the first slots; null if they have no other than the others.
  const TileFormat* first_format() {
    wide_ = format_of(policy_.wide_storage);
    return policy_.wide_first ? &wide_ : nullptr;
  }

  PlainChain& chain(std::uint32_t layer, std::uint32_t head) { return chains_[layer * shape_.kv_heads + head]; }
  ArenaModel model() const { return {rig_.arena().bytes(), shape_, policy_}; }

  void append_some() {
    const std::uint32_t layer = random_.below(shape_.layers);
    const std::uint32_t count = random_.within(1, shape_.max_chunk);
    const std::uint32_t dim = shape_.head_dim;
    const auto keys = random_.bells(std::size_t{count} * shape_.kv_heads * dim);
    const auto values = random_.bells(std::size_t{count} * shape_.kv_heads * dim);

    std::vector<std::vector<std::uint32_t>> plans;
    std::size_t tiles_after = rig_.cache().usage().used_tiles;
    // Where some layers have wider codes, each head has its own tiles.
    const std::uint32_t of_head = layout_of(shape_, policy_).tiles_per_head * 32;
    const std::uint32_t most = has_wide(policy_) ? of_head : kMaxTokens;
    bool fits = true;
    for (std::uint32_t head = 0; head < shape_.kv_heads; ++head) {
      const std::size_t size = chain(layer, head).size;
      plans.emplace_back(size);
      ASSERT_EQ(plan(rig_.cache(), layer, head, count, plans.back()), Status::kOk);
      ASSERT_EQ(check_plan(plans.back()), Status::kOk);
      tiles_after += (size + count + 31) / 32 - (size + 31) / 32;
      if (has_tiers(policy_)) {
        const std::uint32_t kept = model().kept(layer, head).used;
        fits = fits && size - kept + count <= detail::tail_slots(shape_, policy_) + (of_head - kept) / 32 * 32;
      } else {
        fits = fits && size + count <= most;
      }
    }
    const Status status = append_both_ways(rig_.cache(), random_, small_, layer, keys, values);
    if (policy_.keep == Keep::kAll) {
      fits = fits && (has_tiers(policy_) || tiles_after <= rig_.cache().usage().tiles);
      ASSERT_EQ(status, fits ? Status::kOk : Status::kFull) << what();
      if (status == Status::kFull) return;
    }
    ASSERT_EQ(status, Status::kOk) << what();
    seen_[layer] += count;
    for (std::uint32_t head = 0; head < shape_.kv_heads; ++head) {
      PlainChain& plain = chain(layer, head);
      plain.keep(plans[head], first_format());
      plain.size += count;
      ASSERT_EQ(rig_.cache().held(layer, head), plain.size) << what();
      if (has_codes(shape_.storage)) {
        const std::vector<Slot> slots = model().slots(layer, head);
        for (std::size_t i = 0; i < plain.slots.size(); ++i) {  // some have moved down
          if (!has_tiers(policy_) || plain.slots[i] == slots[i]) continue;
          ASSERT_TRUE(is_lower_coding(plain.slots[i], slots[i])) << what() << ", slot " << i;
          plain.slots[i] = slots[i];
        }
        plain.slots.insert(plain.slots.end(), slots.end() - count, slots.end());
        continue;
      }
      for (std::uint32_t i = 0; i < count; ++i) {
        const auto at = static_cast<std::ptrdiff_t>((i * shape_.kv_heads + head) * dim);
        plain.keys.emplace_back(keys.begin() + at, keys.begin() + at + dim);
        plain.values.emplace_back(values.begin() + at, values.begin() + at + dim);
      }
    }
  }

  void compact_some() {
    const std::uint32_t layer = random_.below(shape_.layers);
    const std::uint32_t head = random_.below(shape_.kv_heads);
    PlainChain& plain = chain(layer, head);
    const std::uint32_t odds = random_.below(17);
    bool keep = true;
    std::vector<std::uint32_t> target;
    std::uint32_t next = 0;
    for (std::size_t i = 0; i < plain.size; ++i) {
      if (random_.below(6) == 0) keep = random_.below(16) < odds;
      target.push_back(keep ? next++ : kDrop);
    }
    const bool moves = shape_.rotary.reach != 0 && moves_positions(layer, head, target, next);
    ASSERT_EQ(compact(rig_.cache(), layer, head, target), moves ? Status::kBadPlan : Status::kOk) << what();
    if (!moves) plain.keep(target, first_format());
  }

  // Whether a plan that keeps so many slots gives one of them another position.
  bool moves_positions(std::uint32_t layer, std::uint32_t head, const std::vector<std::uint32_t>& target,
                       std::uint32_t kept) const {
    const std::vector<SlotInfo> infos = explain_all(rig_.cache(), layer, head);
    for (std::size_t i = 0; i < target.size(); ++i) {
      const std::uint32_t to = target[i];
      if (to != kDrop && infos[i].position != (to < policy_.sinks ? to : seen_[layer] - kept + to)) return true;
    }
    return false;
  }

  void take_some_back() {
    const std::vector<std::uint32_t> before = seen_;
    take_back(rig_.cache(), random_, seen_);
    for (std::uint32_t layer = 0; layer < shape_.layers; ++layer) {
      for (std::uint32_t head = 0; head < shape_.kv_heads; ++head) {
        PlainChain& plain = chain(layer, head);
        std::vector<std::uint32_t> target(plain.size, kDrop);
        std::iota(target.begin(), target.end() - (before[layer] - seen_[layer]), 0u);
        plain.keep(target, first_format());
      }
    }
  }

  // Makes calls that must fail; check() finds what they changed.
  void refuse_some() {
    const std::uint32_t layer = random_.below(shape_.layers);
    const std::vector<std::byte> before = rig_.copy_state();
    std::vector<std::uint32_t> bad(chain(layer, 0).size + 1, kDrop);
    EXPECT_EQ(compact(rig_.cache(), layer, 0, bad), Status::kBadPlan) << what();
    bad.pop_back();
    if (!bad.empty()) {
      bad.back() = random_.within(1, 1000);
      EXPECT_EQ(compact(rig_.cache(), layer, 0, bad), Status::kBadPlan) << what();
    }
    const std::vector<float> rows((shape_.max_chunk + 1u) * shape_.query_heads * shape_.head_dim);
    const auto too_many = std::span(rows).first((shape_.max_chunk + 1u) * shape_.kv_heads * shape_.head_dim);
    EXPECT_EQ(append(rig_.cache(), layer, too_many, too_many), Status::kBadArgument) << what();
    EXPECT_EQ(append(rig_.cache(), shape_.layers, too_many, too_many), Status::kBadArgument) << what();
    std::vector<float> out(rows.size());
    EXPECT_EQ(attend(rig_.cache(), layer, rows, out), Status::kBadArgument) << what();
    EXPECT_EQ(rig_.copy_state(), before) << what();
  }

  void attend_some(bool compare) {
    const std::uint32_t layer = random_.below(shape_.layers);
    std::size_t least = shape_.max_chunk;
    for (std::uint32_t head = 0; head < shape_.kv_heads; ++head) least = std::min(least, chain(layer, head).size);
    const std::size_t count = random_.within(1, shape_.max_chunk);
    const std::size_t dim = shape_.head_dim;
    auto queries = random_.bells(count * shape_.query_heads * dim);
    for (float& x : queries) x *= 0.5f;
    std::vector<float> out(queries.size(), 5e30f);
    const std::vector<std::byte> before = rig_.copy_state();
    const Status status = attend(rig_.cache(), layer, queries, out);
    ASSERT_EQ(rig_.copy_state(), before) << "attend changed more than scratch: " << what();
    ASSERT_EQ(status, count > least ? Status::kBadArgument : Status::kOk) << what() << ", " << count << " queries";
    for (const float x : out) ASSERT_EQ(x == 5e30f, status != Status::kOk) << what();
    if (status != Status::kOk) return;
    attend_again_in_shares(rig_.cache(), random_, layer, queries, out);
    attend_again_as_drafts(rig_.cache(), random_, layer, queries, out);
    if (status != Status::kOk || !compare) return;
    ProfileView profile;
    if (!rig_.profile().empty()) {
      ASSERT_EQ(profile.open(rig_.profile(), shape_), Status::kOk);
    }
    const std::uint32_t head = random_.below(shape_.kv_heads);
    const PlainChain& plain = chain(layer, head);
    const std::size_t query = random_.below(static_cast<std::uint32_t>(count));
    const auto position = static_cast<std::uint32_t>(seen_[layer] - count + query);
    const std::vector<SlotInfo> infos = explain_all(rig_.cache(), layer, head);
    reference::Rows keys;
    reference::Rows values;
    for (std::size_t i = 0; i < plain.size; ++i) {
      const bool codes = has_codes(shape_.storage);
      keys.push_back(codes ? reference::decode_key(plain.slots[i], profile, layer, head)
                           : reference::widen(plain.keys[i]));
      if (shape_.rotary.reach != 0)
        keys[i] = reference::met(keys[i], shape_.rotary, position, infos[i].position, codes);
      values.push_back(codes ? reference::decode_value(plain.slots[i]) : reference::widen(plain.values[i]));
    }
    const std::size_t at = (query * shape_.query_heads + head * shape_.group()) * dim;
    const auto exact = reference::attention(reference::widen(std::span(queries).subspan(at, dim)), keys, values,
                                            plain.size - (count - 1 - query));
    // A loose bound that shows a wrong slot; the tight bounds are in the unit tests. Where most channels are outliers, the
    // int8 codes of the query take most of it: the product of each with codes of 8 bits is off by up to half a unit.
    const double most = 2u * shape_.outlier_channels > shape_.head_dim ? 0.1 : 0.05;
    double size = 0;
    for (const auto& value : values) size = std::max(size, reference::norm(value));
    EXPECT_LE(reference::distance(reference::widen(std::span(out).subspan(at, dim)), exact), most * size) << what();
  }

  void check(bool contents) {
    if (contents) come_back(rig_.cache());
    std::uint32_t tiles = 0;
    ASSERT_NO_THROW(tiles = model().check_chains()) << what();
    ASSERT_EQ(nibkv::check(rig_.cache()), Status::kOk) << what();
    const Usage usage = rig_.cache().usage();
    ASSERT_EQ(usage.used_tiles, tiles) << what();
    ASSERT_GE(usage.peak_tiles, tiles) << what();
    ASSERT_LE(usage.peak_tiles, usage.tiles) << what();
    for (std::uint32_t layer = 0; layer < shape_.layers; ++layer) {
      ASSERT_EQ(rig_.cache().seen(layer), seen_[layer]) << what();
      for (std::uint32_t head = 0; head < shape_.kv_heads; ++head) {
        const PlainChain& plain = chain(layer, head);
        ASSERT_EQ(rig_.cache().held(layer, head), plain.size) << what();
        ASSERT_EQ(model().chain(layer, head).used, plain.size) << what();
        if (!contents) continue;
        if (has_codes(shape_.storage)) {
          ASSERT_EQ(model().slots(layer, head), plain.slots) << what();
          continue;
        }
        for (std::uint32_t i = 0; i < plain.size; ++i) {
          ASSERT_EQ(model().key_f32(layer, head, i), plain.keys[i]) << what() << ", slot " << i;
          ASSERT_EQ(model().value_f32(layer, head, i), plain.values[i]) << what() << ", slot " << i;
        }
      }
    }
  }

  Random random_;
  bool small_;
  Shape shape_;
  Policy policy_;
  Rig rig_;
  std::vector<PlainChain> chains_;
  std::vector<std::uint32_t> seen_;
  TileFormat wide_;
};

}  // namespace nibkv::test
