#include <immintrin.h>

#include "bench/runner/matmul/kernels.hpp"

namespace nibkv::llm {
namespace {

// The sums of a tile and their operands stay in registers: 2 * 8 + 5 of 32.
constexpr std::size_t kTile = 8;

using Floats = __m512;
constexpr std::size_t kRows = 16;  // of one register

Floats zero() {
  return _mm512_setzero_ps();
}

Floats add(Floats a, Floats b) {
  return _mm512_add_ps(a, b);
}

Floats times(Floats a, Floats b) {
  return _mm512_mul_ps(a, b);
}

Floats times(Floats a, float b) {
  return _mm512_mul_ps(a, _mm512_set1_ps(b));
}

void store(const __m512* totals, std::size_t tokens, std::size_t rows, float* outputs, std::size_t stride) {
  const __mmask16 mask = static_cast<__mmask16>((1u << rows) - 1);
  for (std::size_t t = 0; t < tokens; ++t) _mm512_mask_storeu_ps(outputs + t * stride, mask, totals[t]);
}

__m512i broadcast_quad(const std::int8_t* codes) {
  std::int32_t quad;
  __builtin_memcpy(&quad, codes, sizeof(quad));
  return _mm512_set1_epi32(quad);
}

// The next two in the compiler's own vector notation: gcc 12 warns about the undefined operand inside the intrinsics.
Floats to_floats(__m512i values) {
  return (__m512) __builtin_convertvector((__v16si)values, __v16sf);
}

template <int kBits>
__m512i shifted_right(__m512i values) {
  return (__m512i)((__v16su)values >> kBits);
}

template <std::size_t kTokens>
void add_products(__m512i weights, const std::int8_t* inputs, std::size_t columns, __m512i* dots) {
  for (std::size_t t = 0; t < kTokens; ++t) {
    dots[t] = _mm512_dpbusd_epi32(dots[t], weights, broadcast_quad(inputs + t * columns));
  }
}

/// Products of a group of codes, summed by row.
template <std::size_t kTokens, int kBits>
void add_group(const unsigned char* data, const std::int8_t* codes, std::size_t columns, __m512i* dots) {
  if constexpr (kBits == 8) {
#pragma GCC unroll 8
    for (std::size_t quad = 0; quad < 8; ++quad) {
      add_products<kTokens>(_mm512_loadu_si512(data + 64 * quad), codes + 4 * quad, columns, dots);
    }
  } else {
    constexpr std::size_t kQuads = group_length(kBits) / 8;  // in each half of the columns
    constexpr int kMore = kBits - 4;
    const __m512i nibble = _mm512_set1_epi32(0x0f0f0f0f);
    const __m512i mask = _mm512_set1_epi32(((1 << kMore) - 1) * 0x10101010);
    __m512i upper = _mm512_setzero_si512();
    if constexpr (kMore > 0) upper = _mm512_loadu_si512(data + 64 * kQuads);
#pragma GCC unroll 4
    for (std::size_t quad = 0; quad < kQuads; ++quad) {
      const __m512i packed = _mm512_loadu_si512(data + 64 * quad);
      __m512i low = _mm512_and_si512(packed, nibble);
      __m512i high = _mm512_and_si512(shifted_right<4>(packed), nibble);
      if constexpr (kMore > 0) {
        low = _mm512_or_si512(low, _mm512_and_si512((__m512i)((__v16su)upper << 4), mask));
        high = _mm512_or_si512(high, _mm512_and_si512(upper, mask));
        upper = shifted_right<kMore>(upper);
      }
      add_products<kTokens>(low, codes + 4 * quad, columns, dots);
      add_products<kTokens>(high, codes + 4 * (quad + kQuads), columns, dots);
    }
  }
}

#include "bench/runner/matmul/scaled_sums.inc"

/// Sixteen halves as floats.
__m512 load_halves(const unsigned char* data) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(data)));
}

/// Sixteen signed bytes as floats.
__m512 load_factors(const unsigned char* data) {
  return to_floats(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(data))));
}

template <std::size_t kTokens, int kBits, bool kMinimum, bool kBlocks>
void codes_tile(const Panel& panel, const Inputs& inputs, float* outputs, std::size_t stride) {
  constexpr std::size_t kLength = group_length(kBits);
  const std::size_t columns = panel.columns;
  const std::size_t groups = columns / kActivationGroup;
  const unsigned char* data = panel.data;
  const unsigned char* scales = panel.data + columns / kLength * group_code_bytes(kBits);
  __m512 of_block = zero(), minimum_of_block = of_block;
  __m512 totals[kTokens];
  for (std::size_t t = 0; t < kTokens; ++t) totals[t] = zero();
  for (std::size_t column = 0; column < columns; column += kLength, data += group_code_bytes(kBits)) {
    __m512i dots[kTokens];
    const std::int32_t* sums = inputs.sums + column / kActivationSumGroup;
    for (std::size_t t = 0; t < kTokens; ++t) {
      if constexpr (kMinimum) {
        dots[t] = _mm512_setzero_si512();
      } else {
        const std::int32_t* sum = sums + t * groups * 2;
        dots[t] = _mm512_set1_epi32(-panel.offset * (kLength == 16 ? sum[0] : sum[0] + sum[1]));
      }
    }
    add_group<kTokens, kBits>(data, inputs.codes + column, columns, dots);
    if (!kBlocks || column % kScaleBlock == 0) {
      of_block = load_halves(scales);
      if constexpr (kMinimum) minimum_of_block = load_halves(scales + 32);
      scales += kMinimum ? 64 : 32;
    }
    __m512 scale = of_block, minimum = minimum_of_block;
    if constexpr (kBlocks) {
      scale = times(scale, load_factors(scales));
      if constexpr (kMinimum) minimum = times(minimum, load_factors(scales + 16));
      scales += kMinimum ? 32 : 16;
    }
    const std::size_t group = column / kActivationGroup;
    add_scaled<kTokens, kMinimum>(dots, scale, minimum, inputs, group, groups, totals);
  }
  store(totals, kTokens, panel.rows, outputs, stride);
}

/// Weight `index` and the 15 after it.
template <RealFormat kFormat>
__m512 load_reals(const unsigned char* data, std::size_t index) {
  if constexpr (kFormat == RealFormat::kF32) return _mm512_loadu_ps(data + 4 * index);
  if constexpr (kFormat == RealFormat::kF16) return load_halves(data + 2 * index);
  const __m256i halves = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(data + 2 * index));
  return (__m512)((__v16su)_mm512_cvtepu16_epi32(halves) << 16);
}

#include "bench/runner/matmul/panel_tiles.inc"
#include "bench/runner/matmul/row_loops.inc"

}  // namespace

const MatmulKernels kAvx512VnniMatmul = {"avx512vnni", multiply_codes, multiply_reals, quantise_row, swiglu_row};

}  // namespace nibkv::llm
