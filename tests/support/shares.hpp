#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <vector>

#include "tests/support/rig.hpp"

namespace nibkv::test {

/// The shares of a call, in any order, on the workers that there are.
inline std::vector<Share> shares_of(const Shape& shape, std::uint32_t of, Random& random) {
  std::vector<Share> shares;
  for (std::uint32_t i = 0; i < of; ++i) shares.push_back({i, of, i % shape.workers});
  for (std::uint32_t i = of; i > 1; --i) std::swap(shares[i - 1], shares[random.below(i)]);
  return shares;
}

/// append, divided. Shares fail the test if they fail.
/// @returns what reserve does
inline Status append_divided(Cache& cache, std::uint32_t layer, std::uint32_t count, const ConstRows& keys,
                             const ConstRows& values, const std::vector<Share>& shares) {
  const Status status = reserve(cache, layer, count);
  if (status != Status::kOk) return status;
  for (const Share& share : shares) {
    EXPECT_EQ(append_share(cache, layer, count, keys, values, share), Status::kOk)
        << words(cache.shape(), cache.policy(), cache.port()) << ", share " << share.index << " of " << share.of;
  }
  return Status::kOk;
}

/// attend of the newest token, divided, as f32.
inline std::vector<float> attend_divided(Cache& cache, std::uint32_t layer, const ConstRows& query,
                                         const std::vector<Share>& shares) {
  const Shape& shape = cache.shape();
  std::vector<float> out(std::size_t{shape.query_heads} * shape.head_dim);
  const MutableRows to = tokens_first(out.data(), Number::kF32, shape.query_heads, shape.head_dim);
  for (const Share& share : shares) {
    EXPECT_EQ(attend_share(cache, layer, query, share), Status::kOk) << words(shape, cache.policy(), cache.port());
  }
  for (const Share& share : shares) {
    EXPECT_EQ(combine_share(cache, layer, to, share), Status::kOk) << words(shape, cache.policy(), cache.port());
  }
  return out;
}

}  // namespace nibkv::test
