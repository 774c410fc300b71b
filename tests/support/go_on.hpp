#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "nibkv/nibkv.hpp"
#include "tests/support/rows.hpp"

namespace nibkv::test {

/// Memory for go_on: rows of max_chunk tokens, and plans of most_held() slots.
struct GoOnRoom {
  std::span<float> keys, values, queries, out;
  std::span<std::uint32_t> target;
};

/// The maximum number of slots that a head may hold.
constexpr std::size_t most_held(const Shape& shape, const Policy& policy) {
  return std::size_t{layout_of(shape, policy).chain_tiles} * kTileSlots;
}

/// Appends, recalls and attends to random tokens in all layers; every fourth time some slots are dropped by
/// hand or by compact_now, where there is no log. Without a heap; snapshots.hpp has the same for tests that have one.
/// @param see  called with what attention gives, std::span<const float>
/// @returns the first status that was not kOk
template <typename See>
Status go_on(Cache& cache, Random& random, int steps, const GoOnRoom& room, See&& see) {
  const Shape& shape = cache.shape();
  const Policy& policy = cache.policy();
  for (int step = 0; step < steps; ++step) {
    const std::size_t token = std::size_t{random.within(1, shape.max_chunk)} * shape.head_dim;
    for (std::uint32_t layer = 0; layer < shape.layers; ++layer) {
      const auto keys = room.keys.first(token * shape.kv_heads), values = room.values.first(keys.size());
      const auto queries = room.queries.first(token * shape.query_heads), out = room.out.first(queries.size());
      fill_bells(keys, random);
      fill_bells(values, random);
      fill_bells(queries, random);
      if (const Status status = append(cache, layer, keys, values); status != Status::kOk) return status;
      if (const Status status = recall(cache, layer, queries); status != Status::kOk) return status;
      if (const Status status = attend(cache, layer, queries, out); status != Status::kOk) return status;
      see(std::span<const float>(out));
    }
    if (step % 4 != 3 || has_log(policy)) continue;
    Status status;
    if ((step % 8 == 7 && policy.keep == Keep::kScore) || policy.faint != 0) {
      const std::uint32_t least = policy.sinks + (policy.recent > policy.tail ? policy.recent : policy.tail);
      const std::uint32_t tokens = policy.tokens - (policy.tokens - least) / 3;
      status = compact_now(cache, tokens, policy.budget);
    } else {
      const std::uint32_t head = shape.kv_heads - 1u;
      const auto target = room.target.first(cache.held(0, head));
      std::uint32_t next = 0;
      for (std::uint32_t i = 0; i < target.size(); ++i) target[i] = i % 3 == 1 && i > 4 ? kDrop : next++;
      status = compact(cache, 0, head, target);
    }
    if (status != Status::kOk) return status;
  }
  return Status::kOk;
}

}  // namespace nibkv::test
