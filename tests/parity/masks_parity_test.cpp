// tile_weights: which slots a row sees.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "tests/parity/tile_input.hpp"

namespace nibkv::parity {
namespace {

class TileWeightsMasks : public PortTest {};

std::vector<std::uint32_t> all_kinds_of_masks() {
  std::vector<std::uint32_t> masks{0x55555555, 0xaaaaaaaa, 0x0f0f0f0f, 0xff00ff00, 0x80000001, 0x00018000};
  for (int t = 0; t < 32; ++t) masks.insert(masks.end(), {1u << t, ~(1u << t)});
  for (int n = 0; n <= 32; ++n) masks.insert(masks.end(), {first_slots(n), ~first_slots(n)});
  return masks;
}

TEST_P(TileWeightsMasks, OfEveryKindOfMaskHasTheScalarBytes) {
  Random random{8};
  for (const std::uint32_t seen : all_kinds_of_masks()) {
    for (int round = 0; round < 20; ++round) {
      TileInput in{1, 1};
      in.fill_usual(random);
      in.with_biases = round % 2 == 0 ? 0 : 1;
      in.with_softmax = 1;
      in.seen[0] = seen;
      expect_same_weights(port(), in);
      ASSERT_FALSE(HasFailure()) << "seen " << std::hex << seen << std::dec << ", round " << round;
    }
  }
}

TEST_P(TileWeightsMasks, OfRandomMasksHasTheScalarBytes) {
  Random random{13};
  for (int round = 0; round < 3000; ++round) {
    const int count = random.between(1, kMostRows);
    TileInput in{random.between(1, kMostRows / count), count};
    in.fill_usual(random);
    in.with_biases = random.bits();
    in.with_softmax = random.bits();
    const std::uint32_t few = random.below(2) == 0 ? random.bits() : ports::kAllSeen;
    for (int i = 0; i < in.rows; ++i) in.seen[i] = random.bits() & few;
    expect_same_weights(port(), in);
    ASSERT_FALSE(HasFailure()) << "round " << round;
  }
}

// Whatever is in the other slots, a row gets what it would get if those that it sees were the
// tile's first: a mask means no more and no less than a prefix did.
TEST_P(TileWeightsMasks, DependsOnlyOnTheSlotsSeen) {
  Random random{14};
  for (int round = 0; round < 3000; ++round) {
    TileInput in{1, 1};
    in.fill_usual(random);
    in.with_biases = random.bits();
    in.with_softmax = 1;
    in.seen[0] = draw_seen(random);
    TileInput moved{1, 1};
    moved.fill_usual(random);
    moved.with_biases = in.with_biases;
    moved.with_softmax = 1;
    moved.query_scales[0] = in.query_scales[0];
    std::vector<int> slots;
    for (int t = 0; t < 32; ++t) {
      if ((in.seen[0] >> t & 1) != 0) slots.push_back(t);
    }
    for (int t = 0; t < 32; ++t) {
      if ((in.seen[0] >> t & 1) != 0) continue;
      in.key_scales[t] = static_cast<std::uint16_t>(random.bits());  // any: not a number, or below all limits
      in.value_scales[t] = static_cast<std::uint16_t>(random.bits());
    }
    const int count = static_cast<int>(slots.size());
    moved.seen[0] = first_slots(count);
    for (int n = 0; n < count; ++n) {
      const int t = slots[static_cast<std::size_t>(n)];
      moved.dots[n] = in.dots[t];
      moved.key_scales[n] = in.key_scales[t];
      moved.value_scales[n] = in.value_scales[t];
      moved.biases[n] = in.biases[t];
    }
    TileOutput out{1};
    TileOutput expected{1};
    weigh(port(), in, out);
    weigh(port(), moved, expected);
    for (int n = 0; n < count; ++n) {
      EXPECT_EQ(out.weights[slots[static_cast<std::size_t>(n)]], expected.weights[n]);
      EXPECT_EQ(out.softmax[slots[static_cast<std::size_t>(n)]], expected.softmax[n]);
    }
    for (int t = 0; t < 32; ++t) {
      if ((in.seen[0] >> t & 1) != 0) continue;
      EXPECT_EQ(out.weights[t], 0);
      EXPECT_EQ(out.softmax[t] * count, 0);
    }
    EXPECT_EQ(out.value_units[0], expected.value_units[0]);
    if (count != 0) {
      EXPECT_EQ(out.exponents[0], expected.exponents[0]);
      EXPECT_EQ(out.masses[0], expected.masses[0]);
    }
    ASSERT_FALSE(HasFailure()) << "seen " << std::hex << in.seen[0] << std::dec << ", round " << round;
  }
}

// In double precision. tests/reference/attention.cpp derives the bounds.
TEST_P(TileWeightsMasks, IsTheSoftmaxOfTheSlotsSeen) {
  const auto value_of = [](std::uint16_t scale16) {
    return std::ldexp(256 + (scale16 & 255), (scale16 >> 8) - 127 - 8);
  };
  Random random{15};
  for (int round = 0; round < 2000; ++round) {
    TileInput in{1, 1};
    in.fill_usual(random);
    in.with_biases = random.bits();
    in.with_softmax = 1;
    while (in.seen[0] == 0) in.seen[0] = draw_seen(random);
    TileOutput out{1};
    weigh(port(), in, out);
    const double unit = std::ldexp(1, out.exponents[0] - 16);  // of softmax
    std::vector<double> logits(32), weights(32), products(32);
    double most = 0, most_product = 0, most_scale = 0;
    for (int t = 0; t < 32; ++t) {
      if ((in.seen[0] >> t & 1) == 0) continue;
      const auto s = static_cast<std::size_t>(t);
      logits[s] = in.dots[t] * value_of(in.key_scales[t]) * in.query_scales[0];
      if (in.with_biases % 2 != 0) logits[s] += in.biases[t] / 16.0;
      weights[s] = std::exp2(logits[s]);
      products[s] = weights[s] * value_of(in.value_scales[t]);
      most = std::max(most, weights[s]);
      most_product = std::max(most_product, products[s]);
      most_scale = std::max(most_scale, value_of(in.value_scales[t]));
    }
    for (int t = 0; t < 32; ++t) {
      const auto s = static_cast<std::size_t>(t);
      const double relative = std::log(2.0) * (1.0 / 4096 + 0x1p-19 + 0x1p-20 * std::abs(logits[s])) + 8 * 0x1p-15;
      const double slack = relative * weights[s] + 0x1p-14 * most;
      EXPECT_NEAR(out.softmax[t] * unit, weights[s], slack) << "slot " << t;
      const double rest = 0x1p-15 * most_scale * weights[s] + 0x1p-14 * most_scale * most +
                          ((0.5 + 1.0 / 256) / 127 + 0x1p-14) * most_product;
      EXPECT_NEAR(out.weights[t] * double{out.value_units[0]} * unit, products[s],
                  slack * value_of(in.value_scales[t]) + rest)
          << "slot " << t;
    }
    ASSERT_FALSE(HasFailure()) << "seen " << std::hex << in.seen[0] << std::dec << ", round " << round;
  }
}

INSTANTIATE_TEST_SUITE_P(BuiltPorts, TileWeightsMasks, testing::ValuesIn(kPorts), port_of);

}  // namespace
}  // namespace nibkv::parity
