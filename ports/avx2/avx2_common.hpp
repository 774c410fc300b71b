#pragma once

// What the AVX2 and the AVX-512 port share: everything that works on one row. Included by each port's one source file.
#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "ports/kernels.hpp"

namespace nibkv {
namespace {

using namespace ports;

inline __m256 magnitude(__m256 x) {
  return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), x);
}

inline float most_of(__m256 x) {
  __m128 m = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
  m = _mm_max_ps(m, _mm_movehl_ps(m, m));
  m = _mm_max_ss(m, _mm_shuffle_ps(m, m, 1));
  return _mm_cvtss_f32(m);
}

inline std::int32_t sum_of(__m256i x) {
  __m128i s = _mm_add_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1));
  s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0x4e));
  s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0xb1));
  return _mm_cvtsi128_si32(s);
}

// The high 8 levels of the codebook, for magnitudes; and all 16, twice.
inline __m256i half_levels() {
  return _mm256_broadcastsi128_si256(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(kLevels + 8)));
}
inline __m256i all_levels() {
  return _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(kLevels)));
}

template <int kBlock>
void rotate_block(float* row, float norm) {
  constexpr int kVectors = kBlock / 8;
  __m256 x[kVectors];
  for (int i = 0; i < kVectors; ++i) {
    __m256 v = _mm256_loadu_ps(row + 8 * i);
    __m256 other = _mm256_permute_ps(v, 0xb1);  // partner at distance 1
    v = _mm256_blend_ps(_mm256_add_ps(v, other), _mm256_sub_ps(other, v), 0xaa);
    other = _mm256_permute_ps(v, 0x4e);  // 2
    v = _mm256_blend_ps(_mm256_add_ps(v, other), _mm256_sub_ps(other, v), 0xcc);
    other = _mm256_permute2f128_ps(v, v, 1);  // 4
    x[i] = _mm256_blend_ps(_mm256_add_ps(v, other), _mm256_sub_ps(other, v), 0xf0);
  }
  for (int half = 1; half < kVectors; half *= 2) {
    for (int start = 0; start < kVectors; start += 2 * half) {
      for (int i = start; i < start + half; ++i) {
        const __m256 a = x[i];
        const __m256 b = x[i + half];
        x[i] = _mm256_add_ps(a, b);
        x[i + half] = _mm256_sub_ps(a, b);
      }
    }
  }
  for (int i = 0; i < kVectors; ++i) _mm256_storeu_ps(row + 8 * i, _mm256_mul_ps(x[i], _mm256_set1_ps(norm)));
}

void rotate(float* row, int head_dim) {
  if ((head_dim & 256) != 0) {
    rotate_block<256>(row, 0.0625f);
    row += 256;
  }
  if ((head_dim & 128) != 0) {
    rotate_block<128>(row, 0.08838834764831845f);
    row += 128;
  }
  if ((head_dim & 64) != 0) {
    rotate_block<64>(row, 0.125f);
    row += 64;
  }
  if ((head_dim & 32) != 0) {
    rotate_block<32>(row, 0.17677669529663687f);
    row += 32;
  }
  if ((head_dim & 16) != 0) rotate_block<16>(row, 0.25f);
}

inline float largest_magnitude(const float* row, int n) {
  __m256 most = _mm256_setzero_ps();
  for (int i = 0; i < n; i += 8) most = _mm256_max_ps(magnitude(_mm256_loadu_ps(row + i)), most);
  return most_of(most);
}

// Eight values times `factor`, rounded like the scalar port's round_biased: integers in [-offset, offset].
inline __m256i round_biased(const float* row, __m256 factor, float offset) {
  const __m256 biased = _mm256_add_ps(_mm256_mul_ps(_mm256_loadu_ps(row), factor), _mm256_set1_ps(offset + 0.5f));
  return _mm256_sub_epi32(_mm256_cvttps_epi32(biased), _mm256_set1_epi32(static_cast<int>(offset)));
}

inline __m256i level_index(__m256i size, const std::int16_t* thresholds) {
  __m256i below = _mm256_setzero_si256();  // minus the count of thresholds below the magnitude
  for (int j = 0; j < 7; ++j)
    below = _mm256_add_epi16(below, _mm256_cmpgt_epi16(size, _mm256_set1_epi16(thresholds[j])));
  return _mm256_sub_epi16(_mm256_setzero_si256(), below);
}

std::uint16_t encode_row(const float* row, int head_dim, std::uint8_t* codes) {
  const float most = largest_magnitude(row, head_dim);
  if (!(most >= kSmallest)) {
    for (int c = 0; c < head_dim; ++c) codes[c] = 8;
    return 0;
  }
  const __m256 to_normal = _mm256_set1_ps(16383.0f / most);
  __m256i sizes[16];
  __m256i signs[16];
  const int vectors = head_dim / 16;
  for (int i = 0; i < vectors; ++i) {
    const __m256i low = round_biased(row + 16 * i, to_normal, 16384.0f);
    const __m256i high = round_biased(row + 16 * i + 8, to_normal, 16384.0f);
    const __m256i both = _mm256_permute4x64_epi64(_mm256_packs_epi32(low, high), 0xd8);
    sizes[i] = _mm256_abs_epi16(both);
    signs[i] = _mm256_srai_epi16(both, 15);
  }
  const __m256i levels = half_levels();
  const __m256i upper_zero = _mm256_set1_epi16(static_cast<short>(0x8000));
  int best = 0;
  float best_gain = -1;
  float best_ratio = 0;
  for (int k = 0; k < kCandidates; ++k) {
    __m256i product = _mm256_setzero_si256();
    __m256i energy = _mm256_setzero_si256();
    for (int i = 0; i < vectors; ++i) {
      const __m256i index = level_index(sizes[i], kThresholds.at[k]);
      const __m256i level = _mm256_shuffle_epi8(levels, _mm256_or_si256(index, upper_zero));
      product = _mm256_add_epi32(product, _mm256_madd_epi16(sizes[i], level));
      energy = _mm256_add_epi32(energy, _mm256_madd_epi16(level, level));
    }
    const auto total = static_cast<float>(sum_of(product));
    const float ratio = total / static_cast<float>(sum_of(energy));
    const float gain = total * ratio;
    if (gain > best_gain) {
      best = k;
      best_gain = gain;
      best_ratio = ratio;
    }
  }
  for (int i = 0; i < vectors; ++i) {
    // 8 + index, or 7 - index for a negative: the latter is the former with all bits of the nibble flipped.
    const __m256i code =
        _mm256_xor_si256(_mm256_add_epi16(level_index(sizes[i], kThresholds.at[best]), _mm256_set1_epi16(8)),
                         _mm256_and_si256(signs[i], _mm256_set1_epi16(15)));
    const __m128i bytes = _mm_packus_epi16(_mm256_castsi256_si128(code), _mm256_extracti128_si256(code, 1));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(codes + 16 * i), bytes);
  }
  const float scale = best_ratio * (most * (1.0f / 16383.0f));
  return static_cast<std::uint16_t>(
      (static_cast<std::uint32_t>(_mm_cvtsi128_si32(_mm_castps_si128(_mm_set_ss(scale)))) + 0x4000u) >> 15);
}

float quantise_query(const float* row, int head_dim, std::int8_t* codes) {
  if (head_dim % 16 != 0) return kScalarKernels.quantise_query(row, head_dim, codes);  // a few outlier channels
  const float most = largest_magnitude(row, head_dim);
  if (!(most >= kSmallest)) {
    for (int c = 0; c < head_dim; ++c) codes[c] = 0;
    return 0;
  }
  const __m256 to_code = _mm256_set1_ps(127.0f / most);
  for (int c = 0; c < head_dim; c += 16) {
    const __m256i both =
        _mm256_packs_epi32(round_biased(row + c, to_code, 128.0f), round_biased(row + c + 8, to_code, 128.0f));
    const __m256i ordered = _mm256_permute4x64_epi64(both, 0xd8);
    const __m128i bytes = _mm_packs_epi16(_mm256_castsi256_si128(ordered), _mm256_extracti128_si256(ordered, 1));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(codes + c), bytes);
  }
  return most * (1.0f / 127.0f);
}

inline std::int32_t word_at(const void* at) {
  std::int32_t word;
  __builtin_memcpy(&word, at, sizeof word);
  return word;
}

// 2^-(octaves / 2048) in Q15 for 16 values; see the scalar port.
inline __m256i exp2_q15(__m256i octaves) {
  const __m256i f = _mm256_slli_epi16(_mm256_and_si256(octaves, _mm256_set1_epi16(2047)), 4);
  __m256i x = _mm256_add_epi16(_mm256_mulhrs_epi16(f, _mm256_set1_epi16(kExp4)), _mm256_set1_epi16(kExp3));
  x = _mm256_add_epi16(_mm256_mulhrs_epi16(f, x), _mm256_set1_epi16(kExp2));
  x = _mm256_add_epi16(_mm256_mulhrs_epi16(f, x), _mm256_set1_epi16(kExp1));
  x = _mm256_add_epi16(_mm256_mulhrs_epi16(f, x), _mm256_set1_epi16(-32768));
  x = _mm256_max_epi16(x, _mm256_set1_epi16(-32767));
  // -(32768 >> whole) as 16 bits: its low and its high bytes from two tables.
  const __m256i whole = _mm256_srli_epi16(octaves, 11);
  const __m256i low_bytes =
      _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 0, 0, 0, 0, 0, 0, 0, -128, -64, -32, -16, -8, -4, -2, -1));
  const __m256i high_bytes =
      _mm256_broadcastsi128_si256(_mm_setr_epi8(-128, -64, -32, -16, -8, -4, -2, -1, -1, -1, -1, -1, -1, -1, -1, -1));
  const __m256i low =
      _mm256_shuffle_epi8(low_bytes, _mm256_or_si256(whole, _mm256_set1_epi16(static_cast<short>(0x8000))));
  const __m256i high =
      _mm256_shuffle_epi8(high_bytes, _mm256_or_si256(_mm256_slli_epi16(whole, 8), _mm256_set1_epi16(0x80)));
  const __m256i weight = _mm256_mulhrs_epi16(x, _mm256_or_si256(low, high));
  return _mm256_andnot_si256(_mm256_srai_epi16(octaves, 15), weight);  // 16 octaves down: 0
}

inline __m256 wide(__m128i scales16) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(scales16), 15));
}

inline __m128i eight_at(const std::uint16_t* at) {
  return _mm_loadu_si128(reinterpret_cast<const __m128i*>(at));
}

}  // namespace
}  // namespace nibkv
