// tile_weights: from dots to weights.
#include <cstdint>

#include "tests/parity/tile_input.hpp"

namespace nibkv::parity {
namespace {

class TileWeightsKernel : public PortTest {};

TEST_P(TileWeightsKernel, HasTheScalarBytes) {
  constexpr int kScaleKinds = static_cast<int>(Scales::kCount);
  Random random{7};
  for (int query_kind = 0; query_kind < kScaleKinds; ++query_kind) {
    for (int key_kind = 0; key_kind < kScaleKinds; ++key_kind) {
      for (int value_kind = 0; value_kind < kScaleKinds; ++value_kind) {
        for (int dot_kind = 0; dot_kind < kDotKinds; ++dot_kind) {
          // Without outliers, with them; without biases, with them, with them for some tiles; twice.
          for (int parts = 0; parts < 12; ++parts) {
            const int count = random.between(1, kMostRows);
            TileInput in{random.between(1, kMostRows / count), count};
            in.with_outliers = parts % 2 != 0;
            in.with_biases = parts / 2 % 3 == 0 ? 0 : parts / 2 % 3 == 1 ? ~0u : random.bits();
            in.with_softmax = random.bits();
            for (int t = 0; t < in.tiles * 32; ++t) {
              in.key_scales[t] = draw_scale16(static_cast<Scales>(key_kind), random);
              in.value_scales[t] = draw_scale16(static_cast<Scales>(value_kind), random);
            }
            fill_bytes(static_cast<Bytes>(random.below(kByteKinds)), random, in.biases, 0, 255);
            for (int i = 0; i < in.rows; ++i) {
              in.query_scales[i] = draw_query_scale(static_cast<Scales>(query_kind), random);
              in.outlier_ratios[i] = draw_scale(static_cast<Scales>(random.below(kScaleKinds)), random);
              in.seen[i] = draw_seen(random);
            }
            for (int t = 0; t < in.rows * 32; ++t) {
              in.dots[t] = draw_dot(dot_kind, random, 256 * 63 * 127);
              in.outlier_dots[t] = draw_dot(random.below(kDotKinds), random, 16 * 127 * 127);
            }
            expect_same_weights(port(), in);
            ASSERT_FALSE(HasFailure()) << "scales of query, key, value " << query_kind << key_kind << value_kind
                                       << ", dots " << dot_kind << ", parts " << parts;
          }
        }
      }
    }
  }
}

TEST_P(TileWeightsKernel, OfScalesAtTheirLimitsHasTheScalarBytes) {
  constexpr float kQueryScales[] = {0x1p-80f, 0x1p-40f, 1.0f, 0x1p40f};
  constexpr std::uint16_t kKeyScales[] = {0, (127 - 70) << 8, (127 + 50) << 8};
  constexpr std::uint16_t kValueScales[] = {0, (127 - 70) << 8, (127 + 100) << 8};
  constexpr float kRatios[] = {0, 0x1p-110f, 0x1p40f};
  Random random{12};
  for (int round = 0; round < 3000; ++round) {
    TileInput in{1, 2};
    in.with_outliers = random.below(2) != 0;
    in.with_biases = random.bits();
    in.with_softmax = 1;
    const int kind = random.below(kDotKinds);
    for (int t = 0; t < 32; ++t) {
      in.key_scales[t] = kKeyScales[random.below(3)];
      in.value_scales[t] = kValueScales[random.below(3)];
    }
    fill_bytes(static_cast<Bytes>(random.below(kByteKinds)), random, in.biases, 0, 255);
    for (int i = 0; i < 2; ++i) {
      in.query_scales[i] = kQueryScales[random.below(4)];
      in.outlier_ratios[i] = kRatios[random.below(3)];
      in.seen[i] = draw_seen(random);
    }
    for (int t = 0; t < 2 * 32; ++t) {
      in.dots[t] = draw_dot(kind, random, 256 * 63 * 127);
      in.outlier_dots[t] = draw_dot(random.below(kDotKinds), random, 16 * 127 * 127);
    }
    expect_same_weights(port(), in);
    ASSERT_FALSE(HasFailure()) << "round " << round;
  }
}

TEST_P(TileWeightsKernel, OfEveryDistanceBelowTheTopHasTheScalarBytes) {
  // Scales of 1 and 2^-13 make logits that go through the octaves in quarter steps of the weights'
  // table, up to its end and beyond.
  Random random{11};
  for (int first = 0; first < 18 * 8192; first += 31) {
    TileInput in{1, 1};
    in.with_softmax = 1;
    in.query_scales[0] = 0x1p-13f;
    in.seen[0] = ports::kAllSeen;
    for (int t = 0; t < 32; ++t) {
      in.key_scales[t] = in.value_scales[t] = 0x7F00;  // 1.0
      in.dots[t] = t == 0 ? -1 : -1 - first - t;
    }
    expect_same_weights(port(), in);
    in.with_biases = 1;
    fill_bytes(Bytes::kRandom, random, in.biases, 0, 255);
    expect_same_weights(port(), in);
    ASSERT_FALSE(HasFailure()) << "from " << first;
  }
}

TEST_P(TileWeightsKernel, OfEveryBatchHasTheScalarBytes) {
  Random random{10};
  for (int count = 1; count <= kMostRows; ++count) {
    for (int tiles = 0; tiles * count <= kMostRows; ++tiles) {
      TileInput in{tiles, count};
      in.with_biases = random.bits();
      in.with_softmax = random.bits();
      in.fill_usual(random);
      for (int i = 0; i < in.rows; ++i) in.seen[i] = draw_seen(random);
      expect_same_weights(port(), in);
      ASSERT_FALSE(HasFailure()) << tiles << " tiles of " << count << " rows";
    }
  }
}

// Any result is allowed, but a port must return, write only where it may, and give no weight that
// add_scores does not accept.
TEST_P(TileWeightsKernel, OfNumbersThatAreNotFiniteNeitherCrashesNorWritesOutside) {
  Random random{9};
  for (int round = 0; round < 1000; ++round) {
    TileInput in{1, 1};
    in.with_outliers = random.below(2) == 0;
    in.with_biases = random.bits();
    in.with_softmax = 1;
    in.query_scales[0] = draw_odd(random);
    in.outlier_ratios[0] = draw_odd(random);
    in.seen[0] = draw_seen(random);
    for (int t = 0; t < 32; ++t) {
      in.key_scales[t] = static_cast<std::uint16_t>(random.bits());
      in.value_scales[t] = static_cast<std::uint16_t>(random.bits());
      in.dots[t] = random.between(-100, 100);
      in.outlier_dots[t] = random.between(-100, 100);
    }
    fill_bytes(Bytes::kRandom, random, in.biases, 0, 255);
    TileOutput out{1};
    weigh(port(), in, out);
    EXPECT_TRUE(out.weights.guards_are_untouched() && out.value_units.guards_are_untouched() &&
                out.exponents.guards_are_untouched() && out.softmax.guards_are_untouched() &&
                out.masses.guards_are_untouched())
        << "round " << round;
    for (int t = 0; t < 32; ++t) EXPECT_LE(out.softmax[t], 32767) << "round " << round;
  }
}

INSTANTIATE_TEST_SUITE_P(BuiltPorts, TileWeightsKernel, testing::ValuesIn(kPorts), port_of);

}  // namespace
}  // namespace nibkv::parity
