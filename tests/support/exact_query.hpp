#pragma once

#include <cstddef>
#include <vector>

#include "nibkv/shape.hpp"
#include "tests/support/random.hpp"

namespace nibkv::test {

/// A query whose rotation is int8 codes times a scale, so that quantising it loses nothing.
struct ExactQuery {
  std::vector<int> codes;
  std::vector<float> row;
};

ExactQuery exact_query(Random& random, std::size_t dim, double scale);

/// The queries of `count` tokens, [count][query_heads].
std::vector<ExactQuery> exact_queries(Random& random, const Shape& shape, std::size_t count, double scale);

/// Their rows one after the other.
std::vector<float> rows_of(const std::vector<ExactQuery>& queries);

}  // namespace nibkv::test
