// Kernels that multiply codes: dots of keys and outliers, sums of values.
#include <cmath>
#include <cstdint>
#include <vector>

#include "tests/parity/parity_support.hpp"

namespace nibkv::parity {
namespace {

class DotKernels : public PortTest {};

// Both nibbles of each byte random, or all at one end of the codebook.
void fill_codes(Bytes kind, Random& random, Aligned<std::uint8_t>& codes) {
  for (int i = 0; i < codes.size(); ++i) {
    codes[i] = static_cast<std::uint8_t>(draw_byte(kind, random, 0, 15) | draw_byte(kind, random, 0, 15) << 4);
  }
}

// All pairs of kinds for the numbers of rows that ports treat separately, and some for those that
// repeat them, because emulators are slow.
int step_of_kinds(int count) {
  return count <= 5 ? 1 : 7;
}

std::vector<std::int32_t> sums_of_rows(Unaligned<std::int8_t>& queries, int count, int size) {
  std::vector<std::int32_t> sums(static_cast<std::size_t>(count));
  for (int c = 0; c < count * size; ++c) sums[static_cast<std::size_t>(c / size)] += queries[c];
  return sums;
}

TEST_P(DotKernels, KeyDotsHaveTheScalarBytes) {
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

TEST_P(DotKernels, OutlierDotsHaveTheScalarBytes) {
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

TEST_P(DotKernels, ValueSumsHaveTheScalarBytes) {
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

INSTANTIATE_TEST_SUITE_P(BuiltPorts, DotKernels, testing::ValuesIn(kPorts), port_of);

}  // namespace
}  // namespace nibkv::parity
