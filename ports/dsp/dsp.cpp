// The DSP instructions of Cortex-M4, M7 and M33: two products of 16 bits and their sum at a time.
// A byte of two codes is looked up as a whole, of 2 bits a nibble of two codes.
#include <arm_acle.h>

#include "ports/kernels.hpp"

namespace nibkv {
namespace {

using namespace ports;

constexpr std::uint32_t halves(std::int32_t low, std::int32_t high) {
  return (static_cast<std::uint32_t>(low) & 0xffff) | static_cast<std::uint32_t>(high) << 16;
}

// The levels of two codes of kBits: of the lower bits in the low half, of the upper ones in the high half.
template <int kBits>
struct Pairs {
  std::uint32_t at[1 << 2 * kBits];
};
template <int kBits>
constexpr Pairs<kBits> make_pairs() {
  constexpr int kCodes = 1 << kBits;
  Pairs<kBits> pairs{};
  for (int both = 0; both < kCodes * kCodes; ++both)
    pairs.at[both] = halves(levels_of(kBits)[both % kCodes], levels_of(kBits)[both / kCodes]);
  return pairs;
}
template <int kBits>
constexpr Pairs<kBits> kPairs = make_pairs<kBits>();

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
[[gnu::always_inline]] inline Quad widen4(const void* from) {
  std::uint32_t four;
  __builtin_memcpy(&four, from, sizeof four);
  return {static_cast<std::uint32_t>(__sxtb16(static_cast<int8x4_t>(four))),
          static_cast<std::uint32_t>(__sxtb16(static_cast<int8x4_t>(four >> 8)))};
}

template <int kBits>
constexpr int kGroups = kBits == 2 ? 2 : 1;  // of four channels or slots, in the same bytes

// Of 2 and 4 bits: the levels of code k of a group's four, for a slot below 16 and for the slot 16 later.
template <int kBits>
[[gnu::always_inline]] inline std::uint32_t pair_of(const std::uint8_t* codes, int group, int k) {
  const std::uint32_t byte = codes[k];
  return kPairs<kBits>.at[kBits == 4 ? byte : group % 2 == 0 ? byte & 15 : byte >> 4];
}

// Four channels of a slot below 16, and of the slot 16 later.
struct KeyLevels {
  Quad low, high;
};
template <int kBits>
[[gnu::always_inline]] inline KeyLevels key_levels(const std::uint8_t* codes, int group) {
  if constexpr (kBits == 8) {
    return {widen4(codes), widen4(codes + 64)};
  } else {
    const std::uint32_t first = pair_of<kBits>(codes, group, 0), second = pair_of<kBits>(codes, group, 1);
    const std::uint32_t third = pair_of<kBits>(codes, group, 2), fourth = pair_of<kBits>(codes, group, 3);
    return {{low_halves(first, third), low_halves(second, fourth)},
            {high_halves(first, third), high_halves(second, fourth)}};
  }
}

template <int kBits, int kRows>
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
    for (int c = 0; c < head_dim; c += 4 * kGroups<kBits>, at += kBits == 8 ? 128 : 64) {
#pragma GCC unroll 2
      for (int g = 0; g < kGroups<kBits>; ++g) {
        const KeyLevels levels = key_levels<kBits>(at, g);
#pragma GCC unroll 4
        for (int r = 0; r < kRows; ++r) {
          const std::uint32_t even = wide[r][c / 2 + 2 * g], odd = wide[r][c / 2 + 2 * g + 1];
          low[r] = add_products(add_products(low[r], levels.low.even, even), levels.low.odd, odd);
          high[r] = add_products(add_products(high[r], levels.high.even, even), levels.high.odd, odd);
        }
      }
    }
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) {
      dots[r * 32 + t] = low[r];
      dots[r * 32 + t + 16] = high[r];
    }
  }
}

template <int kBits>
void key_dots(const std::uint8_t* codes, int head_dim, const std::int8_t* queries, const std::int32_t*, int count,
              std::int32_t* dots) {
  for (; count >= 2; count -= 2, queries += 2 * head_dim, dots += 2 * 32) {
    key_dots_of<kBits, 2>(codes, head_dim, queries, dots);
  }
  if (count == 1) key_dots_of<kBits, 1>(codes, head_dim, queries, dots);
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

// Pair k of a group's four; of 8 bits, of two groups'.
template <int kBits>
[[gnu::always_inline]] inline std::uint32_t value_pair(const std::uint8_t* codes, int stride, int group, int k) {
  if constexpr (kBits == 8) {
    const Quad levels = widen4(codes + k / 2 * stride);
    return k % 2 == 0 ? levels.even : levels.odd;
  } else {
    return pair_of<kBits>(codes, group, k);
  }
}

template <int kBits, int kRows>
void value_sums_of(const std::uint8_t* codes, int head_dim, const std::uint8_t* weights, const float* scales,
                   float* sums) {
  constexpr int kApart = kBits == 8 ? 2 : 16;
  std::uint32_t pairs[kRows][16];  // of slots that are kApart apart
#pragma GCC unroll 4
  for (int r = 0; r < kRows; ++r) {
    for (int k = 0; k < 16; ++k) {
      const std::uint8_t* const first = weights + r * 32 + (kBits == 8 ? k / 2 * 4 + k % 2 : k);
      pairs[r][k] = halves(first[0], first[kApart]);
    }
  }
  const int stride = head_dim * 4;
  for (int c = 0; c < head_dim; ++c) {
    std::int32_t whole[kRows] = {};
    const std::uint8_t* at = codes + c * 4;
    for (int t = 0; t < 16; t += 4 * kGroups<kBits>, at += kBits == 8 ? 2 * stride : stride) {
#pragma GCC unroll 2
      for (int g = 0; g < kGroups<kBits>; ++g) {
#pragma GCC unroll 4
        for (int k = 0; k < 4; ++k) {
          const std::uint32_t levels = value_pair<kBits>(at, stride, g, k);
#pragma GCC unroll 4
          for (int r = 0; r < kRows; ++r) whole[r] = add_products(whole[r], levels, pairs[r][t + 4 * g + k]);
        }
      }
    }
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) sums[r * head_dim + c] += static_cast<float>(whole[r]) * scales[r];
  }
}

template <int kBits>
void value_sums(const std::uint8_t* codes, int head_dim, const std::uint8_t* weights, const float* scales, int count,
                float* sums) {
  for (; count >= 3; count -= 3, weights += 3 * 32, scales += 3, sums += 3 * head_dim) {
    value_sums_of<kBits, 3>(codes, head_dim, weights, scales, sums);
  }
  if (count == 2) value_sums_of<kBits, 2>(codes, head_dim, weights, scales, sums);
  if (count == 1) value_sums_of<kBits, 1>(codes, head_dim, weights, scales, sums);
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
                                 .sign_logits = scalar::sign_logits,
                                 .q2 = ports::if_built(2, {scalar::encode_row<2>, key_dots<2>, value_sums<2>}),
                                 .q4 = ports::if_built(4, {scalar::encode_row<4>, key_dots<4>, value_sums<4>}),
                                 .q8 = ports::if_built(8, {scalar::encode_row<8>, key_dots<8>, value_sums<8>})};

}  // namespace nibkv
