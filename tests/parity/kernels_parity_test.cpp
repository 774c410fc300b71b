// Every built port that this CPU runs writes the bytes of the scalar port. The list of ports is walked: a new port
// needs no new test.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <new>
#include <ostream>
#include <random>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "ports/ports.hpp"

namespace nibkv {

void PrintTo(const Port& port, std::ostream* out) {
  *out << port.kernels->name;
}

namespace {

constexpr int kMostRows = 16;

class Random {
 public:
  explicit Random(std::uint32_t seed) : engine_{seed} {}
  std::uint32_t bits() { return static_cast<std::uint32_t>(engine_()); }
  int below(int n) { return static_cast<int>(bits() % static_cast<std::uint32_t>(n)); }
  int between(int low, int high) { return low + below(high - low + 1); }
  float unit() { return static_cast<float>(bits() >> 8) * 0x1p-24f; }
  float signed_unit() { return 2 * unit() - 1; }
  float bell() { return signed_unit() + signed_unit() + signed_unit() + signed_unit(); }

 private:
  std::mt19937 engine_;
};

// Exactly so many elements, so that an address sanitiser sees one read too many; aligned as codes are.
template <typename T>
class Aligned {
 public:
  explicit Aligned(int size) : size_{size}, data_{static_cast<T*>(::operator new(bytes(), kAlignment))} {}
  Aligned(const Aligned&) = delete;
  Aligned& operator=(const Aligned&) = delete;
  ~Aligned() { ::operator delete(data_, kAlignment); }
  T* data() { return data_; }
  T& operator[](int i) { return data_[i]; }
  int size() const { return size_; }

 private:
  static constexpr std::align_val_t kAlignment{32};
  std::size_t bytes() const { return static_cast<std::size_t>(size_) * sizeof(T); }
  int size_;
  T* data_;
};

// An input that has the alignment of its type and no more, and ends where its memory ends.
template <typename T>
class Unaligned {
 public:
  explicit Unaligned(int size) : cells_(static_cast<std::size_t>(size) + 1) {}
  T* data() { return cells_.data() + 1; }
  T& operator[](int i) { return cells_[static_cast<std::size_t>(i) + 1]; }
  int size() const { return static_cast<int>(cells_.size()) - 1; }

 private:
  std::vector<T> cells_;
};

// An output between two guards, which are compared with it: a write outside shows as a difference.
template <typename T>
class Output {
 public:
  explicit Output(int size) : cells_(static_cast<std::size_t>(size) + 2 * kGuard) {
    std::memset(cells_.data(), 0xA5, cells_.size() * sizeof(T));
  }
  T* data() { return cells_.data() + kGuard; }
  T& operator[](int i) { return cells_[static_cast<std::size_t>(i) + kGuard]; }
  bool same_bytes(const Output& other) const {
    return std::memcmp(cells_.data(), other.cells_.data(), cells_.size() * sizeof(T)) == 0;
  }

 private:
  static constexpr std::size_t kGuard = 67;
  std::vector<T> cells_;
};

// The vector unit of 32-bit ARM takes denormals for zero. Nothing that is stored depends on them (rows below 2^-60 are
// zero), so only a rotation may show it.
bool flushes_denormals(const Kernels& port) {
  return sizeof(void*) == 4 && std::string_view{port.name} == "neon";
}

enum class Row {
  kBell,
  kFlat,
  kSpike,
  kEqualMagnitudes,
  kZero,
  kNegativeZero,
  kAlmostZero,
  kJustBelowSmallest,
  kJustAboveSmallest,
  kTiny,
  kDenormal,
  kWide,
  kHuge,
  kTies,
  kIntegers,
  kCount
};

void fill(Row kind, Random& random, float* row, int n) {
  for (int c = 0; c < n; ++c) {
    const float sign = random.below(2) == 0 ? 1.0f : -1.0f;
    switch (kind) {
      case Row::kBell:
        row[c] = random.bell();
        break;
      case Row::kFlat:
        row[c] = random.signed_unit() * 3;
        break;
      case Row::kSpike:
        row[c] = random.bell() * 1e-3f;
        break;
      case Row::kEqualMagnitudes:
        row[c] = sign * 0.7f;
        break;
      case Row::kZero:
        row[c] = 0;
        break;
      case Row::kNegativeZero:
        row[c] = -0.0f;
        break;
      case Row::kAlmostZero:
        row[c] = 0;
        break;
      case Row::kJustBelowSmallest:
        row[c] = sign * 0x1.fffffep-61f;
        break;
      case Row::kJustAboveSmallest:
        row[c] = sign * 0x1p-60f * random.unit();
        break;
      case Row::kTiny:
        row[c] = random.bell() * 1e-19f;
        break;
      case Row::kDenormal:
        row[c] = random.bell() * 1e-40f;
        break;
      case Row::kWide:
        row[c] = random.signed_unit() * std::ldexp(1.0f, -random.below(149));
        break;
      case Row::kHuge:
        row[c] = random.bell() * 8e36f;
        break;
      case Row::kTies:
        row[c] = sign * (static_cast<float>(random.below(16383)) + 0.5f);
        break;
      case Row::kIntegers:
        row[c] = sign * static_cast<float>(random.below(16384));
        break;
      case Row::kCount:
        break;
    }
  }
  const int chosen = random.below(n);
  if (kind == Row::kSpike) row[chosen] = -40;
  if (kind == Row::kAlmostZero) row[chosen] = -1e-3f;
  if (kind == Row::kJustAboveSmallest) row[chosen] = 0x1p-60f;
  // The normalising factor is 1: ties and thresholds are met exactly.
  if (kind == Row::kTies || kind == Row::kIntegers) row[chosen] = 16383;
  if (kind == Row::kWide) row[chosen] = random.below(2) == 0 ? 1.0f : 0x1p-60f;
}

std::string describe(const char* what, int head_dim, int kind, int round) {
  return std::string{what} + ", head_dim " + std::to_string(head_dim) + ", kind " + std::to_string(kind) + ", round " +
         std::to_string(round);
}

template <typename Visit>
void for_each_row(std::uint32_t seed, Visit visit) {
  Random random{seed};
  for (int head_dim = 16; head_dim <= 256; head_dim += 16) {
    for (int kind = 0; kind < static_cast<int>(Row::kCount); ++kind) {
      for (int round = 0; round < 6; ++round) {
        Unaligned<float> row{head_dim};
        fill(static_cast<Row>(kind), random, row.data(), head_dim);
        SCOPED_TRACE(describe("row", head_dim, kind, round));
        visit(row, head_dim);
        if (testing::Test::HasFailure()) return;
      }
    }
  }
}

class KernelsParity : public testing::TestWithParam<Port> {
 protected:
  void SetUp() override {
    if (!GetParam().runs_here()) GTEST_SKIP() << "this CPU does not run " << GetParam().kernels->name;
  }
  const Kernels& port() const { return *GetParam().kernels; }
  const Kernels& scalar() const { return kScalarKernels; }
};

TEST_P(KernelsParity, RotatedRowsHaveTheScalarBytes) {
  const bool flushes = flushes_denormals(port());
  for_each_row(1, [&](Unaligned<float>& row, int head_dim) {
    Output<float> expected{head_dim};
    Output<float> actual{head_dim};
    std::memcpy(expected.data(), row.data(), static_cast<std::size_t>(head_dim) * sizeof(float));
    std::memcpy(actual.data(), row.data(), static_cast<std::size_t>(head_dim) * sizeof(float));
    scalar().rotate(expected.data(), head_dim);
    port().rotate(actual.data(), head_dim);
    for (int c = 0; flushes && c < head_dim; ++c) {
      if (std::fabs(expected[c]) < 0x1p-100f) expected[c] = 0;
      if (std::fabs(actual[c]) < 0x1p-100f) actual[c] = 0;
    }
    EXPECT_TRUE(actual.same_bytes(expected));
  });
}

TEST_P(KernelsParity, EncodedRowsHaveTheScalarBytes) {
  for_each_row(2, [&](Unaligned<float>& row, int head_dim) {
    Output<std::uint8_t> expected{head_dim};
    Output<std::uint8_t> actual{head_dim};
    EXPECT_EQ(port().encode_row(row.data(), head_dim, actual.data()),
              scalar().encode_row(row.data(), head_dim, expected.data()));
    EXPECT_TRUE(actual.same_bytes(expected));
  });
}

TEST_P(KernelsParity, QuantisedQueriesHaveTheScalarBytes) {
  for_each_row(3, [&](Unaligned<float>& row, int head_dim) {
    Output<std::int8_t> expected{head_dim};
    Output<std::int8_t> actual{head_dim};
    const float expected_scale = scalar().quantise_query(row.data(), head_dim, expected.data());
    const float actual_scale = port().quantise_query(row.data(), head_dim, actual.data());
    EXPECT_EQ(std::memcmp(&actual_scale, &expected_scale, sizeof expected_scale), 0);
    EXPECT_TRUE(actual.same_bytes(expected));
  });
}

enum class Bytes { kRandom, kLargest, kSmallest, kMixedExtremes, kZero, kCount };

int draw_byte(Bytes kind, Random& random, int low, int high) {
  switch (kind) {
    case Bytes::kLargest:
      return high;
    case Bytes::kSmallest:
      return low;
    case Bytes::kMixedExtremes:
      return random.below(2) == 0 ? low : high;
    case Bytes::kZero:
      return low > 0 ? low : 0;
    default:
      return random.between(low, high);
  }
}

template <typename Bytes_>
void fill_bytes(Bytes kind, Random& random, Bytes_& bytes, int low, int high) {
  using T = std::remove_reference_t<decltype(bytes[0])>;
  for (int i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<T>(draw_byte(kind, random, low, high));
}

// Both nibbles of each byte random, or all at one end of the codebook.
void fill_codes(Bytes kind, Random& random, Aligned<std::uint8_t>& codes) {
  for (int i = 0; i < codes.size(); ++i) {
    codes[i] = static_cast<std::uint8_t>(draw_byte(kind, random, 0, 15) | draw_byte(kind, random, 0, 15) << 4);
  }
}

constexpr int kByteKinds = static_cast<int>(Bytes::kCount);

// All pairs of kinds for the numbers of rows that ports treat apart, some for those that repeat them: emulators are
// slow.
int step_of_kinds(int count) {
  return count <= 5 ? 1 : 7;
}

std::vector<std::int32_t> sums_of_rows(Unaligned<std::int8_t>& queries, int count, int size) {
  std::vector<std::int32_t> sums(static_cast<std::size_t>(count));
  for (int c = 0; c < count * size; ++c) sums[static_cast<std::size_t>(c / size)] += queries[c];
  return sums;
}

TEST_P(KernelsParity, KeyDotsHaveTheScalarBytes) {
  Random random{4};
  for (int head_dim = 16; head_dim <= 256; head_dim += 16) {
    for (int count = 1; count <= kMostRows; ++count) {
      for (int kinds = 0; kinds < kByteKinds * kByteKinds; kinds += step_of_kinds(count)) {
        Aligned<std::uint8_t> codes{16 * head_dim};
        Unaligned<std::int8_t> queries{count * head_dim};
        fill_codes(static_cast<Bytes>(kinds % kByteKinds), random, codes);
        fill_bytes(static_cast<Bytes>(kinds / kByteKinds), random, queries, -127, 127);
        const std::vector<std::int32_t> sums = sums_of_rows(queries, count, head_dim);
        Output<std::int32_t> expected{count * 32};
        Output<std::int32_t> actual{count * 32};
        scalar().key_dots(codes.data(), head_dim, queries.data(), sums.data(), count, expected.data());
        port().key_dots(codes.data(), head_dim, queries.data(), sums.data(), count, actual.data());
        ASSERT_TRUE(actual.same_bytes(expected)) << describe("tile", head_dim, kinds, count);
      }
    }
  }
}

TEST_P(KernelsParity, OutlierDotsHaveTheScalarBytes) {
  Random random{5};
  for (int channels = 4; channels <= 16; channels += 4) {
    for (int count = 1; count <= kMostRows; ++count) {
      for (int kinds = 0; kinds < kByteKinds * kByteKinds; ++kinds) {
        Aligned<std::int8_t> outliers{32 * channels};
        Unaligned<std::int8_t> queries{count * channels};
        fill_bytes(static_cast<Bytes>(kinds % kByteKinds), random, outliers, -127, 127);
        fill_bytes(static_cast<Bytes>(kinds / kByteKinds), random, queries, -127, 127);
        const std::vector<std::int32_t> sums = sums_of_rows(queries, count, channels);
        Output<std::int32_t> expected{count * 32};
        Output<std::int32_t> actual{count * 32};
        scalar().outlier_dots(outliers.data(), channels, queries.data(), sums.data(), count, expected.data());
        port().outlier_dots(outliers.data(), channels, queries.data(), sums.data(), count, actual.data());
        ASSERT_TRUE(actual.same_bytes(expected)) << describe("outliers", channels, kinds, count);
      }
    }
  }
}

TEST_P(KernelsParity, ValueSumsHaveTheScalarBytes) {
  Random random{6};
  for (int head_dim = 16; head_dim <= 256; head_dim += 16) {
    for (int count = 1; count <= kMostRows; ++count) {
      for (int kinds = 0; kinds < kByteKinds * kByteKinds; kinds += step_of_kinds(count)) {
        Aligned<std::uint8_t> codes{16 * head_dim};
        Unaligned<std::uint8_t> weights{count * 32};
        Unaligned<float> scales{count};
        fill_codes(static_cast<Bytes>(kinds % kByteKinds), random, codes);
        fill_bytes(static_cast<Bytes>(kinds / kByteKinds), random, weights, 0, 127);
        for (int i = 0; i < count; ++i)
          scales[i] = random.below(9) == 0 ? 0 : std::ldexp(random.unit(), random.between(-70, 60));
        Output<float> expected{count * head_dim};
        Output<float> actual{count * head_dim};
        for (int c = 0; c < count * head_dim; ++c) {
          expected[c] = actual[c] =
              random.below(5) == 0 ? 0 : std::ldexp(random.signed_unit(), random.between(-40, 40));
        }
        scalar().value_sums(codes.data(), head_dim, weights.data(), scales.data(), count, expected.data());
        port().value_sums(codes.data(), head_dim, weights.data(), scales.data(), count, actual.data());
        ASSERT_TRUE(actual.same_bytes(expected)) << describe("tile", head_dim, kinds, count);
      }
    }
  }
}

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

// As attend gives them: never 0.
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
      return -random.between(1, 2000);  // a negative largest logit: its floor is not its truncation
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
  Unaligned<std::int32_t> dots{rows * 32};
  Unaligned<std::int32_t> outlier_dots{rows * 32};
  Unaligned<std::uint16_t> key_scales{tiles * 32};
  Unaligned<std::uint16_t> value_scales{tiles * 32};
  Unaligned<float> query_scales{rows};
  Unaligned<float> outlier_ratios{rows};
  Unaligned<std::int32_t> visible{rows};
};

struct TileOutput {
  explicit TileOutput(int rows) : weights{rows * 32}, value_units{rows}, exponents{rows}, masses{rows} {}
  Output<std::uint8_t> weights;
  Output<float> value_units;
  Output<std::int32_t> exponents;
  Output<std::uint32_t> masses;
};

void weigh(const Kernels& port, TileInput& in, bool with_outliers, TileOutput& out) {
  std::vector<TileWeights> tiles;
  for (int j = 0; j < in.tiles; ++j) {
    const int row = j * in.count;
    tiles.push_back({.dots = in.dots.data() + row * 32,
                     .outlier_dots = with_outliers ? in.outlier_dots.data() + row * 32 : nullptr,
                     .key_scales = in.key_scales.data() + j * 32,
                     .value_scales = in.value_scales.data() + j * 32,
                     .query_scales = in.query_scales.data() + row,
                     .outlier_ratios = with_outliers ? in.outlier_ratios.data() + row : nullptr,
                     .visible = in.visible.data() + row,
                     .weights = out.weights.data() + row * 32,
                     .value_units = out.value_units.data() + row,
                     .exponents = out.exponents.data() + row,
                     .masses = out.masses.data() + row});
  }
  port.tile_weights(tiles.data(), in.tiles, in.count);
}

void expect_same_weights(const Kernels& port, TileInput& in, bool with_outliers) {
  TileOutput expected{in.rows};
  TileOutput actual{in.rows};
  weigh(kScalarKernels, in, with_outliers, expected);
  weigh(port, in, with_outliers, actual);
  EXPECT_TRUE(actual.weights.same_bytes(expected.weights));
  EXPECT_TRUE(actual.value_units.same_bytes(expected.value_units));
  EXPECT_TRUE(actual.exponents.same_bytes(expected.exponents));
  EXPECT_TRUE(actual.masses.same_bytes(expected.masses));
}

TEST_P(KernelsParity, TileWeightsHaveTheScalarBytes) {
  constexpr int kScaleKinds = static_cast<int>(Scales::kCount);
  Random random{7};
  for (int query_kind = 0; query_kind < kScaleKinds; ++query_kind) {
    for (int key_kind = 0; key_kind < kScaleKinds; ++key_kind) {
      for (int value_kind = 0; value_kind < kScaleKinds; ++value_kind) {
        for (int dot_kind = 0; dot_kind < kDotKinds; ++dot_kind) {
          for (int outliers = 0; outliers < 2; ++outliers) {
            for (int round = 0; round < 3; ++round) {
              const int count = random.between(1, kMostRows);
              TileInput in{random.between(1, kMostRows / count), count};
              for (int t = 0; t < in.tiles * 32; ++t) {
                in.key_scales[t] = draw_scale16(static_cast<Scales>(key_kind), random);
                in.value_scales[t] = draw_scale16(static_cast<Scales>(value_kind), random);
              }
              for (int i = 0; i < in.rows; ++i) {
                in.query_scales[i] = draw_query_scale(static_cast<Scales>(query_kind), random);
                in.outlier_ratios[i] = draw_scale(static_cast<Scales>(random.below(kScaleKinds)), random);
                in.visible[i] = random.between(0, 32);
              }
              for (int t = 0; t < in.rows * 32; ++t) {
                in.dots[t] = draw_dot(dot_kind, random, 256 * 63 * 127);
                in.outlier_dots[t] = draw_dot(random.below(kDotKinds), random, 16 * 127 * 127);
              }
              expect_same_weights(port(), in, outliers != 0);
              ASSERT_FALSE(HasFailure()) << "scales of query, key, value " << query_kind << key_kind << value_kind
                                         << ", dots " << dot_kind << ", outliers " << outliers << ", round " << round;
            }
          }
        }
      }
    }
  }
}

TEST_P(KernelsParity, TileWeightsOfEveryDistanceBelowTheTopHaveTheScalarBytes) {
  // Scales of 1 and 2^-13 make logits that walk the octaves in quarter steps of the weights' table, through and past
  // its end.
  for (int first = 0; first < 18 * 8192; first += 31) {
    TileInput in{1, 1};
    in.query_scales[0] = 0x1p-13f;
    in.visible[0] = 32;
    for (int t = 0; t < 32; ++t) {
      in.key_scales[t] = in.value_scales[t] = 0x7F00;  // 1.0
      in.dots[t] = t == 0 ? -1 : -1 - first - t;
    }
    expect_same_weights(port(), in, false);
    ASSERT_FALSE(HasFailure()) << "from " << first;
  }
}

TEST_P(KernelsParity, TileWeightsOfEveryVisibleCountHaveTheScalarBytes) {
  Random random{8};
  for (int visible = 0; visible <= 32; ++visible) {
    for (int round = 0; round < 20; ++round) {
      TileInput in{1, 1};
      in.query_scales[0] = draw_query_scale(Scales::kUsual, random);
      in.visible[0] = visible;
      for (int t = 0; t < 32; ++t) {
        in.key_scales[t] = draw_scale16(Scales::kUsual, random);
        in.value_scales[t] = draw_scale16(Scales::kUsual, random);
        in.dots[t] = random.between(-400000, 400000);
      }
      expect_same_weights(port(), in, false);
      ASSERT_FALSE(HasFailure()) << "visible " << visible << ", round " << round;
    }
  }
}

TEST_P(KernelsParity, TileWeightsOfEveryBatchHaveTheScalarBytes) {
  Random random{10};
  for (int count = 1; count <= kMostRows; ++count) {
    for (int tiles = 0; tiles * count <= kMostRows; ++tiles) {
      TileInput in{tiles, count};
      for (int t = 0; t < tiles * 32; ++t) {
        in.key_scales[t] = draw_scale16(Scales::kUsual, random);
        in.value_scales[t] = draw_scale16(Scales::kUsual, random);
      }
      for (int i = 0; i < in.rows; ++i) {
        in.query_scales[i] = draw_query_scale(Scales::kUsual, random);
        in.visible[i] = random.between(0, 32);
      }
      for (int t = 0; t < in.rows * 32; ++t) in.dots[t] = random.between(-400000, 400000);
      expect_same_weights(port(), in, false);
      ASSERT_FALSE(HasFailure()) << tiles << " tiles of " << count << " rows";
    }
  }
}

// Whatever comes out; a port must come back, and write where it may.
TEST_P(KernelsParity, NumbersThatAreNotFiniteNeitherCrashNorWriteOutside) {
  constexpr float kOdd[] = {std::numeric_limits<float>::quiet_NaN(),
                            std::numeric_limits<float>::infinity(),
                            -std::numeric_limits<float>::infinity(),
                            1.0f,
                            0.0f,
                            std::numeric_limits<float>::max()};
  Random random{9};
  const auto odd = [&] { return kOdd[random.below(6)]; };
  const auto guarded = [](auto& output, int size) {
    std::remove_reference_t<decltype(output)> untouched{size};
    for (int i = 0; i < size; ++i) untouched[i] = output[i];
    return output.same_bytes(untouched);
  };
  for (int round = 0; round < 300; ++round) {
    const int head_dim = 16 * random.between(1, 16);
    Unaligned<float> row{head_dim};
    for (int c = 0; c < head_dim; ++c) row[c] = random.below(3) == 0 ? odd() : random.bell();
    Output<std::uint8_t> codes{head_dim};
    Output<std::int8_t> query{head_dim};
    Output<float> rotated{head_dim};
    for (int c = 0; c < head_dim; ++c) rotated[c] = row[c];
    port().encode_row(row.data(), head_dim, codes.data());
    port().quantise_query(row.data(), head_dim, query.data());
    port().rotate(rotated.data(), head_dim);
    EXPECT_TRUE(guarded(codes, head_dim) && guarded(query, head_dim) && guarded(rotated, head_dim))
        << "round " << round;
    for (int c = 0; c < head_dim; ++c) EXPECT_LE(codes[c], 15) << "round " << round;

    TileInput in{1, 1};
    in.query_scales[0] = odd();
    in.outlier_ratios[0] = odd();
    in.visible[0] = random.between(0, 32);
    for (int t = 0; t < 32; ++t) {
      in.key_scales[t] = static_cast<std::uint16_t>(random.bits());
      in.value_scales[t] = static_cast<std::uint16_t>(random.bits());
      in.dots[t] = random.between(-100, 100);
      in.outlier_dots[t] = random.between(-100, 100);
    }
    TileOutput out{1};
    weigh(port(), in, random.below(2) == 0, out);
    EXPECT_TRUE(guarded(out.weights, 32) && guarded(out.value_units, 1) && guarded(out.exponents, 1) &&
                guarded(out.masses, 1))
        << "round " << round;
  }
}

std::string port_of(const testing::TestParamInfo<Port>& test) {
  return test.param.kernels->name;
}

INSTANTIATE_TEST_SUITE_P(BuiltPorts, KernelsParity, testing::ValuesIn(kPorts), port_of);

}  // namespace
}  // namespace nibkv
