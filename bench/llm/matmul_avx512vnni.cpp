#include <immintrin.h>

#include "bench/llm/matmul_kernels.hpp"

namespace nibkv::llm {
namespace {

// The sums of a tile and what they are made from stay in registers: 2 * 8 + 5 of 32.
constexpr std::size_t kTile = 8;

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
__m512 to_float(__m512i values) {
  return (__m512) __builtin_convertvector((__v16si)values, __v16sf);
}

__m512i high_nibbles(__m512i packed, __m512i nibble) {
  return _mm512_and_si512((__m512i)((__v16su)packed >> 4), nibble);
}

template <std::size_t kTokens, bool kNarrow, bool kSmall, bool kMinimum>
void codes_tile(const Panel& panel, const Inputs& inputs, float* outputs, std::size_t stride) {
  constexpr std::size_t kLength = kSmall ? 16 : 32;
  const std::size_t columns = panel.columns;
  const std::size_t groups = columns / kActivationGroup;
  const __m512i nibble = _mm512_set1_epi32(0x0f0f0f0f);
  const unsigned char* data = panel.data;
  __m512 totals[kTokens];
  for (std::size_t t = 0; t < kTokens; ++t) totals[t] = _mm512_setzero_ps();
  for (std::size_t column = 0; column < columns; column += kLength) {
    const __m512 scale = _mm512_loadu_ps(data);
    data += 64;
    __m512 minimum = _mm512_setzero_ps();
    if constexpr (kMinimum) {
      minimum = _mm512_loadu_ps(data);
      data += 64;
    }
    __m512i dots[kTokens];
    const std::int32_t* sums = inputs.sums + column / kActivationSumGroup;
    for (std::size_t t = 0; t < kTokens; ++t) {
      if constexpr (kMinimum) {
        dots[t] = _mm512_setzero_si512();
      } else {
        const std::int32_t* sum = sums + t * groups * 2;
        dots[t] = _mm512_set1_epi32(-panel.offset * (kSmall ? sum[0] : sum[0] + sum[1]));
      }
    }
    const std::int8_t* codes = inputs.codes + column;
    if constexpr (kNarrow) {
#pragma GCC unroll 4
      for (std::size_t quad = 0; quad < 4; ++quad, data += 64) {
        const __m512i packed = _mm512_loadu_si512(data);
        const __m512i low = _mm512_and_si512(packed, nibble);
        const __m512i high = high_nibbles(packed, nibble);
        for (std::size_t t = 0; t < kTokens; ++t) {
          dots[t] = _mm512_dpbusd_epi32(dots[t], low, broadcast_quad(codes + t * columns + 4 * quad));
        }
        for (std::size_t t = 0; t < kTokens; ++t) {
          dots[t] = _mm512_dpbusd_epi32(dots[t], high, broadcast_quad(codes + t * columns + 4 * quad + 16));
        }
      }
    } else {
#pragma GCC unroll 8
      for (std::size_t quad = 0; quad < kLength / 4; ++quad, data += 64) {
        const __m512i packed = _mm512_loadu_si512(data);
        for (std::size_t t = 0; t < kTokens; ++t) {
          dots[t] = _mm512_dpbusd_epi32(dots[t], packed, broadcast_quad(codes + t * columns + 4 * quad));
        }
      }
    }
    const std::size_t group = column / kActivationGroup;
    for (std::size_t t = 0; t < kTokens; ++t) {
      const __m512 factor = _mm512_mul_ps(scale, _mm512_set1_ps(inputs.scales[t * groups + group]));
      totals[t] = _mm512_add_ps(totals[t], _mm512_mul_ps(to_float(dots[t]), factor));
      if constexpr (kMinimum) {
        const __m512 moment = _mm512_set1_ps(inputs.moments[t * groups + group]);
        totals[t] = _mm512_add_ps(totals[t], _mm512_mul_ps(minimum, moment));
      }
    }
  }
  store(totals, kTokens, panel.rows, outputs, stride);
}

template <std::size_t kTokens>
void reals_tile(const Panel& panel, const Inputs& inputs, float* outputs, std::size_t stride) {
  const float* weights = reinterpret_cast<const float*>(panel.data);
  __m512 totals[kTokens];
  for (std::size_t t = 0; t < kTokens; ++t) totals[t] = _mm512_setzero_ps();
  for (std::size_t column = 0; column < panel.columns; ++column) {
    const __m512 weight = _mm512_loadu_ps(weights + column * kPanelRows);
    for (std::size_t t = 0; t < kTokens; ++t) {
      const __m512 input = _mm512_set1_ps(inputs.reals[t * panel.columns + column]);
      totals[t] = _mm512_add_ps(totals[t], _mm512_mul_ps(weight, input));
    }
  }
  store(totals, kTokens, panel.rows, outputs, stride);
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
    Tile::template run<kTokens>(panel, inputs, outputs, stride);
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
  static void run(const Panel& panel, const Inputs& inputs, float* outputs, std::size_t stride) {
    codes_tile<kTokens, kNarrow, kSmall, kMinimum>(panel, inputs, outputs, stride);
  }
};

struct RealsTile {
  template <std::size_t kTokens>
  static void run(const Panel& panel, const Inputs& inputs, float* outputs, std::size_t stride) {
    reals_tile<kTokens>(panel, inputs, outputs, stride);
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

const MatmulKernels kAvx512VnniMatmul = {"avx512vnni", multiply_codes, multiply_reals, quantise_row, swiglu_row};

}  // namespace nibkv::llm
