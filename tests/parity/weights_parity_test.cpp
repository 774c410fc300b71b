// tile_weights: from dots to weights.
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#include "tests/parity/parity_support.hpp"

namespace nibkv::parity {
namespace {

class TileWeightsKernel : public PortTest {};

enum class Scales { kUsual, kZero, kSomeZero, kTiny, kHuge, kAny, kCount };

float draw_scale(Scales kind, Random& random) {
  const float mantissa = 1 + random.unit();
  switch (kind) {
    case Scales::kUsual:
      return mantissa * 0.004f;
    case Scales::kZero:
      return 0;
    case Scales::kSomeZero:
      return random.below(2) == 0 ? 0 : mantissa * 0.01f;
    case Scales::kTiny:
      return std::ldexp(mantissa, random.between(-69, -60));
    case Scales::kHuge:
      return std::ldexp(mantissa, random.between(30, 39));
    default:
      return std::ldexp(mantissa, random.between(-69, 39));
  }
}

// As attend passes them: never 0.
float draw_query_scale(Scales kind, Random& random) {
  const float scale = draw_scale(kind, random);
  return scale == 0 ? 0x1p-80f : scale;
}

std::uint16_t draw_scale16(Scales kind, Random& random) {
  const float scale = draw_scale(kind, random);
  std::uint32_t bits;
  std::memcpy(&bits, &scale, sizeof bits);
  return static_cast<std::uint16_t>(bits >> 15);
}

int draw_dot(int kind, Random& random, int most) {
  switch (kind) {
    case 0:
      return 0;
    case 1:
      return random.between(-most, most);
    case 2:
      return random.between(-2000, 2000);
    case 3:
      return -random.between(1, 2000);  // a negative largest logit, whose floor differs from its truncation
    case 4:
      return random.below(2) == 0 ? most : -most;
    default:
      return most;
  }
}
constexpr int kDotKinds = 6;

// A batch of tiles, each with its own scales and rows.
struct TileInput {
  TileInput(int tiles_, int count_) : tiles{tiles_}, count{count_} {}
  int tiles;
  int count;
  int rows = tiles * count;
  bool with_outliers = false;
  std::uint32_t with_biases = 0;   // one bit per tile
  std::uint32_t with_softmax = 0;  // one bit per tile
  Unaligned<std::int32_t> dots{rows * 32};
  Unaligned<std::int32_t> outlier_dots{rows * 32};
  Unaligned<std::uint16_t> key_scales{tiles * 32};
  Unaligned<std::uint16_t> value_scales{tiles * 32};
  Unaligned<float> query_scales{rows};
  Unaligned<float> outlier_ratios{rows};
  Unaligned<std::int32_t> visible{rows};
  Unaligned<std::uint8_t> biases{tiles * 32};
};

struct TileOutput {
  explicit TileOutput(int rows)
      : weights{rows * 32}, value_units{rows}, exponents{rows}, softmax{rows * 32}, masses{rows} {}
  Output<std::uint8_t> weights;
  Output<float> value_units;
  Output<std::int32_t> exponents;
  Output<std::uint16_t> softmax;
  Output<std::uint32_t> masses;
};

void weigh(const Kernels& port, TileInput& in, TileOutput& out) {
  std::vector<TileWeights> tiles;
  for (int j = 0; j < in.tiles; ++j) {
    const int row = j * in.count;
    tiles.push_back({.dots = in.dots.data() + row * 32,
                     .outlier_dots = in.with_outliers ? in.outlier_dots.data() + row * 32 : nullptr,
                     .key_scales = in.key_scales.data() + j * 32,
                     .value_scales = in.value_scales.data() + j * 32,
                     .query_scales = in.query_scales.data() + row,
                     .outlier_ratios = in.with_outliers ? in.outlier_ratios.data() + row : nullptr,
                     .visible = in.visible.data() + row,
                     .biases = (in.with_biases >> j & 1) != 0 ? in.biases.data() + j * 32 : nullptr,
                     .weights = out.weights.data() + row * 32,
                     .value_units = out.value_units.data() + row,
                     .exponents = out.exponents.data() + row,
                     .softmax = (in.with_softmax >> j & 1) != 0 ? out.softmax.data() + row * 32 : nullptr,
                     .masses = out.masses.data() + row});
  }
  port.tile_weights(tiles.data(), in.tiles, in.count);
}

void expect_same_weights(const Kernels& port, TileInput& in) {
  TileOutput expected{in.rows};
  TileOutput actual{in.rows};
  weigh(kScalarKernels, in, expected);
  weigh(port, in, actual);
  EXPECT_TRUE(actual.weights.same_bytes(expected.weights));
  EXPECT_TRUE(actual.value_units.same_bytes(expected.value_units));
  EXPECT_TRUE(actual.exponents.same_bytes(expected.exponents));
  EXPECT_TRUE(actual.softmax.same_bytes(expected.softmax));
  EXPECT_TRUE(actual.masses.same_bytes(expected.masses));
}

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
              in.visible[i] = random.between(0, 32);
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
      in.visible[i] = random.below(3) == 0 ? random.between(0, 32) : 32;
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
    in.visible[0] = 32;
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

TEST_P(TileWeightsKernel, OfEveryVisibleCountHasTheScalarBytes) {
  Random random{8};
  for (int visible = 0; visible <= 32; ++visible) {
    for (int round = 0; round < 40; ++round) {
      TileInput in{1, 1};
      in.with_biases = round % 2 == 0 ? 0 : 1;
      in.with_softmax = 1;
      in.query_scales[0] = draw_query_scale(Scales::kUsual, random);
      in.visible[0] = visible;
      for (int t = 0; t < 32; ++t) {
        in.key_scales[t] = draw_scale16(Scales::kUsual, random);
        in.value_scales[t] = draw_scale16(Scales::kUsual, random);
        in.dots[t] = random.between(-400000, 400000);
      }
      fill_bytes(Bytes::kRandom, random, in.biases, 0, 255);
      expect_same_weights(port(), in);
      ASSERT_FALSE(HasFailure()) << "visible " << visible << ", round " << round;
    }
  }
}

TEST_P(TileWeightsKernel, OfEveryBatchHasTheScalarBytes) {
  Random random{10};
  for (int count = 1; count <= kMostRows; ++count) {
    for (int tiles = 0; tiles * count <= kMostRows; ++tiles) {
      TileInput in{tiles, count};
      in.with_biases = random.bits();
      in.with_softmax = random.bits();
      for (int t = 0; t < tiles * 32; ++t) {
        in.key_scales[t] = draw_scale16(Scales::kUsual, random);
        in.value_scales[t] = draw_scale16(Scales::kUsual, random);
      }
      fill_bytes(Bytes::kRandom, random, in.biases, 0, 255);
      for (int i = 0; i < in.rows; ++i) {
        in.query_scales[i] = draw_query_scale(Scales::kUsual, random);
        in.visible[i] = random.between(0, 32);
      }
      for (int t = 0; t < in.rows * 32; ++t) in.dots[t] = random.between(-400000, 400000);
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
    in.visible[0] = random.between(0, 32);
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
