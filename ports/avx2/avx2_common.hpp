#pragma once

// What the AVX2 and the AVX-512 port share: everything that works on one row. Each port's single
// source file includes it.
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

// The levels of magnitudes, twice.
template <int kBits>
__m256i half_levels() {
  if constexpr (kBits == 2) return _mm256_set1_epi16(static_cast<short>(kLevels2[3] << 8 | kLevels2[2]));
  return _mm256_broadcastsi128_si256(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(kLevels + 8)));
}

// Levels of the codes in a nibble. At 4 bits there is one; at 2 bits the low or the high one of two.
template <int kBits, bool kHigh>
__m128i nibble_levels() {
  const std::int8_t* const levels2 = kHigh ? kNibbleLevels2.high : kNibbleLevels2.low;
  return _mm_loadu_si128(reinterpret_cast<const __m128i*>(kBits == 2 ? levels2 : kLevels));
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

template <int kBits>
__m256i level_index(__m256i size, int candidate) {
  __m256i below = _mm256_setzero_si256();  // minus the count of thresholds below the magnitude
  if constexpr (kBits == 2) {
    below = _mm256_cmpgt_epi16(size, _mm256_set1_epi16(kThresholds2.at[candidate]));
  } else {
    for (const std::int16_t threshold : kThresholds.at[candidate])
      below = _mm256_add_epi16(below, _mm256_cmpgt_epi16(size, _mm256_set1_epi16(threshold)));
  }
  return _mm256_sub_epi16(_mm256_setzero_si256(), below);
}

inline std::uint16_t to_scale16(float scale) {
  const auto bits = static_cast<std::uint32_t>(_mm_cvtsi128_si32(_mm_castps_si128(_mm_set_ss(scale))));
  return static_cast<std::uint16_t>((bits + 0x4000u) >> 15);
}

// Codes of 2 or 4 bits.
template <int kBits>
std::uint16_t encode_row(const float* row, int head_dim, std::uint8_t* codes) {
  constexpr int kFirst = 1 << kBits >> 1;  // of the levels above 0
  const float most = largest_magnitude(row, head_dim);
  if (!(most >= kSmallest)) {
    for (int c = 0; c < head_dim; ++c) codes[c] = kFirst;
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
  const __m256i levels = half_levels<kBits>();
  const __m256i upper_zero = _mm256_set1_epi16(static_cast<short>(0x8000));
  int best = 0;
  float best_gain = -1;
  float best_ratio = 0;
  for (int k = 0; k < kCandidates; ++k) {
    __m256i product = _mm256_setzero_si256();
    __m256i energy = _mm256_setzero_si256();
    for (int i = 0; i < vectors; ++i) {
      const __m256i index = level_index<kBits>(sizes[i], k);
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
    // kFirst + index, or kFirst - 1 - index for a negative: the latter is the former with all bits of the code flipped.
    const __m256i code =
        _mm256_xor_si256(_mm256_add_epi16(level_index<kBits>(sizes[i], best), _mm256_set1_epi16(kFirst)),
                         _mm256_and_si256(signs[i], _mm256_set1_epi16(2 * kFirst - 1)));
    const __m128i bytes = _mm_packus_epi16(_mm256_castsi256_si128(code), _mm256_extracti128_si256(code, 1));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(codes + 16 * i), bytes);
  }
  return to_scale16(best_ratio * (most * (1.0f / 16383.0f)));
}

float quantise_query(const float* row, int head_dim, std::int8_t* codes) {
  if (head_dim % 16 != 0) return scalar::quantise_query(row, head_dim, codes);  // a few outlier channels
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

std::uint16_t encode_bytes(const float* row, int head_dim, std::uint8_t* codes) {
  return to_scale16(quantise_query(row, head_dim, reinterpret_cast<std::int8_t*>(codes)));
}

inline std::int32_t word_at(const void* at) {
  std::int32_t word;
  __builtin_memcpy(&word, at, sizeof word);
  return word;
}

// -(32768 >> whole) for 16 values of whole in [0, 15], except 0 for 15: low and high
// bytes from two tables.
// `high_index` has whole in its high bytes and bit 7 of its low bytes set.
inline __m256i negative_power(__m256i whole, __m256i high_index) {
  const __m256i low_bytes =
      _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 0, 0, 0, 0, 0, 0, 0, -128, -64, -32, -16, -8, -4, -2, 0));
  const __m256i high_bytes =
      _mm256_broadcastsi128_si256(_mm_setr_epi8(-128, -64, -32, -16, -8, -4, -2, -1, -1, -1, -1, -1, -1, -1, -1, 0));
  // The high byte of `whole` is 0, and so is entry 0 of the low bytes.
  return _mm256_or_si256(_mm256_shuffle_epi8(low_bytes, whole), _mm256_shuffle_epi8(high_bytes, high_index));
}

// 2^-(octaves / 2048) in Q15 for 16 values in [0, 32767]; see the scalar port.
inline __m256i exp2_q15(__m256i octaves) {
  const __m256i f = _mm256_and_si256(_mm256_slli_epi16(octaves, 4), _mm256_set1_epi16(0x7ff0));
  __m256i x = _mm256_add_epi16(_mm256_mulhrs_epi16(f, _mm256_set1_epi16(kExp4)), _mm256_set1_epi16(kExp3));
  x = _mm256_add_epi16(_mm256_mulhrs_epi16(f, x), _mm256_set1_epi16(kExp2));
  x = _mm256_add_epi16(_mm256_mulhrs_epi16(f, x), _mm256_set1_epi16(kExp1));
  x = _mm256_add_epi16(_mm256_mulhrs_epi16(f, x), _mm256_set1_epi16(kExp0));
  const __m256i high_index = _mm256_or_si256(_mm256_srli_epi16(octaves, 3), _mm256_set1_epi16(0x80));
  return _mm256_mulhrs_epi16(x, negative_power(_mm256_srli_epi16(octaves, 11), high_index));
}

// Value scales in Q15 of the power of two above the largest; see the scalar port.
inline __m256i value_scales_q15(__m256i scales16, __m256i exponent) {
  const __m256i octaves =
      _mm256_min_epu16(_mm256_sub_epi16(exponent, _mm256_srli_epi16(scales16, 8)), _mm256_set1_epi16(15));
  const __m256i fraction = _mm256_or_si256(_mm256_and_si256(scales16, _mm256_set1_epi16(255)), _mm256_set1_epi16(256));
  const __m256i mantissa = _mm256_sub_epi16(_mm256_setzero_si256(), _mm256_slli_epi16(fraction, 6));
  const __m256i high_index = _mm256_or_si256(_mm256_slli_epi16(octaves, 8), _mm256_set1_epi16(0x80));
  return _mm256_mulhrs_epi16(mantissa, negative_power(octaves, high_index));
}

// The largest of 16 values in [0, 65535].
inline std::int32_t most_of_words(__m256i words) {
  const __m128i eight = _mm_max_epu16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
  return 65535 - (_mm_cvtsi128_si32(_mm_minpos_epu16(_mm_xor_si128(eight, _mm_set1_epi32(-1)))) & 65535);
}

// Reduces eight vectors of eight lanes to one vector, which has the result of `join`
// over the lanes of each.
template <typename Join>
inline __m256 join_lanes(const float (*rows)[8], Join join) {
  __m256 four[2];
  for (int half = 0; half < 2; ++half) {
    __m256 two[2];
    for (int k = 0; k < 2; ++k) {
      const __m256 a = _mm256_load_ps(rows[4 * half + 2 * k]);
      const __m256 b = _mm256_load_ps(rows[4 * half + 2 * k + 1]);
      two[k] = join(_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));  // a b a b | a b a b
    }
    four[half] =
        join(_mm256_shuffle_ps(two[0], two[1], 0x44), _mm256_shuffle_ps(two[0], two[1], 0xee));  // a b c d | ..
  }
  return join(_mm256_permute2f128_ps(four[0], four[1], 0x20), _mm256_permute2f128_ps(four[0], four[1], 0x31));
}

inline __m256 most_of_each(const float (*rows)[8]) {
  return join_lanes(rows, [](__m256 a, __m256 b) { return _mm256_max_ps(a, b); });
}

inline __m256i most_int_of_each(const float (*rows)[8]) {
  return _mm256_castps_si256(join_lanes(rows, [](__m256 a, __m256 b) {
    return _mm256_castsi256_ps(_mm256_max_epi32(_mm256_castps_si256(a), _mm256_castps_si256(b)));
  }));
}

inline __m256i sum_of_each(const float (*rows)[8]) {
  return _mm256_castps_si256(join_lanes(rows, [](__m256 a, __m256 b) {
    return _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(a), _mm256_castps_si256(b)));
  }));
}

// What the steps of tile_weights pass on, for each pair of tile and row.
struct PairBuffers {
  alignas(64) float logits[kMaxRows][32];           // without the factor query_scale, if there are no biases
  alignas(64) std::int16_t products[kMaxRows][32];  // Q15: weight times value scale
  alignas(32) float largest[kMaxRows][8];           // to be joined: logits
  alignas(32) float masses[kMaxRows][8];            // to be joined: i32
  alignas(32) float largest_products[kMaxRows][8];  // to be joined: i32
  float scales[kMaxRows];                           // the factor from logits to 1 / 2048 octaves
  alignas(32) float tops[kMaxRows];                 // (whole octave above the largest logit) * 2048 + 0.5
  alignas(32) std::int32_t exponents[kMaxRows];
  alignas(32) std::int32_t ups[kMaxRows];     // shifts that bring the largest product to [2^14, 2^15)
  alignas(32) std::int32_t ranges[kMaxRows];  // factors from products shifted like this to bytes
  alignas(32) float units[kMaxRows];          // what a byte of 1 stands for, without the value scales' exponent
  alignas(32) std::int32_t mass[kMaxRows];
};

// The sums over rows of softmax times factor, or of the largest such product in each group of rows:
// for the first 16 slots and the others.
inline void find_attention(const TileScores& tile, __m256i* low, __m256i* high) {
  const auto weights = [&](int i, int half) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(tile.softmax + i * 32 + half * 16));
  };
  const __m256i zero = _mm256_setzero_si256();
  low[0] = high[0] = low[1] = high[1] = zero;
  if (tile.group == 1) {  // two rows at a time
    int i = 0;
    for (; i + 1 < tile.count; i += 2) {
      const __m256i factors = _mm256_set1_epi32(tile.factors[i] | tile.factors[i + 1] << 16);
      for (int half = 0; half < 2; ++half) {
        const __m256i a = weights(i, half);
        const __m256i b = weights(i + 1, half);
        low[half] = _mm256_add_epi32(low[half], _mm256_madd_epi16(_mm256_unpacklo_epi16(a, b), factors));
        high[half] = _mm256_add_epi32(high[half], _mm256_madd_epi16(_mm256_unpackhi_epi16(a, b), factors));
      }
    }
    if (i == tile.count) return;
    const __m256i factor = _mm256_set1_epi32(tile.factors[i]);
    for (int half = 0; half < 2; ++half) {
      const __m256i a = weights(i, half);
      low[half] = _mm256_add_epi32(low[half], _mm256_madd_epi16(_mm256_unpacklo_epi16(a, zero), factor));
      high[half] = _mm256_add_epi32(high[half], _mm256_madd_epi16(_mm256_unpackhi_epi16(a, zero), factor));
    }
    return;
  }
  for (int half = 0; half < 2; ++half) {
    for (int i = 0; i < tile.count; i += tile.group) {
      __m256i most_low = zero;
      __m256i most_high = zero;
      for (int j = i; j < i + tile.group; ++j) {
        const __m256i factor = _mm256_set1_epi32(tile.factors[j]);
        const __m256i a = weights(j, half);
        most_low = _mm256_max_epi32(most_low, _mm256_madd_epi16(_mm256_unpacklo_epi16(a, zero), factor));
        most_high = _mm256_max_epi32(most_high, _mm256_madd_epi16(_mm256_unpackhi_epi16(a, zero), factor));
      }
      low[half] = _mm256_add_epi32(low[half], most_low);
      high[half] = _mm256_add_epi32(high[half], most_high);
    }
  }
}

// scores - (scores * fade + 65535 >> 16)
inline __m256i faded(__m256i scores, std::uint32_t fade) {
  if (fade == 65536) return _mm256_setzero_si256();
  const __m256i factor = _mm256_set1_epi16(static_cast<short>(fade));
  const __m256i whole = _mm256_mulhi_epu16(scores, factor);
  const __m256i exact = _mm256_cmpeq_epi16(_mm256_mullo_epi16(scores, factor), _mm256_setzero_si256());
  // Rounded up: add one, except where there is no fraction and the comparison gives -1.
  return _mm256_sub_epi16(_mm256_sub_epi16(scores, whole), _mm256_add_epi16(_mm256_set1_epi16(1), exact));
}

// x + (1 << shift >> 1) >> shift, with what depends on the shift alone computed once.
struct RoundedShift {
  __m256i half;
  __m128i places;
  explicit RoundedShift(int shift)
      : half(_mm256_set1_epi32(static_cast<std::int32_t>((1u << shift) >> 1))), places(_mm_cvtsi32_si128(shift)) {}
  __m256i operator()(__m256i x) const { return _mm256_srl_epi32(_mm256_add_epi32(x, half), places); }
};

// 8 logits, bounded and rounded.
inline __m256i sign_logits_of(__m128i dots, __m128i sizes, const SignLogits& page) {
  const __m256i product = _mm256_mullo_epi32(_mm256_cvtepi16_epi32(dots), _mm256_cvtepu8_epi32(sizes));
  const __m256 scaled = _mm256_mul_ps(_mm256_cvtepi32_ps(product), _mm256_set1_ps(page.unit));
  __m256 logit = _mm256_add_ps(_mm256_set1_ps(page.base), scaled);
  logit = _mm256_max_ps(_mm256_min_ps(logit, _mm256_set1_ps(kMostLogit)), _mm256_set1_ps(-kMostLogit));
  return _mm256_sub_epi32(_mm256_cvttps_epi32(_mm256_add_ps(logit, _mm256_set1_ps(32768.5f))),
                          _mm256_set1_epi32(32768));
}

inline std::int16_t sign_logits(const SignLogits& page) {
  const __m256i nibble = _mm256_set1_epi8(15);
  const __m256i ones = _mm256_set1_epi8(1);
  __m256i low = _mm256_setzero_si256();  // of slots 0-7 and 16-23
  __m256i high = _mm256_setzero_si256();
  for (int c = 0; c < page.head_dim; c += 8) {
    const __m256i eight = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(page.signs + c * 4));
    const auto* const sums = reinterpret_cast<const __m128i*>(page.sums + c * 4);
    const __m256i first =
        _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(_mm_loadu_si128(sums)), _mm256_and_si256(eight, nibble));
    const __m256i second = _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(_mm_loadu_si128(sums + 1)),
                                               _mm256_and_si256(_mm256_srli_epi16(eight, 4), nibble));
    low = _mm256_add_epi16(low, _mm256_maddubs_epi16(ones, _mm256_unpacklo_epi8(first, second)));
    high = _mm256_add_epi16(high, _mm256_maddubs_epi16(ones, _mm256_unpackhi_epi8(first, second)));
  }
  const __m128i dots[4] = {_mm256_castsi256_si128(low), _mm256_castsi256_si128(high), _mm256_extracti128_si256(low, 1),
                           _mm256_extracti128_si256(high, 1)};
  __m128i largest = _mm_set1_epi16(INT16_MIN);
  for (int i = 0; i < 4; ++i) {
    const __m128i sizes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(page.sizes + 8 * i));
    const __m256i wide = sign_logits_of(dots[i], sizes, page);
    const __m128i logits = _mm_packs_epi32(_mm256_castsi256_si128(wide), _mm256_extracti128_si256(wide, 1));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(page.logits + 8 * i), logits);
    largest = _mm_max_epi16(largest, logits);
  }
  // The least of unsigned words is found in one instruction.
  const __m128i below = _mm_minpos_epu16(_mm_sub_epi16(_mm_set1_epi16(INT16_MAX), largest));
  return static_cast<std::int16_t>(INT16_MAX - _mm_extract_epi16(below, 0));
}

inline void add_scores(const TileScores& tile) {
  __m256i low[2];   // slots 0-3 and 8-11; the next 16 likewise
  __m256i high[2];  // slots 4-7 and 12-15
  find_attention(tile, low, high);
  __m256i attention[4];
  for (int k = 0; k < 2; ++k) {
    attention[2 * k] = _mm256_permute2x128_si256(low[k], high[k], 0x20);
    attention[2 * k + 1] = _mm256_permute2x128_si256(low[k], high[k], 0x31);
  }
  if (tile.global != nullptr) {
    const RoundedShift shift(tile.global_shift);
    for (int k = 0; k < 4; ++k) {
      auto* global = reinterpret_cast<__m256i*>(tile.global + 8 * k);
      const __m256i more = shift(attention[k]);
      const __m256i room = _mm256_xor_si256(more, _mm256_set1_epi32(-1));
      _mm256_storeu_si256(global, _mm256_add_epi32(_mm256_min_epu32(_mm256_loadu_si256(global), room), more));
    }
  }
  if (tile.local != nullptr) {
    const RoundedShift shift(tile.local_shift);
    for (int k = 0; k < 2; ++k) {
      auto* local = reinterpret_cast<__m256i*>(tile.local + 16 * k);
      const __m256i more = _mm256_packus_epi32(shift(attention[2 * k]), shift(attention[2 * k + 1]));
      const __m256i left = faded(_mm256_loadu_si256(local), tile.fade);
      _mm256_storeu_si256(local, _mm256_adds_epu16(left, _mm256_permute4x64_epi64(more, 0xd8)));
    }
  }
}

inline void store_lanes(float* at, __m256i lanes) {
  _mm256_store_ps(at, _mm256_castsi256_ps(lanes));
}

// Reduces sixteen positive words to the larger of each of eight pairs.
inline __m256i most_of_word_pairs(__m256i words) {
  return _mm256_max_epi16(_mm256_and_si256(words, _mm256_set1_epi32(0xffff)), _mm256_srli_epi32(words, 16));
}

// Hides the slots that a row does not see.
inline void hide_logits(float* logits, float* largest, std::uint32_t seen, float factor) {
  const __m256i to_sign = _mm256_setr_epi32(31, 30, 29, 28, 27, 26, 25, 24);  // what blendv reads
  const __m256 hidden = _mm256_set1_ps(kHidden);
  __m256 most = hidden;
  for (int t = 0; t < 32; t += 8, seen >>= 8) {
    const __m256i lanes = _mm256_sllv_epi32(_mm256_set1_epi32(static_cast<std::int32_t>(seen)), to_sign);
    const __m256 logit = _mm256_blendv_ps(hidden, _mm256_load_ps(logits + t), _mm256_castsi256_ps(lanes));
    _mm256_store_ps(logits + t, logit);
    most = _mm256_max_ps(logit, most);
  }
  _mm256_store_ps(largest, _mm256_mul_ps(most, _mm256_set1_ps(factor)));
}

// Computes the tops and exponents from the largest logits of eight pairs.
inline void find_tops(PairBuffers& pair, int p) {
  const __m256 most = most_of_each(pair.largest + p);
  const __m256 flat = _mm256_cmp_ps(magnitude(most), _mm256_set1_ps(kFlat), _CMP_LT_OQ);
  const __m256 whole = _mm256_floor_ps(_mm256_andnot_ps(flat, most));
  const __m256 top = _mm256_mul_ps(_mm256_add_ps(whole, _mm256_set1_ps(1.0f)), _mm256_set1_ps(2048.0f));
  _mm256_store_ps(pair.tops + p, _mm256_add_ps(top, _mm256_set1_ps(0.5f)));
  const __m256 bounded =
      _mm256_max_ps(_mm256_min_ps(whole, _mm256_set1_ps(kExponentLimit)), _mm256_set1_ps(-kExponentLimit));
  _mm256_store_si256(reinterpret_cast<__m256i*>(pair.exponents + p),
                     _mm256_add_epi32(_mm256_cvttps_epi32(bounded), _mm256_set1_epi32(2)));
}

// Computes, from the largest products of eight pairs, the factors to bytes, and what
// a byte of 1 stands for.
inline void find_ranges(PairBuffers& pair, int p) {
  const auto store = [](std::int32_t* at, __m256i x) { _mm256_store_si256(reinterpret_cast<__m256i*>(at), x); };
  const __m256i most = most_int_of_each(pair.largest_products + p);
  const __m256i bits = _mm256_castps_si256(_mm256_cvtepi32_ps(most));
  const __m256i up = _mm256_sub_epi32(_mm256_set1_epi32(127 + 14), _mm256_srli_epi32(bits, 23));
  const __m256i moved = _mm256_or_si256(_mm256_and_si256(bits, _mm256_set1_epi32(0x7fffff)),
                                        _mm256_set1_epi32((127 + 14) << 23));  // most << up, as float
  const __m256i range = _mm256_cvttps_epi32(_mm256_div_ps(_mm256_set1_ps(kByteRange), _mm256_castsi256_ps(moved)));
  const __m256i power = _mm256_slli_epi32(_mm256_sub_epi32(_mm256_set1_epi32(127), up), 23);  // 2^-up
  const __m256 unit =
      _mm256_mul_ps(_mm256_div_ps(_mm256_set1_ps(1.0f), _mm256_cvtepi32_ps(range)), _mm256_castsi256_ps(power));
  const __m256i none = _mm256_cmpeq_epi32(most, _mm256_setzero_si256());
  store(pair.ups + p, up);  // 141 for a largest product of 0, which shifts everything out
  store(pair.ranges + p, range);
  _mm256_store_ps(pair.units + p, _mm256_andnot_ps(_mm256_castsi256_ps(none), unit));
  store(pair.mass + p, sum_of_each(pair.masses + p));
}

// tile_weights for a port that provides the steps that process whole rows. Pairs of tile and
// row go through the steps in two groups, whose steps alternate: a step is a chain of dependent
// instructions, and only many of them at once keep the CPU busy.
template <typename Steps>
void weigh_in_groups(const TileWeights* tiles, int tile_count, int count) {
  PairBuffers pair;
  const int pairs = tile_count * count;
  for (int p = pairs; p % 8 != 0; ++p) {  // pads the last eight: computed, but not read
    _mm256_store_ps(pair.largest[p], _mm256_setzero_ps());
    _mm256_store_ps(pair.masses[p], _mm256_setzero_ps());
    _mm256_store_ps(pair.largest_products[p], _mm256_setzero_ps());
  }
  // Calls body(tile, its rows [i, end), pair of row i) for the pairs [from, to).
  const auto walk = [&](int from, int to, auto body) {
    int j = 0;
    int p = 0;
    for (; p + count <= from; p += count) ++j;
    for (; p < to && p < pairs; p += count, ++j) {
      const int first = p < from ? from - p : 0;
      const int last = p + count < to ? count : to - p;
      body(tiles[j], first, last, p);
    }
  };
  const auto logits = [&](int from, int to) {
    walk(from, to, [&](const TileWeights& tile, int i, int end, int p) {
      const bool outliers = tile.outlier_dots != nullptr;
      if (tile.biases == nullptr) {
        (outliers ? Steps::template find_logits<true, false> : Steps::template find_logits<false, false>)(tile, i, end,
                                                                                                          p, pair);
      } else {
        (outliers ? Steps::template find_logits<true, true> : Steps::template find_logits<false, true>)(tile, i, end, p,
                                                                                                        pair);
      }
    });
    find_tops(pair, from);
  };
  const auto products = [&](int from, int to) {
    walk(from, to,
         [&](const TileWeights& tile, int i, int end, int p) { Steps::find_products(tile, i, end, p, pair); });
    find_ranges(pair, from);
  };
  logits(0, 8);
  if (pairs > 8) logits(8, 16);
  products(0, 8);
  if (pairs > 8) products(8, 16);
  for (int j = 0, p = 0; j < tile_count; ++j) {
    for (int i = 0; i < count; ++i, ++p) {
      Steps::put_bytes(pair, p, tiles[j].weights + i * 32);
      tiles[j].exponents[i] = pair.exponents[p];
      tiles[j].value_units[i] *= pair.units[p];
      tiles[j].masses[i] = static_cast<std::uint32_t>(pair.mass[p]);
    }
  }
}

// exponent in [-126, 127]
inline float power_of_two(std::int32_t exponent) {
  return __builtin_bit_cast(float, (exponent + 127) << 23);
}

inline __m256 wide(__m128i scales16) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(scales16), 15));
}

inline __m128i eight_at(const std::uint16_t* at) {
  return _mm_loadu_si128(reinterpret_cast<const __m128i*>(at));
}

}  // namespace
}  // namespace nibkv
