#include "nibkv/arena.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>

#include "tests/support/effort.hpp"
#include "tests/support/rig.hpp"

namespace nibkv::arena_test {
namespace {

using test::Arena;
using test::Random;
using test::Rig;
using test::words;

constexpr Shape kSmall = {.layers = 2, .query_heads = 6, .kv_heads = 2, .head_dim = 64, .max_chunk = 8, .workers = 2};

Shape random_shape(Random& random) {
  Shape shape = test::random_shape(random, {.layers = 5, .kv_heads = 5, .group = 5, .blocks = 16, .chunk = 40});
  shape.workers = static_cast<std::uint16_t>(random.within(1, 4));
  shape.storage = random.below(4) == 0 ? Storage::kF32 : test::random_storage(random);
  if (has_codes(shape.storage)) shape.outlier_channels = static_cast<std::uint16_t>(4 * random.below(5));
  if (random.below(2) == 0) shape.rotary = test::random_rotary(random, shape.head_dim);
  return shape;
}

Policy random_policy(Random& random, const Shape& shape) {
  const std::uint32_t kind = random.below(3);
  if (kind == 0) return full(random.within(1, 300));
  if (kind == 1 && has_codes(shape.storage)) return test::random_scored_policy(random, shape, 300);
  const std::uint32_t sinks = random.below(40);
  return streaming_llm(sinks + shape.max_chunk + random.below(300), sinks);
}

TEST(Footprint, IsKnownWhenCompiled) {
  static_assert(footprint(kSmall, full(64)) == layout_of(kSmall, full(64)).total);
  static_assert(tokens_that_fit(kSmall, full(1), footprint(kSmall, full(64))) == 64);
  constexpr std::uint32_t kTokens = tokens_that_fit(kSmall, ems, 1 << 20);
  using Fitting = StaticCache<kSmall, ems(kTokens)>;
  static_assert(Fitting::kBytes <= 1 << 20 && footprint(kSmall, ems(kTokens + 1)) > 1 << 20);
}

TEST(Footprint, IsZeroForWhatIsOutOfRange) {
  EXPECT_EQ(footprint(Shape{}, full(10)), 0u);
  EXPECT_EQ(footprint(kSmall, full(0)), 0u);
  EXPECT_EQ(footprint(kSmall, streaming_llm(8, 8)), 0u);
  EXPECT_EQ(footprint(kSmall, full(kMaxTokens + 1)), 0u);
  constexpr Shape kHuge = {.layers = 1024, .query_heads = 1024, .kv_heads = 1024, .head_dim = 256};
  EXPECT_EQ(footprint(kHuge, full(kMaxTokens)), 0u);  // more tiles than 32 bits can number
  if constexpr (sizeof(std::size_t) == 4) {
    EXPECT_EQ(footprint(kHuge, full(32)), 0u);
  } else {
    EXPECT_NE(footprint(kHuge, full(32)), 0u);
  }
}

TEST(Footprint, RegionsFollowOneAnotherWithoutOverlap) {
  Random random(11);
  for (int round = 0; round < 500; ++round) {
    const Shape shape = random_shape(random);
    const Policy policy = random_policy(random, shape);
    ASSERT_TRUE(valid(shape) && valid(policy, shape)) << words(shape, policy);
    const Layout at = layout_of(shape, policy);
    const std::uint64_t starts[] = {at.chains, at.links,    at.bases,   at.sides, at.codes,
                                    at.plan,   at.encoding, at.merging, at.turned};
    const bool bounded = policy.keep != Keep::kAll;
    const bool scored = policy.keep == Keep::kScore;
    const std::uint64_t dim = shape.head_dim;
    const std::uint64_t sizes[] = {std::uint64_t{shape.layers} * shape.kv_heads * sizeof(Chain),
                                   at.tiles * 4,
                                   scored ? at.tiles * 4 : 0,
                                   at.tiles * at.side_bytes,
                                   at.tiles * at.code_bytes,
                                   bounded ? std::uint64_t{at.chain_tiles} * 128 * (scored ? 5 : 1) : 0,
                                   has_codes(shape.storage) ? dim * 36 : 0,
                                   merges(policy) ? dim * 48 + 4096 : 0,
                                   merges(policy) && policy.position_free ? dim * 64 : 0};
    EXPECT_GE(starts[0], 64u);
    for (int i = 0; i < 9; ++i) {
      EXPECT_EQ(starts[i] % kArenaAlignment, 0u) << words(shape, policy) << ", region " << i;
      if (i == 8) break;
      EXPECT_LE(starts[i] + sizes[i], starts[i + 1]) << words(shape, policy) << ", region " << i;
      EXPECT_LT(starts[i + 1], starts[i] + sizes[i] + kArenaAlignment) << words(shape, policy) << ", region " << i;
    }
    // The workspace of calls that make room and the scratch of workers are the same bytes.
    EXPECT_EQ(at.scratch, at.plan) << words(shape, policy);
    // What blocks of a head's attention leave for the thread that adds them up: 32 bytes and the sums of each.
    const bool divided = shape.workers > 1 && has_codes(shape.storage) && !scores_attention(policy);
    const std::uint64_t partials =
        divided ? std::uint64_t{shape.query_heads} * ((at.chain_tiles + 15) / 16) * (32 + 4 * dim) : 0;
    const std::uint64_t scratch = std::uint64_t{shape.workers} * at.scratch_bytes + partials;
    EXPECT_EQ(at.layout, std::max(at.turned + sizes[8], at.scratch + (scratch + 63) / 64 * 64)) << words(shape, policy);
    EXPECT_EQ(at.total, at.layout + 256) << words(shape, policy);
    EXPECT_EQ(at.tiles, std::uint64_t{at.tiles_per_head} * shape.layers * shape.kv_heads);
    EXPECT_GE(at.tiles_per_head * kTileSlots, policy.tokens + (bounded ? kTileSlots : 0)) << words(shape, policy);
    constexpr std::uint32_t kKeyBits[] = {4, 32, 8, 8, 4, 2};
    constexpr std::uint32_t kValueBits[] = {4, 32, 8, 4, 2, 2};
    const auto storage = static_cast<std::size_t>(shape.storage);
    EXPECT_EQ(at.key_bytes, 4u * shape.head_dim * kKeyBits[storage]);
    EXPECT_EQ(at.value_bytes, 4u * shape.head_dim * kValueBits[storage]);
    EXPECT_EQ(at.code_bytes, at.key_bytes + at.value_bytes);
    const std::uint32_t scores =
        32 * ((scored ? 2 : 0) + (keeps_global(policy) ? 4 : 0) + (keeps_local(policy) ? 2 : 0) +
              (merges(policy) ? 2 : 0) + (keeps_classes(policy) ? 1 : 0));
    EXPECT_EQ(at.side_bytes, has_codes(shape.storage) ? 128u + 32u * shape.outlier_channels + scores : 0u);
    EXPECT_GE(at.chain_tiles, at.tiles_per_head);
    EXPECT_LE(at.chain_tiles, at.tiles);
    EXPECT_EQ(at.scratch_bytes % kArenaAlignment, 0u);
    EXPECT_EQ(footprint(shape, policy), at.total);
  }
}

TEST(Footprint, GrowsByTheWiderCodesOfWideLayers) {
  Shape shape = kSmall;
  shape.storage = Storage::kQ4Q2;
  Policy policy = ems(200);
  const std::size_t bytes = footprint(shape, policy);
  policy.wide.add(1);
  policy.wide_storage = Storage::kQ8Q4;
  const Layout at = layout_of(shape, policy);
  EXPECT_EQ(at.wide_tiles, shape.kv_heads * at.tiles_per_head);
  EXPECT_EQ(footprint(shape, policy), bytes + std::size_t{at.wide_tiles} * 32 * shape.head_dim * (12 - 6) / 8);
  EXPECT_EQ(most_snapshot_bytes(shape, policy) - most_snapshot_bytes(shape,
                                                                     [&] {
                                                                       Policy narrow = policy;
                                                                       narrow.wide = {};
                                                                       return narrow;
                                                                     }()),
            std::uint64_t{at.wide_tiles} * 32 * shape.head_dim * (12 - 6) / 8);
}

TEST(Footprint, GrowsByTheWiderCodesOfFirstSlots) {
  Shape shape = kSmall;
  Policy policy = ems(200);
  const std::size_t bytes = footprint(shape, policy);
  policy.wide_first = true;
  const Layout at = layout_of(shape, policy);
  EXPECT_EQ(at.first_tiles, static_cast<std::uint32_t>(shape.layers) * shape.kv_heads);
  EXPECT_EQ(at.wide_tiles, at.first_tiles);
  EXPECT_EQ(footprint(shape, policy), bytes + std::size_t{at.first_tiles} * 32 * shape.head_dim * (12 - 8) / 8);
  policy.wide.add(0);  // whose heads need no tile apart
  EXPECT_EQ(layout_of(shape, policy).first_tiles, (shape.layers - 1u) * shape.kv_heads);
}

TEST(Footprint, GrowsForKeysThatAreComparedWithoutTheirPositionsAlone) {
  Shape shape = kSmall;
  shape.max_chunk = 1;
  shape.workers = 1;
  Shape known = shape;
  known.rotary = {.base = 1e4f, .dims = 64};
  Policy policy = ems(100);
  policy.merge = Merge::kBoth;
  const std::size_t usual = footprint(shape, policy);
  EXPECT_EQ(footprint(known, policy), usual);
  policy.rephase = true;
  EXPECT_EQ(footprint(known, policy), usual);
  policy.position_free = true;
  EXPECT_EQ(footprint(known, policy), usual + 64 * 64);
  EXPECT_EQ(footprint(shape, policy), 0u);
  // Where workers have more scratch than that, it costs nothing.
  known.workers = 8;
  const std::size_t of_eight = footprint(known, policy);
  policy.position_free = false;
  EXPECT_EQ(footprint(known, policy), of_eight);
}

TEST(Footprint, TakesWorkersFreeOfChargeUpToTheBytesThatMakingRoomTakes) {
  Shape shape = {.layers = 30, .query_heads = 9, .kv_heads = 3, .head_dim = 64};
  const std::size_t of_one = footprint(shape, ems(32));
  const Layout at = layout_of(shape, ems(32));
  const std::uint64_t workspace = at.turned - at.plan;
  EXPECT_EQ(of_one, at.turned + 256) << "one worker has less scratch than that";
  ASSERT_LT(2 * at.scratch_bytes, workspace);
  ASSERT_GT(3 * at.scratch_bytes, workspace);
  shape.workers = 2;
  EXPECT_EQ(footprint(shape, ems(32)), of_one);
  shape.workers = 3;
  EXPECT_EQ(footprint(shape, ems(32)), of_one + 3 * at.scratch_bytes - workspace);
}

TEST(Footprint, FourBitsAChannelAreSevenTimesSmallerThanF32) {
  Shape shape = {.layers = 30, .query_heads = 9, .kv_heads = 3, .head_dim = 64};
  const auto q4 = static_cast<double>(footprint(shape, full(8192)));
  shape.storage = Storage::kF32;
  const auto f32 = static_cast<double>(footprint(shape, full(8192)));
  EXPECT_GT(f32 / q4, 7.4);
  EXPECT_LT(f32 / q4, 8.0);
}

TEST(TokensThatFit, IsTheInverseOfTheFootprint) {
  Random random(12);
  for (int round = 0; round < 300; ++round) {
    const Shape shape = random_shape(random);
    Policy policy = random_policy(random, shape);
    const std::uint64_t bytes = footprint(shape, policy);
    const std::uint32_t most = tokens_that_fit(shape, policy, bytes);
    ASSERT_GE(most, policy.tokens) << words(shape, policy);
    const std::uint32_t asked = policy.tokens;
    policy.tokens = most;
    EXPECT_EQ(footprint(shape, policy), bytes) << words(shape, policy) << ", asked for " << asked;
    EXPECT_EQ(tokens_that_fit(shape, policy, bytes), most) << words(shape, policy);
    policy.tokens = most + 1;
    const std::uint64_t next = footprint(shape, policy);
    EXPECT_GT(next, bytes) << words(shape, policy);
    EXPECT_EQ(tokens_that_fit(shape, policy, next - 1), most) << words(shape, policy);
    EXPECT_GT(tokens_that_fit(shape, policy, next), most) << words(shape, policy);
  }
}

TEST(TokensThatFit, DoesNotReadTheBudgetOfThePolicy) {
  for (const std::uint32_t tokens : {0u, 1u, 5000u, 0xffffffffu}) {
    EXPECT_EQ(tokens_that_fit(kSmall, full(tokens), 1 << 20), tokens_that_fit(kSmall, full(1), 1 << 20)) << tokens;
    EXPECT_EQ(tokens_that_fit(kSmall, streaming_llm(tokens), 1 << 20),
              tokens_that_fit(kSmall, streaming_llm(1), 1 << 20))
        << tokens;
  }
}

TEST(TokensThatFit, IsZeroWhenNotEvenTheSmallestFits) {
  Random random(13);
  for (int round = 0; round < 200; ++round) {
    const Shape shape = random_shape(random);
    Policy policy = random_policy(random, shape);
    policy.tokens = policy.sinks + policy.recent + 1;
    const std::uint64_t least = footprint(shape, policy);
    EXPECT_EQ(tokens_that_fit(shape, policy, least - 1), 0u) << words(shape, policy);
    EXPECT_GE(tokens_that_fit(shape, policy, least), policy.tokens) << words(shape, policy);
    EXPECT_EQ(tokens_that_fit(shape, policy, 0), 0u) << words(shape, policy);
  }
  EXPECT_EQ(tokens_that_fit(Shape{}, full(1), 1 << 20), 0u);
  EXPECT_EQ(tokens_that_fit(kSmall, Policy{Keep::kAll, 1, 3}, 1 << 20), 0u);
  EXPECT_EQ(tokens_that_fit(kSmall, streaming_llm(1, 0xffffffff), 1 << 20), 0u);
  EXPECT_EQ(tokens_that_fit(kSmall, streaming_llm(1, kMaxTokens), 1 << 20), 0u);
}

TEST(TokensThatFit, StopsAtTheLargestBudget) {
  constexpr Shape kTiny = {.layers = 1, .query_heads = 1, .kv_heads = 1, .head_dim = 16};
  EXPECT_EQ(tokens_that_fit(kTiny, full(1), ~std::uint64_t{0}), kMaxTokens);
}

TEST(Init, UsesExactlyTheFootprintAndRefusesOneByteLess) {
  Random random(14);
  for (unsigned round = 0; round < test::turns(60, 10); ++round) {
    const Shape shape = random_shape(random);
    const Policy policy = random_policy(random, shape);
    const std::vector<std::byte> profile = test::make_profile(shape, policy, 5);
    const std::size_t need = footprint(shape, policy);

    Arena small(need - 1);
    const std::vector<std::byte> before = small.copy();
    Cache cache;
    EXPECT_EQ(cache.init(small.bytes(), shape, policy, {{}, profile}), Status::kArenaTooSmall) << words(shape, policy);
    EXPECT_FALSE(cache.ready());
    EXPECT_EQ(small.copy(), before) << words(shape, policy);
    EXPECT_TRUE(small.guards_intact()) << words(shape, policy);

    Arena exact(need);
    EXPECT_EQ(cache.init(exact.bytes(), shape, policy, {{}, profile}), Status::kOk) << words(shape, policy);
    EXPECT_TRUE(exact.guards_intact()) << words(shape, policy);
    EXPECT_EQ(cache.usage().arena_bytes, need);
  }
}

TEST(Init, LeavesTheBytesAfterTheFootprintAlone) {
  const std::size_t need = footprint(kSmall, full(64));
  Arena arena(need + 1000);
  const std::vector<std::byte> before = arena.copy();
  Cache cache;
  ASSERT_EQ(cache.init(arena.bytes(), kSmall, full(64)), Status::kOk);
  EXPECT_EQ(std::memcmp(arena.bytes().data() + need, before.data() + need, 1000), 0);
}

TEST(Arena, NothingOutsideIsTouchedInALongRun) {
  Random random(15);
  for (const std::string& port : test::running_ports()) {
    for (unsigned round = 0; round < test::turns(12, 2); ++round) {
      const Shape shape = random_shape(random);
      const Policy policy = random_policy(random, shape);
      Rig rig(shape, policy, port);
      for (std::uint32_t step = 0; step < 40; ++step) {
        const std::uint32_t layer = step % shape.layers;
        const std::uint32_t count = random.within(1, shape.max_chunk);
        const auto keys = random.bells(std::size_t{count} * shape.kv_heads * shape.head_dim);
        const auto queries = random.bells(std::size_t{count} * shape.query_heads * shape.head_dim);
        const Status status = append(rig.cache(), layer, keys, keys);
        if (policy.keep == Keep::kAll && status == Status::kFull) continue;
        ASSERT_EQ(status, Status::kOk) << words(shape, policy, port);
        std::vector<float> out(queries.size() + 64, 123.0f);
        const Part part = {.worker = step % shape.workers};
        ASSERT_EQ(attend(rig.cache(), layer, queries, std::span(out).first(queries.size()), part), Status::kOk);
        for (std::size_t i = queries.size(); i < out.size(); ++i)
          ASSERT_EQ(out[i], 123.0f) << words(shape, policy, port);
      }
      EXPECT_TRUE(rig.arena().guards_intact()) << words(shape, policy, port);
      EXPECT_LE(rig.cache().usage().peak_tiles, rig.cache().usage().tiles);
    }
  }
}

TEST(Arena, AttendWritesOnlyToTheScratchOfItsWorker) {
  constexpr Shape kShape = {.layers = 1, .query_heads = 4, .kv_heads = 2, .head_dim = 48, .max_chunk = 6, .workers = 4};
  for (const std::string& port : test::running_ports()) {
    Rig rig(kShape, streaming_llm(100), port);
    Random random(16);
    const auto keys = random.bells(6 * 2 * 48);
    ASSERT_EQ(append(rig.cache(), 0, keys, keys), Status::kOk);
    const auto queries = random.bells(6 * 4 * 48);
    std::vector<float> out(queries.size());
    const Layout at = layout_of(kShape, rig.policy());
    for (std::uint32_t worker = 0; worker < 4; ++worker) {
      const std::vector<std::byte> before = rig.arena().copy();
      ASSERT_EQ(attend(rig.cache(), 0, queries, out, {.worker = worker}), Status::kOk);
      const std::vector<std::byte> after = rig.arena().copy();
      const auto first = static_cast<std::size_t>(at.scratch + worker * at.scratch_bytes);
      EXPECT_EQ(std::memcmp(before.data(), after.data(), first), 0) << "worker " << worker << ", port " << port;
      const std::size_t end = first + at.scratch_bytes;
      EXPECT_EQ(std::memcmp(before.data() + end, after.data() + end, after.size() - end), 0)
          << "worker " << worker << ", port " << port;
    }
  }
}

constexpr Shape kPairs = {.layers = 8, .query_heads = 4, .kv_heads = 2, .head_dim = 64, .max_chunk = 10};

TEST(Footprint, LayersThatShareHoldMoreTokensInTheSameBytes) {
  const std::size_t bytes = footprint(kPairs, full(4096));
  const std::uint32_t half = tokens_that_fit(kPairs, minicache(1, pairs_from(4, 8)), bytes);
  const std::uint32_t all = tokens_that_fit(kPairs, minicache(1, pairs_from(0, 8)), bytes);
  EXPECT_EQ(tokens_that_fit(kPairs, full(1), bytes), 4096u);
  // A slot is 64 bytes of codes and 4 of scales; two layers that share have 64 + 8 instead of 136.
  EXPECT_GT(half, 4096 * 1.23);
  EXPECT_LT(half, 4096 * 1.33);
  EXPECT_GT(all, 4096 * 1.6);
  EXPECT_LT(all, 4096 * 2.0);
  Policy values = full(1);
  values.fold.values = pairs_from(0, 8);
  EXPECT_GT(tokens_that_fit(kPairs, values, bytes), 4096 * 1.23);
  EXPECT_LT(tokens_that_fit(kPairs, values, bytes), half * 1.05);
}

TEST(Footprint, GrowsWithTokensWhereLayersShareAndIsNeverMoreThanWhereTheyDoNot) {
  for (const bool values_only : {false, true}) {
    std::size_t last = 0;
    for (std::uint32_t tokens = 32; tokens < 3000; ++tokens) {
      Policy policy = minicache(tokens, pairs_from(2, 8));
      policy.fold.retained = static_cast<std::uint8_t>(64);
      if (values_only) policy.fold.keys = {};
      const std::size_t bytes = footprint(kPairs, policy);
      ASSERT_GE(bytes, last) << tokens;
      ASSERT_LE(bytes, footprint(kPairs, full(tokens))) << tokens;
      last = bytes;
    }
  }
}

TEST(Layout, SharedEntriesFollowOneAnother) {
  Policy policy = full(2000);
  policy.fold.keys.add(0);
  policy.fold.values.add(0);
  policy.fold.values.add(2);
  policy.fold.values.add(4);
  policy.fold.keys.add(6);
  const Layout at = layout_of(kPairs, policy);
  const std::uint64_t entries = 2u * at.paired_entries;  // of a pair, both heads
  EXPECT_EQ(at.both_entries, entries);
  EXPECT_EQ(at.value_entries, 3 * entries);
  EXPECT_EQ(at.views, 8 * entries);
  EXPECT_EQ(at.tiles, 16u * at.paired_tiles);
  EXPECT_EQ(at.plan - at.shared, (2 + 3 + 3 + 3) * entries * 16 * 64);
  EXPECT_EQ(at.codes - at.sides, (at.tiles + at.views) * at.side_bytes);
  // Slots that fold, those that do not, and those in between.
  EXPECT_GE((at.paired_tiles + at.paired_entries) * 32, 2000u);
  EXPECT_LT(at.paired_tiles, at.tiles_per_head / 2);
}

TEST(Layout, PairsThatWouldGainNothingShareNothing) {
  const Layout at = layout_of(kPairs, minicache(64, pairs_from(0, 8)));
  EXPECT_EQ(at.views, 0u);
  EXPECT_EQ(footprint(kPairs, minicache(64, pairs_from(0, 8))), footprint(kPairs, full(64)));
}

}  // namespace
}  // namespace nibkv::arena_test
