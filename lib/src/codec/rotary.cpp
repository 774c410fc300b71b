#include "codec/rotary.hpp"

#include "numbers/numbers.hpp"

namespace nibkv {
namespace {

constexpr double kLn2 = 0.69314718055994530942;
constexpr double kTurnsPerRadian = 0.15915494309189533577;
constexpr float kRadiansPerUnit = 0x1.921fb6p-30f;  // 2 pi / 2^32

// ln(x) for a normal x of 1 or more: for its mantissa m, ln(m) = 2 atanh((m - 1) / (m + 1)), and
// the square of the argument is below 1/9.
double natural_logarithm(float x) {
  const std::uint32_t bits = bits_from_float(x);
  const auto whole = static_cast<double>(static_cast<std::int32_t>(bits >> 23) - 127);
  const auto mantissa = static_cast<double>(float_from_bits((bits & 0x7fffff) | 0x3f800000));
  const double s = (mantissa - 1) / (mantissa + 1);
  const double square = s * s;
  double sum = 0;
  for (int n = 39; n >= 1; n -= 2) sum = sum * square + 1.0 / n;
  return whole * kLn2 + 2 * s * sum;
}

// e^-x for x in [0, 80]: a power of two, times the Taylor series of the rest, which
// is at most ln(2) / 2.
double falling_exponential(double x) {
  const auto octaves = static_cast<int>(x / kLn2 + 0.5);
  const double rest = octaves * kLn2 - x;
  double sum = 1;
  for (int n = 16; n >= 1; --n) sum = 1 + sum * rest / n;
  return sum * static_cast<double>(power_of_two(-octaves));
}

// Calls visit(i, steps) for each pair: how far it rotates from one position to the next, in 2^-64 of a turn.
template <typename Visit>
void each_step(const Rotary& rotary, Visit visit) {
  const double ratio = falling_exponential(natural_logarithm(rotary.base) * 2 / rotary.dims);
  double turns = static_cast<double>(rotary.scale) * kTurnsPerRadian;  // below 1/6
  for (std::uint32_t i = 0; i < rotary.dims / 2u; ++i) {
    visit(i, static_cast<std::uint64_t>(turns * 0x1p64));
    turns *= ratio;
  }
}

void turn_pair(float* row, const Rotary& rotary, std::uint32_t i, const Angle& angle) {
  float& first = row[rotary.adjacent ? 2 * i : i];
  float& second = row[rotary.adjacent ? 2 * i + 1 : i + rotary.dims / 2u];
  const float turned = first * angle.cosine - second * angle.sine;
  second = first * angle.sine + second * angle.cosine;
  first = turned;
}

}  // namespace

Angle angle_of(std::uint64_t turns) {
  const std::uint64_t quarter = (turns + (std::uint64_t{1} << 61)) >> 62;
  // Within an eighth of a turn.
  const auto rest = static_cast<std::int32_t>(static_cast<std::int64_t>(turns - (quarter << 62)) >> 32);
  const float x = static_cast<float>(rest) * kRadiansPerUnit;
  const float square = x * x;
  const float sine =
      x + x * square * (-1.0f / 6 + square * (1.0f / 120 + square * (-1.0f / 5040 + square * (1.0f / 362880))));
  const float cosine =
      1.0f + square * (-0.5f + square * (1.0f / 24 + square * (-1.0f / 720 + square * (1.0f / 40320))));
  switch (quarter & 3) {
    case 0:
      return {cosine, sine};
    case 1:
      return {-sine, cosine};
    case 2:
      return {-cosine, -sine};
    default:
      return {sine, -cosine};
  }
}

void rotary_steps(const Rotary& rotary, std::uint64_t* steps) {
  each_step(rotary, [steps](std::uint32_t i, std::uint64_t step) { steps[i] = step; });
}

KeyTurner::KeyTurner(const Rotary& rotary, std::uint64_t* steps)
    : pairs_(rotary.dims / 2u), adjacent_(rotary.adjacent), steps_(steps) {
  if (rotary.known()) rotary_steps(rotary, steps);
}

void KeyTurner::turn(float* row, std::int64_t positions) const {
  for (std::uint32_t i = 0; i < pairs_; ++i) {
    const Angle angle = angle_of(steps_[i] * static_cast<std::uint64_t>(positions));
    float& first = row[adjacent_ ? 2 * i : i];
    float& second = row[adjacent_ ? 2 * i + 1 : i + pairs_];
    const float turned = first * angle.cosine - second * angle.sine;
    second = first * angle.sine + second * angle.cosine;
    first = turned;
  }
}

void turn_row(const Rotary& rotary, float* row, std::int64_t positions) {
  each_step(rotary, [&](std::uint32_t i, std::uint64_t step) {
    turn_pair(row, rotary, i, angle_of(step * static_cast<std::uint64_t>(positions)));
  });
}

void RowTurner::set_back(std::uint32_t positions) {
  if (positions == positions_) return;
  positions_ = positions;
  const auto back = static_cast<std::uint64_t>(-static_cast<std::int64_t>(positions));
  each_step(rotary_, [&](std::uint32_t i, std::uint64_t step) { angles_[i] = angle_of(step * back); });
}

void RowTurner::turn(float* row) const {
  for (std::uint32_t i = 0; positions_ != 0 && i < rotary_.dims / 2u; ++i) turn_pair(row, rotary_, i, angles_[i]);
}

}  // namespace nibkv
