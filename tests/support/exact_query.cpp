#include "tests/support/exact_query.hpp"

#include <algorithm>
#include <cmath>

#include "tests/reference/arena_model.hpp"

namespace nibkv::test {

ExactQuery exact_query(Random& random, std::size_t dim, double scale) {
  ExactQuery query;
  std::vector<double> rotated;
  for (std::size_t c = 0; c < dim; ++c) {
    query.codes.push_back(std::clamp(static_cast<int>(std::lround(random.gaussian() * 45)), -127, 127));
    if (c == dim / 2) query.codes[c] = 127;
    rotated.push_back(query.codes[c] * scale);
  }
  for (const double x : reference::rotated_back(rotated)) query.row.push_back(static_cast<float>(x));
  return query;
}

std::vector<ExactQuery> exact_queries(Random& random, const Shape& shape, std::size_t count, double scale) {
  std::vector<ExactQuery> queries;
  for (std::size_t i = 0; i < count * shape.query_heads; ++i)
    queries.push_back(exact_query(random, shape.head_dim, scale));
  return queries;
}

std::vector<float> rows_of(const std::vector<ExactQuery>& queries) {
  std::vector<float> rows;
  for (const ExactQuery& query : queries) rows.insert(rows.end(), query.row.begin(), query.row.end());
  return rows;
}

}  // namespace nibkv::test
