#include <immintrin.h>

#include "bench/llm/matmul_kernels.hpp"

namespace nibkv::llm {
namespace {

constexpr std::size_t kTile = 4;
constexpr std::size_t kHalfRows = 8;  // rows of one register

void store(const __m256* totals, std::size_t tokens, std::size_t rows, float* outputs, std::size_t stride) {
  for (std::size_t t = 0; t < tokens; ++t) {
    if (rows >= kHalfRows) {
      _mm256_storeu_ps(outputs + t * stride, totals[t]);
    } else {
      float values[kHalfRows];
      _mm256_storeu_ps(values, totals[t]);
      for (std::size_t r = 0; r < rows; ++r) outputs[t * stride + r] = values[r];
    }
  }
}

__m256i broadcast_quad(const std::int8_t* codes) {
  std::int32_t quad;
  __builtin_memcpy(&quad, codes, sizeof(quad));
  return _mm256_set1_epi32(quad);
}

__m256i load(const unsigned char* data) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(data));
}

/// Adds pairs of int16 to int32.
__m256i add_pairs(__m256i pairs) {
  return _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
}

/// Products of a group of 4-bit codes, summed by row.
template <std::size_t kTokens>
void narrow_group(const unsigned char* data, const std::int8_t* codes, std::size_t columns, __m256i* dots) {
  const __m256i nibble = _mm256_set1_epi8(15);
  __m256i pairs[kTokens];  // |pair| <= 8 * 2 * 15 * 127, which fits int16
  for (std::size_t t = 0; t < kTokens; ++t) pairs[t] = _mm256_setzero_si256();
#pragma GCC unroll 4
  for (std::size_t quad = 0; quad < 4; ++quad) {
    const __m256i packed = load(data + 64 * quad);
    const __m256i low = _mm256_and_si256(packed, nibble);
    const __m256i high = _mm256_and_si256(_mm256_srli_epi16(packed, 4), nibble);
    for (std::size_t t = 0; t < kTokens; ++t) {
      const __m256i first = _mm256_maddubs_epi16(low, broadcast_quad(codes + t * columns + 4 * quad));
      const __m256i second = _mm256_maddubs_epi16(high, broadcast_quad(codes + t * columns + 4 * quad + 16));
      pairs[t] = _mm256_add_epi16(pairs[t], _mm256_add_epi16(first, second));
    }
  }
  for (std::size_t t = 0; t < kTokens; ++t) dots[t] = _mm256_add_epi32(dots[t], add_pairs(pairs[t]));
}

/// Products of a group of 8-bit codes less 128, summed by row.
template <std::size_t kTokens, std::size_t kQuads>
void wide_group(const unsigned char* data, const std::int8_t* codes, std::size_t columns, __m256i* dots) {
  const __m256i sign = _mm256_set1_epi8(-128);
#pragma GCC unroll 8
  for (std::size_t quad = 0; quad < kQuads; ++quad) {
    // The instruction saturates code * activation; with the sign on the other side, |pair| <= 2 * 128 * 127.
    const __m256i weight = _mm256_xor_si256(load(data + 64 * quad), sign);
    const __m256i magnitude = _mm256_abs_epi8(weight);
    for (std::size_t t = 0; t < kTokens; ++t) {
      const __m256i input = _mm256_sign_epi8(broadcast_quad(codes + t * columns + 4 * quad), weight);
      dots[t] = _mm256_add_epi32(dots[t], add_pairs(_mm256_maddubs_epi16(magnitude, input)));
    }
  }
}

template <std::size_t kTokens, bool kNarrow, bool kSmall, bool kMinimum>
void codes_half_tile(const Panel& panel, std::size_t half, const Inputs& inputs, float* outputs, std::size_t stride) {
  constexpr std::size_t kLength = kSmall ? 16 : 32;
  constexpr std::size_t kHeading = kMinimum ? 128 : 64;
  const std::size_t columns = panel.columns;
  const std::size_t groups = columns / kActivationGroup;
  const std::int32_t shift = (kNarrow ? 0 : 128) - panel.offset;
  const unsigned char* data = panel.data + 32 * half;
  __m256 totals[kTokens];
  for (std::size_t t = 0; t < kTokens; ++t) totals[t] = _mm256_setzero_ps();
  for (std::size_t column = 0; column < columns; column += kLength) {
    const std::size_t group = column / kActivationGroup;
    __m256i dots[kTokens];
    const std::int32_t* sums = inputs.sums + column / kActivationSumGroup;
    for (std::size_t t = 0; t < kTokens; ++t) {
      const std::int32_t* sum = sums + t * groups * 2;
      dots[t] = _mm256_set1_epi32(shift * (kSmall ? sum[0] : sum[0] + sum[1]));
    }
    if constexpr (kNarrow) {
      narrow_group<kTokens>(data + kHeading, inputs.codes + column, columns, dots);
    } else {
      wide_group<kTokens, kLength / 4>(data + kHeading, inputs.codes + column, columns, dots);
    }
    const __m256 scale = _mm256_castsi256_ps(load(data));
    for (std::size_t t = 0; t < kTokens; ++t) {
      const __m256 factor = _mm256_mul_ps(scale, _mm256_set1_ps(inputs.scales[t * groups + group]));
      totals[t] = _mm256_add_ps(totals[t], _mm256_mul_ps(_mm256_cvtepi32_ps(dots[t]), factor));
      if constexpr (kMinimum) {
        const __m256 moment = _mm256_set1_ps(inputs.moments[t * groups + group]);
        totals[t] = _mm256_add_ps(totals[t], _mm256_mul_ps(_mm256_castsi256_ps(load(data + 64)), moment));
      }
    }
    data += kHeading + kPanelRows * kLength / (kNarrow ? 2 : 1);
  }
  store(totals, kTokens, panel.rows - half * kHalfRows, outputs + half * kHalfRows, stride);
}

template <std::size_t kTokens>
void reals_half_tile(const Panel& panel, std::size_t half, const Inputs& inputs, float* outputs, std::size_t stride) {
  const float* weights = reinterpret_cast<const float*>(panel.data) + half * kHalfRows;
  __m256 totals[kTokens];
  for (std::size_t t = 0; t < kTokens; ++t) totals[t] = _mm256_setzero_ps();
  for (std::size_t column = 0; column < panel.columns; ++column) {
    const __m256 weight = _mm256_loadu_ps(weights + column * kPanelRows);
    for (std::size_t t = 0; t < kTokens; ++t) {
      const __m256 input = _mm256_set1_ps(inputs.reals[t * panel.columns + column]);
      totals[t] = _mm256_add_ps(totals[t], _mm256_mul_ps(weight, input));
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

const MatmulKernels kAvx2Matmul = {"avx2", multiply_codes, multiply_reals, quantise_row, swiglu_row};

}  // namespace nibkv::llm
