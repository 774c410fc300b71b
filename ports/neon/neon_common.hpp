#pragma once
// What the NEON ports share: everything except the dot products. For AArch64 and 32-bit ARM;
// the first helpers hide the differences.
#include <arm_neon.h>

#include "ports/kernels.hpp"

namespace nibkv {
namespace {

using namespace ports;

#if defined(__aarch64__)
using Table = int8x16_t;
Table load_table(const std::int8_t* entries) {
  return vld1q_s8(entries);
}
int8x16_t look_up(Table table, uint8x16_t index) {
  return vqtbl1q_s8(table, index);
}
// Returns b when a is not a number.
float32x4_t larger(float32x4_t a, float32x4_t b) {
  return vmaxnmq_f32(a, b);
}
float32x4_t smaller(float32x4_t a, float32x4_t b) {
  return vminnmq_f32(a, b);
}
#else
using Table = int8x8x2_t;
Table load_table(const std::int8_t* entries) {
  return {{vld1_s8(entries), vld1_s8(entries + 8)}};
}
int8x16_t look_up(Table table, uint8x16_t index) {
  const int8x16_t at = vreinterpretq_s8_u8(index);
  return vcombine_s8(vtbl2_s8(table, vget_low_s8(at)), vtbl2_s8(table, vget_high_s8(at)));
}
float32x4_t larger(float32x4_t a, float32x4_t b) {
  return vbslq_f32(vcgtq_f32(a, b), a, b);
}
float32x4_t smaller(float32x4_t a, float32x4_t b) {
  return vbslq_f32(vcltq_f32(a, b), a, b);
}
#endif

// Four bytes, repeated four times.
uint8x16_t broadcast4(const void* from) {
  std::uint32_t four;
  __builtin_memcpy(&four, from, sizeof four);
  return vreinterpretq_u8_u32(vdupq_n_u32(four));
}

std::int32_t sum_of_lanes(int32x4_t x) {
  const int32x2_t two = vpadd_s32(vget_low_s32(x), vget_high_s32(x));
  return vget_lane_s32(vpadd_s32(two, two), 0);
}

float largest_lane(float32x4_t x) {
  const float32x2_t two = vpmax_f32(vget_low_f32(x), vget_high_f32(x));
  return vget_lane_f32(vpmax_f32(two, two), 0);
}

std::int32_t largest_lane(uint16x8_t x) {
  uint16x4_t most = vpmax_u16(vget_low_u16(x), vget_high_u16(x));
  most = vpmax_u16(most, most);
  return vget_lane_u16(vpmax_u16(most, most), 0);
}

float largest_magnitude(const float* row, int n) {
  float32x4_t most = vdupq_n_f32(0);
  for (int i = 0; i < n; i += 4) most = larger(vabsq_f32(vld1q_f32(row + i)), most);
  return largest_lane(most);
}

// The conversion truncates, gives 0 for what is not a number, and saturates.
int32x4_t round_biased(float32x4_t x, std::int32_t offset) {
  const float32x4_t biased = vaddq_f32(x, vdupq_n_f32(static_cast<float>(offset) + 0.5f));
  return vsubq_s32(vcvtq_s32_f32(biased), vdupq_n_s32(offset));
}

// The stages with partners at 1 and at 2. a + (-b) is a - b to the last bit.
float32x4_t flip_signs(float32x4_t x, uint32x4_t signs) {
  return vreinterpretq_f32_u32(veorq_u32(vreinterpretq_u32_f32(x), signs));
}
float32x4_t rotate4(float32x4_t x) {
  constexpr std::uint32_t kOdd[4] = {0, 0x80000000, 0, 0x80000000};
  constexpr std::uint32_t kUpper[4] = {0, 0, 0x80000000, 0x80000000};
  x = vaddq_f32(vrev64q_f32(x), flip_signs(x, vld1q_u32(kOdd)));
  return vaddq_f32(vextq_f32(x, x, 2), flip_signs(x, vld1q_u32(kUpper)));
}

void rotate_block(float* row, int n, float norm) {
  for (int i = 0; i < n; i += 16) {  // partners at 1, 2, 4 and 8
    const float32x4_t a = rotate4(vld1q_f32(row + i));
    const float32x4_t b = rotate4(vld1q_f32(row + i + 4));
    const float32x4_t c = rotate4(vld1q_f32(row + i + 8));
    const float32x4_t d = rotate4(vld1q_f32(row + i + 12));
    const float32x4_t sum0 = vaddq_f32(a, b);
    const float32x4_t sum1 = vaddq_f32(c, d);
    const float32x4_t difference0 = vsubq_f32(a, b);
    const float32x4_t difference1 = vsubq_f32(c, d);
    vst1q_f32(row + i, vaddq_f32(sum0, sum1));
    vst1q_f32(row + i + 4, vaddq_f32(difference0, difference1));
    vst1q_f32(row + i + 8, vsubq_f32(sum0, sum1));
    vst1q_f32(row + i + 12, vsubq_f32(difference0, difference1));
  }
  for (int half = 16; half < n; half *= 2) {
    for (int start = 0; start < n; start += 2 * half) {
      for (int i = start; i < start + half; i += 4) {
        const float32x4_t a = vld1q_f32(row + i);
        const float32x4_t b = vld1q_f32(row + i + half);
        vst1q_f32(row + i, vaddq_f32(a, b));
        vst1q_f32(row + i + half, vsubq_f32(a, b));
      }
    }
  }
  for (int i = 0; i < n; i += 4) vst1q_f32(row + i, vmulq_f32(vld1q_f32(row + i), vdupq_n_f32(norm)));
}

void rotate(float* row, int head_dim) {
  int at = 0;
  for (int k = 4; k >= 0; --k) {
    const int block = 16 << k;
    if ((head_dim & block) == 0) continue;
    rotate_block(row + at, block, kBlockNorms[k]);
    at += block;
  }
}

template <int kBits>
struct Candidate {
  static constexpr int kCount = kBits == 2 ? 1 : 7;
  int16x8_t thresholds[kCount];

  explicit Candidate(int k) {
    for (int j = 0; j < kCount; ++j)
      thresholds[j] = vdupq_n_s16(kBits == 2 ? kThresholds2.at[k] : kThresholds.at[k][j]);
  }
  // The level indices, in [0, 7], of 8 magnitudes.
  uint8x8_t level_indices(int16x8_t sizes) const {
    uint16x8_t index = vdupq_n_u16(0);
    for (int j = 0; j < kCount; ++j) index = vsubq_u16(index, vcgtq_s16(sizes, thresholds[j]));
    return vmovn_u16(index);
  }
};

// The levels above 0.
template <int kBits>
int8x8_t positive_levels() {
  if constexpr (kBits == 4) return vld1_s8(kLevels + 8);
  return vreinterpret_s8_s16(vdup_n_s16(kLevels2[3] << 8 | kLevels2[2]));
}

std::uint16_t to_scale16(float scale) {
  return static_cast<std::uint16_t>((__builtin_bit_cast(std::uint32_t, scale) + 0x4000u) >> 15);
}

// To 2 or 4 bits.
template <int kBits>
std::uint16_t encode_row(const float* row, int head_dim, std::uint8_t* codes) {
  constexpr std::uint8_t kFirst = 1 << kBits >> 1;  // of the levels above 0
  const float most = largest_magnitude(row, head_dim);
  if (!(most >= kSmallest)) {
    for (int c = 0; c < head_dim; c += 16) vst1q_u8(codes + c, vdupq_n_u8(kFirst));
    return 0;
  }
  const float32x4_t to_normal = vdupq_n_f32(16383.0f / most);
  std::int16_t normalised[kMaxHeadDim];
  for (int c = 0; c < head_dim; c += 8) {
    const int32x4_t low = round_biased(vmulq_f32(vld1q_f32(row + c), to_normal), 16384);
    const int32x4_t high = round_biased(vmulq_f32(vld1q_f32(row + c + 4), to_normal), 16384);
    vst1q_s16(normalised + c, vcombine_s16(vmovn_s32(low), vmovn_s32(high)));
  }
  int best = 0;
  float best_gain = -1;
  float best_ratio = 0;
  const int8x8_t levels = positive_levels<kBits>();
  for (int k = 0; k < kCandidates; ++k) {
    const Candidate<kBits> candidate(k);
    int32x4_t product = vdupq_n_s32(0);
    int32x4_t energy = vdupq_n_s32(0);
    for (int c = 0; c < head_dim; c += 8) {
      const int16x8_t size = vabsq_s16(vld1q_s16(normalised + c));
      const int8x8_t level = vtbl1_s8(levels, vreinterpret_s8_u8(candidate.level_indices(size)));
      const int16x8_t wide_level = vmovl_s8(level);
      product = vmlal_s16(product, vget_low_s16(size), vget_low_s16(wide_level));
      product = vmlal_s16(product, vget_high_s16(size), vget_high_s16(wide_level));
      energy = vpadalq_s16(energy, vmull_s8(level, level));
    }
    const float whole_product = static_cast<float>(sum_of_lanes(product));
    const float ratio = whole_product / static_cast<float>(sum_of_lanes(energy));
    const float gain = whole_product * ratio;
    if (gain > best_gain) {
      best = k;
      best_gain = gain;
      best_ratio = ratio;
    }
  }
  const Candidate<kBits> candidate(best);
  for (int c = 0; c < head_dim; c += 8) {
    const int16x8_t eight = vld1q_s16(normalised + c);
    const uint8x8_t index = candidate.level_indices(vabsq_s16(eight));
    // kFirst + index for zero and above; all its bits flipped, which is kFirst - 1 - index, below.
    const uint8x8_t flip = vmovn_u16(vandq_u16(vcltq_s16(eight, vdupq_n_s16(0)), vdupq_n_u16(2 * kFirst - 1)));
    vst1_u8(codes + c, veor_u8(vadd_u8(index, vdup_n_u8(kFirst)), flip));
  }
  return to_scale16(best_ratio * (most * (1.0f / 16383.0f)));
}

float quantise_query(const float* row, int head_dim, std::int8_t* codes) {
  if (head_dim % 16 != 0) return scalar::quantise_query(row, head_dim, codes);  // a few outlier channels
  const float most = largest_magnitude(row, head_dim);
  if (!(most >= kSmallest)) {
    for (int c = 0; c < head_dim; c += 16) vst1q_s8(codes + c, vdupq_n_s8(0));
    return 0;
  }
  const float32x4_t to_code = vdupq_n_f32(127.0f / most);
  for (int c = 0; c < head_dim; c += 8) {
    const int32x4_t low = round_biased(vmulq_f32(vld1q_f32(row + c), to_code), 128);
    const int32x4_t high = round_biased(vmulq_f32(vld1q_f32(row + c + 4), to_code), 128);
    vst1_s8(codes + c, vmovn_s16(vcombine_s16(vmovn_s32(low), vmovn_s32(high))));
  }
  return most * (1.0f / 127.0f);
}

std::uint16_t encode_bytes(const float* row, int head_dim, std::uint8_t* codes) {
  return to_scale16(quantise_query(row, head_dim, reinterpret_cast<std::int8_t*>(codes)));
}

uint16x8_t multiply_high(uint16x8_t a, uint16x8_t b) {
  return vreinterpretq_u16_s16(vqrdmulhq_s16(vreinterpretq_s16_u16(a), vreinterpretq_s16_u16(b)));
}

// x >> octaves, rounded, halves up; 0 from 15 octaves on.
uint16x8_t shift_down(uint16x8_t x, uint16x8_t octaves) {
  const uint16x8_t shifted = vrshlq_u16(x, vnegq_s16(vreinterpretq_s16_u16(octaves)));
  return vandq_u16(shifted, vcltq_u16(octaves, vdupq_n_u16(15)));
}

// 2^-(octaves / 2048) in Q15 of 8 octaves in [0, 32767].
uint16x8_t exp2_q15(uint16x8_t octaves) {
  const int16x8_t f = vreinterpretq_s16_u16(vandq_u16(vshlq_n_u16(octaves, 4), vdupq_n_u16(0x7FF0)));
  int16x8_t x = vaddq_s16(vqrdmulhq_s16(f, vdupq_n_s16(kExp4)), vdupq_n_s16(kExp3));
  x = vaddq_s16(vqrdmulhq_s16(f, x), vdupq_n_s16(kExp2));
  x = vaddq_s16(vqrdmulhq_s16(f, x), vdupq_n_s16(kExp1));
  x = vsubq_s16(vdupq_n_s16(-kExp0), vqrdmulhq_s16(f, x));
  return shift_down(vreinterpretq_u16_s16(x), vshrq_n_u16(octaves, 11));
}

void widen(const std::uint16_t* scales, float32x4_t* wide) {
  for (int v = 0; v < 8; ++v) wide[v] = vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(scales + v * 4), 15));
}

// All ones in the words of slots that the row sees, by the lowest 8 bits of `seen`.
uint16x8_t words_seen(std::uint32_t seen) {
  constexpr std::uint16_t kBits[8] = {1, 2, 4, 8, 16, 32, 64, 128};
  return vtstq_u16(vdupq_n_u16(static_cast<std::uint16_t>(seen)), vld1q_u16(kBits));
}

// The value scales that a row sees, in Q15 of the power of two above the largest.
struct ValueScales {
  std::int32_t exponent;
  uint16x8_t q15[4];

  ValueScales(const std::uint16_t* scales16, std::uint32_t seen) {
    uint16x8_t most = vdupq_n_u16(kLeastExponent << 8);
    for (int v = 0; v < 4; ++v) {
      q15[v] = vld1q_u16(scales16 + v * 8);
      if (seen != kAllSeen) q15[v] = vandq_u16(q15[v], words_seen(seen >> (v * 8)));
      most = vmaxq_u16(q15[v], most);
    }
    exponent = largest_lane(most) >> 8;
    for (int v = 0; v < 4; ++v) {
      const uint16x8_t octaves = vsubq_u16(vdupq_n_u16(static_cast<std::uint16_t>(exponent)), vshrq_n_u16(q15[v], 8));
      const uint16x8_t fraction = vorrq_u16(vandq_u16(q15[v], vdupq_n_u16(255)), vdupq_n_u16(256));
      q15[v] = shift_down(vshlq_n_u16(fraction, 6), octaves);
    }
  }
};

// One row on its way through tile_weights. Each step runs over all rows before the next one starts,
// because within a row each step depends on the one before.
struct WeightsRow {
  float32x4_t logits[8];   // without the factor query_scale when there are no biases
  uint16x8_t products[4];  // Q15: weight times value scale
  float most;              // largest logit
  float scale;             // the factor from logits to 1 / 2048 octaves
  std::int32_t most_product;
  std::int32_t exponent;  // of the value scales
};

// Hides the slots that a row does not see, and returns the largest logits that are left.
float32x4_t hide_logits(float32x4_t* logits, std::uint32_t seen) {
  constexpr std::uint32_t kBits[4] = {1, 2, 4, 8};
  const uint32x4_t bits = vld1q_u32(kBits);
  float32x4_t most = vdupq_n_f32(kHidden);
  for (int v = 0; v < 8; ++v, seen >>= 4) {
    logits[v] = vbslq_f32(vtstq_u32(vdupq_n_u32(seen), bits), logits[v], vdupq_n_f32(kHidden));
    most = vmaxq_f32(logits[v], most);
  }
  return most;
}

// What to add to the logits, in octaves.
void octaves_of(const std::uint8_t* biases, float32x4_t* octaves) {
  for (int v = 0; v < 8; v += 2) {
    const uint16x8_t eight = vmovl_u8(vld1_u8(biases + v * 4));
    octaves[v] = vmulq_f32(vcvtq_f32_u32(vmovl_u16(vget_low_u16(eight))), vdupq_n_f32(0.0625f));
    octaves[v + 1] = vmulq_f32(vcvtq_f32_u32(vmovl_u16(vget_high_u16(eight))), vdupq_n_f32(0.0625f));
  }
}

template <bool kOutliers, bool kBiases>
void logits_of(const TileWeights& tile, int count, WeightsRow* rows) {
  float32x4_t key_scales[8];
  float32x4_t biases[8];
  widen(tile.key_scales, key_scales);
  if (kBiases) octaves_of(tile.biases, biases);
  for (int i = 0; i < count; ++i) {
    const float factor = kBiases ? 1.0f : tile.query_scales[i];
    const float32x4_t scale = vdupq_n_f32(tile.query_scales[i]);
    const float32x4_t ratio = vdupq_n_f32(kOutliers ? tile.outlier_ratios[i] : 0);
    float32x4_t most = vdupq_n_f32(kHidden);
    for (int v = 0; v < 8; ++v) {
      float32x4_t logit = vmulq_f32(vcvtq_f32_s32(vld1q_s32(tile.dots + i * 32 + v * 4)), key_scales[v]);
      if (kOutliers) {
        const float32x4_t outlier_dots = vcvtq_f32_s32(vld1q_s32(tile.outlier_dots + i * 32 + v * 4));
        logit = vaddq_f32(logit, vmulq_f32(outlier_dots, ratio));
      }
      if (kBiases) logit = vaddq_f32(vmulq_f32(logit, scale), biases[v]);
      most = vmaxq_f32(logit, most);
      rows[i].logits[v] = logit;
    }
    if (tile.seen[i] != kAllSeen) most = hide_logits(rows[i].logits, tile.seen[i]);
    rows[i].most = largest_lane(most) * factor;
    rows[i].scale = factor * 2048.0f;
  }
}

void compute_logits(const TileWeights& tile, int count, WeightsRow* rows) {
  const bool outliers = tile.outlier_dots != nullptr;
  if (tile.biases != nullptr) {
    (outliers ? logits_of<true, true> : logits_of<false, true>)(tile, count, rows);
  } else {
    (outliers ? logits_of<true, false> : logits_of<false, false>)(tile, count, rows);
  }
}

// 0 for a number so small that 32-bit ARM may have flushed it.
float floor_of(float x) {
  const float size = x < 0 ? -x : x;
  if (size < kFlat) return 0;
  if (!(size < 0x1p23f)) return x;  // whole, or not finite
  const auto whole = static_cast<float>(static_cast<std::int32_t>(x));
  return whole > x ? whole - 1.0f : whole;
}

// Octaves below top, in units of 1 / 2048; 0 for what is above top.
uint16x4_t octaves_below(float32x4_t top, float32x4_t logits, float32x4_t scale) {
  const float32x4_t below = vsubq_f32(top, vmulq_f32(logits, scale));
  return vmovn_u32(vcvtq_u32_f32(smaller(below, vdupq_n_f32(kFaintest))));
}

void compute_products(const TileWeights& tile, int count, WeightsRow* rows) {
  ValueScales values(tile.value_scales, tile.seen[0]);
  for (int i = 0; i < count; ++i) {
    if (i != 0 && tile.seen[i] != tile.seen[i - 1]) values = ValueScales(tile.value_scales, tile.seen[i]);
    const float whole = floor_of(rows[i].most);
    const float bounded = whole < kExponentLimit ? whole : kExponentLimit;
    tile.exponents[i] = static_cast<std::int32_t>(bounded > -kExponentLimit ? bounded : -kExponentLimit) + 2;
    const float32x4_t top = vdupq_n_f32((whole + 1.0f) * 2048.0f + 0.5f);
    const float32x4_t scale = vdupq_n_f32(rows[i].scale);
    uint32x4_t masses = vdupq_n_u32(0);
    uint16x8_t most = vdupq_n_u16(0);
    for (int v = 0; v < 4; ++v) {
      const float32x4_t* logits = rows[i].logits + v * 2;
      const uint16x8_t weights =
          exp2_q15(vcombine_u16(octaves_below(top, logits[0], scale), octaves_below(top, logits[1], scale)));
      if (tile.softmax != nullptr) vst1q_u16(tile.softmax + i * 32 + v * 8, weights);
      masses = vpadalq_u16(masses, weights);
      rows[i].products[v] = multiply_high(weights, values.q15[v]);
      most = vmaxq_u16(rows[i].products[v], most);
    }
    tile.masses[i] = static_cast<std::uint32_t>(sum_of_lanes(vreinterpretq_s32_u32(masses)));
    rows[i].most_product = largest_lane(most);
    rows[i].exponent = values.exponent;
  }
}

void compute_bytes(const TileWeights& tile, int count, const WeightsRow* rows) {
  for (int i = 0; i < count; ++i) {
    std::uint8_t* bytes = tile.weights + i * 32;
    const std::int32_t most = rows[i].most_product;
    if (most == 0) {
      tile.value_units[i] = 0;
      vst1q_u8(bytes, vdupq_n_u8(0));
      vst1q_u8(bytes + 16, vdupq_n_u8(0));
      continue;
    }
    const int up = __builtin_clz(static_cast<std::uint32_t>(most)) - 17;  // shifts it to [2^14, 2^15)
    const auto range = static_cast<std::int32_t>(kByteRange / static_cast<float>(most << up));
    const float power = __builtin_bit_cast(float, static_cast<std::uint32_t>(rows[i].exponent + 23 - up) << 23);
    tile.value_units[i] = 1.0f / static_cast<float>(range) * power;
    for (int v = 0; v < 4; ++v) {
      const uint16x8_t moved = vshlq_u16(rows[i].products[v], vdupq_n_s16(static_cast<std::int16_t>(up)));
      const uint16x8_t fine = multiply_high(moved, vdupq_n_u16(static_cast<std::uint16_t>(range)));
      vst1_u8(bytes + v * 8, vrshrn_n_u16(fine, 7));
    }
  }
}

void tile_weights(const TileWeights* tiles, int tile_count, int count) {
  WeightsRow rows[kMaxRows];
  for (int j = 0; j < tile_count; ++j) compute_logits(tiles[j], count, rows + j * count);
  for (int j = 0; j < tile_count; ++j) compute_products(tiles[j], count, rows + j * count);
  for (int j = 0; j < tile_count; ++j) compute_bytes(tiles[j], count, rows + j * count);
}

// The sums over rows of softmax times factor, or of the largest such product in each group of rows:
// for 16 slots from `at` on.
void find_attention(const TileScores& tile, int at, uint32x4_t (&attention)[4]) {
  const auto factor_of = [&](int i) { return static_cast<std::uint16_t>(tile.factors[i]); };
  const auto weights_of = [&](int i, int k) { return vld1_u16(tile.softmax + i * 32 + at + 4 * k); };
  for (int k = 0; k < 4; ++k) attention[k] = vdupq_n_u32(0);
  if (tile.group == 1) {
    for (int i = 0; i < tile.count; ++i) {
      for (int k = 0; k < 4; ++k) attention[k] = vmlal_n_u16(attention[k], weights_of(i, k), factor_of(i));
    }
    return;
  }
  for (int i = 0; i < tile.count; i += tile.group) {
    uint32x4_t most[4];
    for (int k = 0; k < 4; ++k) most[k] = vmull_n_u16(weights_of(i, k), factor_of(i));
    for (int j = i + 1; j < i + tile.group; ++j) {
      for (int k = 0; k < 4; ++k) most[k] = vmaxq_u32(most[k], vmull_n_u16(weights_of(j, k), factor_of(j)));
    }
    for (int k = 0; k < 4; ++k) attention[k] = vaddq_u32(attention[k], most[k]);
  }
}

void add_scores(const TileScores& tile) {
  const int32x4_t global_shift = vdupq_n_s32(-tile.global_shift);
  const int32x4_t local_shift = vdupq_n_s32(-tile.local_shift);
  for (int at = 0; at < 32; at += 16) {
    uint32x4_t attention[4];
    find_attention(tile, at, attention);
    for (int k = 0; k < 4 && tile.global != nullptr; ++k) {
      std::uint32_t* global = tile.global + at + 4 * k;
      vst1q_u32(global, vqaddq_u32(vld1q_u32(global), vrshlq_u32(attention[k], global_shift)));
    }
    for (int k = 0; k < 4 && tile.local != nullptr; ++k) {
      std::uint16_t* local = tile.local + at + 4 * k;
      const uint32x4_t before = vmovl_u16(vld1_u16(local));
      const uint32x4_t lost = vshrq_n_u32(vmlaq_n_u32(vdupq_n_u32(65535), before, tile.fade), 16);
      const uint32x4_t kept = vsubq_u32(before, lost);
      vst1_u16(local, vqmovn_u32(vaddq_u32(kept, vrshlq_u32(attention[k], local_shift))));
    }
  }
}

// 4 logits, bounded and rounded.
int32x4_t sign_logits_of(int32x4_t dots, uint16x4_t sizes, const SignLogits& page) {
  const int32x4_t product = vmulq_s32(dots, vreinterpretq_s32_u32(vmovl_u16(sizes)));
  const float32x4_t most = vdupq_n_f32(kMostLogit);
  float32x4_t logit = vaddq_f32(vdupq_n_f32(page.base), vmulq_n_f32(vcvtq_f32_s32(product), page.unit));
  logit = vmaxq_f32(vminq_f32(logit, most), vnegq_f32(most));
  return vsubq_s32(vcvtq_s32_f32(vaddq_f32(logit, vdupq_n_f32(32768.5f))), vdupq_n_s32(32768));
}

std::int16_t sign_logits(const SignLogits& page) {
  int16x8_t largest = vdupq_n_s16(INT16_MIN);
  for (int t = 0; t < 32; t += 16) {
    int16x8_t dots[2] = {vdupq_n_s16(0), vdupq_n_s16(0)};
    for (int c = 0; c < page.head_dim; c += 8) {
      const uint8x16_t eight = vld1q_u8(page.signs + c * 4 + t);
      const int8x16_t first = look_up(load_table(page.sums + c * 4), vandq_u8(eight, vdupq_n_u8(15)));
      const int8x16_t second = look_up(load_table(page.sums + c * 4 + 16), vshrq_n_u8(eight, 4));
      dots[0] = vaddq_s16(dots[0], vaddl_s8(vget_low_s8(first), vget_low_s8(second)));
      dots[1] = vaddq_s16(dots[1], vaddl_s8(vget_high_s8(first), vget_high_s8(second)));
    }
    for (int i = 0; i < 2; ++i) {
      const uint16x8_t sizes = vmovl_u8(vld1_u8(page.sizes + t + 8 * i));
      const int32x4_t near = sign_logits_of(vmovl_s16(vget_low_s16(dots[i])), vget_low_u16(sizes), page);
      const int32x4_t far = sign_logits_of(vmovl_s16(vget_high_s16(dots[i])), vget_high_u16(sizes), page);
      const int16x8_t logits = vcombine_s16(vmovn_s32(near), vmovn_s32(far));
      vst1q_s16(page.logits + t + 8 * i, logits);
      largest = vmaxq_s16(largest, logits);
    }
  }
  int16x4_t most = vmax_s16(vget_low_s16(largest), vget_high_s16(largest));
  most = vpmax_s16(most, most);
  most = vpmax_s16(most, most);
  return vget_lane_s16(most, 0);
}

// Levels of slots below 16, and of the slots 16 later.
struct Decoded {
  int8x16_t low;
  int8x16_t high;
};

template <int kBits>
struct Decoder {
  Table low = load_table(kBits == 2 ? kNibbleLevels2.low : kLevels);
  Table high = load_table(kBits == 2 ? kNibbleLevels2.high : kLevels);

  // 16 bytes of group `group` of four channels or slots. Of 2 bits an even group and the next share bytes. Groups are
  // `stride` bytes apart, and of 8 bits the codes of the slots 16 later are `further` on.
  Decoded operator()(const std::uint8_t* codes, int group, int stride, int further) const {
    const std::uint8_t* const at = codes + (kBits == 2 ? group / 2 : group) * stride;
    const uint8x16_t bytes = vld1q_u8(at);
    if constexpr (kBits == 8) return {vreinterpretq_s8_u8(bytes), vreinterpretq_s8_u8(vld1q_u8(at + further))};
    const uint8x16_t lower = vandq_u8(bytes, vdupq_n_u8(15));
    const uint8x16_t upper = vshrq_n_u8(bytes, 4);
    if constexpr (kBits == 4) return {look_up(low, lower), look_up(low, upper)};
    const uint8x16_t index = group % 2 == 0 ? lower : upper;
    return {look_up(low, index), look_up(high, index)};
  }
  Decoded keys(const std::uint8_t* codes, int group) const { return (*this)(codes, group, kBits == 8 ? 128 : 64, 64); }
  Decoded values(const std::uint8_t* codes, int head_dim, int group) const {
    return (*this)(codes, group, head_dim * 4, head_dim * 16);
  }
};

void add_scaled(float* sums, int32x4_t whole, float scale) {
  vst1q_f32(sums, vaddq_f32(vld1q_f32(sums), vmulq_f32(vcvtq_f32_s32(whole), vdupq_n_f32(scale))));
}

}  // namespace
}  // namespace nibkv
