#include <immintrin.h>

#include "bench/runner/matmul/kernels.hpp"

namespace nibkv::llm {
namespace {

constexpr std::size_t kTile = 4;
using Floats = __m256;
constexpr std::size_t kRows = 8;  // of one register

Floats zero() {
  return _mm256_setzero_ps();
}

Floats add(Floats a, Floats b) {
  return _mm256_add_ps(a, b);
}

Floats times(Floats a, Floats b) {
  return _mm256_mul_ps(a, b);
}

Floats times(Floats a, float b) {
  return _mm256_mul_ps(a, _mm256_set1_ps(b));
}

Floats to_floats(__m256i values) {
  return _mm256_cvtepi32_ps(values);
}

void store(const __m256* totals, std::size_t tokens, std::size_t rows, float* outputs, std::size_t stride) {
  for (std::size_t t = 0; t < tokens; ++t) {
    if (rows >= kRows) {
      _mm256_storeu_ps(outputs + t * stride, totals[t]);
    } else {
      float values[kRows];
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

__m256i nibbles(__m256i packed) {
  return _mm256_and_si256(packed, _mm256_set1_epi8(15));
}

/// Products of a group of codes of 4, 5 or 6 bits, summed by row.
template <std::size_t kTokens, int kBits>
void small_group(const unsigned char* data, const std::int8_t* codes, std::size_t columns, __m256i* dots) {
  constexpr std::size_t kQuads = group_length(kBits) / 8;  // in each half of the columns
  constexpr int kMore = kBits - 4;
  const __m256i mask = _mm256_set1_epi8(((1 << kMore) - 1) << 4);
  __m256i upper = _mm256_setzero_si256();
  if constexpr (kMore > 0) upper = load(data + 64 * kQuads);
  // A pair fits int16: 8 * 2 * 15 * 127 in one sum; 4 * 2 * 31 * 127 and 2 * 2 * 63 * 127 in each of two.
  __m256i pairs[2][kTokens];
  for (std::size_t t = 0; t < kTokens; ++t) pairs[0][t] = pairs[1][t] = _mm256_setzero_si256();
#pragma GCC unroll 4
  for (std::size_t quad = 0; quad < kQuads; ++quad) {
    const __m256i packed = load(data + 64 * quad);
    __m256i low = nibbles(packed), high = nibbles(_mm256_srli_epi16(packed, 4));
    if constexpr (kMore > 0) {
      low = _mm256_or_si256(low, _mm256_and_si256(_mm256_slli_epi16(upper, 4), mask));
      high = _mm256_or_si256(high, _mm256_and_si256(upper, mask));
      upper = _mm256_srli_epi16(upper, kMore);
    }
    for (std::size_t t = 0; t < kTokens; ++t) {
      const std::int8_t* inputs = codes + t * columns + 4 * quad;
      const __m256i first = _mm256_maddubs_epi16(low, broadcast_quad(inputs));
      const __m256i second = _mm256_maddubs_epi16(high, broadcast_quad(inputs + 4 * kQuads));
      if constexpr (kMore > 0) {
        pairs[0][t] = _mm256_add_epi16(pairs[0][t], first);
        pairs[1][t] = _mm256_add_epi16(pairs[1][t], second);
      } else {
        pairs[0][t] = _mm256_add_epi16(pairs[0][t], _mm256_add_epi16(first, second));
      }
    }
  }
  for (std::size_t t = 0; t < kTokens; ++t) {
    dots[t] = _mm256_add_epi32(dots[t], add_pairs(pairs[0][t]));
    if constexpr (kMore > 0) dots[t] = _mm256_add_epi32(dots[t], add_pairs(pairs[1][t]));
  }
}

/// Products of a group of 8-bit codes minus 128, summed by row.
template <std::size_t kTokens>
void wide_group(const unsigned char* data, const std::int8_t* codes, std::size_t columns, __m256i* dots) {
  const __m256i sign = _mm256_set1_epi8(-128);
#pragma GCC unroll 8
  for (std::size_t quad = 0; quad < 8; ++quad) {
    // The instruction saturates code * activation; with the sign on the other side, |pair| <= 2 * 128 * 127.
    const __m256i weight = _mm256_xor_si256(load(data + 64 * quad), sign);
    const __m256i magnitude = _mm256_abs_epi8(weight);
    for (std::size_t t = 0; t < kTokens; ++t) {
      const __m256i input = _mm256_sign_epi8(broadcast_quad(codes + t * columns + 4 * quad), weight);
      dots[t] = _mm256_add_epi32(dots[t], add_pairs(_mm256_maddubs_epi16(magnitude, input)));
    }
  }
}

#include "bench/runner/matmul/scaled_sums.inc"

/// Eight halves as floats.
__m256 load_halves(const unsigned char* data) {
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(data)));
}

/// Eight signed bytes as floats.
__m256 load_factors(const unsigned char* data) {
  return to_floats(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(data))));
}

/// The rows of one half of the panel, or of both together if there are few tokens, whose sums would
/// otherwise wait for one another.
template <std::size_t kTokens, int kBits, bool kMinimum, bool kBlocks, std::size_t kHalves>
void codes_halves(const Panel& panel, std::size_t first, const Inputs& inputs, float* outputs, std::size_t stride) {
  constexpr std::size_t kLength = group_length(kBits);
  const std::size_t columns = panel.columns;
  const std::size_t groups = columns / kActivationGroup;
  const std::int32_t shift = (kBits == 8 ? 128 : 0) - panel.offset;
  const unsigned char* data = panel.data + 32 * first;
  const unsigned char* scales = panel.data + columns / kLength * group_code_bytes(kBits);
  __m256 of_block[kHalves] = {}, minimum_of_block[kHalves] = {};
  __m256 totals[kHalves][kTokens];
  for (std::size_t h = 0; h < kHalves; ++h) {
    for (std::size_t t = 0; t < kTokens; ++t) totals[h][t] = zero();
  }
  for (std::size_t column = 0; column < columns; column += kLength, data += group_code_bytes(kBits)) {
    const std::size_t group = column / kActivationGroup;
    const std::int32_t* sums = inputs.sums + column / kActivationSumGroup;
    const bool has_halves = !kBlocks || column % kScaleBlock == 0;
    const unsigned char* factors = scales + (!has_halves ? 0 : kMinimum ? 64 : 32);
    for (std::size_t h = 0; h < kHalves; ++h) {
      const std::size_t half = first + h;
      __m256i dots[kTokens];
      for (std::size_t t = 0; t < kTokens; ++t) {
        const std::int32_t* sum = sums + t * groups * 2;
        dots[t] = _mm256_set1_epi32(kMinimum ? 0 : shift * (kLength == 16 ? sum[0] : sum[0] + sum[1]));
      }
      if constexpr (kBits == 8) {
        wide_group<kTokens>(data + 32 * h, inputs.codes + column, columns, dots);
      } else {
        small_group<kTokens, kBits>(data + 32 * h, inputs.codes + column, columns, dots);
      }
      if (has_halves) {
        of_block[h] = load_halves(scales + 16 * half);
        if constexpr (kMinimum) minimum_of_block[h] = load_halves(scales + 32 + 16 * half);
      }
      __m256 scale = of_block[h], minimum = scale;
      if constexpr (kBlocks) scale = times(scale, load_factors(factors + 8 * half));
      if constexpr (kMinimum) minimum = minimum_of_block[h];
      if constexpr (kMinimum && kBlocks) minimum = times(minimum, load_factors(factors + 16 + 8 * half));
      add_scaled<kTokens, kMinimum>(dots, scale, minimum, inputs, group, groups, totals[h]);
    }
    scales = factors + (!kBlocks ? 0 : kMinimum ? 32 : 16);
  }
  for (std::size_t h = 0; h < kHalves; ++h) {
    const std::size_t row = (first + h) * kRows;
    if (row < panel.rows) store(totals[h], kTokens, panel.rows - row, outputs + row, stride);
  }
}

template <std::size_t kTokens, int kBits, bool kMinimum, bool kBlocks>
void codes_tile(const Panel& panel, const Inputs& inputs, float* outputs, std::size_t stride) {
  if constexpr (kTokens <= 2) {
    codes_halves<kTokens, kBits, kMinimum, kBlocks, 2>(panel, 0, inputs, outputs, stride);
  } else {
    codes_halves<kTokens, kBits, kMinimum, kBlocks, 1>(panel, 0, inputs, outputs, stride);
    if (panel.rows > kRows) {
      codes_halves<kTokens, kBits, kMinimum, kBlocks, 1>(panel, 1, inputs, outputs, stride);
    }
  }
}

/// Weight `index` and the seven after it.
template <RealFormat kFormat>
__m256 load_reals(const unsigned char* data, std::size_t index) {
  if constexpr (kFormat == RealFormat::kF32) return _mm256_loadu_ps(reinterpret_cast<const float*>(data) + index);
  if constexpr (kFormat == RealFormat::kF16) return load_halves(data + 2 * index);
  const __m128i halves = _mm_loadu_si128(reinterpret_cast<const __m128i*>(data + 2 * index));
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(halves), 16));
}

#include "bench/runner/matmul/panel_tiles.inc"
#include "bench/runner/matmul/row_loops.inc"

}  // namespace

const MatmulKernels kAvx2Matmul = {"avx2", multiply_codes, multiply_reals, quantise_row, swiglu_row};

}  // namespace nibkv::llm
