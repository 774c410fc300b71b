#pragma once

// Conversions of 16-bit numbers, for the AVX2 and the AVX-512 port. F16C does not look at the modes that
// flush denormals.
#include <immintrin.h>

#include <cstdint>

#include "ports/kernels.hpp"

namespace nibkv {
namespace {

using namespace ports;

inline __m256i to_bf16(__m256i bits) {
  const __m256i nan =
      _mm256_cmpgt_epi32(_mm256_and_si256(bits, _mm256_set1_epi32(0x7fffffff)), _mm256_set1_epi32(0x7f800000));
  const __m256i upper = _mm256_srli_epi32(bits, 16);
  const __m256i odd = _mm256_and_si256(upper, _mm256_set1_epi32(1));
  const __m256i rounded =
      _mm256_srli_epi32(_mm256_add_epi32(_mm256_add_epi32(bits, odd), _mm256_set1_epi32(0x7fff)), 16);
  return _mm256_blendv_epi8(rounded, _mm256_or_si256(upper, _mm256_set1_epi32(0x40)), nan);
}

void widen(const void* halves, int head_dim, Half half, float* row) {
  const auto* from = static_cast<const std::uint16_t*>(halves);
  for (int c = 0; c < head_dim; c += 8) {
    const __m128i eight = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + c));
    const __m256 upper = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(eight), 16));
    _mm256_storeu_ps(row + c, half == Half::kF16 ? _mm256_cvtph_ps(eight) : upper);
  }
}

void narrow(const float* row, int head_dim, Half half, void* halves) {
  auto* to = static_cast<std::uint16_t*>(halves);
  if (half == Half::kF16) {
    for (int c = 0; c < head_dim; c += 8) {
      const __m128i eight = _mm256_cvtps_ph(_mm256_loadu_ps(row + c), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
      _mm_storeu_si128(reinterpret_cast<__m128i*>(to + c), eight);
    }
    return;
  }
  for (int c = 0; c < head_dim; c += 16) {
    const __m256i low = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(row + c));
    const __m256i high = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(row + c + 8));
    const __m256i packed = _mm256_packus_epi32(to_bf16(low), to_bf16(high));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + c), _mm256_permute4x64_epi64(packed, 0xd8));
  }
}

}  // namespace
}  // namespace nibkv
