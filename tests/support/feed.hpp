#pragma once

#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <vector>

#include "tests/support/rig.hpp"

namespace nibkv::test {

/// Feeds a cache `tokens` random tokens one by one: one append and one attend in each layer.
/// Returns what attention gave; the test fails if a verb does.
inline std::vector<float> feed(Cache& cache, Random& random, std::uint32_t tokens) {
  const Shape& shape = cache.shape();
  const std::size_t kv = std::size_t{shape.kv_heads} * shape.head_dim;
  std::vector<float> all;
  for (std::uint32_t token = 0; token < tokens; ++token) {
    for (std::uint32_t layer = 0; layer < shape.layers; ++layer) {
      const std::vector<float> keys = random.bells(kv);
      EXPECT_EQ(append(cache, layer, keys, random.bells(kv)), Status::kOk) << words(shape, cache.policy());
      const auto out = attend_all(cache, layer, random.bells(std::size_t{shape.query_heads} * shape.head_dim));
      all.insert(all.end(), out.begin(), out.end());
    }
  }
  return all;
}

}  // namespace nibkv::test
