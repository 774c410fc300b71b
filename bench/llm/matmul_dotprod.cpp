#include <arm_neon.h>

#include "bench/llm/matmul_kernels.hpp"

namespace nibkv::llm {
namespace {

constexpr std::size_t kTile = 4;
constexpr std::size_t kHalfRows = 8;  // rows of two registers

/// Two registers of four rows each.
struct Totals {
  float32x4_t low, high;
};

struct Dots {
  int32x4_t low, high;
};

void store(const Totals* totals, std::size_t tokens, std::size_t rows, float* outputs, std::size_t stride) {
  for (std::size_t t = 0; t < tokens; ++t) {
    float values[kHalfRows];
    vst1q_f32(values, totals[t].low);
    vst1q_f32(values + 4, totals[t].high);
    const std::size_t count = rows < kHalfRows ? rows : kHalfRows;
    for (std::size_t r = 0; r < count; ++r) outputs[t * stride + r] = values[r];
  }
}

template <int kLane>
void add_products(Dots& dots, int8x16_t low, int8x16_t high, int8x16_t inputs) {
  dots.low = vdotq_laneq_s32(dots.low, low, inputs, kLane);
  dots.high = vdotq_laneq_s32(dots.high, high, inputs, kLane);
}

/// Quad kQuad of 4-bit codes, which holds columns of the first and of the second 16.
template <std::size_t kTokens, int kQuad>
void narrow_quad(const unsigned char* data, const std::int8_t* codes, std::size_t columns, Dots* dots) {
  const uint8x16_t packed_low = vld1q_u8(data + 64 * kQuad), packed_high = vld1q_u8(data + 64 * kQuad + 16);
  const uint8x16_t nibble = vdupq_n_u8(15);
  const int8x16_t first_low = vreinterpretq_s8_u8(vandq_u8(packed_low, nibble));
  const int8x16_t first_high = vreinterpretq_s8_u8(vandq_u8(packed_high, nibble));
  const int8x16_t second_low = vreinterpretq_s8_u8(vshrq_n_u8(packed_low, 4));
  const int8x16_t second_high = vreinterpretq_s8_u8(vshrq_n_u8(packed_high, 4));
  for (std::size_t t = 0; t < kTokens; ++t) {
    add_products<kQuad>(dots[t], first_low, first_high, vld1q_s8(codes + t * columns));
    add_products<kQuad>(dots[t], second_low, second_high, vld1q_s8(codes + t * columns + 16));
  }
}

/// Quad kQuad of 8-bit codes less 128, which fit signed bytes.
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

float32x4_t add_scaled(float32x4_t total, float32x4_t factor, float32x4_t value) {
  return vaddq_f32(total, vmulq_f32(value, factor));
}

template <std::size_t kTokens, bool kNarrow, bool kSmall, bool kMinimum>
void codes_half_tile(const Panel& panel, std::size_t half, const Inputs& inputs, float* outputs, std::size_t stride) {
  constexpr std::size_t kLength = kSmall ? 16 : 32;
  constexpr std::size_t kHeading = kMinimum ? 128 : 64;
  const std::size_t columns = panel.columns;
  const std::size_t groups = columns / kActivationGroup;
  const std::int32_t shift = (kNarrow ? 0 : 128) - panel.offset;
  const unsigned char* data = panel.data + 32 * half;
  Totals totals[kTokens];
  for (std::size_t t = 0; t < kTokens; ++t) totals[t] = {vdupq_n_f32(0), vdupq_n_f32(0)};
  for (std::size_t column = 0; column < columns; column += kLength) {
    const std::size_t group = column / kActivationGroup;
    const std::int8_t* codes = inputs.codes + column;
    const std::int32_t* sums = inputs.sums + column / kActivationSumGroup;
    Dots dots[kTokens];
    for (std::size_t t = 0; t < kTokens; ++t) {
      const std::int32_t* sum = sums + t * groups * 2;
      const int32x4_t start = vdupq_n_s32(shift * (kSmall ? sum[0] : sum[0] + sum[1]));
      dots[t] = {start, start};
    }
    const unsigned char* quads = data + kHeading;
    if constexpr (kNarrow) {
      narrow_quad<kTokens, 0>(quads, codes, columns, dots);
      narrow_quad<kTokens, 1>(quads, codes, columns, dots);
      narrow_quad<kTokens, 2>(quads, codes, columns, dots);
      narrow_quad<kTokens, 3>(quads, codes, columns, dots);
    } else {
      wide_quads<kTokens>(quads, codes, columns, dots);
      if constexpr (!kSmall) wide_quads<kTokens>(quads + 256, codes + 16, columns, dots);
    }
    const float* scale = reinterpret_cast<const float*>(data);
    const float32x4_t scale_low = vld1q_f32(scale), scale_high = vld1q_f32(scale + 4);
    for (std::size_t t = 0; t < kTokens; ++t) {
      const float32x4_t input_scale = vdupq_n_f32(inputs.scales[t * groups + group]);
      totals[t].low = add_scaled(totals[t].low, vmulq_f32(scale_low, input_scale), vcvtq_f32_s32(dots[t].low));
      totals[t].high = add_scaled(totals[t].high, vmulq_f32(scale_high, input_scale), vcvtq_f32_s32(dots[t].high));
      if constexpr (kMinimum) {
        const float32x4_t moment = vdupq_n_f32(inputs.moments[t * groups + group]);
        totals[t].low = add_scaled(totals[t].low, vld1q_f32(scale + 16), moment);
        totals[t].high = add_scaled(totals[t].high, vld1q_f32(scale + 20), moment);
      }
    }
    data += kHeading + kPanelRows * kLength / (kNarrow ? 2 : 1);
  }
  store(totals, kTokens, panel.rows - half * kHalfRows, outputs + half * kHalfRows, stride);
}

template <std::size_t kTokens>
void reals_half_tile(const Panel& panel, std::size_t half, const Inputs& inputs, float* outputs, std::size_t stride) {
  const float* weights = reinterpret_cast<const float*>(panel.data) + half * kHalfRows;
  Totals totals[kTokens];
  for (std::size_t t = 0; t < kTokens; ++t) totals[t] = {vdupq_n_f32(0), vdupq_n_f32(0)};
  for (std::size_t column = 0; column < panel.columns; ++column, weights += kPanelRows) {
    const float32x4_t low = vld1q_f32(weights), high = vld1q_f32(weights + 4);
    for (std::size_t t = 0; t < kTokens; ++t) {
      const float32x4_t input = vdupq_n_f32(inputs.reals[t * panel.columns + column]);
      totals[t].low = add_scaled(totals[t].low, low, input);
      totals[t].high = add_scaled(totals[t].high, high, input);
    }
  }
  store(totals, kTokens, panel.rows - half * kHalfRows, outputs + half * kHalfRows, stride);
}

Inputs skip(const Inputs& inputs, std::size_t tokens, std::size_t columns) {
  Inputs rest = inputs;
  if (inputs.codes != nullptr) {
    rest.codes += tokens * columns;
    rest.scales += tokens * (columns / kActivationGroup);
    rest.moments += tokens * (columns / kActivationGroup);
    rest.sums += tokens * (columns / kActivationSumGroup);
  }
  if (inputs.reals != nullptr) rest.reals += tokens * columns;
  return rest;
}

/// Covers `tokens` with tiles of kTokens, then of fewer.
template <std::size_t kTokens, typename Tile>
void cover(const Panel& panel, Inputs inputs, std::size_t tokens, float* outputs, std::size_t stride) {
  while (tokens >= kTokens) {
    Tile::template run<kTokens>(panel, 0, inputs, outputs, stride);
    if (panel.rows > kHalfRows) Tile::template run<kTokens>(panel, 1, inputs, outputs, stride);
    inputs = skip(inputs, kTokens, panel.columns);
    outputs += kTokens * stride;
    tokens -= kTokens;
  }
  if constexpr (kTokens > 1) {
    if (tokens > 0) cover<kTokens / 2, Tile>(panel, inputs, tokens, outputs, stride);
  }
}

template <bool kNarrow, bool kSmall, bool kMinimum>
struct CodesTile {
  template <std::size_t kTokens>
  static void run(const Panel& panel, std::size_t half, const Inputs& inputs, float* outputs, std::size_t stride) {
    codes_half_tile<kTokens, kNarrow, kSmall, kMinimum>(panel, half, inputs, outputs, stride);
  }
};

struct RealsTile {
  template <std::size_t kTokens>
  static void run(const Panel& panel, std::size_t half, const Inputs& inputs, float* outputs, std::size_t stride) {
    reals_half_tile<kTokens>(panel, half, inputs, outputs, stride);
  }
};

void multiply_codes(const Panel& panel, const Inputs& inputs, std::size_t tokens, float* outputs, std::size_t stride) {
  if (panel.small_groups) {
    cover<kTile, CodesTile<false, true, false>>(panel, inputs, tokens, outputs, stride);
  } else if (panel.narrow) {
    if (panel.has_minimum) {
      cover<kTile, CodesTile<true, false, true>>(panel, inputs, tokens, outputs, stride);
    } else {
      cover<kTile, CodesTile<true, false, false>>(panel, inputs, tokens, outputs, stride);
    }
  } else if (panel.has_minimum) {
    cover<kTile, CodesTile<false, false, true>>(panel, inputs, tokens, outputs, stride);
  } else {
    cover<kTile, CodesTile<false, false, false>>(panel, inputs, tokens, outputs, stride);
  }
}

void multiply_reals(const Panel& panel, const Inputs& inputs, std::size_t tokens, float* outputs, std::size_t stride) {
  cover<kTile, RealsTile>(panel, inputs, tokens, outputs, stride);
}

#include "bench/llm/row_loops.inc"

}  // namespace

const MatmulKernels kDotprodMatmul = {"dotprod", multiply_codes, multiply_reals, quantise_row, swiglu_row};

}  // namespace nibkv::llm
