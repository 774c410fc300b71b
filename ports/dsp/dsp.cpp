// The DSP instructions of Cortex-M4, M7 and M33: two products of 16 bits and their sum at a time.
// A byte of two codes is looked up as a whole.
#include <arm_acle.h>

#include "ports/kernels.hpp"

namespace nibkv {
namespace {

using namespace ports;

// The level of the low nibble in the low half, that of the high nibble in the high half.
struct Pairs {
  std::uint32_t at[256];
};
constexpr std::uint32_t halves(std::int32_t low, std::int32_t high) {
  return (static_cast<std::uint32_t>(low) & 0xffff) | static_cast<std::uint32_t>(high) << 16;
}
constexpr Pairs make_pairs() {
  Pairs pairs{};
  for (int byte = 0; byte < 256; ++byte) pairs.at[byte] = halves(kLevels[byte & 15], kLevels[byte >> 4]);
  return pairs;
}
constexpr Pairs kPairs = make_pairs();

std::uint32_t low_halves(std::uint32_t a, std::uint32_t b) {
  return (a & 0xffff) | b << 16;
}
std::uint32_t high_halves(std::uint32_t a, std::uint32_t b) {
  return a >> 16 | (b & 0xffff0000);
}
std::int32_t add_products(std::int32_t sum, std::uint32_t a, std::uint32_t b) {
  return __smlad(static_cast<int16x2_t>(a), static_cast<int16x2_t>(b), sum);
}

// Converts four int8 to int16: the first and the third, the second and the fourth.
struct Quad {
  std::uint32_t even, odd;
};
Quad widen4(const std::int8_t* from) {
  std::uint32_t four;
  __builtin_memcpy(&four, from, sizeof four);
  return {static_cast<std::uint32_t>(__sxtb16(static_cast<int8x4_t>(four))),
          static_cast<std::uint32_t>(__sxtb16(static_cast<int8x4_t>(four >> 8)))};
}

template <int kRows>
void key_dots_of(const std::uint8_t* codes, int head_dim, const std::int8_t* queries, std::int32_t* dots) {
  // As int16, in the order in which four channels of a slot are processed: 0 2, 1 3.
  std::uint32_t wide[kRows][kMaxHeadDim / 2];
#pragma GCC unroll 4
  for (int r = 0; r < kRows; ++r) {
    for (int c = 0; c < head_dim; c += 4) {
      const Quad quad = widen4(queries + r * head_dim + c);
      wide[r][c / 2] = quad.even;
      wide[r][c / 2 + 1] = quad.odd;
    }
  }
  for (int t = 0; t < 16; ++t) {
    std::int32_t low[kRows] = {};
    std::int32_t high[kRows] = {};
    const std::uint8_t* at = codes + t * 4;
    for (int c = 0; c < head_dim; c += 4, at += 64) {
      const std::uint32_t first = kPairs.at[at[0]], second = kPairs.at[at[1]];
      const std::uint32_t third = kPairs.at[at[2]], fourth = kPairs.at[at[3]];
      const std::uint32_t low_even = low_halves(first, third), low_odd = low_halves(second, fourth);
      const std::uint32_t high_even = high_halves(first, third), high_odd = high_halves(second, fourth);
#pragma GCC unroll 4
      for (int r = 0; r < kRows; ++r) {
        const std::uint32_t even = wide[r][c / 2], odd = wide[r][c / 2 + 1];
        low[r] = add_products(add_products(low[r], low_even, even), low_odd, odd);
        high[r] = add_products(add_products(high[r], high_even, even), high_odd, odd);
      }
    }
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) {
      dots[r * 32 + t] = low[r];
      dots[r * 32 + t + 16] = high[r];
    }
  }
}

void key_dots(const std::uint8_t* codes, int head_dim, const std::int8_t* queries, const std::int32_t*, int count,
              std::int32_t* dots) {
  for (; count >= 2; count -= 2, queries += 2 * head_dim, dots += 2 * 32) {
    key_dots_of<2>(codes, head_dim, queries, dots);
  }
  if (count == 1) key_dots_of<1>(codes, head_dim, queries, dots);
}

void outlier_dots(const std::int8_t* outliers, int channels, const std::int8_t* queries, const std::int32_t*, int count,
                  std::int32_t* dots) {
  for (int i = 0; i < count; ++i, queries += channels, dots += 32) {
    Quad wide[4];
    for (int c = 0; c < channels; c += 4) wide[c / 4] = widen4(queries + c);
    for (int t = 0; t < 32; ++t) {
      std::int32_t sum = 0;
      for (int c = 0; c < channels; c += 4) {
        const Quad quad = widen4(outliers + c * 32 + t * 4);
        sum = add_products(add_products(sum, quad.even, wide[c / 4].even), quad.odd, wide[c / 4].odd);
      }
      dots[t] = sum;
    }
  }
}

template <int kRows>
void value_sums_of(const std::uint8_t* codes, int head_dim, const std::uint8_t* weights, const float* scales,
                   float* sums) {
  std::uint32_t pairs[kRows][16];  // of slots t and t + 16
#pragma GCC unroll 4
  for (int r = 0; r < kRows; ++r) {
    for (int t = 0; t < 16; ++t) pairs[r][t] = halves(weights[r * 32 + t], weights[r * 32 + t + 16]);
  }
  for (int c = 0; c < head_dim; ++c) {
    std::int32_t whole[kRows] = {};
    const std::uint8_t* at = codes + c * 4;
    for (int t = 0; t < 16; t += 4, at += head_dim * 4) {
#pragma GCC unroll 4
      for (int k = 0; k < 4; ++k) {
        const std::uint32_t levels = kPairs.at[at[k]];
#pragma GCC unroll 4
        for (int r = 0; r < kRows; ++r) whole[r] = add_products(whole[r], levels, pairs[r][t + k]);
      }
    }
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) sums[r * head_dim + c] += static_cast<float>(whole[r]) * scales[r];
  }
}

void value_sums(const std::uint8_t* codes, int head_dim, const std::uint8_t* weights, const float* scales, int count,
                float* sums) {
  for (; count >= 3; count -= 3, weights += 3 * 32, scales += 3, sums += 3 * head_dim) {
    value_sums_of<3>(codes, head_dim, weights, scales, sums);
  }
  if (count == 2) value_sums_of<2>(codes, head_dim, weights, scales, sums);
  if (count == 1) value_sums_of<1>(codes, head_dim, weights, scales, sums);
}

}  // namespace

constexpr Kernels kDspKernels = {.name = "dsp",
                                 .widen = scalar::widen,
                                 .narrow = scalar::narrow,
                                 .rotate = scalar::rotate,
                                 .quantise_query = scalar::quantise_query,
                                 .outlier_dots = outlier_dots,
                                 .tile_weights = scalar::tile_weights,
                                 .add_scores = scalar::add_scores,
                                 .q2 = ports::scalar::codes<2>(),
                                 .q4 = ports::if_built(4, {scalar::encode_row<4>, key_dots, value_sums}),
                                 .q8 = ports::scalar::codes<8>()};

}  // namespace nibkv
