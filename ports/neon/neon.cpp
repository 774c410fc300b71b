// NEON of AArch64 and of 32-bit ARM: byte products are widened to 16 bits, and summed
// there as far as they fit.
#include "ports/neon/neon_common.hpp"
#include "ports/neon/neon_halves.hpp"

namespace nibkv {
namespace {

// Sums of neighbours: a0 + a1, a2 + a3, b0 + b1, b2 + b3.
int32x4_t add_neighbours(int32x4_t a, int32x4_t b) {
  return vcombine_s32(vpadd_s32(vget_low_s32(a), vget_high_s32(a)), vpadd_s32(vget_low_s32(b), vget_high_s32(b)));
}

// Sums of products of levels with four groups: of query codes of channels, or of weights
// of slots. |63 * 127| * 4 fits int16, and of 8 bits |127 * 127| * 2.
template <int kBits>
int32x4_t add_products(int32x4_t sums, const int8x8_t* levels, const int8x8_t* factors) {
  constexpr int kTogether = kBits == 8 ? 2 : 4;
  for (int first = 0; first < 4; first += kTogether) {
    int16x8_t products = vmull_s8(levels[first], factors[first]);
    for (int g = first + 1; g < first + kTogether; ++g) products = vmlal_s8(products, levels[g], factors[g]);
    sums = vpadalq_s16(sums, products);
  }
  return sums;
}

template <int kBits, int kRows>
void key_dots_of(const std::uint8_t* codes, int head_dim, const std::int8_t* queries, std::int32_t* dots) {
  const Decoder<kBits> decode;
  for (int v = 0; v < 4; ++v) {
    int32x4_t sums[kRows][4];  // slots 0 1, 2 3, 16 17, 18 19 of the vector, each in two parts
    for (int r = 0; r < kRows; ++r) {
      for (int k = 0; k < 4; ++k) sums[r][k] = vdupq_n_s32(0);
    }
    for (int c = 0; c < head_dim; c += 16) {
      int8x8_t decoded[4][4];
      for (int g = 0; g < 4; ++g) {
        const Decoded both = decode.keys(codes + c * 4 * kBits + v * 16, g);
        decoded[0][g] = vget_low_s8(both.low);
        decoded[1][g] = vget_high_s8(both.low);
        decoded[2][g] = vget_low_s8(both.high);
        decoded[3][g] = vget_high_s8(both.high);
      }
      for (int r = 0; r < kRows; ++r) {
        int8x8_t query[4];
        for (int g = 0; g < 4; ++g) {
          query[g] = vget_low_s8(vreinterpretq_s8_u8(broadcast4(queries + r * head_dim + c + g * 4)));
        }
        for (int k = 0; k < 4; ++k) sums[r][k] = add_products<kBits>(sums[r][k], decoded[k], query);
      }
    }
    for (int r = 0; r < kRows; ++r) {
      vst1q_s32(dots + r * 32 + v * 4, add_neighbours(sums[r][0], sums[r][1]));
      vst1q_s32(dots + r * 32 + v * 4 + 16, add_neighbours(sums[r][2], sums[r][3]));
    }
  }
}

template <int kBits>
void key_dots(const std::uint8_t* codes, int head_dim, const std::int8_t* queries, const std::int32_t*, int count,
              std::int32_t* dots) {
  for (; count >= 4; count -= 4, queries += 4 * head_dim, dots += 4 * 32) {
    key_dots_of<kBits, 4>(codes, head_dim, queries, dots);
  }
  if (count == 3) key_dots_of<kBits, 3>(codes, head_dim, queries, dots);
  if (count == 2) key_dots_of<kBits, 2>(codes, head_dim, queries, dots);
  if (count == 1) key_dots_of<kBits, 1>(codes, head_dim, queries, dots);
}

void outlier_dots(const std::int8_t* outliers, int channels, const std::int8_t* queries, const std::int32_t*, int count,
                  std::int32_t* dots) {
  for (int t = 0; t < 32; t += 4) {
    for (int i = 0; i < count; ++i) {
      int32x4_t low = vdupq_n_s32(0);
      int32x4_t high = vdupq_n_s32(0);
      for (int c = 0; c < channels; c += 4) {
        const int8x16_t outlier = vld1q_s8(outliers + c * 32 + t * 4);
        const int8x8_t query = vget_low_s8(vreinterpretq_s8_u8(broadcast4(queries + i * channels + c)));
        low = vpadalq_s16(low, vmull_s8(vget_low_s8(outlier), query));
        high = vpadalq_s16(high, vmull_s8(vget_high_s8(outlier), query));
      }
      vst1q_s32(dots + i * 32 + t, add_neighbours(low, high));
    }
  }
}

template <int kBits, int kRows>
void value_sums_of(const std::uint8_t* codes, int head_dim, const std::uint8_t* weights, const float* scales,
                   float* sums) {
  const Decoder<kBits> decode;
  int8x8_t wide_weights[kRows][8];  // of four slots, twice; low and high nibbles alternate
  for (int r = 0; r < kRows; ++r) {
    for (int k = 0; k < 8; ++k) {
      wide_weights[r][k] = vget_low_s8(vreinterpretq_s8_u8(broadcast4(weights + r * 32 + k % 2 * 16 + k / 2 * 4)));
    }
  }
  for (int c = 0; c < head_dim; c += 4) {
    int32x4_t whole[kRows][2];
    for (int r = 0; r < kRows; ++r) whole[r][0] = whole[r][1] = vdupq_n_s32(0);
    for (int k = 0; k < 8; k += 4) {
      int8x8_t decoded[2][4];
      for (int g = 0; g < 4; g += 2) {
        const Decoded both = decode.values(codes + c * 4, head_dim, (k + g) / 2);
        decoded[0][g] = vget_low_s8(both.low);
        decoded[1][g] = vget_high_s8(both.low);
        decoded[0][g + 1] = vget_low_s8(both.high);
        decoded[1][g + 1] = vget_high_s8(both.high);
      }
      for (int r = 0; r < kRows; ++r) {
        whole[r][0] = add_products<kBits>(whole[r][0], decoded[0], wide_weights[r] + k);
        whole[r][1] = add_products<kBits>(whole[r][1], decoded[1], wide_weights[r] + k);
      }
    }
    for (int r = 0; r < kRows; ++r) {
      add_scaled(sums + r * head_dim + c, add_neighbours(whole[r][0], whole[r][1]), scales[r]);
    }
  }
}

template <int kBits>
void value_sums(const std::uint8_t* codes, int head_dim, const std::uint8_t* weights, const float* scales, int count,
                float* sums) {
  for (; count >= 4; count -= 4, weights += 4 * 32, scales += 4, sums += 4 * head_dim) {
    value_sums_of<kBits, 4>(codes, head_dim, weights, scales, sums);
  }
  if (count == 3) value_sums_of<kBits, 3>(codes, head_dim, weights, scales, sums);
  if (count == 2) value_sums_of<kBits, 2>(codes, head_dim, weights, scales, sums);
  if (count == 1) value_sums_of<kBits, 1>(codes, head_dim, weights, scales, sums);
}

}  // namespace

constexpr Kernels kNeonKernels = {.name = "neon",
                                  .widen = widen,
                                  .narrow = narrow,
                                  .rotate = rotate,
                                  .quantise_query = quantise_query,
                                  .outlier_dots = outlier_dots,
                                  .tile_weights = tile_weights,
                                  .add_scores = add_scores,
                                  .sign_logits = sign_logits,
                                  .q2 = ports::if_built(2, {encode_row<2>, key_dots<2>, value_sums<2>}),
                                  .q4 = ports::if_built(4, {encode_row<4>, key_dots<4>, value_sums<4>}),
                                  .q8 = ports::if_built(8, {encode_bytes, key_dots<8>, value_sums<8>})};

}  // namespace nibkv
