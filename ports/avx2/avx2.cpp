#include "ports/avx2/avx2_common.hpp"
#include "ports/avx2/avx2_halves.hpp"

namespace nibkv {
namespace {

// Sums all four products of a slot and a row: u8 times i8 to i32. |127 * 127 * 2| fits int16.
inline __m256i add_products(__m256i sum, __m256i unsigned_bytes, __m256i signed_bytes) {
  return _mm256_add_epi32(sum,
                          _mm256_madd_epi16(_mm256_maddubs_epi16(unsigned_bytes, signed_bytes), _mm256_set1_epi16(1)));
}

// Levels of 8 bits times a query: |level| and the query with the level's sign.
inline __m256i add_signed_products(__m256i sum, __m256i levels, __m256i query) {
  return add_products(sum, _mm256_abs_epi8(levels), _mm256_sign_epi8(query, levels));
}

inline __m256i load(const void* at) {
  return _mm256_load_si256(static_cast<const __m256i*>(at));
}

// Levels of slots below 16, and of the slots 16 further.
struct Decoded {
  __m256i low;
  __m256i high;
};

// Decodes 32 bytes of codes: at 4 bits one group of four channels or slots, at 2 bits the lower nibbles' or the
// upper ones'.
template <int kBits>
struct Decoder {
  __m256i low;
  __m256i high;

  explicit Decoder(__m256i offset)
      : low(_mm256_add_epi8(_mm256_broadcastsi128_si256(nibble_levels<kBits, false>()), offset)),
        high(_mm256_add_epi8(_mm256_broadcastsi128_si256(nibble_levels<kBits, true>()), offset)) {}

  Decoded group(__m256i bytes, int which) const {
    const __m256i nibble = _mm256_set1_epi8(15);
    const __m256i lower = _mm256_and_si256(bytes, nibble);
    const __m256i upper = _mm256_and_si256(_mm256_srli_epi16(bytes, 4), nibble);
    if constexpr (kBits == 4) return {_mm256_shuffle_epi8(low, lower), _mm256_shuffle_epi8(low, upper)};
    const __m256i index = which == 0 ? lower : upper;
    return {_mm256_shuffle_epi8(low, index), _mm256_shuffle_epi8(high, index)};
  }
};

template <int kBits, int kRows>
void key_dots_of(const std::uint8_t* codes, int head_dim, const std::int8_t* queries, const std::int32_t* query_sums,
                 std::int32_t* dots) {
  constexpr int kGroups = kBits == 2 ? 2 : 1;  // of four channels, in 32 bytes
  const Decoder<kBits == 8 ? 4 : kBits> decoder(_mm256_set1_epi8(64));
  __m256i bias[kRows];
  for (int i = 0; i < kRows; ++i) bias[i] = _mm256_set1_epi32(kBits == 8 ? 0 : -64 * query_sums[i]);
  for (int part = 0; part < 2; ++part) {  // slots 0-7 and 16-23, then 8-15 and 24-31
    __m256i low[kRows];
    __m256i high[kRows];
    for (int i = 0; i < kRows; ++i) low[i] = high[i] = bias[i];
    for (int c = 0; c < head_dim; c += 4 * kGroups) {
      const std::uint8_t* const at = codes + c * 4 * kBits + part * 32;
      for (int g = 0; g < kGroups; ++g) {
        Decoded levels;
        if constexpr (kBits == 8) {
          levels = {load(at), load(at + 64)};
        } else {
          levels = decoder.group(load(at), g);
        }
        for (int i = 0; i < kRows; ++i) {
          const __m256i query = _mm256_set1_epi32(word_at(queries + i * head_dim + c + 4 * g));
          if constexpr (kBits == 8) {
            low[i] = add_signed_products(low[i], levels.low, query);
            high[i] = add_signed_products(high[i], levels.high, query);
          } else {
            low[i] = add_products(low[i], levels.low, query);
            high[i] = add_products(high[i], levels.high, query);
          }
        }
      }
    }
    for (int i = 0; i < kRows; ++i) {
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(dots + i * 32 + part * 8), low[i]);
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(dots + i * 32 + part * 8 + 16), high[i]);
    }
  }
}

template <int kBits>
void key_dots(const std::uint8_t* codes, int head_dim, const std::int8_t* queries, const std::int32_t* query_sums,
              int count, std::int32_t* dots) {
  for (; count >= 4 && count != 5 && count != 6; count -= 4, queries += 4 * head_dim, query_sums += 4, dots += 128) {
    key_dots_of<kBits, 4>(codes, head_dim, queries, query_sums, dots);
  }
  for (; count >= 3; count -= 3, queries += 3 * head_dim, query_sums += 3, dots += 96) {
    key_dots_of<kBits, 3>(codes, head_dim, queries, query_sums, dots);
  }
  if (count == 2) key_dots_of<kBits, 2>(codes, head_dim, queries, query_sums, dots);
  if (count == 1) key_dots_of<kBits, 1>(codes, head_dim, queries, query_sums, dots);
}

void outlier_dots(const std::int8_t* outliers, int channels, const std::int8_t* queries, const std::int32_t*, int count,
                  std::int32_t* dots) {
  for (int t = 0; t < 32; t += 8) {
    for (int i = 0; i < count; ++i) {
      __m256i sum = _mm256_setzero_si256();
      for (int c = 0; c < channels; c += 4) {
        const __m256i keys = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(outliers + c * 32 + t * 4));
        const __m256i query = _mm256_set1_epi32(word_at(queries + i * channels + c));
        sum = add_signed_products(sum, keys, query);
      }
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(dots + i * 32 + t), sum);
    }
  }
}

// All ones in the words of slots that the row sees, by the lowest 16 bits of `seen`.
inline __m256i words_seen(std::uint32_t seen) {
  const __m256i bits =
      _mm256_setr_epi16(1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, INT16_MIN);
  return _mm256_cmpeq_epi16(_mm256_and_si256(_mm256_set1_epi16(static_cast<short>(seen)), bits), bits);
}

// The value scales that a row sees, lanes in the order in which the octaves are packed.
struct ValueScales {
  __m256i q15[2];
  float power;  // of their exponent, for value_units

  ValueScales(const std::uint16_t* scales16, std::uint32_t seen) {
    __m256i low = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(scales16));
    __m256i high = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(scales16 + 16));
    if (seen != kAllSeen) {
      low = _mm256_and_si256(low, words_seen(seen));
      high = _mm256_and_si256(high, words_seen(seen >> 16));
    }
    const std::int32_t most = most_of_words(_mm256_max_epu16(low, high)) >> 8;
    const std::int32_t exponent = most > kLeastExponent ? most : kLeastExponent;
    power = power_of_two(exponent - 104);
    const __m256i exponents = _mm256_set1_epi16(static_cast<short>(exponent));
    q15[0] = _mm256_permute4x64_epi64(value_scales_q15(low, exponents), 0xd8);
    q15[1] = _mm256_permute4x64_epi64(value_scales_q15(high, exponents), 0xd8);
  }
};

struct Steps {
  template <bool kOutliers, bool kBiases>
  static void find_logits(const TileWeights& tile, int first, int last, int pairs, PairBuffers& pair) {
    __m256 keys[4];
    for (int j = 0; j < 4; ++j) keys[j] = wide(eight_at(tile.key_scales + 8 * j));
    for (int i = first; i < last; ++i) {
      const int p = pairs + i;
      const float factor = kBiases ? 1.0f : tile.query_scales[i];
      __m256 most{};
      for (int j = 0; j < 4; ++j) {
        const __m256i dots = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(tile.dots + i * 32 + 8 * j));
        __m256 logit = _mm256_mul_ps(_mm256_cvtepi32_ps(dots), keys[j]);
        if (kOutliers) {
          const __m256i more = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(tile.outlier_dots + i * 32 + 8 * j));
          logit = _mm256_add_ps(logit, _mm256_mul_ps(_mm256_cvtepi32_ps(more), _mm256_set1_ps(tile.outlier_ratios[i])));
        }
        if (kBiases) {
          const __m256i biases =
              _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(tile.biases + 8 * j)));
          logit = _mm256_mul_ps(logit, _mm256_set1_ps(tile.query_scales[i]));
          logit = _mm256_add_ps(logit, _mm256_mul_ps(_mm256_cvtepi32_ps(biases), _mm256_set1_ps(0.0625f)));
        }
        _mm256_store_ps(pair.logits[p] + 8 * j, logit);
        most = j == 0 ? logit : _mm256_max_ps(logit, most);
      }
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
      const __m256 top = _mm256_set1_ps(pair.tops[p]);
      const __m256 scale = _mm256_set1_ps(pair.scales[p]);
      __m256i mass = _mm256_setzero_si256();
      __m256i products[2];
      for (int j = 0; j < 2; ++j) {
        __m256i octaves[2];
        for (int k = 0; k < 2; ++k) {  // a number that is not finite becomes some integer, and packing makes
                                       // it a valid index
          const __m256 below =
              _mm256_sub_ps(top, _mm256_mul_ps(_mm256_load_ps(pair.logits[p] + 16 * j + 8 * k), scale));
          octaves[k] = _mm256_cvttps_epi32(_mm256_min_ps(below, _mm256_set1_ps(kFaintest)));
        }
        const __m256i weights = exp2_q15(_mm256_packus_epi32(octaves[0], octaves[1]));
        if (tile.softmax != nullptr) {
          _mm256_storeu_si256(reinterpret_cast<__m256i*>(tile.softmax + i * 32 + 16 * j),
                              _mm256_permute4x64_epi64(weights, 0xd8));
        }
        mass = _mm256_add_epi32(mass, _mm256_madd_epi16(weights, _mm256_set1_epi16(1)));
        products[j] = _mm256_mulhrs_epi16(weights, values.q15[j]);
        _mm256_store_si256(reinterpret_cast<__m256i*>(pair.products[p] + 16 * j), products[j]);
      }
      store_lanes(pair.masses[p], mass);
      tile.value_units[i] = values.power;
      store_lanes(pair.largest_products[p], most_of_word_pairs(_mm256_max_epi16(products[0], products[1])));
    }
  }

  static void put_bytes(const PairBuffers& pair, int p, std::uint8_t* weights) {
    const __m128i up = _mm_cvtsi32_si128(pair.ups[p]);
    const __m256i range = _mm256_set1_epi16(static_cast<short>(pair.ranges[p]));
    __m256i bytes[2];
    for (int j = 0; j < 2; ++j) {
      const __m256i products = _mm256_load_si256(reinterpret_cast<const __m256i*>(pair.products[p] + 16 * j));
      const __m256i fine = _mm256_mulhrs_epi16(_mm256_sll_epi16(products, up), range);
      bytes[j] = _mm256_srli_epi16(_mm256_add_epi16(fine, _mm256_set1_epi16(64)), 7);
    }
    const __m256i packed = _mm256_packus_epi16(bytes[0], bytes[1]);
    const __m256i ordered = _mm256_permutevar8x32_epi32(packed, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(weights), ordered);
  }
};

void tile_weights(const TileWeights* tiles, int tile_count, int count) {
  weigh_in_groups<Steps>(tiles, tile_count, count);
}

// Eight slots of eight channels. |127 * 63 * 4| fits int16, of 8 bits |127 * 127 * 2|.
template <int kBits>
__m256i add_slots(__m256i sum, __m256i low_weights, __m256i high_weights, const Decoded& levels) {
  const __m256i low = _mm256_maddubs_epi16(low_weights, levels.low);
  const __m256i high = _mm256_maddubs_epi16(high_weights, levels.high);
  const __m256i one = _mm256_set1_epi16(1);
  if constexpr (kBits == 8)
    return _mm256_add_epi32(sum, _mm256_add_epi32(_mm256_madd_epi16(low, one), _mm256_madd_epi16(high, one)));
  return _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_add_epi16(low, high), one));
}

inline void add_scaled(float* sums, __m256i whole, __m256 scale) {
  _mm256_storeu_ps(sums, _mm256_add_ps(_mm256_loadu_ps(sums), _mm256_mul_ps(_mm256_cvtepi32_ps(whole), scale)));
}

template <int kBits, int kRows>
void value_sums_of(const std::uint8_t* codes, int head_dim, const std::uint8_t* weights, const float* scales,
                   float* sums) {
  const Decoder<kBits == 8 ? 4 : kBits> decoder(_mm256_setzero_si256());
  // Slots 4 * group to 4 * group + 3 and those 16 further, of eight channels.
  const auto levels_of = [&](int group, int c) -> Decoded {
    if constexpr (kBits == 8) {
      return {load(codes + (group * head_dim + c) * 4), load(codes + ((group + 4) * head_dim + c) * 4)};
    } else {
      const int row = kBits == 2 ? group / 2 : group;
      return decoder.group(load(codes + (row * head_dim + c) * 4), group % 2);
    }
  };
  for (int c = 0; c < head_dim; c += 16) {
    __m256i first[kRows];
    __m256i second[kRows];
    for (int i = 0; i < kRows; ++i) first[i] = second[i] = _mm256_setzero_si256();
#pragma GCC unroll 4
    for (int group = 0; group < 4; ++group) {
      const Decoded eight = levels_of(group, c);
      const Decoded next = levels_of(group, c + 8);
      for (int i = 0; i < kRows; ++i) {
        const __m256i low = _mm256_set1_epi32(word_at(weights + i * 32 + 4 * group));
        const __m256i high = _mm256_set1_epi32(word_at(weights + i * 32 + 16 + 4 * group));
        first[i] = add_slots<kBits>(first[i], low, high, eight);
        second[i] = add_slots<kBits>(second[i], low, high, next);
      }
    }
    for (int i = 0; i < kRows; ++i) {
      const __m256 scale = _mm256_set1_ps(scales[i]);
      add_scaled(sums + i * head_dim + c, first[i], scale);
      add_scaled(sums + i * head_dim + c + 8, second[i], scale);
    }
  }
}

template <int kBits>
void value_sums(const std::uint8_t* codes, int head_dim, const std::uint8_t* weights, const float* scales, int count,
                float* sums) {
  for (; count >= 4 && count != 5 && count != 6; count -= 4, weights += 128, scales += 4, sums += 4 * head_dim) {
    value_sums_of<kBits, 4>(codes, head_dim, weights, scales, sums);
  }
  for (; count >= 3; count -= 3, weights += 96, scales += 3, sums += 3 * head_dim)
    value_sums_of<kBits, 3>(codes, head_dim, weights, scales, sums);
  if (count == 2) value_sums_of<kBits, 2>(codes, head_dim, weights, scales, sums);
  if (count == 1) value_sums_of<kBits, 1>(codes, head_dim, weights, scales, sums);
}

}  // namespace

constexpr Kernels kAvx2Kernels = {.name = "avx2",
                                  .widen = widen,
                                  .narrow = narrow,
                                  .rotate = rotate,
                                  .quantise_query = quantise_query,
                                  .outlier_dots = outlier_dots,
                                  .tile_weights = tile_weights,
                                  .add_scores = add_scores,
                                  .sign_logits = sign_logits,
                                  .q2 = ports::if_built(2, {encode_row<2>, key_dots<2>, value_sums<2>}),
                                  .q4 = ports::if_built(4, {encode_row<4>, key_dots<4>, value_sums<4>}),
                                  .q8 = ports::if_built(8, {encode_bytes, key_dots<8>, value_sums<8>})};

}  // namespace nibkv
