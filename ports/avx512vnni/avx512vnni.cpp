#include "ports/avx2/avx2_common.hpp"
#include "ports/avx2/avx2_halves.hpp"

namespace nibkv {
namespace {

// Levels of slots below 16, and of the slots 16 further.
struct Decoded {
  __m512i low;
  __m512i high;
};

// Decodes 64 bytes of codes; see the AVX2 port.
template <int kBits>
struct Decoder {
  __m512i low;
  __m512i high;

  explicit Decoder(__m512i offset)
      : low(_mm512_add_epi8(_mm512_broadcast_i32x4(nibble_levels<kBits, false>()), offset)),
        high(_mm512_add_epi8(_mm512_broadcast_i32x4(nibble_levels<kBits, true>()), offset)) {}

  Decoded group(__m512i bytes, int which) const {
    const __m512i nibble = _mm512_set1_epi8(15);
    const __m512i lower = _mm512_and_si512(bytes, nibble);
    const __m512i upper = _mm512_and_si512(_mm512_srli_epi16(bytes, 4), nibble);
    if constexpr (kBits == 4) return {_mm512_shuffle_epi8(low, lower), _mm512_shuffle_epi8(low, upper)};
    const __m512i index = which == 0 ? lower : upper;
    return {_mm512_shuffle_epi8(low, index), _mm512_shuffle_epi8(high, index)};
  }
};

template <int kBits, int kRows>
void key_dots_of(const std::uint8_t* codes, int head_dim, const std::int8_t* queries, const std::int32_t* query_sums,
                 std::int32_t* dots) {
  constexpr int kGroups = kBits == 2 ? 2 : 1;     // of four channels, in 64 bytes
  constexpr int kOffset = kBits == 8 ? 128 : 64;  // makes levels unsigned
  const Decoder<kBits == 8 ? 4 : kBits> decoder(_mm512_set1_epi8(64));
  const __m512i sign = _mm512_set1_epi8(-128);
  __m512i low[kRows];
  __m512i high[kRows];
  for (int i = 0; i < kRows; ++i) low[i] = high[i] = _mm512_set1_epi32(-kOffset * query_sums[i]);
  for (int c = 0; c < head_dim; c += 4 * kGroups) {
    const std::uint8_t* const at = codes + c * 4 * kBits;
    for (int g = 0; g < kGroups; ++g) {
      Decoded levels;
      if constexpr (kBits == 8) {
        levels = {_mm512_xor_si512(_mm512_loadu_si512(at), sign), _mm512_xor_si512(_mm512_loadu_si512(at + 64), sign)};
      } else {
        levels = decoder.group(_mm512_loadu_si512(at), g);
      }
      for (int i = 0; i < kRows; ++i) {
        const __m512i query = _mm512_set1_epi32(word_at(queries + i * head_dim + c + 4 * g));
        low[i] = _mm512_dpbusd_epi32(low[i], levels.low, query);
        high[i] = _mm512_dpbusd_epi32(high[i], levels.high, query);
      }
    }
  }
  for (int i = 0; i < kRows; ++i) {
    _mm512_storeu_si512(dots + i * 32, low[i]);
    _mm512_storeu_si512(dots + i * 32 + 16, high[i]);
  }
}

template <int kBits>
void key_dots(const std::uint8_t* codes, int head_dim, const std::int8_t* queries, const std::int32_t* query_sums,
              int count, std::int32_t* dots) {
  for (; count >= 8; count -= 8, queries += 8 * head_dim, query_sums += 8, dots += 256) {
    key_dots_of<kBits, 8>(codes, head_dim, queries, query_sums, dots);
  }
  for (; count >= 6; count -= 6, queries += 6 * head_dim, query_sums += 6, dots += 192) {
    key_dots_of<kBits, 6>(codes, head_dim, queries, query_sums, dots);
  }
  for (; count >= 4; count -= 4, queries += 4 * head_dim, query_sums += 4, dots += 128) {
    key_dots_of<kBits, 4>(codes, head_dim, queries, query_sums, dots);
  }
  if (count == 3) key_dots_of<kBits, 3>(codes, head_dim, queries, query_sums, dots);
  if (count == 2) key_dots_of<kBits, 2>(codes, head_dim, queries, query_sums, dots);
  if (count == 1) key_dots_of<kBits, 1>(codes, head_dim, queries, query_sums, dots);
}

void outlier_dots(const std::int8_t* outliers, int channels, const std::int8_t* queries, const std::int32_t* query_sums,
                  int count, std::int32_t* dots) {
  const __m512i offset = _mm512_set1_epi8(-128);
  for (int i = 0; i < count; ++i) {
    __m512i low = _mm512_set1_epi32(-128 * query_sums[i]);
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

inline __m512 wide16(const std::uint16_t* scales16) {
  const __m256i sixteen = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(scales16));
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(sixteen), 15));
}

inline __m256 most_of_halves(__m512 x) {
  return _mm256_max_ps(_mm512_castps512_ps256(x), _mm512_extractf32x8_ps(x, 1));
}

// x >> octaves for 32 values in [0, 32767], rounded, halves up; 0 from 15 octaves on.
inline __m512i shift_down(__m512i x, __m512i octaves) {
  const __m512i twice = _mm512_srlv_epi16(_mm512_slli_epi16(x, 1), octaves);
  const __mmask32 kept = _mm512_cmplt_epu16_mask(octaves, _mm512_set1_epi16(15));
  return _mm512_maskz_avg_epu16(kept, twice, _mm512_setzero_si512());
}

// 2^-(octaves / 2048) in Q15 for 32 values in [0, 32767]; see the scalar port.
inline __m512i exp2_of_all(__m512i octaves) {
  const __m512i f = _mm512_and_si512(_mm512_slli_epi16(octaves, 4), _mm512_set1_epi16(0x7ff0));
  __m512i x = _mm512_add_epi16(_mm512_mulhrs_epi16(f, _mm512_set1_epi16(kExp4)), _mm512_set1_epi16(kExp3));
  x = _mm512_add_epi16(_mm512_mulhrs_epi16(f, x), _mm512_set1_epi16(kExp2));
  x = _mm512_add_epi16(_mm512_mulhrs_epi16(f, x), _mm512_set1_epi16(kExp1));
  x = _mm512_sub_epi16(_mm512_set1_epi16(-kExp0), _mm512_mulhrs_epi16(f, x));
  return shift_down(x, _mm512_srli_epi16(octaves, 11));
}

// The value scales that a row sees, in Q15 of the power of two above the largest; see the scalar port.
struct ValueScales {
  __m512i q15;
  float power;  // of their exponent, for value_units

  ValueScales(const std::uint16_t* scales16, __mmask32 seen) {
    const __m512i scales = _mm512_maskz_loadu_epi16(seen, scales16);
    const std::int32_t most =
        most_of_words(_mm256_max_epu16(_mm512_castsi512_si256(scales), _mm512_extracti64x4_epi64(scales, 1))) >> 8;
    const std::int32_t exponent = most > kLeastExponent ? most : kLeastExponent;
    power = power_of_two(exponent - 104);
    const __m512i octaves =
        _mm512_sub_epi16(_mm512_set1_epi16(static_cast<short>(exponent)), _mm512_srli_epi16(scales, 8));
    const __m512i fraction = _mm512_or_si512(_mm512_and_si512(scales, _mm512_set1_epi16(255)), _mm512_set1_epi16(256));
    q15 = shift_down(_mm512_slli_epi16(fraction, 6), octaves);
  }
};

struct Steps {
  template <bool kOutliers, bool kBiases>
  static void find_logits(const TileWeights& tile, int first, int last, int pairs, PairBuffers& pair) {
    const __m512 keys[2] = {wide16(tile.key_scales), wide16(tile.key_scales + 16)};
    for (int i = first; i < last; ++i) {
      const int p = pairs + i;
      const float factor = kBiases ? 1.0f : tile.query_scales[i];
      __m512 logits[2];
      for (int j = 0; j < 2; ++j) {
        logits[j] = _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_loadu_si512(tile.dots + i * 32 + 16 * j)), keys[j]);
        if (kOutliers) {
          const __m512 more = _mm512_cvtepi32_ps(_mm512_loadu_si512(tile.outlier_dots + i * 32 + 16 * j));
          logits[j] = _mm512_add_ps(logits[j], _mm512_mul_ps(more, _mm512_set1_ps(tile.outlier_ratios[i])));
        }
        if (kBiases) {
          const __m512i biases =
              _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(tile.biases + 16 * j)));
          logits[j] = _mm512_mul_ps(logits[j], _mm512_set1_ps(tile.query_scales[i]));
          logits[j] = _mm512_add_ps(logits[j], _mm512_mul_ps(_mm512_cvtepi32_ps(biases), _mm512_set1_ps(0.0625f)));
        }
        _mm512_store_ps(pair.logits[p] + 16 * j, logits[j]);
      }
      const __m256 most = most_of_halves(_mm512_max_ps(logits[1], logits[0]));
      _mm256_store_ps(pair.largest[p], _mm256_mul_ps(most, _mm256_set1_ps(factor)));
      pair.scales[p] = factor * 2048.0f;
      if (tile.seen[i] != kAllSeen) hide_logits(pair.logits[p], pair.largest[p], tile.seen[i], factor);
    }
  }

  static void find_products(const TileWeights& tile, int first, int last, int pairs, PairBuffers& pair) {
    ValueScales values(tile.value_scales, tile.seen[first]);
    for (int i = first; i < last; ++i) {
      const int p = pairs + i;
      if (i != first && tile.seen[i] != tile.seen[i - 1]) values = ValueScales(tile.value_scales, tile.seen[i]);
      const __m512 top = _mm512_set1_ps(pair.tops[p]);
      const __m512 scale = _mm512_set1_ps(pair.scales[p]);
      __m256i octaves[2];
      for (int j = 0; j < 2; ++j) {
        const __m512 below = _mm512_sub_ps(top, _mm512_mul_ps(_mm512_load_ps(pair.logits[p] + 16 * j), scale));
        octaves[j] = _mm512_cvtepi32_epi16(_mm512_cvttps_epi32(_mm512_min_ps(below, _mm512_set1_ps(kFaintest))));
      }
      const __m512i weights = exp2_of_all(_mm512_inserti64x4(_mm512_castsi256_si512(octaves[0]), octaves[1], 1));
      if (tile.softmax != nullptr) _mm512_storeu_si512(tile.softmax + i * 32, weights);
      const __m512i mass = _mm512_madd_epi16(weights, _mm512_set1_epi16(1));
      const __m256i masses = _mm256_add_epi32(_mm512_castsi512_si256(mass), _mm512_extracti64x4_epi64(mass, 1));
      const __m512i products = _mm512_mulhrs_epi16(weights, values.q15);
      _mm512_store_si512(pair.products[p], products);
      store_lanes(pair.masses[p], masses);
      tile.value_units[i] = values.power;
      store_lanes(pair.largest_products[p],
                  most_of_word_pairs(
                      _mm256_max_epi16(_mm512_castsi512_si256(products), _mm512_extracti64x4_epi64(products, 1))));
    }
  }

  static void put_bytes(const PairBuffers& pair, int p, std::uint8_t* weights) {
    const __m512i products = _mm512_sll_epi16(_mm512_load_si512(pair.products[p]), _mm_cvtsi32_si128(pair.ups[p]));
    const __m512i fine = _mm512_mulhrs_epi16(products, _mm512_set1_epi16(static_cast<short>(pair.ranges[p])));
    const __m512i bytes = _mm512_srli_epi16(_mm512_add_epi16(fine, _mm512_set1_epi16(64)), 7);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(weights), _mm512_cvtepi16_epi8(bytes));
  }
};

void tile_weights(const TileWeights* tiles, int tile_count, int count) {
  weigh_in_groups<Steps>(tiles, tile_count, count);
}

inline __m512i shift_rounded(__m512i x, int shift) {
  const __m512i half = _mm512_set1_epi32(static_cast<std::int32_t>((1u << shift) >> 1));
  return _mm512_srl_epi32(_mm512_add_epi32(x, half), _mm_cvtsi32_si128(shift));
}

// As in the AVX2 port, but with all slots of a row in one register.
void add_scores_of_sums(const TileScores& tile) {
  __m512i low = _mm512_setzero_si512();   // slots 0-3, 8-11, 16-19, 24-27
  __m512i high = _mm512_setzero_si512();  // slots 4-7, ...
  for (int i = 0; i < tile.count; i += 2) {
    const int next = i + 1 < tile.count ? i + 1 : i;
    const int factor = next != i ? tile.factors[next] : 0;
    const __m512i factors = _mm512_set1_epi32(tile.factors[i] | factor << 16);
    const __m512i a = _mm512_loadu_si512(tile.softmax + i * 32);
    const __m512i b = _mm512_loadu_si512(tile.softmax + next * 32);
    low = _mm512_add_epi32(low, _mm512_madd_epi16(_mm512_unpacklo_epi16(a, b), factors));
    high = _mm512_add_epi32(high, _mm512_madd_epi16(_mm512_unpackhi_epi16(a, b), factors));
  }
  const __m512i first = _mm512_setr_epi64(0, 1, 8, 9, 2, 3, 10, 11);
  const __m512i second = _mm512_setr_epi64(4, 5, 12, 13, 6, 7, 14, 15);
  const __m512i attention[2] = {_mm512_permutex2var_epi64(low, first, high),
                                _mm512_permutex2var_epi64(low, second, high)};
  if (tile.global != nullptr) {
    for (int k = 0; k < 2; ++k) {
      const __m512i more = shift_rounded(attention[k], tile.global_shift);
      const __m512i room = _mm512_xor_si512(more, _mm512_set1_epi32(-1));
      const __m512i sums = _mm512_min_epu32(_mm512_loadu_si512(tile.global + 16 * k), room);
      _mm512_storeu_si512(tile.global + 16 * k, _mm512_add_epi32(sums, more));
    }
  }
  if (tile.local != nullptr) {
    for (int k = 0; k < 2; ++k) {
      auto* local = reinterpret_cast<__m256i*>(tile.local + 16 * k);
      const __m256i more = _mm512_cvtusepi32_epi16(shift_rounded(attention[k], tile.local_shift));
      _mm256_storeu_si256(local, _mm256_adds_epu16(faded(_mm256_loadu_si256(local), tile.fade), more));
    }
  }
}

void add_scores512(const TileScores& tile) {
  if (tile.group == 1) {
    add_scores_of_sums(tile);
  } else {
    add_scores(tile);
  }
}

template <int kBits, int kRows>
void value_sums_of(const std::uint8_t* codes, int head_dim, const std::uint8_t* weights, const float* scales,
                   float* sums) {
  const Decoder<kBits == 8 ? 4 : kBits> decoder(_mm512_setzero_si512());
  for (int c = 0; c < head_dim; c += 16) {
    __m512i sum[kRows];
    for (int i = 0; i < kRows; ++i) sum[i] = _mm512_setzero_si512();
#pragma GCC unroll 4
    for (int group = 0; group < 4; ++group) {
      Decoded levels;
      if constexpr (kBits == 8) {
        levels = {_mm512_loadu_si512(codes + (group * head_dim + c) * 4),
                  _mm512_loadu_si512(codes + ((group + 4) * head_dim + c) * 4)};
      } else {
        const int row = kBits == 2 ? group / 2 : group;
        levels = decoder.group(_mm512_loadu_si512(codes + (row * head_dim + c) * 4), group % 2);
      }
      for (int i = 0; i < kRows; ++i) {
        sum[i] = _mm512_dpbusd_epi32(sum[i], _mm512_set1_epi32(word_at(weights + i * 32 + 4 * group)), levels.low);
        sum[i] =
            _mm512_dpbusd_epi32(sum[i], _mm512_set1_epi32(word_at(weights + i * 32 + 16 + 4 * group)), levels.high);
      }
    }
    for (int i = 0; i < kRows; ++i) {
      float* at = sums + i * head_dim + c;
      const __m512 add = _mm512_mul_ps(_mm512_cvtepi32_ps(sum[i]), _mm512_set1_ps(scales[i]));
      _mm512_storeu_ps(at, _mm512_add_ps(_mm512_loadu_ps(at), add));
    }
  }
}

template <int kBits>
void value_sums(const std::uint8_t* codes, int head_dim, const std::uint8_t* weights, const float* scales, int count,
                float* sums) {
  for (; count >= 8; count -= 8, weights += 256, scales += 8, sums += 8 * head_dim)
    value_sums_of<kBits, 8>(codes, head_dim, weights, scales, sums);
  for (; count >= 6; count -= 6, weights += 192, scales += 6, sums += 6 * head_dim)
    value_sums_of<kBits, 6>(codes, head_dim, weights, scales, sums);
  for (; count >= 4; count -= 4, weights += 128, scales += 4, sums += 4 * head_dim)
    value_sums_of<kBits, 4>(codes, head_dim, weights, scales, sums);
  if (count == 3) value_sums_of<kBits, 3>(codes, head_dim, weights, scales, sums);
  if (count == 2) value_sums_of<kBits, 2>(codes, head_dim, weights, scales, sums);
  if (count == 1) value_sums_of<kBits, 1>(codes, head_dim, weights, scales, sums);
}

}  // namespace

constexpr Kernels kAvx512vnniKernels = {.name = "avx512vnni",
                                        .widen = widen,
                                        .narrow = narrow,
                                        .rotate = rotate,
                                        .quantise_query = quantise_query,
                                        .outlier_dots = outlier_dots,
                                        .tile_weights = tile_weights,
                                        .add_scores = add_scores512,
                                        .sign_logits = sign_logits,
                                        .q2 = ports::if_built(2, {encode_row<2>, key_dots<2>, value_sums<2>}),
                                        .q4 = ports::if_built(4, {encode_row<4>, key_dots<4>, value_sums<4>}),
                                        .q8 = ports::if_built(8, {encode_bytes, key_dots<8>, value_sums<8>})};

}  // namespace nibkv
