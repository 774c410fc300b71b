#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "tests/support/rig.hpp"
#include "tests/support/shares.hpp"
#include "tests/support/snapshots.hpp"

namespace nibkv::test {

/// Tries truncate at a random length, out of range too.
/// @param seen  of each layer, updated
inline void take_back(Cache& cache, Random& random, std::vector<std::uint32_t>& seen) {
  const std::uint32_t most = *std::max_element(seen.begin(), seen.end());
  const std::uint32_t oldest = oldest_reachable(cache);
  ASSERT_LE(oldest, oldest_exact(cache));
  ASSERT_LE(oldest_exact(cache), most);
  const std::uint32_t wanted = random.below(4) == 0 ? random.below(most + 2) : random.within(oldest, most);
  const std::vector<std::byte> before = wanted < oldest ? saved(cache) : std::vector<std::byte>();
  const Status status = truncate(cache, wanted);
  ASSERT_EQ(status, wanted > most ? Status::kBadArgument : wanted < oldest ? Status::kGone : Status::kOk);
  if (status == Status::kGone) {
    ASSERT_EQ(saved(cache), before);
  }
  if (status != Status::kOk) return;
  for (std::uint32_t& layer : seen) layer = std::min(layer, wanted);
}

/// Under Keep::kScore: all tokens that can go back are there, one after the other, with nothing merged into them.
inline void check_reach(const Cache& cache) {
  const std::uint32_t oldest = oldest_reachable(cache);
  for (std::uint32_t layer = 0; layer < cache.shape().layers; ++layer) {
    const std::uint32_t seen = cache.seen(layer);
    for (std::uint32_t head = 0; head < cache.shape().kv_heads; ++head) {
      const std::vector<SlotInfo> slots = explain_all(cache, layer, head);
      ASSERT_LE(seen > oldest ? seen - oldest : 0, slots.size());
      for (std::uint32_t back = 1; oldest + back <= seen; ++back) {
        const SlotInfo& slot = slots[slots.size() - back];
        ASSERT_EQ(slot.position, seen - back) << "layer " << layer << ", head " << head;
        ASSERT_EQ(slot.merged, 0u) << "layer " << layer << ", head " << head;
      }
    }
  }
}

/// A copy holds the same, and another budget and chunk take over what fits them, also from a snapshot.
inline void fork(const Rig& rig, Random& random) {
  const Cache& cache = rig.cache();
  Arena arena(cache.usage().arena_bytes);
  Cache copy;
  ASSERT_EQ(clone(cache, arena.bytes(), copy), Status::kOk);
  ASSERT_EQ(saved(copy), saved(cache));
  if (has_pairs(cache.policy())) return;
  Policy policy = cache.policy();
  if (random.below(2) == 0) {
    policy.tail = policy.faint = 0;
    if (random.below(2) == 0) draw_tiers(random, cache.shape(), policy);
  }
  policy.tokens = detail::smallest_budget(policy) + random.below(150);
  Shape shape = cache.shape();
  shape.max_chunk = static_cast<std::uint16_t>(random.within(1, 60));
  Arena second(footprint(shape, policy)), third(footprint(shape, policy));
  Cache other, imported;
  if (other.init(second.bytes(), shape, policy, {cache.port(), rig.profile()}) != Status::kOk) return;
  ASSERT_EQ(imported.init(third.bytes(), shape, policy, {cache.port(), rig.profile()}), Status::kOk);
  const Status status = move_to(cache, other);
  ASSERT_EQ(import_snapshot(imported, cache.shape(), cache.policy(), saved(cache)), status);
  ASSERT_EQ(saved(imported), saved(other));
  ASSERT_EQ(imported.usage().peak_tiles, other.usage().peak_tiles);
  ASSERT_TRUE(third.guards_intact());
  bool in_step = true;
  for (std::uint32_t layer = 0; layer < shape.layers; ++layer) in_step = in_step && cache.seen(layer) == cache.seen(0);
  if (!in_step) {
    ASSERT_EQ(status, Status::kBadArgument);
    return;
  }
  if (policy.keep == Keep::kAll && status == Status::kFull) return;
  ASSERT_EQ(status, Status::kOk);
  ASSERT_EQ(check(other), Status::kOk);
  if (policy.keep == Keep::kScore) check_reach(other);
  ASSERT_EQ(truncate(other, oldest_reachable(other)), Status::kOk);
  ASSERT_EQ(check(other), Status::kOk);
  ASSERT_TRUE(second.guards_intact());
}

/// append of dense rows. Now and then a copy of the cache takes them in shares, and must then hold the same.
/// @param rarely  for a fuzzer
inline Status append_both_ways(Cache& cache, Random& random, bool rarely, std::uint32_t layer,
                               std::span<const float> keys, std::span<const float> values) {
  const Shape& shape = cache.shape();
  if (random.below(rarely ? 16 : 4) != 0) return append(cache, layer, keys, values);
  Arena arena(cache.usage().arena_bytes);
  Cache copy;
  EXPECT_EQ(clone(cache, arena.bytes(), copy), Status::kOk);
  const Status status = append(cache, layer, keys, values);
  const auto count = static_cast<std::uint32_t>(keys.size() / (shape.kv_heads * std::size_t{shape.head_dim}));
  EXPECT_EQ(append_divided(copy, layer, count, tokens_first(keys.data(), Number::kF32, shape.kv_heads, shape.head_dim),
                           tokens_first(values.data(), Number::kF32, shape.kv_heads, shape.head_dim),
                           shares_of(shape, random.within(1, 6), random)),
            status);
  EXPECT_EQ(saved(copy), saved(cache));
  EXPECT_TRUE(arena.guards_intact());
  return status;
}

/// What attend gave for one token must be what shares of it give, where it can be divided.
inline void attend_again_in_shares(Cache& cache, Random& random, std::uint32_t layer, std::span<const float> query,
                                   std::span<const float> out) {
  const Shape& shape = cache.shape();
  if (!divisible(cache) || query.size() != std::size_t{shape.query_heads} * shape.head_dim) return;
  ASSERT_TRUE(same_bytes(
      attend_divided(cache, layer, tokens_first(query.data(), Number::kF32, shape.query_heads, shape.head_dim),
                     shares_of(shape, random.within(1, 6), random)),
      out));
}

/// Draft queries get what the same queries got as tokens, in parts too, and leave no trace.
inline void attend_again_as_drafts(Cache& cache, Random& random, std::uint32_t layer, std::span<const float> queries,
                                   std::span<const float> out) {
  if (random.below(8) != 0) return;
  const auto count =
      static_cast<std::uint32_t>(queries.size() / (cache.shape().query_heads * std::size_t{cache.shape().head_dim}));
  const std::vector<std::byte> before = saved(cache);
  std::vector<float> again(out.size());
  const std::uint32_t cut = random.below(count + 1);
  if (cut != 0) {
    ASSERT_EQ(attend(cache, layer, queries, again, {.queries = cut, .drafts = true}), Status::kOk);
  }
  if (cut != count) {
    ASSERT_EQ(attend(cache, layer, queries, again, {.first_query = cut, .drafts = true}), Status::kOk);
  }
  ASSERT_TRUE(same_bytes(again, out));
  ASSERT_EQ(saved(cache), before);
}

}  // namespace nibkv::test
