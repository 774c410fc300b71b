// Logs of the smallest and largest sizes, driven by random steps.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <set>

#include "nibkv/nibkv.hpp"
#include "tests/support/effort.hpp"
#include "tests/support/rig.hpp"
#include "tests/support/shares.hpp"
#include "tests/unit/cold/recalling.hpp"

namespace nibkv::sizes_test {
namespace {

using test::positions_of;
using test::Random;
using test::Rig;
using test::with_log;
using test::words;

// Caches that are all given the same: one of each port.
class Caches {
 public:
  Caches(const Shape& shape, const Policy& policy) {
    for (const std::string& port : test::running_ports()) {
      rigs_.push_back(std::make_unique<Rig>(shape, policy, port));
      if (!test::kEveryPort) break;
    }
  }

  Cache& cache() { return rigs_[0]->cache(); }

  void append(std::uint32_t layer, std::uint32_t count, std::span<const float> keys, std::span<const float> values,
              const std::vector<Share>& shares) {
    const Shape& shape = cache().shape();
    const ConstRows key_rows = tokens_first(keys.data(), Number::kF32, shape.kv_heads, shape.head_dim);
    const ConstRows value_rows = tokens_first(values.data(), Number::kF32, shape.kv_heads, shape.head_dim);
    for (const auto& rig : rigs_) {
      if (shares.empty()) {
        ASSERT_EQ(nibkv::append(rig->cache(), layer, keys, values), Status::kOk);
      } else {
        ASSERT_EQ(test::append_divided(rig->cache(), layer, count, key_rows, value_rows, shares), Status::kOk);
      }
    }
  }
  void recall_and_attend(std::uint32_t layer, std::span<const float> queries, const std::vector<Share>& shares) {
    const Shape& shape = cache().shape();
    std::vector<float> first;
    for (const auto& rig : rigs_) {
      ASSERT_EQ(recall(rig->cache(), layer, queries), Status::kOk);
      const std::vector<float> out = test::attend_all(rig->cache(), layer, queries);
      if (first.empty()) first = out;
      ASSERT_TRUE(test::same_bytes(out, first)) << what();
      for (const float x : out) ASSERT_TRUE(std::isfinite(x)) << what();
      if (shares.empty() || !divisible(rig->cache())) continue;
      const ConstRows rows = tokens_first(queries.data(), Number::kF32, shape.query_heads, shape.head_dim);
      ASSERT_TRUE(test::same_bytes(test::attend_divided(rig->cache(), layer, rows, shares), first)) << what();
    }
  }
  void truncate(std::uint32_t seen) {
    for (const auto& rig : rigs_) ASSERT_EQ(nibkv::truncate(rig->cache(), seen), Status::kOk);
  }
  void tidy(std::uint32_t tokens) {
    for (const auto& rig : rigs_) {
      bool done = false;
      for (int i = 0; i < 1000 && !done; ++i) ASSERT_EQ(nibkv::tidy(rig->cache(), tokens, done), Status::kOk);
      ASSERT_TRUE(done) << what();
    }
  }
  void check(bool bytes) {
    for (const auto& rig : rigs_) ASSERT_EQ(nibkv::check(rig->cache()), Status::kOk) << what();
    for (std::size_t i = 1; i < rigs_.size() && bytes; ++i) {
      const std::vector<std::byte> one = rigs_[i]->copy_state(), other = rigs_[0]->copy_state();
      const auto at = std::mismatch(one.begin(), one.end(), other.begin()).first - one.begin();
      ASSERT_TRUE(one == other) << what() << " " << rigs_[i]->cache().port() << ", byte " << at;
      ASSERT_TRUE(std::equal(rigs_[i]->pages().begin(), rigs_[i]->pages().end(), rigs_[0]->pages().begin())) << what();
    }
    check_positions();
  }
  void expect_nothing_lost() {
    for (const auto& rig : rigs_) {
      EXPECT_EQ(recall_usage(rig->cache()).lost_pages, 0u) << what();
      EXPECT_TRUE(rig->arena().guards_intact()) << what();
    }
  }
  std::string what() { return words(cache().shape(), cache().policy()); }

 private:
  // Sinks, then the window, and what is recalled lies between: each token once.
  void check_positions() {
    const Policy& policy = cache().policy();
    for (std::uint32_t layer = 0; layer < cache().shape().layers; ++layer) {
      for (std::uint32_t head = 0; head < cache().shape().kv_heads; ++head) {
        const std::vector<std::uint32_t> held = positions_of(cache(), layer, head);
        const std::uint32_t back = recalled(cache(), layer, head), seen = cache().seen(layer);
        const auto own = static_cast<std::uint32_t>(held.size()) - back;
        ASSERT_LE(back, policy.recall) << what();
        for (std::uint32_t i = 0; i < held.size(); ++i) {
          if (i < back) {
            ASSERT_GE(held[i], policy.sinks) << what();
            ASSERT_LT(held[i], seen - (own - policy.sinks)) << what();
            ASSERT_TRUE(i == 0 || held[i] > held[i - 1]) << what();
          } else {
            const std::uint32_t number = i - back;
            ASSERT_EQ(held[i], number < policy.sinks ? number : seen - own + number) << what();
          }
        }
      }
    }
  }

  std::vector<std::unique_ptr<Rig>> rigs_;
};

void walk(const Shape& shape, const Policy& policy, std::uint32_t tokens, std::uint64_t seed) {
  ASSERT_TRUE(valid(policy, shape)) << words(shape, policy);
  Random random(seed);
  Caches caches(shape, policy);
  const std::size_t kv = std::size_t{shape.kv_heads} * shape.head_dim;
  std::uint32_t appended = 0;
  for (int step = 0; appended < tokens && !testing::Test::HasFailure(); ++step) {
    const std::uint32_t count = random.below(3) == 0 ? 1 : random.within(1, shape.max_chunk);
    std::vector<Share> shares;
    if (random.below(2) == 0) shares = test::shares_of(shape, random.within(1, 5), random);
    const bool measures = shape.basis == KeyBasis::kMeasured && caches.cache().measured(0) == 0;
    const bool compares = step % 8 == 0;
    for (std::uint32_t layer = 0; layer < shape.layers; ++layer) {
      const auto keys = test::rows_of_sizes(random, std::size_t{count} * shape.kv_heads, shape.head_dim);
      const auto values = random.bells(count * kv);
      auto queries = test::rows_of_sizes(random, std::size_t{count} * shape.query_heads, shape.head_dim);
      if (random.below(10) == 0) std::fill(queries.begin(), queries.end(), 0.0f);
      caches.append(layer, count, keys, values, measures ? std::vector<Share>() : shares);
      if (random.below(3) != 0) caches.recall_and_attend(layer, queries, count == 1 ? shares : std::vector<Share>());
    }
    appended += count;
    if (step % 2 == 0) caches.check(compares);
    if (random.below(6) == 0) {
      const std::uint32_t seen = caches.cache().seen(0);
      caches.truncate(random.within(oldest_reachable(caches.cache()), seen));
      caches.check(false);
    }
    if (random.below(6) == 0) {
      caches.tidy(random.within(1, shape.max_chunk));
      caches.check(false);
    }
  }
  caches.check(true);
  caches.expect_nothing_lost();
}

TEST(RecallSizes, OfEveryEdgeWork) {
  std::uint64_t seed = 0;
  const std::uint32_t tokens = 2000 * test::effort();
  for (const std::uint16_t chunk : {1, 31, 64, 256}) {
    for (const std::uint32_t sinks : {0u, 1u, 32u, 40u}) {
      for (const bool narrow : {true, false}) {
        ++seed;
        if (seed % test::kEvery != 0) continue;
        Shape shape = {.layers = 1, .query_heads = 1, .kv_heads = 1, .head_dim = 16, .max_chunk = chunk, .workers = 2};
        if (!narrow) shape = {.layers = 2, .query_heads = 4, .kv_heads = 2, .head_dim = 32, .max_chunk = chunk};
        Policy policy = with_log(sinks + 33, narrow ? 32 : 320, 32);
        policy.sinks = sinks;
        SCOPED_TRACE(words(shape, policy));
        walk(shape, policy, chunk == 1 ? tokens / 3 : tokens, seed);
        if (HasFailure()) return;
      }
    }
  }
}

TEST(RecallSizes, OfWideHeadsAndGroupsOfEveryStorage) {
  std::uint64_t seed = 100;
  for (const Storage storage : {Storage::kQ4, Storage::kQ8, Storage::kQ8Q4, Storage::kQ4Q2, Storage::kQ2}) {
    for (const std::uint16_t group : {1, 16}) {
      for (const std::uint16_t dim : {16, 256}) {
        for (const std::uint16_t outliers : {0, 8}) {
          ++seed;
          if (seed % test::kEvery != 0) continue;
          Shape shape = {.layers = 2, .query_heads = group, .kv_heads = 1, .head_dim = dim, .max_chunk = 24};
          shape.storage = storage;
          shape.outlier_channels = outliers;
          shape.workers = 3;
          SCOPED_TRACE(words(shape, with_log(100, 256, 64)));
          const std::uint32_t tokens = group * dim > 1000 ? 160 : 480;
          walk(shape, with_log(100, 256, 64, group == 1 ? 256 : 128), tokens * test::effort(), seed);
          if (HasFailure()) return;
        }
      }
    }
  }
}

TEST(RecallSizes, OfAMeasuredBasis) {
  Shape shape = {.layers = 2, .query_heads = 4, .kv_heads = 2, .head_dim = 64, .max_chunk = 32};
  shape.basis = KeyBasis::kMeasured;
  shape.outlier_channels = 8;
  walk(shape, with_log(100, 512, 64), 1500, 200);
  shape.rotary = {.base = 1e4f, .dims = 48, .adjacent = false};
  walk(shape, with_log(100, 512, 64), 1500, 201);
}

// Rows of any size that append takes.
TEST(RecallSizes, OfRowsAndQueriesWork) {
  const float sizes[] = {0, 1e-45f, 1e-40f, 1.2e-38f, 1e-30f, 1e-6f, 1, 1e10f, 1e30f, 3e35f};
  Shape shape = {.layers = 1, .query_heads = 2, .kv_heads = 1, .head_dim = 32, .max_chunk = 16};
  for (const std::uint16_t outliers : {0, 4}) {
    shape.outlier_channels = outliers;
    for (const Storage storage : {Storage::kQ4, Storage::kQ8, Storage::kQ2}) {
      shape.storage = storage;
      Random random(300);
      for (const float size : sizes) {
        SCOPED_TRACE(size);
        Caches caches(shape, with_log(100, 256, 64));
        for (int step = 0; step < 30 && !HasFailure(); ++step) {
          const auto rows = [&](std::uint32_t heads, bool mixed) {
            auto all = random.bells(std::size_t{16} * heads * 32);
            for (std::size_t i = 0; i < all.size(); ++i)
              all[i] *= (mixed ? sizes[random.below(10)] : size) / 6.0f;  // bells are below 6
            return all;
          };
          caches.append(0, 16, rows(1, step % 3 == 0), rows(1, false), {});
          caches.recall_and_attend(0, rows(2, step % 2 == 0), {});
          caches.check(step % 10 == 0);
        }
        caches.expect_nothing_lost();
        if (HasFailure()) return;
      }
    }
  }
}

// Beyond 2^119 values are unspecified, and nothing worse.
TEST(RecallSizes, OfRowsThatOverflowLeaveASoundCache) {
  Shape shape = {.layers = 1, .query_heads = 2, .kv_heads = 1, .head_dim = 32, .outlier_channels = 4, .max_chunk = 16};
  for (const Storage storage : {Storage::kQ4, Storage::kQ8, Storage::kQ2}) {
    shape.storage = storage;
    Rig rig(shape, with_log(100, 256, 64));
    Random random(400);
    for (int step = 0; step < 40; ++step) {
      std::vector<float> rows = random.bells(16 * 32), queries = random.bells(16 * 64);
      for (float& x : rows) x = x > 0 ? 3e38f : -3e38f * static_cast<float>(random.below(2));
      for (float& x : queries) x = x > 0 ? 3e38f : -3e38f;
      ASSERT_EQ(append(rig.cache(), 0, rows, rows), Status::kOk);
      ASSERT_EQ(recall(rig.cache(), 0, queries), Status::kOk);
      (void)test::attend_all(rig.cache(), 0, queries);
      ASSERT_EQ(check(rig.cache()), Status::kOk);
    }
    EXPECT_EQ(recall_usage(rig.cache()).lost_pages, 0u);
    EXPECT_GT(recalled(rig.cache(), 0, 0), 0u);
  }
}

}  // namespace
}  // namespace nibkv::sizes_test
