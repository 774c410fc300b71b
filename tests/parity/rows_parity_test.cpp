// Kernels that work on one row of f32.
#include <cmath>
#include <cstdint>
#include <cstring>
#include <string_view>

#include "tests/parity/parity_support.hpp"

namespace nibkv::parity {
namespace {

class RowKernels : public PortTest {};

// The vector units of 32-bit ARM treat denormals as zero. Nothing that is stored depends on them
// (rows below 2^-60 are zero), so only a rotation may show it.
bool flushes_denormals(const Kernels& port) {
  const std::string_view name = port.name;
  return name == "mve" || (sizeof(void*) == 4 && name == "neon");
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
  // The normalising factor is 1, so that ties and thresholds are hit exactly.
  if (kind == Row::kTies || kind == Row::kIntegers) row[chosen] = 16383;
  if (kind == Row::kWide) row[chosen] = random.below(2) == 0 ? 1.0f : 0x1p-60f;
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

TEST_P(RowKernels, RotatedRowsHaveTheScalarBytes) {
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

TEST_P(RowKernels, EncodedRowsHaveTheScalarBytes) {
  for_each_row(2, [&](Unaligned<float>& row, int head_dim) {
    for (const std::uint32_t bits : {2u, 4u, 8u}) {
      Output<std::uint8_t> expected{head_dim};
      Output<std::uint8_t> actual{head_dim};
      EXPECT_EQ(port().of(bits).encode_row(row.data(), head_dim, actual.data()),
                scalar().of(bits).encode_row(row.data(), head_dim, expected.data()));
      EXPECT_TRUE(actual.same_bytes(expected)) << bits << " bits";
    }
  });
}

TEST_P(RowKernels, QuantisedQueriesHaveTheScalarBytes) {
  for_each_row(3, [&](Unaligned<float>& row, int head_dim) {
    Output<std::int8_t> expected{head_dim};
    Output<std::int8_t> actual{head_dim};
    const float expected_scale = scalar().quantise_query(row.data(), head_dim, expected.data());
    const float actual_scale = port().quantise_query(row.data(), head_dim, actual.data());
    EXPECT_EQ(std::memcmp(&actual_scale, &expected_scale, sizeof expected_scale), 0);
    EXPECT_TRUE(actual.same_bytes(expected));
  });
}

// The outlier channels of a query are a row of their own.
TEST_P(RowKernels, QuantisedOutlierChannelsHaveTheScalarBytes) {
  Random random{4};
  for (int channels = 4; channels <= 16; channels += 4) {
    for (int kind = 0; kind < static_cast<int>(Row::kCount); ++kind) {
      for (int round = 0; round < 20; ++round) {
        Unaligned<float> row{channels};
        fill(static_cast<Row>(kind), random, row.data(), channels);
        Output<std::int8_t> expected{channels};
        Output<std::int8_t> actual{channels};
        EXPECT_EQ(port().quantise_query(row.data(), channels, actual.data()),
                  scalar().quantise_query(row.data(), channels, expected.data()));
        EXPECT_TRUE(actual.same_bytes(expected)) << describe("row", channels, kind, round);
      }
    }
  }
}

// Any result is allowed, but a port must return, and write only where it may.
TEST_P(RowKernels, NumbersThatAreNotFiniteNeitherCrashNorWriteOutside) {
  Random random{9};
  for (int round = 0; round < 300; ++round) {
    const int head_dim = 16 * random.between(1, 16);
    Unaligned<float> row{head_dim};
    for (int c = 0; c < head_dim; ++c) row[c] = random.below(3) == 0 ? draw_odd(random) : random.bell();
    Output<std::uint8_t> codes{head_dim};
    Output<std::uint8_t> codes2{head_dim};
    Output<std::uint8_t> codes8{head_dim};
    Output<std::int8_t> query{head_dim};
    Output<float> rotated{head_dim};
    for (int c = 0; c < head_dim; ++c) rotated[c] = row[c];
    port().q4.encode_row(row.data(), head_dim, codes.data());
    port().q2.encode_row(row.data(), head_dim, codes2.data());
    port().q8.encode_row(row.data(), head_dim, codes8.data());
    port().quantise_query(row.data(), head_dim, query.data());
    port().rotate(rotated.data(), head_dim);
    EXPECT_TRUE(codes.guards_are_untouched() && codes2.guards_are_untouched() && codes8.guards_are_untouched());
    EXPECT_TRUE(query.guards_are_untouched() && rotated.guards_are_untouched()) << "round " << round;
    for (int c = 0; c < head_dim; ++c) {
      EXPECT_LE(codes[c], 15) << "round " << round;
      EXPECT_LE(codes2[c], 3) << "round " << round;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(BuiltPorts, RowKernels, testing::ValuesIn(kPorts), port_of);

}  // namespace
}  // namespace nibkv::parity
