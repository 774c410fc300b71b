// Calls that several threads make together.
#include "nibkv/share.hpp"

#include <gtest/gtest.h>

#include <cstring>
#include <limits>

#include "arena/share.hpp"
#include "tests/reference/halves.hpp"
#include "tests/support/effort.hpp"
#include "tests/support/shares.hpp"
#include "tests/support/snapshots.hpp"
#include "tests/support/workers.hpp"

namespace nibkv::share_test {
namespace {

using test::append_divided;
using test::attend_divided;
using test::Random;
using test::Rig;
using test::running_ports;
using test::same_bytes;
using test::saved;
using test::shares_of;
using test::words;

ConstRows rows_of(const std::vector<float>& rows, std::uint32_t heads, std::uint32_t head_dim) {
  return tokens_first(rows.data(), Number::kF32, heads, head_dim);
}

// Every way to keep, score, merge and share: the same chunks whole and divided leave the same cache.
TEST(Share, AnyNumberOfSharesAppendsWhatOneCallDoes) {
  for (const test::SnapshotCase& of : test::some_snapshot_cases()) {
    Shape shape = of.shape;
    shape.workers = 3;
    if (!valid(of.policy, shape)) continue;
    Rig whole(shape, of.policy, {}, 1, of.budgets);
    Rig divided(shape, of.policy, {}, 1, of.budgets);
    ASSERT_EQ(whole.made(), Status::kOk) << of.name;
    Random random(11), order(12);
    for (unsigned turn = 0; turn < test::turns(60, 20); ++turn) {
      const std::uint32_t count = random.within(1, shape.max_chunk);
      for (std::uint32_t layer = 0; layer < shape.layers; ++layer) {
        const auto keys = random.bells(std::size_t{count} * shape.kv_heads * shape.head_dim);
        const auto values = random.bells(keys.size());
        const Status status = append(whole.cache(), layer, keys, values);
        if (shape.basis == KeyBasis::kMeasured && divided.cache().held(layer, 0) == 0) {
          EXPECT_EQ(reserve(divided.cache(), layer, count), Status::kBadArgument) << of.name;
          EXPECT_EQ(append(divided.cache(), layer, keys, values), status) << of.name;
          continue;
        }
        EXPECT_EQ(append_divided(divided.cache(), layer, count, rows_of(keys, shape.kv_heads, shape.head_dim),
                                 rows_of(values, shape.kv_heads, shape.head_dim),
                                 shares_of(shape, order.within(1, 7), order)),
                  status)
            << of.name;
        if (status != Status::kOk) continue;
        const auto queries = random.bells(std::size_t{count} * shape.query_heads * shape.head_dim);
        EXPECT_TRUE(same_bytes(test::attend_all(whole.cache(), layer, queries),
                               test::attend_all(divided.cache(), layer, queries)))
            << of.name;
      }
    }
    ASSERT_EQ(check(divided.cache()), Status::kOk) << of.name;
    EXPECT_EQ(saved(divided.cache()), saved(whole.cache())) << of.name;
    EXPECT_TRUE(divided.arena().guards_intact());
  }
}

// All layers of a step can be reserved first, and chunks of many tiles are divided within a head.
TEST(Share, LayersAreReservedTogetherAndWrittenByThreads) {
  constexpr Shape kShape{.layers = 3, .query_heads = 4, .kv_heads = 2, .head_dim = 64, .max_chunk = 200, .workers = 5};
  for (const std::string& port : running_ports()) {
    Rig whole(kShape, full(400), port);
    Rig divided(kShape, full(400), port);
    Random random(21);
    for (const std::uint32_t count : {37u, 200u, 96u}) {
      std::vector<std::vector<float>> rows;
      for (std::uint32_t i = 0; i < 2 * kShape.layers; ++i) rows.push_back(random.bells(std::size_t{count} * 2 * 64));
      for (std::uint32_t layer = 0; layer < kShape.layers; ++layer) {
        ASSERT_EQ(append(whole.cache(), layer, rows[2 * layer], rows[2 * layer + 1]), Status::kOk);
        ASSERT_EQ(reserve(divided.cache(), layer, count), Status::kOk);
      }
      for (std::uint32_t layer = 0; layer < kShape.layers; ++layer) {
        Status statuses[5];
        test::run_workers(5, [&](std::uint32_t worker) {
          statuses[worker] = append_share(divided.cache(), layer, count, rows_of(rows[2 * layer], 2, 64),
                                          rows_of(rows[2 * layer + 1], 2, 64), {worker, 5, worker});
        });
        for (const Status status : statuses) EXPECT_EQ(status, Status::kOk) << port;
      }
      EXPECT_EQ(saved(divided.cache()), saved(whole.cache())) << port << ", " << count;
    }
  }
}

// With a reach, keys are coded by their positions: those of shares, too. One query is not divided there.
TEST(Share, AppendWrapsPositionsAsOneCallDoes) {
  Shape shape{.layers = 1, .query_heads = 2, .kv_heads = 2, .head_dim = 32, .outlier_channels = 4, .max_chunk = 60};
  shape.workers = 2;
  shape.rotary = {.base = 1e4f, .dims = 32, .reach = 128};
  Rig whole(shape, streaming_llm(100, 4));
  Rig divided(shape, streaming_llm(100, 4));
  ASSERT_EQ(divided.made(), Status::kOk);
  EXPECT_FALSE(divisible(divided.cache()));
  Random random(13);
  for (int turn = 0; turn < 8; ++turn) {
    const auto keys = random.bells(std::size_t{60} * 2 * 32), values = random.bells(keys.size());
    ASSERT_EQ(append(whole.cache(), 0, keys, values), Status::kOk);
    ASSERT_EQ(append_divided(divided.cache(), 0, 60, rows_of(keys, 2, 32), rows_of(values, 2, 32),
                             shares_of(shape, 5, random)),
              Status::kOk);
    EXPECT_EQ(saved(divided.cache()), saved(whole.cache())) << turn;
  }
}

TEST(Share, RowsAreZeroUntilTheyAreWritten) {
  for (const Storage storage : {Storage::kQ4, Storage::kF32}) {
    Shape shape{.layers = 1, .query_heads = 2, .kv_heads = 2, .head_dim = 32, .max_chunk = 40, .workers = 2};
    shape.storage = storage;
    if (storage == Storage::kQ4) shape.outlier_channels = 4;
    Rig rig(shape, full(128));
    Random random(31);
    const auto rows = random.bells(std::size_t{40} * 2 * 32);
    // Slots that held something before.
    ASSERT_EQ(append(rig.cache(), 0, rows, rows), Status::kOk);
    ASSERT_EQ(truncate(rig.cache(), 0), Status::kOk);
    ASSERT_EQ(reserve(rig.cache(), 0, 40), Status::kOk);
    EXPECT_EQ(rig.cache().seen(0), 40u);
    EXPECT_EQ(rig.cache().held(0, 1), 40u);
    EXPECT_EQ(check(rig.cache()), Status::kOk);
    const auto queries = random.bells(2 * 32);
    EXPECT_EQ(test::attend_all(rig.cache(), 0, queries), std::vector<float>(2 * 32, 0.0f));
    // A share of two: its head alone.
    const ConstRows in = rows_of(rows, 2, 32);
    ASSERT_EQ(append_share(rig.cache(), 0, 40, in, in, {0, 2, 1}), Status::kOk);
    const auto half = test::attend_all(rig.cache(), 0, queries);
    EXPECT_NE(std::vector<float>(half.begin(), half.begin() + 32), std::vector<float>(32, 0.0f));
    EXPECT_EQ(std::vector<float>(half.begin() + 32, half.end()), std::vector<float>(32, 0.0f));
    // Giving up takes them all back.
    ASSERT_EQ(truncate(rig.cache(), 0), Status::kOk);
    EXPECT_EQ(append_share(rig.cache(), 0, 40, in, in, {1, 2, 1}), Status::kBadArgument);
    EXPECT_EQ(rig.cache().held(0, 0), 0u);
  }
}

TEST(Share, AppendRefusesWhatWasNotReserved) {
  constexpr Shape kShape{.layers = 2, .query_heads = 2, .kv_heads = 1, .head_dim = 32, .max_chunk = 40, .workers = 2};
  Rig rig(kShape, streaming_llm(100, 4));
  Cache& cache = rig.cache();
  Random random(41);
  auto rows = random.bells(std::size_t{40} * 32);
  const ConstRows in = rows_of(rows, 1, 32);
  const auto refused = [&](std::uint32_t layer, std::uint32_t count, const Share& share) {
    const auto before = rig.copy_state();
    EXPECT_EQ(append_share(cache, layer, count, in, in, share), Status::kBadArgument);
    EXPECT_EQ(rig.copy_state(), before);
  };
  refused(0, 40, {});
  EXPECT_EQ(reserve(cache, 2, 1), Status::kBadArgument);
  EXPECT_EQ(reserve(cache, 0, 0), Status::kBadArgument);
  EXPECT_EQ(reserve(cache, 0, 41), Status::kBadArgument);
  ASSERT_EQ(reserve(cache, 0, 40), Status::kOk);
  refused(0, 39, {});
  refused(0, 0, {});
  refused(1, 40, {});
  refused(2, 40, {});
  refused(0, 40, {0, 0, 0});
  refused(0, 40, {2, 2, 0});
  refused(0, 40, {0, kMostShares + 1, 0});
  refused(0, 40, {0, 2, 2});
  EXPECT_EQ(append_share(cache, 0, 40, {}, in, {}), Status::kBadArgument);
  // What another share reads is that share's to refuse. A share that fails can be repeated. Slots 32 to 39 are the second's.
  rows[35 * 32] = std::numeric_limits<float>::infinity();
  EXPECT_EQ(append_share(cache, 0, 40, in, in, {0, 2, 0}), Status::kOk);
  refused(0, 40, {1, 2, 1});
  rows[35 * 32] = 1;
  EXPECT_EQ(append_share(cache, 0, 40, in, in, {1, 2, 1}), Status::kOk);
  Rig other(kShape, streaming_llm(100, 4));
  ASSERT_EQ(append(other.cache(), 0, rows, rows), Status::kOk);
  EXPECT_EQ(saved(cache), saved(other.cache()));
  // An append, of any layer, and space that was made end what was reserved.
  ASSERT_EQ(append(cache, 1, rows, rows), Status::kOk);
  refused(0, 40, {});
  ASSERT_EQ(reserve(cache, 0, 40), Status::kOk);
  ASSERT_EQ(append_share(cache, 0, 40, in, in, {}), Status::kOk);
  std::vector<std::uint32_t> plan(cache.held(0, 0), kDrop);
  for (std::uint32_t i = 0; i < 40; ++i) plan[plan.size() - 40 + i] = i;
  ASSERT_EQ(compact(cache, 0, 0, plan), Status::kOk);
  refused(0, 40, {});
  Cache none;
  EXPECT_EQ(reserve(none, 0, 1), Status::kNotReady);
  EXPECT_EQ(append_share(none, 0, 1, in, in, {}), Status::kNotReady);
}

// Which layers were reserved is known as long as each is the neighbour of those before it.
TEST(Share, OnlyLayersThatWereReservedAreWritten) {
  constexpr Shape kShape{.layers = 4, .query_heads = 1, .kv_heads = 1, .head_dim = 16, .max_chunk = 8, .workers = 2};
  Random random(43);
  const auto rows = random.bells(std::size_t{8} * 16);
  const ConstRows in = rows_of(rows, 1, 16);
  // The other layer has as many tokens, of an append.
  for (const auto& [reserved, other] : {std::pair{std::vector<std::uint32_t>{0, 1, 2}, 3u}, {{3, 2, 1}, 0u}}) {
    Rig rig(kShape, full(64));
    Cache& cache = rig.cache();
    ASSERT_EQ(append(cache, other, rows, rows), Status::kOk);
    for (const std::uint32_t layer : reserved) ASSERT_EQ(reserve(cache, layer, 8), Status::kOk);
    EXPECT_EQ(check(cache), Status::kOk);
    const auto before = rig.copy_state();
    EXPECT_EQ(append_share(cache, other, 8, in, in, {}), Status::kBadArgument);
    EXPECT_EQ(rig.copy_state(), before);
    for (const std::uint32_t layer : reserved) EXPECT_EQ(append_share(cache, layer, 8, in, in, {}), Status::kOk);
  }
  Rig rig(kShape, full(64));
  ASSERT_EQ(reserve(rig.cache(), 0, 8), Status::kOk);
  ASSERT_EQ(reserve(rig.cache(), 2, 8), Status::kOk);
  EXPECT_EQ(append_share(rig.cache(), 0, 8, in, in, {}), Status::kBadArgument);
  EXPECT_EQ(append_share(rig.cache(), 2, 8, in, in, {}), Status::kOk);
}

// Shares that wait, and then other tokens are the newest, as many as before.
TEST(Share, WhatWaitedIsForgottenWithItsTokens) {
  constexpr Shape kShape{.layers = 1, .query_heads = 2, .kv_heads = 1, .head_dim = 16, .max_chunk = 8, .workers = 2};
  Random random(44);
  const auto rows = random.bells(std::size_t{8} * 16), one = random.bells(16), query = random.bells(2 * 16);
  std::vector<float> out(2 * 16);
  const ConstRows in = rows_of(query, 2, 16);
  const MutableRows to = tokens_first(out.data(), Number::kF32, 2, 16);
  Rig rig(kShape, full(64));
  Cache& cache = rig.cache();
  const auto wait = [&] {
    ASSERT_EQ(cache.clear(), Status::kOk);
    ASSERT_EQ(append(cache, 0, rows, rows), Status::kOk);
    ASSERT_EQ(attend_share(cache, 0, in, {}), Status::kOk);
  };
  wait();
  const std::vector<std::byte> saved_state = saved(cache);
  EXPECT_EQ(combine_share(cache, 0, to, {}), Status::kOk);
  wait();
  ASSERT_EQ(truncate(cache, 7), Status::kOk);
  ASSERT_EQ(append(cache, 0, one, one), Status::kOk);
  EXPECT_EQ(combine_share(cache, 0, to, {}), Status::kBadArgument) << "truncate";
  wait();
  ASSERT_EQ(cache.clear(), Status::kOk);
  ASSERT_EQ(append(cache, 0, rows, rows), Status::kOk);
  EXPECT_EQ(combine_share(cache, 0, to, {}), Status::kBadArgument) << "clear";
  wait();
  ASSERT_EQ(restore(cache, saved_state), Status::kOk);
  EXPECT_EQ(combine_share(cache, 0, to, {}), Status::kBadArgument) << "restore";
  test::Arena memory(footprint(kShape, full(64)));
  Cache before, copy;
  ASSERT_EQ(before.init(memory.bytes(), kShape, full(64)), Status::kOk);
  ASSERT_EQ(append(before, 0, rows, rows), Status::kOk);
  ASSERT_EQ(attend_share(before, 0, in, {}), Status::kOk);
  ASSERT_EQ(clone(cache, memory.bytes(), copy), Status::kOk);
  EXPECT_EQ(combine_share(copy, 0, to, {}), Status::kBadArgument) << "clone";
}

TEST(Share, ReserveIsFullWhereAppendIs) {
  constexpr Shape kShape{.layers = 1, .query_heads = 1, .kv_heads = 1, .head_dim = 16, .max_chunk = 40};
  Rig rig(kShape, full(64));
  ASSERT_EQ(reserve(rig.cache(), 0, 40), Status::kOk);
  const auto before = rig.copy_state();
  EXPECT_EQ(reserve(rig.cache(), 0, 25), Status::kFull);
  EXPECT_EQ(rig.copy_state(), before);
  EXPECT_EQ(reserve(rig.cache(), 0, 24), Status::kOk);
}

// Contexts on both sides of the ends of blocks; more rows than a pass takes; rows of 16 bits.
TEST(Share, AttentionHasTheBytesOfOneCall) {
  for (const std::string& port : running_ports()) {
    for (const std::uint16_t group : std::initializer_list<std::uint16_t>{1, 3, 20}) {
      const Shape shape{.layers = 1,
                        .query_heads = static_cast<std::uint16_t>(3 * group),
                        .kv_heads = 3,
                        .head_dim = 32,
                        .outlier_channels = 4,
                        .max_chunk = 500,
                        .workers = 5};
      Rig rig(shape, full(2600), port);
      ASSERT_TRUE(divisible(rig.cache()));
      Random random(51);
      std::uint32_t held = 0;
      for (const std::uint32_t end : {1u, 31u, 511u, 512u, 513u, 1024u, 1100u, 2563u}) {
        if (test::kEvery != 1 && end > 1100) break;
        while (held < end) {
          const std::uint32_t count = std::min<std::uint32_t>(end - held, 500);
          auto keys = random.bells(std::size_t{count} * 3 * 32);
          for (float& x : keys) x *= 1 + static_cast<float>(held) / 300;  // later blocks win
          ASSERT_EQ(append(rig.cache(), 0, keys, random.bells(keys.size())), Status::kOk);
          held += count;
        }
        const auto query = random.bells(std::size_t{shape.query_heads} * 32);
        const auto expected = test::attend_all(rig.cache(), 0, query);
        for (const std::uint32_t of : {1u, 2u, 3u, 5u, 40u}) {
          EXPECT_TRUE(same_bytes(
              attend_divided(rig.cache(), 0, rows_of(query, shape.query_heads, 32), shares_of(shape, of, random)),
              expected))
              << words(shape, rig.policy(), port) << ", " << end << " slots, " << of << " shares";
        }
        const auto before = rig.copy_state();
        std::vector<float> out(query.size());
        Status statuses[5], combined[5];
        test::run_workers(5, [&](std::uint32_t i) {
          statuses[i] = attend_share(rig.cache(), 0, rows_of(query, shape.query_heads, 32), {i, 5, i});
        });
        test::run_workers(5, [&](std::uint32_t i) {
          combined[i] =
              combine_share(rig.cache(), 0, tokens_first(out.data(), Number::kF32, shape.query_heads, 32), {i, 5, i});
        });
        for (const Status status : statuses) EXPECT_EQ(status, Status::kOk);
        for (const Status status : combined) EXPECT_EQ(status, Status::kOk);
        EXPECT_TRUE(same_bytes(out, expected)) << "threads, " << end;
        EXPECT_EQ(rig.copy_state(), before) << "more than scratch was written";
      }
    }
  }
}

// Where attend divides heads into blocks at all: without scores, and in layers that share codes through maps too.
TEST(Share, AttentionOfEveryPolicyThatScoresNothing) {
  for (const test::SnapshotCase& of : test::some_snapshot_cases()) {
    Shape shape = of.shape;
    shape.workers = 2;
    Rig rig(shape, of.policy, {}, 1, of.budgets);
    const bool expected = has_codes(shape.storage) && !scores_attention(of.policy);
    EXPECT_EQ(divisible(rig.cache()), expected) << of.name;
    Random random(61);
    test::go_on(rig.cache(), random, 20);
    const auto query = random.bells(std::size_t{shape.query_heads} * shape.head_dim);
    const ConstRows in = rows_of(query, shape.query_heads, shape.head_dim);
    const std::uint32_t layer = shape.layers - 1u;
    if (!expected) {
      EXPECT_EQ(attend_share(rig.cache(), layer, in, {}), Status::kBadArgument) << of.name;
      continue;
    }
    EXPECT_TRUE(same_bytes(attend_divided(rig.cache(), layer, in, shares_of(shape, 3, random)),
                           test::attend_all(rig.cache(), layer, query)))
        << of.name;
  }
}

TEST(Share, CombineRefusesWhatSharesHaveNotLeft) {
  constexpr Shape kShape{.layers = 2, .query_heads = 4, .kv_heads = 2, .head_dim = 32, .max_chunk = 64, .workers = 2};
  Rig rig(kShape, full(1200));
  Cache& cache = rig.cache();
  Random random(71);
  std::vector<float> out(4 * 32, 7.0f);
  const auto query = random.bells(4 * 32);
  const ConstRows in = rows_of(query, 4, 32);
  const MutableRows to = tokens_first(out.data(), Number::kF32, 4, 32);
  EXPECT_EQ(attend_share(cache, 0, in, {}), Status::kBadArgument) << "no tokens yet";
  for (int i = 0; i < 18; ++i) {
    const auto rows = random.bells(64 * 2 * 32);
    for (std::uint32_t layer = 0; layer < 2; ++layer) ASSERT_EQ(append(cache, layer, rows, rows), Status::kOk);
  }
  EXPECT_EQ(combine_share(cache, 0, to, {}), Status::kBadArgument) << "no share";
  ASSERT_EQ(attend_share(cache, 0, in, {0, 2, 0}), Status::kOk);
  EXPECT_EQ(combine_share(cache, 0, to, {}), Status::kBadArgument) << "one of two";
  EXPECT_EQ(combine_share(cache, 1, to, {0, 4, 0}), Status::kBadArgument) << "another layer";
  EXPECT_EQ(out, std::vector<float>(4 * 32, 7.0f));
  ASSERT_EQ(attend_share(cache, 0, in, {1, 2, 0}), Status::kOk);
  const auto row = random.bells(2 * 32);
  Rig later(kShape, full(1200));
  ASSERT_EQ(append(cache, 0, row, row), Status::kOk);
  EXPECT_EQ(combine_share(cache, 0, to, {}), Status::kBadArgument) << "another token";
  ASSERT_EQ(truncate(cache, 18 * 64), Status::kOk);
  ASSERT_EQ(attend_share(cache, 0, in, {}), Status::kOk);
  EXPECT_EQ(combine_share(cache, 0, to, {1, 1, 0}), Status::kBadArgument);
  EXPECT_EQ(combine_share(cache, 0, to, {0, 1, 2}), Status::kBadArgument);
  EXPECT_EQ(combine_share(cache, 0, {}, {}), Status::kBadArgument);
  EXPECT_EQ(combine_share(cache, 0, to, {}), Status::kOk);
  EXPECT_TRUE(same_bytes(out, test::attend_all(cache, 0, query)));
  EXPECT_EQ(combine_share(cache, 0, to, {}), Status::kBadArgument) << "twice";
  // What another share reads is that share's to refuse.
  auto bad = query;
  bad[3 * 32] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_EQ(attend_share(cache, 0, rows_of(bad, 4, 32), {0, 2, 0}), Status::kOk);
  EXPECT_EQ(attend_share(cache, 0, rows_of(bad, 4, 32), {1, 2, 0}), Status::kBadArgument);
  EXPECT_EQ(attend_share(cache, 2, in, {}), Status::kBadArgument);
  EXPECT_EQ(attend_share(cache, 0, {}, {}), Status::kBadArgument);
  EXPECT_FALSE(divisible(Cache{}));
  Cache none;
  EXPECT_EQ(attend_share(none, 0, in, {}), Status::kNotReady);
  EXPECT_EQ(combine_share(none, 0, to, {}), Status::kNotReady);
}

TEST(Share, OutputIsRoundedToItsType) {
  constexpr Shape kShape{.layers = 1, .query_heads = 4, .kv_heads = 2, .head_dim = 32, .max_chunk = 64, .workers = 2};
  Rig rig(kShape, full(64));
  Random random(81);
  const auto rows = random.bells(64 * 2 * 32);
  ASSERT_EQ(append(rig.cache(), 0, rows, rows), Status::kOk);
  std::vector<std::uint16_t> query, expected(4 * 32), out(4 * 32);
  for (const float x : random.bells(4 * 32))
    query.push_back(static_cast<std::uint16_t>(reference::nearest(reference::kF16, static_cast<double>(x))));
  const ConstRows in = heads_first(query.data(), Number::kF16, 1, 32);
  ASSERT_EQ(attend(rig.cache(), 0, 1, in, heads_first(expected.data(), Number::kBf16, 1, 32)), Status::kOk);
  ASSERT_EQ(attend_share(rig.cache(), 0, in, {}), Status::kOk);
  ASSERT_EQ(combine_share(rig.cache(), 0, heads_first(out.data(), Number::kBf16, 1, 32), {}), Status::kOk);
  EXPECT_EQ(out, expected);
}

// Each piece of work belongs to one share, and the largest share is near the mean.
TEST(Share, DivideWorkEvenly) {
  for (std::uint32_t heads = 1; heads <= 8; ++heads) {
    for (const std::uint32_t tiles : {1u, 5u, 16u, 17u, 64u, 100u, 128u, 129u, 1024u}) {
      for (std::uint32_t of = 1; of <= 9; ++of) {
        std::vector<int> taken(std::size_t{heads} * tiles);
        std::uint32_t most = 0;
        for (std::uint32_t index = 0; index < of; ++index) {
          Pieces pieces(std::uint64_t{heads} * tiles, {index, of, 0});
          std::uint32_t mine = 0;
          for (std::uint32_t head = 0; head < heads; ++head) {
            const Range range = pieces.in_next(tiles, 0, kBlockTiles);
            mine += range.end - range.first;
            EXPECT_TRUE(range.first % kBlockTiles == 0 && (range.end % kBlockTiles == 0 || range.end == tiles));
            for (std::uint32_t i = range.first; i < range.end; ++i) ++taken[head * tiles + i];
          }
          most = std::max(most, mine);
        }
        EXPECT_EQ(std::count(taken.begin(), taken.end(), 1), static_cast<std::ptrdiff_t>(taken.size()));
        EXPECT_LT(most, (heads * tiles + of - 1) / of + kBlockTiles) << heads << " heads, " << tiles << ", " << of;
        // Decoding at 4,096 tokens with three KV heads on two threads.
        if (heads == 3 && tiles == 128 && of == 2) {
          EXPECT_EQ(most, 192u);
        }
      }
    }
  }
}

}  // namespace
}  // namespace nibkv::share_test
