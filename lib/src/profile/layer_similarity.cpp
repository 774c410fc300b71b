#include "profile/layer_similarity.hpp"

#include "numbers/numbers.hpp"
#include "profile/procrustes.hpp"

namespace nibkv {
namespace {

// Keys whose spread around their mean is below this share of their energy are practically constant:
// what is left of the sums is rounding error.
constexpr double kNoSpread = 1e-9;

struct Products {
  double lower2, upper2, both;
};

Products products(const float* lower, const float* upper, std::uint32_t head_dim) {
  Products sums{};
  for (std::uint32_t c = 0; c < head_dim; ++c) {
    const auto x = static_cast<double>(lower[c]), y = static_cast<double>(upper[c]);
    sums.lower2 += x * x;
    sums.upper2 += y * y;
    sums.both += x * y;
  }
  return sums;
}

std::int16_t to_cosine(double cosine) {
  const double scaled = cosine * 32768;
  if (scaled >= 32767) return 32767;
  if (scaled <= -32767) return -32767;
  return static_cast<std::int16_t>(static_cast<std::int32_t>(scaled + 32768.5) - 32768);
}

double spread(const KeySums& sums, std::uint32_t head_dim) {
  double all = 0, about_mean = 0;
  for (std::uint32_t c = 0; c < head_dim; ++c) {
    all += sums.keys2[c];
    about_mean += sums.keys2[c] - sums.keys[c] * sums.keys[c] / sums.tokens;
  }
  return about_mean > kNoSpread * all ? about_mean : 0;
}

/// Writes the rotation of each pair of channels, and returns the sum of the products
/// of the rotated keys.
double find_turns(const PairSums& sums, const KeySums& lower, const KeySums& upper, std::uint32_t head_dim,
                  const RotaryPairs& rotary, double* turns) {
  double total = 0;
  for (std::uint32_t pair = 0; pair < head_dim / 2; ++pair) {
    const ChannelPair at = channels_of(pair, rotary);
    const double la = lower.keys[at.first], lb = lower.keys[at.second];
    const double ua = upper.keys[at.first], ub = upper.keys[at.second];
    const double real = sums.turns[2 * pair] - (la * ua + lb * ub) / upper.tokens;
    const double imaginary = sums.turns[2 * pair + 1] - (lb * ua - la * ub) / upper.tokens;
    const double size = square_root(real * real + imaginary * imaginary);
    turns[2 * pair] = size > 0 ? real / size : 1;
    turns[2 * pair + 1] = size > 0 ? imaginary / size : 0;
    total += size;
  }
  return total;
}

}  // namespace

void add_keys(const PairSums& sums, const float* lower, const float* upper, std::uint32_t head_dim,
              const RotaryPairs& rotary) {
  const Products of = products(lower, upper, head_dim);
  *sums.tokens += 1;
  *sums.keys += of.both;
  if (of.lower2 > 0 && of.upper2 > 0) {
    *sums.key_rows += 1;
    *sums.key_cosines += of.both / (square_root(of.lower2) * square_root(of.upper2));
  }
  if (sums.turns == nullptr) return;
  for (std::uint32_t pair = 0; pair < head_dim / 2; ++pair) {
    const ChannelPair at = channels_of(pair, rotary);
    const auto la = static_cast<double>(lower[at.first]), lb = static_cast<double>(lower[at.second]);
    const auto ua = static_cast<double>(upper[at.first]), ub = static_cast<double>(upper[at.second]);
    sums.turns[2 * pair] += la * ua + lb * ub;
    sums.turns[2 * pair + 1] += lb * ua - la * ub;
  }
}

void add_values(const PairSums& sums, const float* lower, const float* upper, std::uint32_t head_dim) {
  const Products of = products(lower, upper, head_dim);
  if (of.lower2 <= 0 || of.upper2 <= 0) return;
  const double inverse = 1 / (square_root(of.lower2) * square_root(of.upper2));
  *sums.value_rows += 1;
  *sums.value_cosines += of.both * inverse;
  if (sums.values == nullptr) return;
  for (std::size_t i = 0; i < head_dim; ++i) {
    const double weight = static_cast<double>(lower[i]) * inverse;
    for (std::size_t j = 0; j < head_dim; ++j) sums.values[i * head_dim + j] += weight * static_cast<double>(upper[j]);
  }
}

LayerCosines measure_pair(const PairSums& sums, const KeySums& lower, const KeySums& upper, std::uint32_t head_dim,
                          const RotaryPairs& rotary, double* map, double* turns, double* room) {
  const bool align = sums.values != nullptr;
  const bool complete = *sums.tokens == lower.tokens && *sums.tokens == upper.tokens;
  for (std::size_t i = 0; align && i < std::size_t{head_dim} * head_dim; ++i) map[i] = i % (head_dim + 1) == 0 ? 1 : 0;
  for (std::size_t i = 0; align && i < head_dim; ++i) turns[i] = i % 2 == 0 ? 1 : 0;
  LayerCosines cosines;
  if (!complete) return cosines;

  if (*sums.key_rows > 0) cosines.raw_keys = to_cosine(*sums.key_cosines / *sums.key_rows);
  const double spreads = square_root(spread(lower, head_dim)) * square_root(spread(upper, head_dim));
  if (spreads > 0) {
    double both = *sums.keys;
    for (std::uint32_t c = 0; c < head_dim; ++c) both -= lower.keys[c] * upper.keys[c] / upper.tokens;
    cosines.keys = to_cosine(both / spreads);
    if (align) {
      cosines.aligned_keys = to_cosine(find_turns(sums, lower, upper, head_dim, rotary, turns) / spreads);
    }
  }
  if (*sums.value_rows > 0) {
    cosines.values = to_cosine(*sums.value_cosines / *sums.value_rows);
    if (align) {
      for (std::size_t i = 0; i < std::size_t{head_dim} * head_dim; ++i) map[i] = sums.values[i];
      cosines.aligned_values = to_cosine(polar_factor(map, room, head_dim) / *sums.value_rows);
    }
  }
  return cosines;
}

}  // namespace nibkv
