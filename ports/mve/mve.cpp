// Helium (MVE with floating point) of Cortex-M55 and M85. There, a sum over all lanes is one
// instruction, whose result is in a general register. So gathers collect what a sum needs: 16
// channels of a slot, or 16 slots of a channel. Levels are looked up by gathers from the table.
#include <arm_mve.h>

#include "ports/kernels.hpp"

namespace nibkv {
namespace {

using namespace ports;

// 0, step, 2 step, 3 step.
uint32x4_t multiples(std::uint32_t step) {
  return vmulq_n_u32(vidupq_n_u32(0, 1), step);
}

// Levels of slots below 16, and of the slots 16 later.
struct Levels {
  int8x16_t low, high;
};

// Of 2 bits an even group and the next share bytes: the codes of the latter are the upper nibbles.
constexpr std::uint32_t kHalves[4] = {0, 0, 1, 1};
constexpr std::int32_t kShifts[4] = {0, -4, 0, -4};

// Finds the levels of four groups, each of four channels or slots.
template <int kBits>
struct Gatherer {
  uint32x4_t offsets;  // of the groups

  explicit Gatherer(int stride) {
    const auto step = static_cast<std::uint32_t>(stride);
    offsets = kBits == 2 ? vmulq_n_u32(vld1q_u32(kHalves), step) : multiples(step);
  }
  uint32x4_t words(const std::uint8_t* from) const {
    return vldrwq_gather_offset_u32(reinterpret_cast<const std::uint32_t*>(from), offsets);
  }
  // Of 8 bits the codes of the slots 16 later are `further` on.
  Levels operator()(const std::uint8_t* from, int further) const {
    if constexpr (kBits == 8) return {vreinterpretq_s8_u32(words(from)), vreinterpretq_s8_u32(words(from + further))};
    if constexpr (kBits == 4) {
      const uint8x16_t pairs = vreinterpretq_u8_u32(words(from));
      return {vldrbq_gather_offset_s8(kLevels, vandq_u8(pairs, vdupq_n_u8(15))),
              vldrbq_gather_offset_s8(kLevels, vshrq_n_u8(pairs, 4))};
    }
    const uint8x16_t shifted = vreinterpretq_u8_u32(vshlq_u32(words(from), vld1q_s32(kShifts)));
    const uint8x16_t nibbles = vandq_u8(shifted, vdupq_n_u8(15));
    return {vldrbq_gather_offset_s8(kNibbleLevels2.low, nibbles),
            vldrbq_gather_offset_s8(kNibbleLevels2.high, nibbles)};
  }
};

// Four f16 in 32 bits each. In integers: vcvtb and vcvtt would do, but binutils 2.40 writes them with other registers
// than it was told.
float32x4_t from_f16(uint32x4_t halves) {
  const uint32x4_t size = vandq_u32(halves, vdupq_n_u32(0x7fff));
  const uint32x4_t sign = vshlq_n_u32(veorq_u32(halves, size), 16);
  uint32x4_t bits = vaddq_n_u32(vshlq_n_u32(size, 13), (127 - 15) << 23);
  bits = vaddq_m_n_u32(bits, bits, (127 - 15) << 23, vcmphiq_n_u32(size, 0x7bff));
  const float32x4_t denormal = vmulq_n_f32(vcvtq_f32_u32(size), 0x1p-24f);
  bits = vpselq_u32(bits, vreinterpretq_u32_f32(denormal), vcmphiq_n_u32(size, 0x3ff));
  return vreinterpretq_f32_u32(vorrq_u32(bits, sign));
}

// The scalar port says why. The sum with 0.5 is normal; what it may flush is too small to change it.
uint32x4_t to_f16(float32x4_t x) {
  const uint32x4_t bits = vreinterpretq_u32_f32(x);
  const uint32x4_t size = vandq_u32(bits, vdupq_n_u32(0x7fffffff));
  const uint32x4_t sign = vshrq_n_u32(veorq_u32(bits, size), 16);
  const uint32x4_t odd = vandq_u32(vshrq_n_u32(size, 13), vdupq_n_u32(1));
  const uint32x4_t usual = vshrq_n_u32(vaddq_n_u32(vaddq_u32(size, odd), 0xfffu - ((127u - 15u) << 23)), 13);
  const float32x4_t shifted = vaddq_n_f32(vreinterpretq_f32_u32(size), 0.5f);
  const uint32x4_t denormal = vsubq_n_u32(vreinterpretq_u32_f32(shifted), 0x3f000000);
  uint32x4_t half = vpselq_u32(usual, denormal, vcmphiq_n_u32(size, 0x387fffff));
  half = vminq_u32(half, vdupq_n_u32(0x7c00));
  half = vorrq_m_u32(half, half, vdupq_n_u32(0x200), vcmphiq_n_u32(size, 0x7f800000));
  return vorrq_u32(half, sign);
}

uint32x4_t to_bf16(float32x4_t x) {
  const uint32x4_t bits = vreinterpretq_u32_f32(x);
  const uint32x4_t upper = vshrq_n_u32(bits, 16);
  const uint32x4_t odd = vandq_u32(upper, vdupq_n_u32(1));
  const uint32x4_t rounded = vshrq_n_u32(vaddq_n_u32(vaddq_u32(bits, odd), 0x7fff), 16);
  const mve_pred16_t nan = vcmphiq_n_u32(vandq_u32(bits, vdupq_n_u32(0x7fffffff)), 0x7f800000);
  return vorrq_m_u32(rounded, upper, vdupq_n_u32(0x40), nan);
}

void widen(const void* halves, int head_dim, Half half, float* row) {
  const auto* from = static_cast<const std::uint16_t*>(halves);
  for (int c = 0; c < head_dim; c += 4) {
    const uint32x4_t four = vldrhq_u32(from + c);
    vst1q_f32(row + c, half == Half::kF16 ? from_f16(four) : vreinterpretq_f32_u32(vshlq_n_u32(four, 16)));
  }
}

void narrow(const float* row, int head_dim, Half half, void* halves) {
  auto* to = static_cast<std::uint16_t*>(halves);
  for (int c = 0; c < head_dim; c += 4) {
    const float32x4_t four = vld1q_f32(row + c);
    vstrhq_u32(to + c, half == Half::kF16 ? to_f16(four) : to_bf16(four));
  }
}

float largest_magnitude(const float* row, int n) {
  float most = 0;
  for (int i = 0; i < n; i += 4) most = vmaxnmavq_f32(most, vld1q_f32(row + i));
  return most;
}

// The conversion truncates, gives 0 for what is not a number, and saturates.
int32x4_t round_biased(float32x4_t x, std::int32_t offset) {
  const float32x4_t biased = vaddq_n_f32(x, static_cast<float>(offset) + 0.5f);
  return vsubq_n_s32(vcvtq_s32_f32(biased), offset);
}

void rotate_block(float* row, int n, float norm) {
  // The stages with partners at 1 and at 2: every fourth number is a lane of the same vector.
  for (int i = 0; i < n; i += 16) {
    float32x4x4_t x = vld4q_f32(row + i);
    const float32x4_t a = vaddq_f32(x.val[0], x.val[1]);
    const float32x4_t b = vsubq_f32(x.val[0], x.val[1]);
    const float32x4_t c = vaddq_f32(x.val[2], x.val[3]);
    const float32x4_t d = vsubq_f32(x.val[2], x.val[3]);
    x.val[0] = vaddq_f32(a, c);
    x.val[1] = vaddq_f32(b, d);
    x.val[2] = vsubq_f32(a, c);
    x.val[3] = vsubq_f32(b, d);
    vst4q_f32(row + i, x);
  }
  for (int half = 4; half < n; half *= 2) {
    for (int start = 0; start < n; start += 2 * half) {
      for (int i = start; i < start + half; i += 4) {
        const float32x4_t a = vld1q_f32(row + i);
        const float32x4_t b = vld1q_f32(row + i + half);
        vst1q_f32(row + i, vaddq_f32(a, b));
        vst1q_f32(row + i + half, vsubq_f32(a, b));
      }
    }
  }
  for (int i = 0; i < n; i += 4) vst1q_f32(row + i, vmulq_n_f32(vld1q_f32(row + i), norm));
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

std::uint16_t to_scale16(float scale) {
  return static_cast<std::uint16_t>((__builtin_bit_cast(std::uint32_t, scale) + 0x4000u) >> 15);
}

template <int kBits>
const std::int16_t* thresholds_of(int candidate) {
  return kBits == 2 ? kThresholds2.at + candidate : kThresholds.at[candidate];
}

// To 2 or 4 bits.
template <int kBits>
std::uint16_t encode_row(const float* row, int head_dim, std::uint8_t* codes) {
  constexpr int kFirst = 1 << kBits >> 1;  // of the levels above 0
  constexpr int kThresholdCount = kFirst - 1;
  constexpr const std::int8_t* kAbove = levels_of(kBits) + kFirst;
  const float most = largest_magnitude(row, head_dim);
  if (!(most >= kSmallest)) return scalar::encode_row<kBits>(row, head_dim, codes);
  const float to_normal = 16383.0f / most;
  std::int16_t normalised[kMaxHeadDim];
  for (int c = 0; c < head_dim; c += 4) {
    vstrhq_s32(normalised + c, round_biased(vmulq_n_f32(vld1q_f32(row + c), to_normal), 16384));
  }
  int best = 0;
  float best_gain = -1;
  float best_ratio = 0;
  for (int k = 0; k < kCandidates; ++k) {
    const std::int16_t* const at = thresholds_of<kBits>(k);
    std::int32_t product = 0;  // <= 256 * 16384 * 63 < 2^29
    std::int32_t energy = 0;   // <= 256 * 63^2 < 2^20
    for (int c = 0; c < head_dim; c += 8) {
      const int16x8_t size = vabsq_s16(vld1q_s16(normalised + c));
      int16x8_t level = vdupq_n_s16(kAbove[0]);
      for (int j = 0; j < kThresholdCount; ++j) {
        level = vdupq_m_n_s16(level, kAbove[1 + j], vcmpgtq_n_s16(size, at[j]));
      }
      product = vmladavaq_s16(product, size, level);
      energy = vmladavaq_s16(energy, level, level);
    }
    const float ratio = static_cast<float>(product) / static_cast<float>(energy);
    const float gain = static_cast<float>(product) * ratio;
    if (gain > best_gain) {
      best = k;
      best_gain = gain;
      best_ratio = ratio;
    }
  }
  const std::int16_t* const at = thresholds_of<kBits>(best);
  for (int c = 0; c < head_dim; c += 8) {
    const int16x8_t x = vld1q_s16(normalised + c);
    const int16x8_t size = vabsq_s16(x);
    int16x8_t code = vdupq_n_s16(kFirst);
    for (int j = 0; j < kThresholdCount; ++j)
      code = vdupq_m_n_s16(code, static_cast<std::int16_t>(kFirst + 1 + j), vcmpgtq_n_s16(size, at[j]));
    // kFirst - 1 - index, if code is kFirst + index.
    code = vsubq_m_s16(code, vdupq_n_s16(2 * kFirst - 1), code, vcmpltq_n_s16(x, 0));
    vstrbq_u16(codes + c, vreinterpretq_u16_s16(code));
  }
  return to_scale16(best_ratio * (most * (1.0f / 16383.0f)));
}

float quantise_query(const float* row, int head_dim, std::int8_t* codes) {
  const float most = largest_magnitude(row, head_dim);
  if (!(most >= kSmallest)) return scalar::quantise_query(row, head_dim, codes);
  const float to_code = 127.0f / most;
  for (int c = 0; c < head_dim; c += 4) {
    vstrbq_s32(codes + c, round_biased(vmulq_n_f32(vld1q_f32(row + c), to_code), 128));
  }
  return most * (1.0f / 127.0f);
}

std::uint16_t encode_bytes(const float* row, int head_dim, std::uint8_t* codes) {
  return to_scale16(quantise_query(row, head_dim, reinterpret_cast<std::int8_t*>(codes)));
}

template <int kBits, int kRows>
void key_dots_of(const std::uint8_t* codes, int head_dim, const std::int8_t* queries, std::int32_t* dots) {
  const Gatherer<kBits> gather(kBits == 8 ? 128 : 64);
  for (int t = 0; t < 16; ++t) {
    std::int32_t low[kRows] = {};
    std::int32_t high[kRows] = {};
    for (int c = 0; c < head_dim; c += 16) {
      const Levels levels = gather(codes + c * 4 * kBits + t * 4, 64);
#pragma GCC unroll 4
      for (int r = 0; r < kRows; ++r) {
        const int8x16_t query = vld1q_s8(queries + r * head_dim + c);
        low[r] = vmladavaq_s8(low[r], levels.low, query);
        high[r] = vmladavaq_s8(high[r], levels.high, query);
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
  for (; count >= 3; count -= 3, queries += 3 * head_dim, dots += 3 * 32) {
    key_dots_of<kBits, 3>(codes, head_dim, queries, dots);
  }
  if (count == 2) key_dots_of<kBits, 2>(codes, head_dim, queries, dots);
  if (count == 1) key_dots_of<kBits, 1>(codes, head_dim, queries, dots);
}

void outlier_dots(const std::int8_t* outliers, int channels, const std::int8_t* queries, const std::int32_t*, int count,
                  std::int32_t* dots) {
  const uint32x4_t strides = multiples(128);
  const mve_pred16_t groups = vctp32q(static_cast<std::uint32_t>(channels / 4));
  const mve_pred16_t bytes = vctp8q(static_cast<std::uint32_t>(channels));
  for (int t = 0; t < 32; ++t) {
    const int8x16_t outlier = vreinterpretq_s8_u32(
        vldrwq_gather_offset_z_u32(reinterpret_cast<const std::uint32_t*>(outliers + t * 4), strides, groups));
    for (int i = 0; i < count; ++i) {
      dots[i * 32 + t] = vmladavq_s8(outlier, vldrbq_z_s8(queries + i * channels, bytes));
    }
  }
}

// 2^-(octaves / 2048) in Q15, at most 32767; 0 from 15 octaves on. octaves: [0, 31744]
int16x8_t exp2_q15(int16x8_t octaves) {
  const int16x8_t whole = vshrq_n_s16(octaves, 11);
  const int16x8_t f = vshlq_n_s16(vandq_s16(octaves, vdupq_n_s16(2047)), 4);
  int16x8_t x = vaddq_n_s16(vqrdmulhq_n_s16(f, kExp4), kExp3);
  x = vaddq_n_s16(vqrdmulhq_s16(f, x), kExp2);
  x = vaddq_n_s16(vqrdmulhq_s16(f, x), kExp1);
  x = vaddq_n_s16(vqrdmulhq_s16(f, x), kExp0);
  // -(32768 >> whole), by an arithmetic shift.
  const int16x8_t power = vshlq_s16(vdupq_n_s16(-32768), vnegq_s16(whole));
  return vdupq_m_n_s16(vqrdmulhq_s16(x, power), 0, vcmpgeq_n_s16(whole, 15));
}

// The words, of those from slot t on, that belong to slots which the row sees.
mve_pred16_t words_seen(std::uint32_t seen, int t) {
  constexpr std::uint16_t kBits[8] = {1, 2, 4, 8, 16, 32, 64, 128};
  const uint16x8_t bits = vld1q_u16(kBits);
  return vcmpeqq_u16(vandq_u16(vdupq_n_u16(static_cast<std::uint16_t>(seen >> t)), bits), bits);
}

// The value scales that a row sees, in Q15 of the power of two above the largest; returns its exponent.
std::int32_t value_scales_of(const std::uint16_t* scales16, std::uint32_t seen, std::int16_t* q15) {
  std::uint16_t visible[32];
  std::uint16_t most = kLeastExponent << 8;
  for (int t = 0; t < 32; t += 8) {
    const uint16x8_t scales = vldrhq_z_u16(scales16 + t, words_seen(seen, t));
    vst1q_u16(visible + t, scales);
    most = static_cast<std::uint16_t>(vmaxvq_u16(most, scales));
  }
  const std::int32_t exponent = most >> 8;
  for (int t = 0; t < 32; t += 8) {
    const uint16x8_t scales = vld1q_u16(visible + t);
    const int16x8_t octaves =
        vsubq_s16(vdupq_n_s16(static_cast<std::int16_t>(exponent)), vreinterpretq_s16_u16(vshrq_n_u16(scales, 8)));
    const uint16x8_t mantissa = vshlq_n_u16(vorrq_u16(vandq_u16(scales, vdupq_n_u16(255)), vdupq_n_u16(256)), 6);
    // Both factors are negated, because 32768 does not fit int16, and -32768 does.
    const int16x8_t power = vshlq_s16(vdupq_n_s16(-32768), vnegq_s16(octaves));
    const int16x8_t scale = vqrdmulhq_s16(vnegq_s16(vreinterpretq_s16_u16(mantissa)), power);
    vst1q_s16(q15 + t, vdupq_m_n_s16(scale, 0, vcmpgeq_n_s16(octaves, 15)));
  }
  return exponent;
}

float floor_of(float x) {
  if (!(__builtin_fabsf(x) < 0x1p23f)) return x;  // whole, or not finite
  const auto whole = static_cast<float>(static_cast<std::int32_t>(x));
  return whole > x ? whole - 1.0f : whole;
}

// Hides the slots that a row does not see, and returns the largest logits that are left.
float32x4_t hide_logits(float* logits, std::uint32_t seen) {
  constexpr std::uint32_t kBits[4] = {1, 2, 4, 8};
  const uint32x4_t bits = vld1q_u32(kBits);
  const float32x4_t hidden = vdupq_n_f32(kHidden);
  float32x4_t most4 = hidden;
  for (int t = 0; t < 32; t += 4) {
    const mve_pred16_t lanes = vcmpeqq_u32(vandq_u32(vdupq_n_u32(seen >> t), bits), bits);
    const float32x4_t logit = vpselq_f32(vld1q_f32(logits + t), hidden, lanes);
    vst1q_f32(logits + t, logit);
    most4 = vmaxnmq_f32(most4, logit);
  }
  return most4;
}

void tile_weights_of_row(const TileWeights& tile, int i) {
  const float factor = tile.biases != nullptr ? 1.0f : tile.query_scales[i];
  float logits[32];
  float32x4_t most4 = vdupq_n_f32(kHidden);
  for (int t = 0; t < 32; t += 4) {
    const float32x4_t scale = vreinterpretq_f32_u32(vshlq_n_u32(vldrhq_u32(tile.key_scales + t), 15));
    float32x4_t logit = vmulq_f32(vcvtq_f32_s32(vld1q_s32(tile.dots + i * 32 + t)), scale);
    if (tile.outlier_dots != nullptr) {
      const float32x4_t outlier = vcvtq_f32_s32(vld1q_s32(tile.outlier_dots + i * 32 + t));
      logit = vaddq_f32(logit, vmulq_n_f32(outlier, tile.outlier_ratios[i]));
    }
    if (tile.biases != nullptr) {
      const float32x4_t bias = vcvtq_f32_u32(vldrbq_u32(tile.biases + t));
      logit = vaddq_f32(vmulq_n_f32(logit, tile.query_scales[i]), vmulq_n_f32(bias, 0.0625f));
    }
    vst1q_f32(logits + t, logit);
    most4 = vmaxnmq_f32(most4, logit);
  }
  const std::uint32_t seen = tile.seen[i];
  if (seen != kAllSeen) most4 = hide_logits(logits, seen);
  const float most = vmaxnmvq_f32(kHidden, most4) * factor;
  const float whole = __builtin_fabsf(most) < kFlat ? 0.0f : floor_of(most);
  const float bounded = whole < kExponentLimit ? whole : kExponentLimit;
  tile.exponents[i] = static_cast<std::int32_t>(bounded > -kExponentLimit ? bounded : -kExponentLimit) + 2;

  std::int16_t products[32];  // first the value scales; then Q15: weight times value scale
  const std::int32_t exponent = value_scales_of(tile.value_scales, seen, products);
  const float top = (whole + 1.0f) * 2048.0f + 0.5f;
  const float scale = factor * 2048.0f;
  std::uint32_t mass = 0;
  std::int16_t most_product = 0;
  for (int t = 0; t < 32; t += 8) {
    std::int16_t octaves[8];
    for (int j = 0; j < 8; j += 4) {
      float32x4_t x = vsubq_f32(vdupq_n_f32(top), vmulq_n_f32(vld1q_f32(logits + t + j), scale));
      x = vminnmq_f32(x, vdupq_n_f32(kFaintest));
      x = vmaxnmq_f32(x, vdupq_n_f32(0.0f));
      vstrhq_s32(octaves + j, vcvtq_s32_f32(x));
    }
    const int16x8_t weight = exp2_q15(vld1q_s16(octaves));
    if (tile.softmax != nullptr) vst1q_u16(tile.softmax + i * 32 + t, vreinterpretq_u16_s16(weight));
    mass = vaddvaq_u16(mass, vreinterpretq_u16_s16(weight));
    const int16x8_t product = vqrdmulhq_s16(weight, vld1q_s16(products + t));
    most_product = static_cast<std::int16_t>(vmaxvq_s16(most_product, product));
    vst1q_s16(products + t, product);
  }
  tile.masses[i] = mass;

  std::uint8_t* const weights = tile.weights + i * 32;
  if (most_product == 0) {
    tile.value_units[i] = 0;
    for (int t = 0; t < 32; t += 16) vst1q_u8(weights + t, vdupq_n_u8(0));
    return;
  }
  const int up = __builtin_clz(static_cast<std::uint32_t>(most_product)) - 17;
  const auto range = static_cast<std::int32_t>(kByteRange / static_cast<float>(most_product << up));
  const auto power = __builtin_bit_cast(float, static_cast<std::uint32_t>(exponent + 23 - up) << 23);
  tile.value_units[i] = 1.0f / static_cast<float>(range) * power;
  for (int t = 0; t < 32; t += 8) {
    const int16x8_t wide = vshlq_r_s16(vld1q_s16(products + t), up);
    const int16x8_t byte = vrshrq_n_s16(vqrdmulhq_n_s16(wide, static_cast<std::int16_t>(range)), 7);
    vstrbq_u16(weights + t, vreinterpretq_u16_s16(byte));
  }
}

void tile_weights(const TileWeights* tiles, int tile_count, int count) {
  for (int j = 0; j < tile_count; ++j) {
    for (int i = 0; i < count; ++i) tile_weights_of_row(tiles[j], i);
  }
}

void add_scores(const TileScores& tile) {
  for (int t = 0; t < 32; t += 4) {
    uint32x4_t attention = vdupq_n_u32(0);
    for (int i = 0; i < tile.count; i += tile.group) {
      uint32x4_t most = vdupq_n_u32(0);
      for (int j = i; j < i + tile.group; ++j) {
        const uint32x4_t softmax = vldrhq_u32(tile.softmax + j * 32 + t);
        most = vmaxq_u32(most, vmulq_n_u32(softmax, static_cast<std::uint32_t>(tile.factors[j])));
      }
      attention = vaddq_u32(attention, most);
    }
    if (tile.global != nullptr) {
      const uint32x4_t more = vrshlq_n_u32(attention, -tile.global_shift);
      vst1q_u32(tile.global + t, vqaddq_u32(vld1q_u32(tile.global + t), more));
    }
    if (tile.local != nullptr) {
      uint32x4_t sum = vldrhq_u32(tile.local + t);
      sum = vsubq_u32(sum, vshrq_n_u32(vaddq_n_u32(vmulq_n_u32(sum, tile.fade), 65535), 16));
      sum = vaddq_u32(sum, vrshlq_n_u32(attention, -tile.local_shift));
      vstrhq_u32(tile.local + t, vminq_u32(sum, vdupq_n_u32(65535)));
    }
  }
}

// Sums of 16 slots and 16 more, of four channels.
template <int kBits>
void value_sums(const std::uint8_t* codes, int head_dim, const std::uint8_t* weights, const float* scales, int count,
                float* sums) {
  const Gatherer<kBits> gather(head_dim * 4);
  for (int c = 0; c < head_dim; c += 4) {
    Levels levels[4];
#pragma GCC unroll 4
    for (int k = 0; k < 4; ++k) levels[k] = gather(codes + (c + k) * 4, head_dim * 16);
    for (int i = 0; i < count; ++i) {
      const int8x16_t low = vreinterpretq_s8_u8(vld1q_u8(weights + i * 32));
      const int8x16_t high = vreinterpretq_s8_u8(vld1q_u8(weights + i * 32 + 16));
      std::int32_t whole[4];
#pragma GCC unroll 4
      for (int k = 0; k < 4; ++k) whole[k] = vmladavaq_s8(vmladavq_s8(levels[k].low, low), levels[k].high, high);
      float* const at = sums + i * head_dim + c;
      vst1q_f32(at, vaddq_f32(vld1q_f32(at), vmulq_n_f32(vcvtq_f32_s32(vld1q_s32(whole)), scales[i])));
    }
  }
}

}  // namespace

constexpr Kernels kMveKernels = {.name = "mve",
                                 .widen = widen,
                                 .narrow = narrow,
                                 .rotate = rotate,
                                 .quantise_query = quantise_query,
                                 .outlier_dots = outlier_dots,
                                 .tile_weights = tile_weights,
                                 .add_scores = add_scores,
                                 .sign_logits = ports::scalar::sign_logits,
                                 .q2 = ports::if_built(2, {encode_row<2>, key_dots<2>, value_sums<2>}),
                                 .q4 = ports::if_built(4, {encode_row<4>, key_dots<4>, value_sums<4>}),
                                 .q8 = ports::if_built(8, {encode_bytes, key_dots<8>, value_sums<8>})};

}  // namespace nibkv
