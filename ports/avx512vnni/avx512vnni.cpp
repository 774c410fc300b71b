#include "ports/avx2/avx2_common.hpp"

namespace nibkv {
namespace {

inline __m512i all_levels512() {
  return _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(kLevels)));
}

inline std::int32_t sum_of_codes(const std::int8_t* codes, int count) {
  __m256i sum = _mm256_setzero_si256();
  for (int c = 0; c < count; c += 16) {
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(codes + c));
    sum = _mm256_add_epi32(sum, _mm256_castsi128_si256(_mm_dpbusd_epi32(_mm_setzero_si128(), _mm_set1_epi8(1), bytes)));
  }
  return sum_of(sum);
}

template <int kRows>
void key_dots_of(const std::uint8_t* codes, int head_dim, const std::int8_t* queries, std::int32_t* dots) {
  const __m512i levels = _mm512_add_epi8(all_levels512(), _mm512_set1_epi8(64));
  const __m512i nibble = _mm512_set1_epi8(15);
  __m512i low[kRows];
  __m512i high[kRows];
  for (int i = 0; i < kRows; ++i)
    low[i] = high[i] = _mm512_set1_epi32(-64 * sum_of_codes(queries + i * head_dim, head_dim));
  for (int c = 0; c < head_dim; c += 4) {
    const __m512i pairs = _mm512_loadu_si512(codes + c * 16);
    const __m512i low_levels = _mm512_shuffle_epi8(levels, _mm512_and_si512(pairs, nibble));
    const __m512i high_levels = _mm512_shuffle_epi8(levels, _mm512_and_si512(_mm512_srli_epi16(pairs, 4), nibble));
    for (int i = 0; i < kRows; ++i) {
      const __m512i query = _mm512_set1_epi32(word_at(queries + i * head_dim + c));
      low[i] = _mm512_dpbusd_epi32(low[i], low_levels, query);
      high[i] = _mm512_dpbusd_epi32(high[i], high_levels, query);
    }
  }
  for (int i = 0; i < kRows; ++i) {
    _mm512_storeu_si512(dots + i * 32, low[i]);
    _mm512_storeu_si512(dots + i * 32 + 16, high[i]);
  }
}

void key_dots(const std::uint8_t* codes, int head_dim, const std::int8_t* queries, int count, std::int32_t* dots) {
  for (; count >= 8; count -= 8, queries += 8 * head_dim, dots += 256) key_dots_of<8>(codes, head_dim, queries, dots);
  for (; count >= 6; count -= 6, queries += 6 * head_dim, dots += 192) key_dots_of<6>(codes, head_dim, queries, dots);
  for (; count >= 4; count -= 4, queries += 4 * head_dim, dots += 128) key_dots_of<4>(codes, head_dim, queries, dots);
  if (count == 3) key_dots_of<3>(codes, head_dim, queries, dots);
  if (count == 2) key_dots_of<2>(codes, head_dim, queries, dots);
  if (count == 1) key_dots_of<1>(codes, head_dim, queries, dots);
}

void outlier_dots(const std::int8_t* outliers, int channels, const std::int8_t* queries, int count,
                  std::int32_t* dots) {
  const __m512i offset = _mm512_set1_epi8(-128);
  for (int i = 0; i < count; ++i) {
    std::int32_t total = 0;
    for (int c = 0; c < channels; ++c) total += queries[i * channels + c];
    __m512i low = _mm512_set1_epi32(-128 * total);
    __m512i high = low;
    for (int c = 0; c < channels; c += 4) {
      const __m512i query = _mm512_set1_epi32(word_at(queries + i * channels + c));
      low = _mm512_dpbusd_epi32(low, _mm512_xor_si512(_mm512_loadu_si512(outliers + c * 32), offset), query);
      high = _mm512_dpbusd_epi32(high, _mm512_xor_si512(_mm512_loadu_si512(outliers + c * 32 + 64), offset), query);
    }
    _mm512_storeu_si512(dots + i * 32, low);
    _mm512_storeu_si512(dots + i * 32 + 16, high);
  }
}

// Pairs of tile and row go through tile_weights side by side, as in the AVX2 port.
struct PairBuffers {
  alignas(64) float logits[kMostRows][32];  // then weight * value scale
  alignas(64) float most[kMostRows];        // largest logit, then largest product
  alignas(64) float top[kMostRows];         // whole octave above the largest logit, then 255 / largest product
};

inline __m512 wide16(const std::uint16_t* scales16) {
  const __m256i sixteen = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(scales16));
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(sixteen), 15));
}

inline float most_of(__m512 x) {
  return most_of(_mm256_max_ps(_mm512_castps512_ps256(x), _mm512_extractf32x8_ps(x, 1)));
}

void find_logits(const TileWeights& tile, int count, float (*logits)[32], float* mosts) {
  const __m512 keys[2] = {wide16(tile.key_scales), wide16(tile.key_scales + 16)};
  for (int i = 0; i < count; ++i) {
    const __m512 query_scale = _mm512_set1_ps(tile.query_scales[i]);
    const auto visible = static_cast<std::uint32_t>((std::uint64_t{1} << tile.visible[i]) - 1);
    __m512 shown[2];
    for (int j = 0; j < 2; ++j) {
      __m512 logit = _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_loadu_si512(tile.dots + i * 32 + 16 * j)),
                                   _mm512_mul_ps(keys[j], query_scale));
      if (tile.outlier_dots != nullptr) {
        const __m512 more = _mm512_cvtepi32_ps(_mm512_loadu_si512(tile.outlier_dots + i * 32 + 16 * j));
        logit = _mm512_add_ps(logit, _mm512_mul_ps(more, _mm512_set1_ps(tile.outlier_query_scales[i])));
      }
      logit = _mm512_max_ps(logit, _mm512_set1_ps(-kExponentLimit));
      shown[j] = _mm512_mask_blend_ps(static_cast<__mmask16>(visible >> 16 * j), _mm512_set1_ps(kHidden), logit);
      _mm512_store_ps(logits[i] + 16 * j, shown[j]);
    }
    mosts[i] = most_of(_mm512_max_ps(shown[1], shown[0]));
  }
}

void find_products(const TileWeights& tile, int count, const float* tops, float (*logits)[32], float* mosts) {
  const __m512 values[2] = {wide16(tile.value_scales), wide16(tile.value_scales + 16)};
  for (int i = 0; i < count; ++i) {
    const __m512 top = _mm512_set1_ps(tops[i]);
    __m512 products[2];
    __m256i mass = _mm256_setzero_si256();
    for (int j = 0; j < 2; ++j) {
      __m512 below = _mm512_min_ps(_mm512_sub_ps(top, _mm512_load_ps(logits[i] + 16 * j)), _mm512_set1_ps(17.0f));
      below = _mm512_max_ps(below, _mm512_setzero_ps());
      const __m512i octaves =
          _mm512_cvttps_epi32(_mm512_add_ps(_mm512_mul_ps(below, _mm512_set1_ps(2048.0f)), _mm512_set1_ps(0.5f)));
      const __m256i weights = exp2_q15(_mm512_cvtepi32_epi16(octaves));
      mass = _mm256_dpwssd_epi32(mass, weights, _mm256_set1_epi16(1));
      products[j] = _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_cvtepi16_epi32(weights)), values[j]);
      _mm512_store_ps(logits[i] + 16 * j, products[j]);
    }
    mosts[i] = most_of(_mm512_max_ps(products[1], products[0]));
    tile.masses[i] = static_cast<std::uint32_t>(sum_of(mass));
  }
}

void tile_weights(const TileWeights* tiles, int tile_count, int count) {
  PairBuffers pair;
  alignas(64) std::int32_t exponents[kMostRows];
  alignas(64) float units[kMostRows];
  for (int p = tile_count * count; p < kMostRows; ++p) pair.most[p] = 0;
  for (int j = 0; j < tile_count; ++j) find_logits(tiles[j], count, pair.logits + j * count, pair.most + j * count);

  __m512 most = _mm512_min_ps(_mm512_load_ps(pair.most), _mm512_set1_ps(kExponentLimit));
  most = _mm512_max_ps(most, _mm512_set1_ps(-kExponentLimit));
  __m512i whole = _mm512_cvttps_epi32(most);
  const __mmask16 above = _mm512_cmp_ps_mask(_mm512_cvtepi32_ps(whole), most, _CMP_GT_OQ);
  whole = _mm512_mask_sub_epi32(whole, above, whole, _mm512_set1_epi32(1));
  _mm512_store_ps(pair.top, _mm512_cvtepi32_ps(_mm512_add_epi32(whole, _mm512_set1_epi32(1))));
  _mm512_store_si512(exponents, _mm512_add_epi32(whole, _mm512_set1_epi32(2)));

  for (int j = 0; j < tile_count; ++j) {
    find_products(tiles[j], count, pair.top + j * count, pair.logits + j * count, pair.most + j * count);
  }

  most = _mm512_load_ps(pair.most);
  const __mmask16 live = _mm512_cmp_ps_mask(most, _mm512_set1_ps(kSmallest), _CMP_GE_OQ);
  _mm512_store_ps(pair.top, _mm512_maskz_div_ps(live, _mm512_set1_ps(255.0f), most));
  _mm512_store_ps(units, _mm512_maskz_mul_ps(live, most, _mm512_set1_ps(1.0f / 255.0f)));

  for (int j = 0, p = 0; j < tile_count; ++j) {
    for (int i = 0; i < count; ++i, ++p) {
      const __m512 to_byte = _mm512_set1_ps(pair.top[p]);
      for (int half = 0; half < 32; half += 16) {
        const __m512 byte = _mm512_mul_ps(_mm512_load_ps(pair.logits[p] + half), to_byte);
        const __m512 rounded = _mm512_min_ps(_mm512_add_ps(byte, _mm512_set1_ps(0.5f)), _mm512_set1_ps(255.0f));
        const __m512i bytes = _mm512_cvttps_epi32(rounded);
        _mm_storeu_si128(reinterpret_cast<__m128i*>(tiles[j].weights + i * 32 + half), _mm512_cvtepi32_epi8(bytes));
      }
      tiles[j].exponents[i] = exponents[p];
      tiles[j].value_units[i] = units[p];
    }
  }
}

template <int kRows>
void value_sums_of(const std::uint8_t* codes, int head_dim, const std::uint8_t* weights, const float* scales,
                   float* sums) {
  const __m512i levels = all_levels512();
  const __m512i nibble = _mm512_set1_epi8(15);
  for (int c = 0; c < head_dim; c += 16) {
    __m512i sum[kRows];
    for (int i = 0; i < kRows; ++i) sum[i] = _mm512_setzero_si512();
    for (int group = 0; group < 4; ++group) {
      const __m512i pairs = _mm512_loadu_si512(codes + (group * head_dim + c) * 4);
      const __m512i low_levels = _mm512_shuffle_epi8(levels, _mm512_and_si512(pairs, nibble));
      const __m512i high_levels = _mm512_shuffle_epi8(levels, _mm512_and_si512(_mm512_srli_epi16(pairs, 4), nibble));
      for (int i = 0; i < kRows; ++i) {
        sum[i] = _mm512_dpbusd_epi32(sum[i], _mm512_set1_epi32(word_at(weights + i * 32 + 4 * group)), low_levels);
        sum[i] =
            _mm512_dpbusd_epi32(sum[i], _mm512_set1_epi32(word_at(weights + i * 32 + 16 + 4 * group)), high_levels);
      }
    }
    for (int i = 0; i < kRows; ++i) {
      float* at = sums + i * head_dim + c;
      const __m512 add = _mm512_mul_ps(_mm512_cvtepi32_ps(sum[i]), _mm512_set1_ps(scales[i]));
      _mm512_storeu_ps(at, _mm512_add_ps(_mm512_loadu_ps(at), add));
    }
  }
}

void value_sums(const std::uint8_t* codes, int head_dim, const std::uint8_t* weights, const float* scales, int count,
                float* sums) {
  for (; count >= 8; count -= 8, weights += 256, scales += 8, sums += 8 * head_dim)
    value_sums_of<8>(codes, head_dim, weights, scales, sums);
  for (; count >= 6; count -= 6, weights += 192, scales += 6, sums += 6 * head_dim)
    value_sums_of<6>(codes, head_dim, weights, scales, sums);
  for (; count >= 4; count -= 4, weights += 128, scales += 4, sums += 4 * head_dim)
    value_sums_of<4>(codes, head_dim, weights, scales, sums);
  if (count == 3) value_sums_of<3>(codes, head_dim, weights, scales, sums);
  if (count == 2) value_sums_of<2>(codes, head_dim, weights, scales, sums);
  if (count == 1) value_sums_of<1>(codes, head_dim, weights, scales, sums);
}

}  // namespace

constexpr Kernels kAvx512vnniKernels = {"avx512vnni", rotate,       encode_row,   quantise_query,
                                        key_dots,     outlier_dots, tile_weights, value_sums};

}  // namespace nibkv
