#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "nibkv/nibkv.hpp"
#include "tests/reference/arena_model.hpp"
#include "tests/reference/attention.hpp"
#include "tests/support/arena.hpp"
#include "tests/support/rig.hpp"
#include "tests/support/shares.hpp"
#include "tests/support/snapshots.hpp"

namespace nibkv::test {

// A cache with a log, driven by random operations over a store that now and then fails, and a cache that keeps
// everything, in which the codes of each token are found.
class LogWalk {
 public:
  /// @param small  a cache that a fuzzer tries many of in a second
  LogWalk(const Random& random, const std::string& port, bool small = false)
      : random_(random),
        small_(small),
        shape_(random_shape()),
        policy_(random_policy()),
        rig_(shape_, policy_, port),
        arena_(footprint(shape_, full(kMost))) {
    EXPECT_EQ(all_.init(arena_.bytes(), shape_, full(kMost), {.port = port, .profile = rig_.profile()}), Status::kOk);
    rig_.store() = {write, read, random_.below(2) == 0 ? prefetch : nullptr, this, random_.below(3), false};
    rig_.store().verify = random_.below(4) == 0;
    failing_ = random_.below(3) == 0 ? 0 : random_.within(2, 20);
    seen_.resize(shape_.layers);
    if (small_) {  // a fuzzer takes few steps
      for (std::uint32_t layer = 0; layer < shape_.layers; ++layer) {
        while (seen_[layer] < policy_.tokens + 40 && !testing::Test::HasFailure()) append_to(layer, shape_.max_chunk);
      }
    }
  }

  void steps(int count) {
    for (int i = 0; i < count && !testing::Test::HasFailure(); ++i) {
      const std::uint32_t kind = random_.below(100);
      if (kind < 45) {
        append_to(random_.below(shape_.layers), random_.within(1, shape_.max_chunk));
      } else if (kind < 65) {
        recall_some();
      } else if (kind < 82) {
        attend_some();
      } else if (kind < 84) {
        restart();
      } else if (kind < 86) {
        copy();
      } else if (kind < 88) {
        refuse_some();
      } else if (kind < 94) {
        take_some_back();
      } else if (kind < 98) {
        bool done = false;
        ASSERT_EQ(tidy(rig_.cache(), random_.within(1, shape_.max_chunk), done), Status::kOk) << what();
      } else if (kind < 99) {
        failing_ = random_.below(20);
      } else {
        ASSERT_EQ(random_.below(2) == 0 ? rig_.cache().clear() : rig_.cache().wipe(), Status::kOk) << what();
        ASSERT_EQ(all_.clear(), Status::kOk);
        std::fill(seen_.begin(), seen_.end(), 0);
        spoilt_.clear();
      }
      check();
    }
    EXPECT_TRUE(rig_.arena().guards_intact()) << what();
  }

  std::string what() const { return words(shape_, policy_, rig_.cache().port()); }

 private:
  static constexpr std::uint32_t kMost = 4000;

  Shape random_shape() {
    const MostShape most = small_ ? MostShape{.layers = 2, .kv_heads = 2, .group = 2, .blocks = 2, .chunk = 40}
                                  : MostShape{.layers = 2, .kv_heads = 3, .group = 4, .blocks = 4, .chunk = 70};
    Shape shape = test::random_shape(random_, most);
    shape.workers = static_cast<std::uint16_t>(random_.within(1, 3));
    shape.outlier_channels = static_cast<std::uint16_t>(4 * random_.below(3));
    if (random_.below(2) == 0) shape.rotary = random_rotary(random_, shape.head_dim);
    shape.storage = random_storage(random_);
    return shape;
  }

  Policy random_policy() {
    const std::uint32_t sinks = random_.below(2) == 0 ? 4 : random_.below(41);
    const std::uint32_t back = 32 * random_.within(1, small_ ? 2 : 4);
    Policy policy = streaming_llm(sinks + back + 1 + random_.below(60), sinks);
    policy.recall = back;
    policy.log = 32 * random_.within(1, small_ ? 4 : 20);
    policy.indexed = static_cast<std::uint16_t>(random_.below(2) == 0 ? 256 : random_.within(1, 256));
    return policy;
  }

  void append_to(std::uint32_t layer, std::uint32_t count) {
    if (seen_[layer] + count > kMost) return;
    const std::size_t size = std::size_t{count} * shape_.kv_heads;
    const std::vector<float> keys = random_.bells(size * shape_.head_dim);
    const std::vector<float> values = random_.bells(size * shape_.head_dim);
    if (random_.below(4) != 0) {
      ASSERT_EQ(append(rig_.cache(), layer, keys, values), Status::kOk) << what();
    } else {
      const auto rows = [&](const std::vector<float>& all) {
        return tokens_first(all.data(), Number::kF32, shape_.kv_heads, shape_.head_dim);
      };
      ASSERT_EQ(append_divided(rig_.cache(), layer, count, rows(keys), rows(values),
                               shares_of(shape_, random_.within(1, 6), random_)),
                Status::kOk)
          << what();
    }
    ASSERT_EQ(append(all_, layer, keys, values), Status::kOk);
    seen_[layer] += count;
  }

  std::vector<float> queries_of(std::uint32_t count) {
    std::vector<float> queries = random_.bells(std::size_t{count} * shape_.query_heads * shape_.head_dim);
    const float size = random_.below(8) == 0 ? 0.0f : random_.below(2) == 0 ? 0.25f : 0.5f;
    for (float& x : queries) x *= size;
    return queries;
  }

  void recall_some() {
    const std::uint32_t layer = random_.below(shape_.layers);
    Part part{.worker = random_.below(shape_.workers)};
    if (random_.below(3) == 0) {
      part.first_head = random_.below(shape_.kv_heads);
      part.heads = random_.within(0, shape_.kv_heads - part.first_head);
    }
    const std::vector<float> queries = queries_of(random_.within(1, shape_.max_chunk));
    ASSERT_EQ(recall(rig_.cache(), layer, queries, part), Status::kOk) << what();
    if (failing_ != 0) return;
    // Then it needs nothing more.
    const std::uint64_t reads = reads_;
    ASSERT_EQ(recall(rig_.cache(), layer, queries, part), Status::kOk) << what();
    for (std::uint32_t head = 0; head < shape_.kv_heads; ++head) {
      if (recall_usage(rig_.cache(), layer, head).lost_pages != 0) return;  // others come in place of its tokens
    }
    ASSERT_EQ(reads_, reads) << what();
  }

  void attend_some() {
    const std::uint32_t layer = random_.below(shape_.layers);
    std::uint32_t least = shape_.max_chunk;
    for (std::uint32_t head = 0; head < shape_.kv_heads; ++head) {
      const std::uint32_t own = rig_.cache().held(layer, head) - recalled(rig_.cache(), layer, head);
      least = std::min(least, own);
    }
    if (least == 0) return;
    const std::uint32_t count = random_.within(1, least);
    const std::vector<float> queries = queries_of(count);
    const std::vector<std::byte> before = rig_.copy_state();
    const std::vector<float> out = attend_all(rig_.cache(), layer, queries);
    ASSERT_EQ(rig_.copy_state(), before) << what();
    ProfileView profile;
    if (!rig_.profile().empty()) {
      ASSERT_EQ(profile.open(rig_.profile(), shape_), Status::kOk);
    }
    const reference::ArenaModel model{std::as_const(arena_).bytes(), shape_, all_.policy()};
    const std::uint32_t head = random_.below(shape_.kv_heads), query = random_.below(count);
    const std::vector<reference::Slot> slots = model.slots(layer, head);
    reference::Rows keys, values;
    for (const SlotInfo& info : explain_all(rig_.cache(), layer, head)) {
      ASSERT_LT(info.position, slots.size()) << what();
      keys.push_back(reference::decode_key(slots[info.position], profile, layer, head));
      values.push_back(reference::decode_value(slots[info.position]));
    }
    const std::size_t at = (query * shape_.query_heads + head * shape_.group()) * std::size_t{shape_.head_dim};
    const auto exact = reference::attention(reference::widen(std::span(queries).subspan(at, shape_.head_dim)), keys,
                                            values, keys.size() - (count - 1 - query));
    const double most = 2u * shape_.outlier_channels > shape_.head_dim ? 0.1 : 0.05;
    double size = 0;
    for (const auto& value : values) size = std::max(size, reference::norm(value));
    EXPECT_LE(reference::distance(reference::widen(std::span(out).subspan(at, shape_.head_dim)), exact), most * size)
        << what();
  }

  void take_some_back() {
    const std::uint32_t most = *std::max_element(seen_.begin(), seen_.end());
    const std::uint32_t oldest = oldest_reachable(rig_.cache());
    ASSERT_LE(oldest, most) << what();
    const std::uint32_t wanted = random_.below(4) == 0 ? random_.below(most + 2) : random_.within(oldest, most);
    const std::vector<std::byte> before = rig_.copy_state();
    const Status status = truncate(rig_.cache(), wanted);
    ASSERT_EQ(status, wanted > most ? Status::kBadArgument : wanted < oldest ? Status::kGone : Status::kOk) << what();
    if (status != Status::kOk) {
      ASSERT_EQ(rig_.copy_state(), before) << what();
      return;
    }
    ASSERT_EQ(truncate(all_, wanted), Status::kOk);
    for (std::uint32_t& layer : seen_) layer = std::min(layer, wanted);
  }

  // Saves, goes on or not, and comes back over the store as it is now; some of its pages may be gone.
  void restart() {
    const std::vector<std::byte> snapshot = saved(rig_.cache());
    const std::uint32_t logged_before = logged_tokens();
    const bool other_content = random_.below(4) == 0;  // what it is restored over
    if (other_content) {
      ASSERT_EQ(rig_.cache().clear(), Status::kOk) << what();
    }
    ASSERT_EQ(restore(rig_.cache(), snapshot), Status::kOk) << what();
    ASSERT_EQ(saved(rig_.cache()), snapshot) << what();
    ASSERT_EQ(logged_tokens(), logged_before) << what();
    const std::uint32_t gone = failing_ == 0 || random_.below(2) == 0 ? 0 : random_.within(1, 3);
    for (std::uint32_t i = 0; i < gone; ++i) spoil(random_.below(pages_in_store()));
    if (random_.below(2) == 0) return;
    for (std::uint32_t layer = 0; layer < shape_.layers; ++layer) {
      for (std::uint32_t head = 0; head < shape_.kv_heads; ++head)
        ASSERT_EQ(verify_log(rig_.cache(), layer, head), Status::kOk) << what();
    }
    if (failing_ == 0 && spoilt_.empty()) {
      ASSERT_EQ(logged_tokens(), logged_before) << what();
    }
  }

  std::uint32_t pages_in_store() const {
    return static_cast<std::uint32_t>(cold_bytes(shape_, policy_) / cold_page_bytes(shape_, policy_));
  }
  std::uint32_t logged_tokens() const {
    std::uint32_t tokens = 0;
    for (std::uint32_t layer = 0; layer < shape_.layers; ++layer) {
      for (std::uint32_t head = 0; head < shape_.kv_heads; ++head) tokens += logged(rig_.cache(), layer, head);
    }
    return tokens;
  }
  // What lies there is another page, or none.
  void spoil(std::uint32_t place) {
    const std::size_t bytes = cold_page_bytes(shape_, policy_);
    const std::span<std::byte> page = rig_.pages().subspan(place * bytes, bytes);
    std::uint32_t words[8];
    std::memcpy(words, page.data(), sizeof words);
    if (words[0] == 0) return;
    ++failures_;
    spoilt_.insert({words[4], words[5]});
    if (random_.below(2) == 0) {
      std::fill(page.begin(), page.end(), std::byte{0});
    } else {
      page[32 + random_.below(static_cast<std::uint32_t>(bytes - 32))] ^= std::byte{1};
    }
  }

  // A copy holds the same, and what it does then does not come here.
  void copy() {
    Arena arena(footprint(shape_, policy_));
    std::vector<std::byte> memory(rig_.pages().size());
    const ColdStore store = memory_store(memory.data(), random_.below(2) == 0 ? rig_.store().identity : 77);
    const std::vector<std::byte> state = rig_.copy_state(), pages(rig_.pages().begin(), rig_.pages().end());
    const std::uint32_t lost = recall_usage(rig_.cache()).lost_pages;
    Cache other;
    ASSERT_EQ(clone(rig_.cache(), arena.bytes(), other, &store), Status::kOk) << what();
    ASSERT_EQ(nibkv::check(other), Status::kOk) << what();
    const std::uint32_t layer = random_.below(shape_.layers);
    const std::vector<float> queries = queries_of(1);
    const bool whole = recall_usage(other).lost_pages == lost;
    ASSERT_TRUE(whole || failing_ != 0 || !spoilt_.empty()) << what();
    if (rig_.cache().seen(layer) != 0 && whole && failing_ == 0 && spoilt_.empty()) {
      // Not when all of its own tokens were taken back.
      std::vector<float> one(queries.size()), two(queries.size());
      ASSERT_EQ(recall(other, layer, queries), Status::kOk) << what();
      const Status attended = attend(other, layer, queries, one);
      ASSERT_EQ(rig_.copy_state(), state) << what();
      ASSERT_EQ(recall(rig_.cache(), layer, queries), Status::kOk) << what();
      ASSERT_EQ(attend(rig_.cache(), layer, queries, two), attended) << what();
      ASSERT_TRUE(same_bytes(one, two)) << what();
    } else {
      ASSERT_EQ(recall(other, layer, queries), Status::kOk) << what();
      ASSERT_EQ(rig_.copy_state(), state) << what();
    }
    const std::vector<float> rows = random_.bells(std::size_t{shape_.max_chunk} * shape_.kv_heads * shape_.head_dim);
    for (int i = 0; i < 3; ++i) ASSERT_EQ(append(other, layer, rows, rows), Status::kOk) << what();
    ASSERT_EQ(nibkv::check(other), Status::kOk) << what();
    ASSERT_TRUE(std::equal(pages.begin(), pages.end(), rig_.pages().begin())) << what();
    ASSERT_TRUE(arena.guards_intact()) << what();
  }

  void refuse_some() {
    const std::uint32_t layer = random_.below(shape_.layers);
    const std::vector<std::byte> before = rig_.copy_state();
    std::vector<std::uint32_t> target(rig_.cache().held(layer, 0));
    EXPECT_EQ(plan(rig_.cache(), layer, 0, 0, target), Status::kBadPolicy) << what();
    EXPECT_EQ(compact(rig_.cache(), layer, 0, target), Status::kBadPolicy) << what();
    std::vector<float> queries((shape_.max_chunk + 1u) * shape_.query_heads * shape_.head_dim);
    EXPECT_EQ(recall(rig_.cache(), layer, queries), Status::kBadArgument) << what();
    queries.resize(std::size_t{shape_.query_heads} * shape_.head_dim);
    EXPECT_EQ(recall(rig_.cache(), shape_.layers, queries), Status::kBadArgument) << what();
    EXPECT_EQ(recall(rig_.cache(), layer, queries, {.worker = shape_.workers}), Status::kBadArgument) << what();
    queries.back() = INFINITY;
    EXPECT_EQ(recall(rig_.cache(), layer, queries), Status::kBadArgument) << what();
    EXPECT_EQ(rig_.copy_state(), before) << what();
  }

  void check() {
    ASSERT_EQ(nibkv::check(rig_.cache()), Status::kOk) << what();
    std::uint64_t lost = 0;
    for (std::uint32_t layer = 0; layer < shape_.layers; ++layer) {
      ASSERT_EQ(rig_.cache().seen(layer), seen_[layer]) << what();
      for (std::uint32_t head = 0; head < shape_.kv_heads; ++head) {
        check_head(layer, head);
        lost += recall_usage(rig_.cache(), layer, head).lost_pages;
      }
    }
    ASSERT_LE(lost, failures_) << what();
  }

  // Recalled tokens come from pages that were written well, then come sinks, then the newest tokens.
  void check_head(std::uint32_t layer, std::uint32_t head) {
    const std::uint32_t back = recalled(rig_.cache(), layer, head);
    const std::vector<SlotInfo> infos = explain_all(rig_.cache(), layer, head);
    const auto own = static_cast<std::uint32_t>(infos.size()) - back;
    const bool indexed = is_indexed(rig_.cache(), layer, head);
    ASSERT_TRUE(indexed || back == 0) << what();
    ASSERT_LE(logged(rig_.cache(), layer, head), policy_.log) << what();
    for (std::uint32_t i = 0; i < infos.size(); ++i) {
      const std::uint32_t position = infos[i].position;
      if (i >= back) {
        const std::uint32_t number = i - back;
        ASSERT_EQ(position, number < policy_.sinks ? number : seen_[layer] - own + number) << what();
        continue;
      }
      ASSERT_TRUE(i == 0 || position > infos[i - 1].position) << what();
      ASSERT_GE(position, policy_.sinks) << what();
      ASSERT_LT(position, seen_[layer] - own + policy_.sinks) << what();
      ASSERT_GE(position + policy_.log + own, seen_[layer]) << what();
      const std::uint32_t page = (position - policy_.sinks) / 32;
      ASSERT_FALSE(spoilt_.contains({layer * shape_.kv_heads + head, page})) << what();
    }
  }

  bool fails() {
    if (failing_ == 0 || random_.below(failing_) != 0) return false;
    ++failures_;
    return true;
  }

  static bool write(void* context, std::uint64_t offset, const void* page, std::size_t bytes) {
    LogWalk& walk = *static_cast<LogWalk*>(context);
    std::uint32_t words[8];
    std::memcpy(words, page, sizeof words);
    const std::pair place{words[4], words[5]};
    walk.spoilt_.erase(place);
    std::byte* const to = walk.rig_.pages().subspan(static_cast<std::size_t>(offset), bytes).data();
    if (!walk.fails()) {
      std::memcpy(to, page, bytes);
      return true;
    }
    walk.spoilt_.insert(place);
    const std::uint32_t kind = walk.random_.below(4);
    if (kind == 1) std::memcpy(to, page, bytes / 2);
    if (kind == 2) std::memset(to, 0, bytes);
    return kind != 0;
  }
  static bool read(void* context, std::uint64_t offset, void* page, std::size_t bytes) {
    LogWalk& walk = *static_cast<LogWalk*>(context);
    ++walk.reads_;
    const std::byte* const from = walk.rig_.pages().subspan(static_cast<std::size_t>(offset), bytes).data();
    std::memcpy(page, from, bytes);
    if (!walk.fails()) return true;
    const std::uint32_t kind = walk.random_.below(3);
    if (kind == 1)
      static_cast<std::byte*>(page)[walk.random_.below(static_cast<std::uint32_t>(bytes))] ^= std::byte{16};
    if (kind == 2) std::memset(page, 0, bytes);
    return kind != 0;
  }
  static void prefetch(void*, std::uint64_t, std::size_t) {}

  Random random_;
  bool small_;
  Shape shape_;
  Policy policy_;
  Rig rig_;
  Arena arena_;
  Cache all_;  // keeps everything
  std::uint32_t failing_ = 0;
  std::uint64_t failures_ = 0;
  std::uint64_t reads_ = 0;
  std::set<std::pair<std::uint32_t, std::uint32_t>> spoilt_;  // pages, by head and number
  std::vector<std::uint32_t> seen_;
};

}  // namespace nibkv::test
