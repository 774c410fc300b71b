// Rotating keys by their positions, compared with the definition in double precision.
#include "codec/rotary.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <numbers>

#include "tests/reference/attention.hpp"
#include "tests/reference/rotary.hpp"
#include "tests/support/random.hpp"

namespace nibkv::rotary_test {
namespace {

using test::Random;

constexpr Rotary kRotaries[] = {
    {.base = 1e4f, .dims = 64},
    {.base = 1e5f, .dims = 64, .adjacent = false},
    {.base = 5e5f, .dims = 128},
    {.base = 1e6f, .scale = 0.25f, .dims = 256, .adjacent = false},
    {.base = 1e4f, .dims = 32},  // of more channels
    {.base = 1, .dims = 6},
    {.base = 0x1p100f, .dims = 4},
    {.base = 0x1p100f, .scale = 0x1p-20f, .dims = 2},
};

double in_radians(std::uint64_t turns) {
  return std::ldexp(static_cast<double>(turns), -64) * 2 * std::numbers::pi;
}

TEST(Rotary, StepsAreThoseOfTheDefinitionToFourteenDigits) {
  for (const Rotary& rotary : kRotaries) {
    std::vector<std::uint64_t> steps(rotary.dims / 2u);
    rotary_steps(rotary, steps.data());
    for (std::size_t i = 0; i < steps.size(); ++i) {
      const double exponent = -2.0 * static_cast<double>(i) / rotary.dims;
      const double expected = rotary.scale * std::pow(static_cast<double>(rotary.base), exponent);
      EXPECT_NEAR(in_radians(steps[i]), expected, 4e-14 * expected + 1e-18) << "base " << rotary.base << ", pair " << i;
    }
  }
}

TEST(Rotary, AnglesHaveTheirCosineAndSineWithinTwoToTheMinus22) {
  Random random(301);
  std::vector<std::uint64_t> turns;
  for (std::uint64_t eighth = 0; eighth < 8; ++eighth) {
    for (const std::uint64_t off : {std::uint64_t{0}, std::uint64_t{1}, ~std::uint64_t{0}}) {
      turns.push_back((eighth << 61) + off);
    }
  }
  for (int i = 0; i < 100000; ++i) turns.push_back(random.word());
  for (const std::uint64_t turn : turns) {
    const Angle angle = angle_of(turn);
    ASSERT_NEAR(angle.cosine, std::cos(in_radians(turn)), 0x1p-22) << turn;
    ASSERT_NEAR(angle.sine, std::sin(in_radians(turn)), 0x1p-22) << turn;
  }
}

TEST(Rotary, KeysTurnAsTheEmbeddingTurnsThem) {
  Random random(302);
  for (const Rotary& rotary : kRotaries) {
    std::vector<std::uint64_t> steps(rotary.dims / 2u);
    const KeyTurner turner(rotary, steps.data());
    const std::size_t dim = rotary.dims + 16u;  // channels after `dims` stay
    for (const std::int64_t positions : {0, 1, -1, 31, -4095, 100000, -100000, 16000000}) {
      std::vector<float> row = random.bells(dim);
      const auto expected = reference::turned(reference::widen(row), rotary, static_cast<double>(positions));
      turner.turn(row.data(), positions);
      const double error = reference::distance(reference::widen(row), expected) / reference::norm(expected);
      EXPECT_LT(error, 4e-7) << "base " << rotary.base << ", dims " << rotary.dims << ", positions " << positions;
      for (std::size_t c = rotary.dims; c < dim; ++c) EXPECT_EQ(row[c], static_cast<float>(expected[c]));
    }
  }
}

TEST(Rotary, TurningBackGivesTheKeyWithinRounding) {
  Random random(303);
  for (const Rotary& rotary : kRotaries) {
    std::vector<std::uint64_t> steps(rotary.dims / 2u);
    const KeyTurner turner(rotary, steps.data());
    const std::vector<float> key = random.bells(rotary.dims);
    std::vector<float> row = key;
    turner.turn(row.data(), 123456789);
    turner.turn(row.data(), -123456789);
    EXPECT_LT(reference::distance(reference::widen(row), reference::widen(key)),
              1e-6 * reference::norm(reference::widen(key)));
  }
}

// One hash of the bits of steps and rotated keys: the same on every machine and
// with every compiler.
TEST(Rotary, GivesTheSameBitsOnEveryMachine) {
  std::uint64_t word = 0xcbf29ce484222325u;  // FNV-1a, 64 bits
  const auto add = [&](const void* bytes, std::size_t size) {
    for (std::size_t i = 0; i < size; ++i) word = (word ^ static_cast<const unsigned char*>(bytes)[i]) * 0x100000001b3u;
  };
  Random random(304);
  for (const Rotary& rotary : kRotaries) {
    std::vector<std::uint64_t> steps(rotary.dims / 2u);
    const KeyTurner turner(rotary, steps.data());
    add(steps.data(), steps.size() * sizeof steps[0]);
    for (int i = 0; i < 100; ++i) {
      std::vector<float> row = random.bells(rotary.dims);
      turner.turn(row.data(), static_cast<std::int64_t>(random.below(1u << 24)) - (1 << 23));
      add(row.data(), row.size() * sizeof row[0]);
    }
  }
  EXPECT_EQ(word, 11088672780060344659u);
}

TEST(RowTurner, GivesTheBitsOfKeyTurner) {
  Random random(6);
  for (const Rotary& rotary : kRotaries) {
    std::vector<std::uint64_t> steps(rotary.dims / 2u);
    const KeyTurner keys(rotary, steps.data());
    RowTurner rows(rotary);
    for (const std::uint32_t positions : {0u, 1u, 4096u, 100000u, 1u << 24, 0xffffffffu}) {
      rows.set_back(positions);
      for (int i = 0; i < 3; ++i) {
        std::vector<float> row = random.bells(rotary.dims + 16u), key = row, one = row;
        rows.turn(row.data());
        keys.turn(key.data(), -static_cast<std::int64_t>(positions));
        turn_row(rotary, one.data(), -static_cast<std::int64_t>(positions));
        EXPECT_EQ(one, key) << "base " << rotary.base << ", positions " << positions;
        EXPECT_EQ(row, key) << "base " << rotary.base << ", positions " << positions;
      }
    }
  }
}

}  // namespace
}  // namespace nibkv::rotary_test
