#include "ports/avx2/avx2_common.hpp"

namespace nibkv {
namespace {

// All four products of a slot and a row summed: u8 times i8 to i32. |127 * 127 * 2| fits int16.
inline __m256i add_products(__m256i sum, __m256i unsigned_bytes, __m256i signed_bytes) {
  return _mm256_add_epi32(sum,
                          _mm256_madd_epi16(_mm256_maddubs_epi16(unsigned_bytes, signed_bytes), _mm256_set1_epi16(1)));
}

inline std::int32_t sum_of_codes(const std::int8_t* codes, int count) {
  __m256i sum = _mm256_setzero_si256();
  for (int c = 0; c < count; c += 16) {
    const __m256i wide16 = _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(codes + c)));
    sum = _mm256_add_epi32(sum, _mm256_madd_epi16(wide16, _mm256_set1_epi16(1)));
  }
  return sum_of(sum);
}

template <int kRows>
void key_dots_of(const std::uint8_t* codes, int head_dim, const std::int8_t* queries, std::int32_t* dots) {
  const __m256i levels = _mm256_add_epi8(all_levels(), _mm256_set1_epi8(64));
  const __m256i nibble = _mm256_set1_epi8(15);
  __m256i bias[kRows];
  for (int i = 0; i < kRows; ++i) bias[i] = _mm256_set1_epi32(-64 * sum_of_codes(queries + i * head_dim, head_dim));
  for (int part = 0; part < 2; ++part) {  // slots 0-7 and 16-23, then 8-15 and 24-31
    __m256i low[kRows];
    __m256i high[kRows];
    for (int i = 0; i < kRows; ++i) low[i] = high[i] = bias[i];
    for (int c = 0; c < head_dim; c += 4) {
      const __m256i pairs = _mm256_load_si256(reinterpret_cast<const __m256i*>(codes + c * 16 + part * 32));
      const __m256i low_levels = _mm256_shuffle_epi8(levels, _mm256_and_si256(pairs, nibble));
      const __m256i high_levels = _mm256_shuffle_epi8(levels, _mm256_and_si256(_mm256_srli_epi16(pairs, 4), nibble));
      for (int i = 0; i < kRows; ++i) {
        const __m256i query = _mm256_set1_epi32(word_at(queries + i * head_dim + c));
        low[i] = add_products(low[i], low_levels, query);
        high[i] = add_products(high[i], high_levels, query);
      }
    }
    for (int i = 0; i < kRows; ++i) {
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(dots + i * 32 + part * 8), low[i]);
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(dots + i * 32 + part * 8 + 16), high[i]);
    }
  }
}

void key_dots(const std::uint8_t* codes, int head_dim, const std::int8_t* queries, int count, std::int32_t* dots) {
  for (; count >= 4 && count != 5 && count != 6; count -= 4, queries += 4 * head_dim, dots += 128)
    key_dots_of<4>(codes, head_dim, queries, dots);
  for (; count >= 3; count -= 3, queries += 3 * head_dim, dots += 96) key_dots_of<3>(codes, head_dim, queries, dots);
  if (count == 2) key_dots_of<2>(codes, head_dim, queries, dots);
  if (count == 1) key_dots_of<1>(codes, head_dim, queries, dots);
}

void outlier_dots(const std::int8_t* outliers, int channels, const std::int8_t* queries, int count,
                  std::int32_t* dots) {
  for (int t = 0; t < 32; t += 8) {
    for (int i = 0; i < count; ++i) {
      __m256i sum = _mm256_setzero_si256();
      for (int c = 0; c < channels; c += 4) {
        const __m256i keys = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(outliers + c * 32 + t * 4));
        const __m256i query = _mm256_set1_epi32(word_at(queries + i * channels + c));
        sum = add_products(sum, _mm256_abs_epi8(keys), _mm256_sign_epi8(query, keys));
      }
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(dots + i * 32 + t), sum);
    }
  }
}

// Pairs of tile and row go through tile_weights side by side, a step for all before the next: each step is a chain of
// dependent instructions, and only many of them at once keep the CPU busy. What a step leaves for the next:
struct PairBuffers {
  alignas(32) float logits[kMostRows][32];  // then weight * value scale
  alignas(32) float most[kMostRows];        // largest logit, then largest product
  alignas(32) float top[kMostRows];         // whole octave above the largest logit, then 255 / largest product
};

void find_logits(const TileWeights& tile, int count, float (*logits)[32], float* mosts) {
  __m256 keys[4];
  for (int j = 0; j < 4; ++j) keys[j] = wide(eight_at(tile.key_scales + 8 * j));
  const __m256 hidden = _mm256_set1_ps(kHidden);
  for (int i = 0; i < count; ++i) {
    const __m256 query_scale = _mm256_set1_ps(tile.query_scales[i]);
    const __m256i visible = _mm256_set1_epi32(tile.visible[i]);
    __m256 most = hidden;
    for (int j = 0; j < 4; ++j) {
      const __m256i dots = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(tile.dots + i * 32 + 8 * j));
      __m256 logit = _mm256_mul_ps(_mm256_cvtepi32_ps(dots), _mm256_mul_ps(keys[j], query_scale));
      if (tile.outlier_dots != nullptr) {
        const __m256i more = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(tile.outlier_dots + i * 32 + 8 * j));
        logit =
            _mm256_add_ps(logit, _mm256_mul_ps(_mm256_cvtepi32_ps(more), _mm256_set1_ps(tile.outlier_query_scales[i])));
      }
      const __m256i slot = _mm256_add_epi32(_mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7), _mm256_set1_epi32(8 * j));
      logit = _mm256_max_ps(logit, _mm256_set1_ps(-kExponentLimit));
      if (tile.visible[i] != 32) {
        logit = _mm256_blendv_ps(hidden, logit, _mm256_castsi256_ps(_mm256_cmpgt_epi32(visible, slot)));
      }
      _mm256_store_ps(logits[i] + 8 * j, logit);
      most = _mm256_max_ps(logit, most);
    }
    mosts[i] = most_of(most);
  }
}

// From the largest logits to the whole octave above each; `exponents` gets one more.
void find_tops(const float* mosts, int pairs, float* tops, std::int32_t* exponents) {
  for (int p = 0; p < pairs; p += 8) {
    __m256 most = _mm256_min_ps(_mm256_load_ps(mosts + p), _mm256_set1_ps(kExponentLimit));
    most = _mm256_max_ps(most, _mm256_set1_ps(-kExponentLimit));
    __m256i whole = _mm256_cvttps_epi32(most);
    whole = _mm256_add_epi32(whole, _mm256_castps_si256(_mm256_cmp_ps(_mm256_cvtepi32_ps(whole), most, _CMP_GT_OQ)));
    _mm256_store_ps(tops + p, _mm256_cvtepi32_ps(_mm256_add_epi32(whole, _mm256_set1_epi32(1))));
    _mm256_store_si256(reinterpret_cast<__m256i*>(exponents + p), _mm256_add_epi32(whole, _mm256_set1_epi32(2)));
  }
}

void find_products(const TileWeights& tile, int count, const float* tops, float (*logits)[32], float* mosts) {
  __m256 values[4];
  for (int j = 0; j < 4; ++j) values[j] = wide(eight_at(tile.value_scales + 8 * j));
  for (int i = 0; i < count; ++i) {
    const __m256 top = _mm256_set1_ps(tops[i]);
    __m256i octaves[4];  // packing makes 0 of what is negative
    for (int j = 0; j < 4; ++j) {
      const __m256 below = _mm256_min_ps(_mm256_sub_ps(top, _mm256_load_ps(logits[i] + 8 * j)), _mm256_set1_ps(17.0f));
      octaves[j] =
          _mm256_cvttps_epi32(_mm256_add_ps(_mm256_mul_ps(below, _mm256_set1_ps(2048.0f)), _mm256_set1_ps(0.5f)));
    }
    __m256i mass = _mm256_setzero_si256();
    __m256 most = _mm256_setzero_ps();
    for (int j = 0; j < 4; j += 2) {
      const __m256i packed = _mm256_packus_epi32(octaves[j], octaves[j + 1]);
      const __m256i weights = exp2_q15(_mm256_permute4x64_epi64(packed, 0xd8));
      mass = _mm256_add_epi32(mass, _mm256_madd_epi16(weights, _mm256_set1_epi16(1)));
      const __m256i low = _mm256_cvtepi16_epi32(_mm256_castsi256_si128(weights));
      const __m256i high = _mm256_cvtepi16_epi32(_mm256_extracti128_si256(weights, 1));
      const __m256 low_products = _mm256_mul_ps(_mm256_cvtepi32_ps(low), values[j]);
      const __m256 high_products = _mm256_mul_ps(_mm256_cvtepi32_ps(high), values[j + 1]);
      _mm256_store_ps(logits[i] + 8 * j, low_products);
      _mm256_store_ps(logits[i] + 8 * j + 8, high_products);
      most = _mm256_max_ps(_mm256_max_ps(low_products, high_products), most);
    }
    mosts[i] = most_of(most);
    tile.masses[i] = static_cast<std::uint32_t>(sum_of(mass));
  }
}

// From the largest products to what a weight of 1 stands for, and to the factor that makes the largest 255.
void find_units(const float* mosts, int pairs, float* to_bytes, float* units) {
  for (int p = 0; p < pairs; p += 8) {
    const __m256 most = _mm256_load_ps(mosts + p);
    const __m256 live = _mm256_cmp_ps(most, _mm256_set1_ps(kSmallest), _CMP_GE_OQ);
    _mm256_store_ps(to_bytes + p, _mm256_and_ps(live, _mm256_div_ps(_mm256_set1_ps(255.0f), most)));
    _mm256_store_ps(units + p, _mm256_and_ps(live, _mm256_mul_ps(most, _mm256_set1_ps(1.0f / 255.0f))));
  }
}

inline void put_bytes(const float* products, float to_byte, std::uint8_t* weights) {
  __m256i bytes[4];
  for (int j = 0; j < 4; ++j) {
    const __m256 byte = _mm256_mul_ps(_mm256_load_ps(products + 8 * j), _mm256_set1_ps(to_byte));
    bytes[j] = _mm256_cvttps_epi32(_mm256_min_ps(_mm256_add_ps(byte, _mm256_set1_ps(0.5f)), _mm256_set1_ps(255.0f)));
  }
  const __m256i packed =
      _mm256_packus_epi16(_mm256_packus_epi32(bytes[0], bytes[1]), _mm256_packus_epi32(bytes[2], bytes[3]));
  const __m256i ordered = _mm256_permutevar8x32_epi32(packed, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(weights), ordered);
}

void tile_weights(const TileWeights* tiles, int tile_count, int count) {
  PairBuffers pair;
  alignas(32) std::int32_t exponents[kMostRows];
  alignas(32) float units[kMostRows];
  const int pairs = tile_count * count;
  for (int p = pairs; p % 8 != 0; ++p) pair.most[p] = 0;
  for (int j = 0; j < tile_count; ++j) find_logits(tiles[j], count, pair.logits + j * count, pair.most + j * count);
  find_tops(pair.most, pairs, pair.top, exponents);
  for (int j = 0; j < tile_count; ++j) {
    find_products(tiles[j], count, pair.top + j * count, pair.logits + j * count, pair.most + j * count);
  }
  find_units(pair.most, pairs, pair.top, units);
  for (int j = 0, p = 0; j < tile_count; ++j) {
    for (int i = 0; i < count; ++i, ++p) {
      put_bytes(pair.logits[p], pair.top[p], tiles[j].weights + i * 32);
      tiles[j].exponents[i] = exponents[p];
      tiles[j].value_units[i] = units[p];
    }
  }
}

template <int kRows>
void value_sums_of(const std::uint8_t* codes, int head_dim, const std::uint8_t* weights, const float* scales,
                   float* sums) {
  const __m256i levels = all_levels();
  const __m256i nibble = _mm256_set1_epi8(15);
  for (int c = 0; c < head_dim; c += 8) {
    __m256i sum[kRows];
    for (int i = 0; i < kRows; ++i) sum[i] = _mm256_setzero_si256();
    for (int group = 0; group < 4; ++group) {
      const __m256i pairs = _mm256_load_si256(reinterpret_cast<const __m256i*>(codes + (group * head_dim + c) * 4));
      const __m256i low_levels = _mm256_shuffle_epi8(levels, _mm256_and_si256(pairs, nibble));
      const __m256i high_levels = _mm256_shuffle_epi8(levels, _mm256_and_si256(_mm256_srli_epi16(pairs, 4), nibble));
      for (int i = 0; i < kRows; ++i) {
        // |255 * 63 * 2| fits int16.
        const __m256i low = _mm256_maddubs_epi16(_mm256_set1_epi32(word_at(weights + i * 32 + 4 * group)), low_levels);
        const __m256i high =
            _mm256_maddubs_epi16(_mm256_set1_epi32(word_at(weights + i * 32 + 16 + 4 * group)), high_levels);
        sum[i] = _mm256_add_epi32(sum[i], _mm256_add_epi32(_mm256_madd_epi16(low, _mm256_set1_epi16(1)),
                                                           _mm256_madd_epi16(high, _mm256_set1_epi16(1))));
      }
    }
    for (int i = 0; i < kRows; ++i) {
      float* at = sums + i * head_dim + c;
      const __m256 add = _mm256_mul_ps(_mm256_cvtepi32_ps(sum[i]), _mm256_set1_ps(scales[i]));
      _mm256_storeu_ps(at, _mm256_add_ps(_mm256_loadu_ps(at), add));
    }
  }
}

void value_sums(const std::uint8_t* codes, int head_dim, const std::uint8_t* weights, const float* scales, int count,
                float* sums) {
  for (; count >= 4 && count != 5 && count != 6; count -= 4, weights += 128, scales += 4, sums += 4 * head_dim) {
    value_sums_of<4>(codes, head_dim, weights, scales, sums);
  }
  for (; count >= 3; count -= 3, weights += 96, scales += 3, sums += 3 * head_dim)
    value_sums_of<3>(codes, head_dim, weights, scales, sums);
  if (count == 2) value_sums_of<2>(codes, head_dim, weights, scales, sums);
  if (count == 1) value_sums_of<1>(codes, head_dim, weights, scales, sums);
}

}  // namespace

constexpr Kernels kAvx2Kernels = {"avx2",   rotate,       encode_row,   quantise_query,
                                  key_dots, outlier_dots, tile_weights, value_sums};

}  // namespace nibkv
