#pragma once

// Random arguments of tile_weights.
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#include "tests/parity/parity_support.hpp"

namespace nibkv::parity {

enum class Scales { kUsual, kZero, kSomeZero, kTiny, kHuge, kAny, kCount };

inline float draw_scale(Scales kind, Random& random) {
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
inline float draw_query_scale(Scales kind, Random& random) {
  const float scale = draw_scale(kind, random);
  return scale == 0 ? 0x1p-80f : scale;
}

inline std::uint16_t draw_scale16(Scales kind, Random& random) {
  const float scale = draw_scale(kind, random);
  std::uint32_t bits;
  std::memcpy(&bits, &scale, sizeof bits);
  return static_cast<std::uint16_t>(bits >> 15);
}

inline int draw_dot(int kind, Random& random, int most) {
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
inline constexpr int kDotKinds = 6;

inline std::uint32_t first_slots(int n) {
  return n < 32 ? (1u << n) - 1 : ports::kAllSeen;
}

inline std::uint32_t draw_seen(Random& random) {
  switch (random.below(8)) {
    case 0:
      return ports::kAllSeen;
    case 1:
      return 0;
    case 2:
      return first_slots(random.below(33));
    case 3:
      return ~first_slots(random.below(33));
    case 4:
      return 1u << random.below(32);
    case 5:
      return ~(1u << random.below(32));
    case 6:
      return random.below(2) == 0 ? 0x55555555 : 0xaaaaaaaa;
    default:
      return random.bits();
  }
}

// A batch of tiles, each with its own scales and rows.
struct TileInput {
  TileInput(int tiles_, int count_) : tiles{tiles_}, count{count_} {}
  void fill_usual(Random& random) {
    for (int t = 0; t < tiles * 32; ++t) {
      key_scales[t] = draw_scale16(Scales::kUsual, random);
      value_scales[t] = draw_scale16(Scales::kUsual, random);
    }
    fill_bytes(Bytes::kRandom, random, biases, 0, 255);
    for (int i = 0; i < rows; ++i) query_scales[i] = draw_query_scale(Scales::kUsual, random);
    for (int t = 0; t < rows * 32; ++t) dots[t] = random.between(-400000, 400000);
  }
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
  Unaligned<std::uint32_t> seen{rows};
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

inline void weigh(const Kernels& port, TileInput& in, TileOutput& out) {
  std::vector<TileWeights> tiles;
  for (int j = 0; j < in.tiles; ++j) {
    const int row = j * in.count;
    tiles.push_back({.dots = in.dots.data() + row * 32,
                     .outlier_dots = in.with_outliers ? in.outlier_dots.data() + row * 32 : nullptr,
                     .key_scales = in.key_scales.data() + j * 32,
                     .value_scales = in.value_scales.data() + j * 32,
                     .query_scales = in.query_scales.data() + row,
                     .outlier_ratios = in.with_outliers ? in.outlier_ratios.data() + row : nullptr,
                     .seen = in.seen.data() + row,
                     .biases = (in.with_biases >> j & 1) != 0 ? in.biases.data() + j * 32 : nullptr,
                     .weights = out.weights.data() + row * 32,
                     .value_units = out.value_units.data() + row,
                     .exponents = out.exponents.data() + row,
                     .softmax = (in.with_softmax >> j & 1) != 0 ? out.softmax.data() + row * 32 : nullptr,
                     .masses = out.masses.data() + row});
  }
  port.tile_weights(tiles.data(), in.tiles, in.count);
}

inline void expect_same_weights(const Kernels& port, TileInput& in) {
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

}  // namespace nibkv::parity
