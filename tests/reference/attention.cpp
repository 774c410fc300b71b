#include "tests/reference/attention.hpp"

#include <algorithm>
#include <cmath>

namespace nibkv::reference {

std::vector<double> softmax_weights(std::span<const double> query, const Rows& keys, std::size_t visible) {
  std::vector<double> weights(visible);
  double most = -1e300;
  for (std::size_t t = 0; t < visible; ++t) {
    double dot = 0;
    for (std::size_t c = 0; c < query.size(); ++c) dot += query[c] * keys[t][c];
    weights[t] = dot / std::sqrt(static_cast<double>(query.size()));
    most = std::max(most, weights[t]);
  }
  double mass = 0;
  for (double& weight : weights) mass += weight = std::exp(weight - most);
  for (double& weight : weights) weight /= mass;
  return weights;
}

std::vector<double> attention(std::span<const double> query, const Rows& keys, const Rows& values,
                              std::size_t visible) {
  const std::vector<double> weights = softmax_weights(query, keys, visible);
  std::vector<double> out(query.size(), 0.0);
  for (std::size_t t = 0; t < visible; ++t) {
    for (std::size_t c = 0; c < out.size(); ++c) out[c] += weights[t] * values[t][c];
  }
  return out;
}

// Where the bound comes from. Weights w = 2^logit, logits in octaves; in a tile, M is the largest weight and 2^(e + 1)
// the power of two above it, so M >= 2^(e + 1) / 2.
// 1. A logit is an exact integer times f32 factors: six roundings, and a few in the rotation of the
//    query, 16 in total: 2^-20 of its size. It is then rounded to 1 / 2048 octave: an error of 1/4096.
//    The subtraction from the top adds 2^-19. So w has a relative error of
//    ln 2 * (1/4096 + 2^-19 + 2^-20 |logit|).
// 2. 2^-f in Q15: the polynomial, its four roundings and the 32767 that stands for 1 add up to 4 units
//    of 2^-15; 2^-f >= 1/2, so 8 * 2^-15 of w.
// 3. The shifted weight is rounded to a unit of 2^-15 of 2^(e + 1); less than a unit may become 0: an
//    error of at most 2^-14 M.
//    Together |w' - w| <= relative * w + 2^-14 M; the mass is their sum.
// 4. With V the largest value scale of the tile and 2^s the power of two above it (2^s <= 2 V),
//    a scale is rounded to 2^-15 of 2^s, an error of half of that, 2^-15 V, and its product with
//    w' to 2^-15 of 2^s * 2^(e + 1), an error of half of that, at most 2^-14 V M. The product is
//    rounded to 1/128 of a byte and then to a byte, where 127 is the largest product P: an error
//    of P / 127 * (1/2 + 1/256), plus 2^-14 P because the factor is an integer.
// 5. A tile adds to a sum of f32 with two roundings, each of at most 2^-24 of the largest partial sum, and so does a
//    block of 16 tiles.
// 6. The last steps (division, rotation, means) are a few f32 roundings of the output.
namespace {

// Weights relative to the largest of all, not divided by their mass, and the bound of steps 1 to 3.
struct Weighing {
  std::vector<double> weights;
  std::vector<double> slacks;
  std::vector<double> largest;  // the largest of each slot's tile
  double mass = 0;
  double mass_slack = 0;
};

// The end of the tile that begins with slot `first`.
std::size_t end_of_tile(std::size_t first, std::size_t visible, std::size_t folded) {
  return std::min({first + 32, visible, first < folded ? folded : visible});
}

Weighing weigh(std::span<const int> query_codes, double query_scale, const std::vector<Slot>& slots,
               std::size_t visible, std::span<const int> biases, std::size_t folded) {
  const std::size_t dim = query_codes.size();
  std::vector<double> logits(visible);
  double most = -1e300;
  for (std::size_t t = 0; t < visible; ++t) {
    double dot = 0;
    for (std::size_t c = 0; c < dim; ++c) dot += query_codes[c] * level_of(slots[t].key_bits, slots[t].key_codes[c]);
    logits[t] = dot * query_scale * scale16_value(slots[t].key_scale) * 1.4426950408889634 /
                std::sqrt(static_cast<double>(dim));
    if (!biases.empty()) logits[t] += biases[t] / 16.0;
    most = std::max(most, logits[t]);
  }
  Weighing all;
  for (std::size_t t = 0; t < visible; ++t) all.weights.push_back(std::exp2(logits[t] - most));
  for (std::size_t first = 0, end = 0; first < visible; first = end) {
    end = end_of_tile(first, visible, folded);
    const double largest = *std::max_element(all.weights.begin() + static_cast<std::ptrdiff_t>(first),
                                             all.weights.begin() + static_cast<std::ptrdiff_t>(end));
    for (std::size_t t = first; t < end; ++t) {
      const double relative = std::log(2.0) * (1.0 / 4096 + 0x1p-19 + 0x1p-20 * std::abs(logits[t])) + 8 * 0x1p-15;
      all.largest.push_back(largest);
      all.slacks.push_back(relative * all.weights[t] + 0x1p-14 * largest);
      all.mass += all.weights[t];
      all.mass_slack += all.slacks[t];
    }
  }
  return all;
}

}  // namespace

FixedPointCase fixed_point_case(std::span<const int> query_codes, double query_scale, const std::vector<Slot>& slots,
                                std::size_t visible, std::span<const int> biases, std::size_t folded) {
  constexpr double byte_slack = (0.5 + 1.0 / 256) / 127 + 0x1p-14;
  const std::size_t dim = query_codes.size();
  const Weighing all = weigh(query_codes, query_scale, slots, visible, biases, folded);
  std::vector<double> sums(dim, 0.0);
  std::vector<double> slack(dim, 0.0);
  std::vector<double> sizes(dim, 0.0);
  std::size_t tiles = 0;
  for (std::size_t first = 0, end = 0; first < visible; first = end, ++tiles) {
    end = end_of_tile(first, visible, folded);
    const double largest = all.largest[first];
    double largest_product = 0;
    double largest_scale = 0;
    for (std::size_t t = first; t < end; ++t) {
      largest_scale = std::max(largest_scale, scale16_value(slots[t].value_scale));
      largest_product = std::max(largest_product, all.weights[t] * scale16_value(slots[t].value_scale));
    }
    for (std::size_t t = first; t < end; ++t) {
      const double weight = all.weights[t];
      const double scale = scale16_value(slots[t].value_scale);
      for (std::size_t c = 0; c < dim; ++c) {
        const double level = level_of(slots[t].value_bits, slots[t].value_codes[c]);
        sums[c] += weight * scale * level;
        sizes[c] += weight * scale * std::abs(level);
        const double scale_slack = 0x1p-15 * largest_scale * weight + 0x1p-14 * largest_scale * largest;
        slack[c] += std::abs(level) * (all.slacks[t] * scale + scale_slack + byte_slack * largest_product);
      }
    }
  }
  FixedPointCase result;
  double bound2 = 0;
  for (std::size_t c = 0; c < dim; ++c) {
    const double sum_slack = slack[c] + static_cast<double>(tiles + tiles / 16 + 16) * 0x1p-23 * sizes[c];
    const double exact = sums[c] / all.mass;
    result.exact.push_back(exact);
    const double bound = (sum_slack + std::abs(exact) * all.mass_slack) / (all.mass - all.mass_slack);
    bound2 += bound * bound;
  }
  result.norm_bound = std::sqrt(bound2) + 0x1p-20 * norm(result.exact);
  return result;
}

WeighedRow weigh_row(std::span<const int> query_codes, double query_scale, const std::vector<Slot>& slots,
                     std::size_t visible, std::span<const int> biases) {
  const Weighing all = weigh(query_codes, query_scale, slots, visible, biases, 0);
  WeighedRow row;
  for (std::size_t t = 0; t < visible; ++t) {
    row.weights.push_back(all.weights[t] / all.mass);
    row.bounds.push_back((all.slacks[t] + row.weights[t] * all.mass_slack) / (all.mass - all.mass_slack));
  }
  return row;
}

double norm(std::span<const double> row) {
  double sum = 0;
  for (const double x : row) sum += x * x;
  return std::sqrt(sum);
}

double distance(std::span<const double> a, std::span<const double> b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += (a[i] - b[i]) * (a[i] - b[i]);
  return std::sqrt(sum);
}

std::vector<double> widen(std::span<const float> row) {
  return {row.begin(), row.end()};
}

}  // namespace nibkv::reference
