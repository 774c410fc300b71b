#include "fold/fold_row.hpp"

#include "codec/row.hpp"

namespace nibkv {
namespace {

constexpr std::int64_t kOne = std::int64_t{1} << 30;
constexpr float kLeastScale = 0x1p-70f;  // the smallest scale that the kernels accept

std::uint64_t whole_root(std::uint64_t square) {
  return largest_that([&](std::uint32_t root) { return std::uint64_t{root} * root <= square; });
}

std::int64_t rounded_q30(std::int64_t value) {
  return (value + (kOne >> 1)) >> 30;
}

}  // namespace

Arc::Arc(const std::int8_t* a, const std::int8_t* b, std::uint32_t head_dim) {
  const auto energy_a = static_cast<std::uint64_t>(dot_of_codes(a, a, head_dim));
  const auto energy_b = static_cast<std::uint64_t>(dot_of_codes(b, b, head_dim));
  const std::int64_t dot = dot_of_codes(a, b, head_dim);
  norm_a_ = whole_root(energy_a << 40);  // below 2^31
  norm_b_ = whole_root(energy_b << 40);
  // (|a| |b|)^2 and the same times the sine squared, exact, below 2^41. Shifted so that the first is 2^60 or more.
  const std::uint64_t square = energy_a * energy_b;
  const std::uint64_t gram = square - static_cast<std::uint64_t>(dot * dot);
  in_line_ = gram == 0;
  std::uint32_t shift = 0;
  while (square << 2 * shift < std::uint64_t{1} << 60) ++shift;
  const auto length = static_cast<std::int64_t>(whole_root(square << 2 * shift));  // [2^30, 2^31)
  // |dot| << shift is at most about 2^31.
  points_[0].cosine = dot * (std::int64_t{1} << shift) * kOne / length;
  points_[0].sine = static_cast<std::int64_t>(whole_root(gram << 2 * shift)) * kOne / length;
  for (std::uint32_t i = 0; i < kHalvings; ++i) {
    const auto [cosine, sine] = points_[i];
    // The larger of the two from the root, the other from sin 2x = 2 sin x cos x, which
    // avoids cancellation.
    const std::int64_t larger_square = kOne + (cosine >= 0 ? cosine : -cosine);
    const auto larger = static_cast<std::int64_t>(whole_root(static_cast<std::uint64_t>(larger_square) << 29));
    const std::int64_t smaller = sine * (kOne >> 1) / larger;
    points_[i + 1] = cosine >= 0 ? Point{larger, smaller} : Point{smaller, larger};
  }
}

std::uint32_t Arc::angle() const {
  // The sine of a 256th of the angle is that angle, minus 1 / 6 of its cube.
  const auto q30 = static_cast<std::uint64_t>(points_[kHalvings].sine) << kHalvings;
  return static_cast<std::uint32_t>((q30 + (1u << 13)) >> 14);
}

// The bits of t tell which halves, quarters, ... of the angle add up to t / 256 of it.
Arc::Point Arc::part(std::uint32_t t) const {
  Point sum{kOne, 0};
  for (std::uint32_t i = 0; i <= kHalvings; ++i) {
    if ((t >> (kHalvings - i) & 1) == 0) continue;
    const Point& more = points_[i];
    sum = {rounded_q30(sum.cosine * more.cosine - sum.sine * more.sine),
           rounded_q30(sum.sine * more.cosine + sum.cosine * more.sine)};
  }
  return sum;
}

void Arc::weigh(std::uint32_t t, std::int32_t& weight_a, std::int32_t& weight_b) const {
  constexpr std::uint32_t kWhole = 1u << kHalvings;
  // For collinear rows, where the sines are 0, this is their limit for small angles.
  std::int64_t sine_a = in_line_ ? kWhole - t : part(kWhole - t).sine;
  std::int64_t sine_b = in_line_ ? t : part(t).sine;
  if (sine_a < 0) sine_a = 0;  // by rounding
  if (sine_b < 0) sine_b = 0;
  // The weight of each direction divided by its norm, times both norms. Below 2^30 * 2^31.
  const std::uint64_t a = static_cast<std::uint64_t>(sine_a) * norm_b_;
  const std::uint64_t b = static_cast<std::uint64_t>(sine_b) * norm_a_;
  std::uint32_t shift = 1;
  while ((a | b) >> shift >= (1u << 17) - 1) ++shift;
  const std::uint64_t half = std::uint64_t{1} << (shift - 1);
  weight_a = static_cast<std::int32_t>((a + half) >> shift);
  weight_b = static_cast<std::int32_t>((b + half) >> shift);
}

void fold_row(const Kernels& kernels, RowPair& pair, std::uint32_t head_dim, std::uint32_t t, float* row,
              std::uint8_t* codes) {
  const bool heavier = t >= 128;
  std::uint32_t kept = heavier ? 1 : 0;
  if (pair.scales[kept] == 0) kept ^= 1;
  std::memcpy(codes, pair.codes[kept], head_dim);
  if (pair.scales[0] == 0 || pair.scales[1] == 0) return;
  if (std::memcmp(pair.codes[0], pair.codes[1], head_dim) == 0) return;

  std::int8_t levels[2][kMaxHeadDim] = {};
  for (std::uint32_t i = 0; i < 2; ++i) {
    for (std::uint32_t c = 0; c < head_dim; ++c) levels[i][c] = ports::kLevels[pair.codes[i][c]];
  }
  std::int32_t weights[2];
  Arc(levels[0], levels[1], head_dim).weigh(t, weights[0], weights[1]);
  // |weight * level| < 2^17 * 63, so a sum is below 2^24: an exact float.
  std::int32_t any = 0;
  for (std::uint32_t c = 0; c < head_dim; ++c) {
    const std::int32_t sum = weights[0] * levels[0][c] + weights[1] * levels[1][c];
    any |= sum;
    row[c] = static_cast<float>(sum);
  }
  // Opposite rows may cancel. Then the codes of the heavier one stay.
  if (any != 0) kernels.q4.encode_row(row, static_cast<int>(head_dim), codes);
  std::int8_t folded[kMaxHeadDim] = {};
  for (std::uint32_t c = 0; c < head_dim; ++c) folded[c] = ports::kLevels[codes[c]];
  const auto energy = static_cast<float>(dot_of_codes(folded, folded, head_dim));
  for (std::uint32_t i = 0; i < 2; ++i) {
    const auto own = static_cast<float>(dot_of_codes(levels[i], levels[i], head_dim));
    const float scale = from_scale16(pair.scales[i]) * square_root(own / energy);
    pair.scales[i] = scale >= kLeastScale ? to_scale16(scale) : 0;
  }
}

}  // namespace nibkv
