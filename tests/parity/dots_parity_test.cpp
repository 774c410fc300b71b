// Kernels that multiply codes: dots of keys and outliers, sums of values.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "tests/parity/parity_support.hpp"

namespace nibkv::parity {
namespace {

class DotKernels : public PortTest {};

// The codes of each byte random, or all at one end of the codebook.
void fill_codes(int bits, Bytes kind, Random& random, Aligned<std::uint8_t>& codes) {
  for (int i = 0; i < codes.size(); ++i) {
    int byte = bits == 8 ? draw_byte(kind, random, -127, 127) : 0;
    for (int at = 0; bits != 8 && at < 8; at += bits) byte |= draw_byte(kind, random, 0, (1 << bits) - 1) << at;
    codes[i] = static_cast<std::uint8_t>(byte);
  }
}

// What the sums are, code by code.
int level_of(int bits, int code) {
  return bits == 8 ? static_cast<std::int8_t>(code) : ports::levels_of(static_cast<std::uint32_t>(bits))[code];
}
int key_level(int bits, const std::uint8_t* codes, int t, int c) {
  if (bits == 8) return level_of(8, codes[c / 4 * 128 + t * 4 + c % 4]);
  if (bits == 4) return level_of(4, codes[c / 4 * 64 + t % 16 * 4 + c % 4] >> t / 16 * 4 & 15);
  return level_of(2, codes[c / 8 * 64 + t % 16 * 4 + c % 4] >> (c / 4 % 2 * 4 + t / 16 * 2) & 3);
}
int value_level(int bits, const std::uint8_t* codes, int dim, int t, int c) {
  if (bits == 8) return level_of(8, codes[t / 4 * dim * 4 + c * 4 + t % 4]);
  if (bits == 4) return level_of(4, codes[t % 16 / 4 * dim * 4 + c * 4 + t % 4] >> t / 16 * 4 & 15);
  return level_of(2, codes[t % 16 / 8 * dim * 4 + c * 4 + t % 4] >> (t / 4 % 2 * 4 + t / 16 * 2) & 3);
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

void compare_key_dots(const Kernels& port, int bits) {
  Random random{4};
  const CodeKernels& kernels = port.of(static_cast<std::uint32_t>(bits));
  for (int head_dim = 16; head_dim <= 256; head_dim += 16) {
    for (int count = 1; count <= kMostRows; ++count) {
      for (int kinds = 0; kinds < kByteKinds * kByteKinds; kinds += step_of_kinds(count)) {
        Aligned<std::uint8_t> codes{4 * bits * head_dim};
        Unaligned<std::int8_t> queries{count * head_dim};
        fill_codes(bits, static_cast<Bytes>(kinds % kByteKinds), random, codes);
        fill_bytes(static_cast<Bytes>(kinds / kByteKinds), random, queries, -127, 127);
        const std::vector<std::int32_t> sums = sums_of_rows(queries, count, head_dim);
        Output<std::int32_t> expected{count * 32};
        Output<std::int32_t> actual{count * 32};
        for (int i = 0; i < count * 32; ++i) {
          expected[i] = 0;
          for (int c = 0; c < head_dim; ++c)
            expected[i] += key_level(bits, codes.data(), i % 32, c) * queries[i / 32 * head_dim + c];
        }
        kernels.key_dots(codes.data(), head_dim, queries.data(), sums.data(), count, actual.data());
        ASSERT_TRUE(actual.same_bytes(expected)) << describe("tile", head_dim, kinds, count);
      }
    }
  }
}

TEST_P(DotKernels, KeyDotsOfEachWidthAreTheSumsOfTheirCodes) {
  for (const int bits : {2, 4, 8}) compare_key_dots(port(), bits);
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

// The logits of a page of signs, channel by channel, and where they are bounded.
TEST_P(DotKernels, SignLogitsAreThoseOfTheirChannels) {
  constexpr float kUnits[] = {0, 0x1p-149f, 0x1p-60f, 1.5e-4f, 3e-3f, 0x1p100f};
  constexpr float kBases[] = {0, -0.5f, 0.499f, -17.25f, 31999.75f, -31999.75f, 0x1p120f, -0x1p120f};
  Random random{8};
  for (int head_dim = 16; head_dim <= 256; head_dim += 16) {
    for (int kinds = 0; kinds < kByteKinds * kByteKinds; ++kinds) {
      for (int i = 0; i < 48; ++i) {
        Unaligned<std::uint8_t> signs{4 * head_dim};
        Unaligned<std::uint8_t> sizes{32};
        Unaligned<std::int8_t> query{head_dim};
        Unaligned<std::int8_t> sums{4 * head_dim};
        fill_bytes(static_cast<Bytes>(kinds % kByteKinds), random, signs, 0, 255);
        fill_bytes(static_cast<Bytes>(i % kByteKinds), random, sizes, 0, 255);
        fill_bytes(static_cast<Bytes>(kinds / kByteKinds), random, query, -31, 31);
        for (int at = 0; at < 4 * head_dim; ++at) {
          int sum = 0;
          for (int c = 0; c < 4; ++c) sum += (at % 16 >> c & 1) != 0 ? query[at / 16 * 4 + c] : -query[at / 16 * 4 + c];
          sums[at] = static_cast<std::int8_t>(sum);
        }
        const float unit = kUnits[i % 6], base = kBases[i / 6];
        Output<std::int16_t> expected{32}, actual{32};
        std::int16_t largest = INT16_MIN;
        for (int t = 0; t < 32; ++t) {
          int dot = 0;
          for (int c = 0; c < head_dim; ++c) dot += (signs[c / 8 * 32 + t] >> c % 8 & 1) != 0 ? query[c] : -query[c];
          const float scaled = static_cast<float>(dot * sizes[t]) * unit;
          const float logit = std::fmin(std::fmax(base + scaled, -32000.0f), 32000.0f);
          expected[t] = static_cast<std::int16_t>(static_cast<int>(logit + 32768.5f) - 32768);
          largest = std::max(largest, expected[t]);
        }
        const SignLogits page = {.signs = signs.data(),
                                 .sizes = sizes.data(),
                                 .sums = sums.data(),
                                 .head_dim = head_dim,
                                 .base = base,
                                 .unit = unit,
                                 .logits = actual.data()};
        ASSERT_EQ(port().sign_logits(page), largest) << describe("signs", head_dim, kinds, i);
        ASSERT_TRUE(actual.same_bytes(expected)) << describe("signs", head_dim, kinds, i);
      }
    }
  }
}

void compare_value_sums(const Kernels& port, int bits) {
  Random random{6};
  const CodeKernels& kernels = port.of(static_cast<std::uint32_t>(bits));
  for (int head_dim = 16; head_dim <= 256; head_dim += 16) {
    for (int count = 1; count <= kMostRows; ++count) {
      for (int kinds = 0; kinds < kByteKinds * kByteKinds; kinds += step_of_kinds(count)) {
        Aligned<std::uint8_t> codes{4 * bits * head_dim};
        Unaligned<std::uint8_t> weights{count * 32};
        Unaligned<float> scales{count};
        fill_codes(bits, static_cast<Bytes>(kinds % kByteKinds), random, codes);
        fill_bytes(static_cast<Bytes>(kinds / kByteKinds), random, weights, 0, 127);
        for (int i = 0; i < count; ++i)
          scales[i] = random.below(9) == 0 ? 0 : std::ldexp(random.unit(), random.between(-70, 60));
        Output<float> expected{count * head_dim};
        Output<float> actual{count * head_dim};
        for (int c = 0; c < count * head_dim; ++c) {
          expected[c] = actual[c] =
              random.below(5) == 0 ? 0 : std::ldexp(random.signed_unit(), random.between(-40, 40));
        }
        for (int i = 0; i < count * head_dim; ++i) {
          int sum = 0;
          for (int t = 0; t < 32; ++t)
            sum += value_level(bits, codes.data(), head_dim, t, i % head_dim) * weights[i / head_dim * 32 + t];
          // Rounded before it is added, also where a compiler may fuse the two. The double is exact.
          expected[i] += static_cast<float>(double{scales[i / head_dim]} * sum);
        }
        kernels.value_sums(codes.data(), head_dim, weights.data(), scales.data(), count, actual.data());
        ASSERT_TRUE(actual.same_bytes(expected)) << describe("tile", head_dim, kinds, count);
      }
    }
  }
}

TEST_P(DotKernels, ValueSumsOfEachWidthAreTheSumsOfTheirCodes) {
  for (const int bits : {2, 4, 8}) compare_value_sums(port(), bits);
}

INSTANTIATE_TEST_SUITE_P(BuiltPorts, DotKernels, testing::ValuesIn(kPorts), port_of);

}  // namespace
}  // namespace nibkv::parity
