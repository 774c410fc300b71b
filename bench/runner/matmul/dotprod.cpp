#include <arm_neon.h>

#include "bench/runner/matmul/kernels.hpp"

namespace nibkv::llm {
namespace {

constexpr std::size_t kTile = 4;
constexpr std::size_t kRows = 8;  // of two registers

/// Two registers of four rows each.
struct Floats {
  float32x4_t low, high;
};

struct Dots {
  int32x4_t low, high;
};

Floats zero() {
  return {vdupq_n_f32(0), vdupq_n_f32(0)};
}

Floats add(const Floats& a, const Floats& b) {
  return {vaddq_f32(a.low, b.low), vaddq_f32(a.high, b.high)};
}

Floats times(const Floats& a, const Floats& b) {
  return {vmulq_f32(a.low, b.low), vmulq_f32(a.high, b.high)};
}

Floats times(const Floats& a, float b) {
  return {vmulq_n_f32(a.low, b), vmulq_n_f32(a.high, b)};
}

Floats to_floats(const Dots& values) {
  return {vcvtq_f32_s32(values.low), vcvtq_f32_s32(values.high)};
}

void store(const Floats* totals, std::size_t tokens, std::size_t rows, float* outputs, std::size_t stride) {
  for (std::size_t t = 0; t < tokens; ++t) {
    float values[kRows];
    vst1q_f32(values, totals[t].low);
    vst1q_f32(values + 4, totals[t].high);
    const std::size_t count = rows < kRows ? rows : kRows;
    for (std::size_t r = 0; r < count; ++r) outputs[t * stride + r] = values[r];
  }
}

template <int kLane>
void add_products(Dots& dots, int8x16_t low, int8x16_t high, int8x16_t inputs) {
  dots.low = vdotq_laneq_s32(dots.low, low, inputs, kLane);
  dots.high = vdotq_laneq_s32(dots.high, high, inputs, kLane);
}

/// Quad kQuad of each half of the columns of a group of codes of 4, 5 or 6 bits.
template <std::size_t kTokens, int kBits, int kQuad>
void small_quad(const unsigned char* data, const std::int8_t* codes, std::size_t columns, Dots* dots) {
  constexpr int kQuads = group_length(kBits) / 8;
  constexpr int kMore = kBits - 4;
  // The inputs for the quads of both halves are in one register, or in two.
  constexpr int kHighLane = kBits == 6 ? kQuad + kQuads : kQuad;
  constexpr std::size_t kHighInputs = kBits == 6 ? 0 : 16;
  int8x16_t low[2], high[2];  // of four rows each
  for (std::size_t i = 0; i < 2; ++i) {
    const uint8x16_t packed = vld1q_u8(data + 64 * kQuad + 16 * i);
    uint8x16_t first = vandq_u8(packed, vdupq_n_u8(15)), second = vshrq_n_u8(packed, 4);
    if constexpr (kMore > 0) {
      const uint8x16_t mask = vdupq_n_u8(((1 << kMore) - 1) << 4);
      const uint8x16_t upper = vld1q_u8(data + 64 * kQuads + 16 * i);
      const uint8x16_t of_first = vshlq_u8(upper, vdupq_n_s8(4 - kMore * kQuad));
      const uint8x16_t of_second = vshlq_u8(upper, vdupq_n_s8(4 - kMore * (kQuad + kQuads)));
      first = vorrq_u8(first, vandq_u8(of_first, mask));
      second = vorrq_u8(second, vandq_u8(of_second, mask));
    }
    low[i] = vreinterpretq_s8_u8(first);
    high[i] = vreinterpretq_s8_u8(second);
  }
  for (std::size_t t = 0; t < kTokens; ++t) {
    add_products<kQuad>(dots[t], low[0], low[1], vld1q_s8(codes + t * columns));
    add_products<kHighLane>(dots[t], high[0], high[1], vld1q_s8(codes + t * columns + kHighInputs));
  }
}

/// Quad kQuad of 8-bit codes minus 128, which fit signed bytes.
template <std::size_t kTokens, int kQuad>
void wide_quad(const unsigned char* data, const std::int8_t* codes, std::size_t columns, Dots* dots) {
  const uint8x16_t sign = vdupq_n_u8(128);
  const int8x16_t low = vreinterpretq_s8_u8(veorq_u8(vld1q_u8(data + 64 * kQuad), sign));
  const int8x16_t high = vreinterpretq_s8_u8(veorq_u8(vld1q_u8(data + 64 * kQuad + 16), sign));
  for (std::size_t t = 0; t < kTokens; ++t) add_products<kQuad>(dots[t], low, high, vld1q_s8(codes + t * columns));
}

/// Sixteen columns of 8-bit codes.
template <std::size_t kTokens>
void wide_quads(const unsigned char* data, const std::int8_t* codes, std::size_t columns, Dots* dots) {
  wide_quad<kTokens, 0>(data, codes, columns, dots);
  wide_quad<kTokens, 1>(data, codes, columns, dots);
  wide_quad<kTokens, 2>(data, codes, columns, dots);
  wide_quad<kTokens, 3>(data, codes, columns, dots);
}

/// Products of a group of codes, summed by row.
template <std::size_t kTokens, int kBits>
void add_group(const unsigned char* data, const std::int8_t* codes, std::size_t columns, Dots* dots) {
  if constexpr (kBits == 8) {
    wide_quads<kTokens>(data, codes, columns, dots);
    wide_quads<kTokens>(data + 256, codes + 16, columns, dots);
  } else {
    small_quad<kTokens, kBits, 0>(data, codes, columns, dots);
    small_quad<kTokens, kBits, 1>(data, codes, columns, dots);
    if constexpr (kBits != 6) {
      small_quad<kTokens, kBits, 2>(data, codes, columns, dots);
      small_quad<kTokens, kBits, 3>(data, codes, columns, dots);
    }
  }
}

#include "bench/runner/matmul/scaled_sums.inc"

/// Eight halves as floats.
Floats load_halves(const unsigned char* data) {
  const float16x8_t halves = vreinterpretq_f16_u8(vld1q_u8(data));
  return {vcvt_f32_f16(vget_low_f16(halves)), vcvt_f32_f16(vget_high_f16(halves))};
}

/// Eight signed bytes as floats.
Floats load_factors(const unsigned char* data) {
  const int16x8_t factors = vmovl_s8(vreinterpret_s8_u8(vld1_u8(data)));
  return to_floats({vmovl_s16(vget_low_s16(factors)), vmovl_s16(vget_high_s16(factors))});
}

template <std::size_t kTokens, int kBits, bool kMinimum, bool kBlocks>
void codes_half_tile(const Panel& panel, std::size_t half, const Inputs& inputs, float* outputs, std::size_t stride) {
  constexpr std::size_t kLength = group_length(kBits);
  const std::size_t columns = panel.columns;
  const std::size_t groups = columns / kActivationGroup;
  const std::int32_t shift = (kBits == 8 ? 128 : 0) - panel.offset;
  const unsigned char* data = panel.data + 32 * half;
  const unsigned char* scales = panel.data + columns / kLength * group_code_bytes(kBits);
  Floats of_block = zero(), minimum_of_block = of_block;
  Floats totals[kTokens];
  for (std::size_t t = 0; t < kTokens; ++t) totals[t] = zero();
  for (std::size_t column = 0; column < columns; column += kLength, data += group_code_bytes(kBits)) {
    const std::size_t group = column / kActivationGroup;
    const std::int32_t* sums = inputs.sums + column / kActivationSumGroup;
    Dots dots[kTokens];
    for (std::size_t t = 0; t < kTokens; ++t) {
      const std::int32_t* sum = sums + t * groups * 2;
      const int32x4_t start = vdupq_n_s32(kMinimum ? 0 : shift * (kLength == 16 ? sum[0] : sum[0] + sum[1]));
      dots[t] = {start, start};
    }
    add_group<kTokens, kBits>(data, inputs.codes + column, columns, dots);
    if (!kBlocks || column % kScaleBlock == 0) {
      of_block = load_halves(scales + 16 * half);
      if constexpr (kMinimum) minimum_of_block = load_halves(scales + 32 + 16 * half);
      scales += kMinimum ? 64 : 32;
    }
    Floats scale = of_block, minimum = minimum_of_block;
    if constexpr (kBlocks) {
      scale = times(scale, load_factors(scales + 8 * half));
      if constexpr (kMinimum) minimum = times(minimum, load_factors(scales + 16 + 8 * half));
      scales += kMinimum ? 32 : 16;
    }
    add_scaled<kTokens, kMinimum>(dots, scale, minimum, inputs, group, groups, totals);
  }
  store(totals, kTokens, panel.rows - half * kRows, outputs + half * kRows, stride);
}

template <std::size_t kTokens, int kBits, bool kMinimum, bool kBlocks>
void codes_tile(const Panel& panel, const Inputs& inputs, float* outputs, std::size_t stride) {
  codes_half_tile<kTokens, kBits, kMinimum, kBlocks>(panel, 0, inputs, outputs, stride);
  if (panel.rows > kRows) codes_half_tile<kTokens, kBits, kMinimum, kBlocks>(panel, 1, inputs, outputs, stride);
}

/// Weight `index` and the seven after it.
template <RealFormat kFormat>
Floats load_reals(const unsigned char* data, std::size_t index) {
  if constexpr (kFormat == RealFormat::kF32) {
    const float* weights = reinterpret_cast<const float*>(data) + index;
    return {vld1q_f32(weights), vld1q_f32(weights + 4)};
  }
  if constexpr (kFormat == RealFormat::kF16) return load_halves(data + 2 * index);
  const uint16x8_t halves = vreinterpretq_u16_u8(vld1q_u8(data + 2 * index));
  return {vreinterpretq_f32_u32(vshll_n_u16(vget_low_u16(halves), 16)),
          vreinterpretq_f32_u32(vshll_n_u16(vget_high_u16(halves), 16))};
}

#include "bench/runner/matmul/panel_tiles.inc"
#include "bench/runner/matmul/row_loops.inc"

}  // namespace

const MatmulKernels kDotprodMatmul = {"dotprod", multiply_codes, multiply_reals, quantise_row, swiglu_row};

}  // namespace nibkv::llm
