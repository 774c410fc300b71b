// AArch64 with the dot product instructions of Armv8.2: four byte products and their sum at once;
// both factors have the same signedness.
#include "ports/neon/neon_common.hpp"
#include "ports/neon/neon_halves.hpp"

namespace nibkv {
namespace {

// Adds group kGroup, channels 4 kGroup to 4 kGroup + 3 of 16, of the vectors from `codes` on.
template <int kBits, int kGroup, int kRows, int kVectors>
void add_key_group(const std::uint8_t* codes, const Decoder<kBits>& decode, const int8x16_t* queries,
                   int32x4_t (&low)[kRows][kVectors], int32x4_t (&high)[kRows][kVectors]) {
  for (int k = 0; k < kVectors; ++k) {
    const Decoded both = decode.keys(codes + k * 16, kGroup);
    for (int r = 0; r < kRows; ++r) {
      low[r][k] = vdotq_laneq_s32(low[r][k], both.low, queries[r], kGroup);
      high[r][k] = vdotq_laneq_s32(high[r][k], both.high, queries[r], kGroup);
    }
  }
}

// Processes kVectors of the four vectors of a group at a time: as many sums as
// fit in the registers.
template <int kBits, int kRows, int kVectors>
void key_dots_of(const std::uint8_t* codes, int head_dim, const std::int8_t* queries, std::int32_t* dots) {
  const Decoder<kBits> decode;
  for (int v = 0; v < 4; v += kVectors) {
    int32x4_t low[kRows][kVectors];
    int32x4_t high[kRows][kVectors];
    for (int r = 0; r < kRows; ++r) {
      for (int k = 0; k < kVectors; ++k) low[r][k] = high[r][k] = vdupq_n_s32(0);
    }
    for (int c = 0; c < head_dim; c += 16) {
      int8x16_t query[kRows];
      for (int r = 0; r < kRows; ++r) query[r] = vld1q_s8(queries + r * head_dim + c);
      const std::uint8_t* at = codes + c * 4 * kBits + v * 16;
      add_key_group<kBits, 0>(at, decode, query, low, high);
      add_key_group<kBits, 1>(at, decode, query, low, high);
      add_key_group<kBits, 2>(at, decode, query, low, high);
      add_key_group<kBits, 3>(at, decode, query, low, high);
    }
    for (int r = 0; r < kRows; ++r) {
      for (int k = 0; k < kVectors; ++k) {
        vst1q_s32(dots + r * 32 + (v + k) * 4, low[r][k]);
        vst1q_s32(dots + r * 32 + (v + k) * 4 + 16, high[r][k]);
      }
    }
  }
}

template <int kBits>
void key_dots(const std::uint8_t* codes, int head_dim, const std::int8_t* queries, const std::int32_t*, int count,
              std::int32_t* dots) {
  for (; count >= 4; count -= 4, queries += 4 * head_dim, dots += 4 * 32) {
    key_dots_of<kBits, 4, 2>(codes, head_dim, queries, dots);
  }
  if (count == 3) key_dots_of<kBits, 3, 2>(codes, head_dim, queries, dots);
  if (count == 2) key_dots_of<kBits, 2, 4>(codes, head_dim, queries, dots);
  if (count == 1) key_dots_of<kBits, 1, 4>(codes, head_dim, queries, dots);
}

void outlier_dots(const std::int8_t* outliers, int channels, const std::int8_t* queries, const std::int32_t*, int count,
                  std::int32_t* dots) {
  for (int t = 0; t < 32; t += 4) {
    for (int i = 0; i < count; ++i) {
      int32x4_t sum = vdupq_n_s32(0);
      for (int c = 0; c < channels; c += 4) {
        const int8x16_t query = vreinterpretq_s8_u8(broadcast4(queries + i * channels + c));
        sum = vdotq_s32(sum, vld1q_s8(outliers + c * 32 + t * 4), query);
      }
      vst1q_s32(dots + i * 32 + t, sum);
    }
  }
}

// Adds group kGroup of slots, 4 kGroup to 4 kGroup + 3 and the same plus 16, of the four channels at `codes`.
template <int kBits, int kGroup, int kRows>
void add_value_group(const std::uint8_t* codes, int head_dim, const Decoder<kBits>& decode,
                     const int8x16_t (&weights)[kRows][2], int32x4_t (&whole)[kRows]) {
  const Decoded both = decode.values(codes, head_dim, kGroup);
  for (int r = 0; r < kRows; ++r) {
    whole[r] = vdotq_laneq_s32(whole[r], both.low, weights[r][0], kGroup);
    whole[r] = vdotq_laneq_s32(whole[r], both.high, weights[r][1], kGroup);
  }
}

template <int kBits, int kRows>
void value_sums_of(const std::uint8_t* codes, int head_dim, const std::uint8_t* weights, const float* scales,
                   float* sums) {
  const Decoder<kBits> decode;
  int8x16_t row_weights[kRows][2];  // at most 127
  for (int r = 0; r < kRows; ++r) {
    row_weights[r][0] = vreinterpretq_s8_u8(vld1q_u8(weights + r * 32));
    row_weights[r][1] = vreinterpretq_s8_u8(vld1q_u8(weights + r * 32 + 16));
  }
  for (int c = 0; c < head_dim; c += 4) {
    int32x4_t whole[kRows];
    for (int r = 0; r < kRows; ++r) whole[r] = vdupq_n_s32(0);
    add_value_group<kBits, 0>(codes + c * 4, head_dim, decode, row_weights, whole);
    add_value_group<kBits, 1>(codes + c * 4, head_dim, decode, row_weights, whole);
    add_value_group<kBits, 2>(codes + c * 4, head_dim, decode, row_weights, whole);
    add_value_group<kBits, 3>(codes + c * 4, head_dim, decode, row_weights, whole);
    for (int r = 0; r < kRows; ++r) add_scaled(sums + r * head_dim + c, whole[r], scales[r]);
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

constexpr Kernels kNeonDotprodKernels = {.name = "neon_dotprod",
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
