// SSSE3 and SSE4.1: 16 bytes at a time, with byte products by pmaddubsw, which needs one
// factor to be unsigned.
#include <smmintrin.h>

#include "ports/kernels.hpp"

namespace nibkv {
namespace {

using namespace ports;

__m128i load(const void* from) {
  return _mm_loadu_si128(static_cast<const __m128i*>(from));
}
__m128i load_aligned(const void* from) {
  return _mm_load_si128(static_cast<const __m128i*>(from));
}
void store(void* to, __m128i x) {
  _mm_storeu_si128(static_cast<__m128i*>(to), x);
}

// Four bytes, repeated four times.
__m128i broadcast4(const void* from) {
  std::int32_t four;
  __builtin_memcpy(&four, from, sizeof four);
  return _mm_set1_epi32(four);
}

// Four f16 in 32 bits each.
__m128 from_f16(__m128i halves) {
  const __m128i size = _mm_and_si128(halves, _mm_set1_epi32(0x7fff));
  const __m128i sign = _mm_slli_epi32(_mm_xor_si128(halves, size), 16);
  const __m128i rebias = _mm_set1_epi32((127 - 15) << 23);
  const __m128i infinite = _mm_cmpgt_epi32(size, _mm_set1_epi32(0x7bff));
  __m128i bits = _mm_add_epi32(_mm_slli_epi32(size, 13), rebias);
  bits = _mm_add_epi32(bits, _mm_and_si128(infinite, rebias));
  const __m128 denormal = _mm_mul_ps(_mm_cvtepi32_ps(size), _mm_set1_ps(0x1p-24f));
  bits = _mm_blendv_epi8(bits, _mm_castps_si128(denormal), _mm_cmpgt_epi32(_mm_set1_epi32(0x400), size));
  return _mm_castsi128_ps(_mm_or_si128(bits, sign));
}

// To f16 in the low 16 bits; the scalar port says why.
__m128i to_f16(__m128i bits) {
  const __m128i size = _mm_and_si128(bits, _mm_set1_epi32(0x7fffffff));
  const __m128i sign = _mm_srli_epi32(_mm_xor_si128(bits, size), 16);
  const __m128i odd = _mm_and_si128(_mm_srli_epi32(size, 13), _mm_set1_epi32(1));
  const __m128i usual =
      _mm_srli_epi32(_mm_add_epi32(_mm_add_epi32(size, odd), _mm_set1_epi32(0xfff - ((127 - 15) << 23))), 13);
  const __m128 shifted = _mm_add_ps(_mm_castsi128_ps(size), _mm_set1_ps(0.5f));
  const __m128i denormal = _mm_sub_epi32(_mm_castps_si128(shifted), _mm_set1_epi32(0x3f000000));
  __m128i half = _mm_blendv_epi8(usual, denormal, _mm_cmpgt_epi32(_mm_set1_epi32(0x38800000), size));
  half = _mm_min_epi32(half, _mm_set1_epi32(0x7c00));
  const __m128i nan = _mm_cmpgt_epi32(size, _mm_set1_epi32(0x7f800000));
  half = _mm_or_si128(half, _mm_and_si128(nan, _mm_set1_epi32(0x200)));
  return _mm_or_si128(half, sign);
}

__m128i to_bf16(__m128i bits) {
  const __m128i nan = _mm_cmpgt_epi32(_mm_and_si128(bits, _mm_set1_epi32(0x7fffffff)), _mm_set1_epi32(0x7f800000));
  const __m128i upper = _mm_srli_epi32(bits, 16);
  const __m128i odd = _mm_and_si128(upper, _mm_set1_epi32(1));
  const __m128i rounded = _mm_srli_epi32(_mm_add_epi32(_mm_add_epi32(bits, odd), _mm_set1_epi32(0x7fff)), 16);
  return _mm_blendv_epi8(rounded, _mm_or_si128(upper, _mm_set1_epi32(0x40)), nan);
}

// Most f16 are widened eight at a time: their exponents are moved in 16 bits each, which become the upper halves of
// the f32.

// 8 halves of which none is zero, a denormal or not finite.
// @param wrapped  their sizes + 0x7c00
void widen_normal(__m128i halves, __m128i wrapped, float* row) {
  // The upper 16 bits of an f32: (size >> 3) + ((127 - 15) << 7), of what was wrapped by -0x8400.
  const __m128i upper = _mm_add_epi16(_mm_srai_epi16(wrapped, 3), _mm_set1_epi16(((127 - 15) << 7) + (0x8400 >> 3)));
  const __m128i high = _mm_or_si128(upper, _mm_and_si128(halves, _mm_set1_epi16(-0x8000)));
  const __m128i low = _mm_slli_epi16(halves, 13);
  store(row, _mm_unpacklo_epi16(low, high));
  store(row + 4, _mm_unpackhi_epi16(low, high));
}

void widen_any(__m128i halves, float* row) {
  _mm_storeu_ps(row, from_f16(_mm_cvtepu16_epi32(halves)));
  _mm_storeu_ps(row + 4, from_f16(_mm_cvtepu16_epi32(_mm_srli_si128(halves, 8))));
}

// Zeros, denormals, and what is not finite have sizes below 0x400, or 0x7c00 and more. Others wrap to
// [-0x8000, -0x801].
__m128i wrapped_sizes(__m128i halves) {
  return _mm_add_epi16(_mm_and_si128(halves, _mm_set1_epi16(0x7fff)), _mm_set1_epi16(0x7c00));
}

void widen_f16(const std::uint16_t* from, int head_dim, float* row) {
  for (int c = 0; c < head_dim; c += 16) {
    const __m128i first = load(from + c);
    const __m128i second = load(from + c + 8);
    const __m128i wrapped[] = {wrapped_sizes(first), wrapped_sizes(second)};
    if (_mm_movemask_epi8(_mm_cmpgt_epi16(_mm_max_epi16(wrapped[0], wrapped[1]), _mm_set1_epi16(-0x801))) != 0) {
      widen_any(first, row + c);
      widen_any(second, row + c + 8);
      continue;
    }
    widen_normal(first, wrapped[0], row + c);
    widen_normal(second, wrapped[1], row + c + 8);
  }
}

void widen(const void* halves, int head_dim, Half half, float* row) {
  const auto* from = static_cast<const std::uint16_t*>(halves);
  if (half == Half::kF16) {
    widen_f16(from, head_dim, row);
    return;
  }
  for (int c = 0; c < head_dim; c += 8) {
    const __m128i eight = load(from + c);
    store(row + c, _mm_unpacklo_epi16(_mm_setzero_si128(), eight));
    store(row + c + 4, _mm_unpackhi_epi16(_mm_setzero_si128(), eight));
  }
}

void narrow(const float* row, int head_dim, Half half, void* halves) {
  auto* to = static_cast<std::uint16_t*>(halves);
  for (int c = 0; c < head_dim; c += 8) {
    const __m128i low = load(row + c);
    const __m128i high = load(row + c + 4);
    store(to + c, half == Half::kF16 ? _mm_packus_epi32(to_f16(low), to_f16(high))
                                     : _mm_packus_epi32(to_bf16(low), to_bf16(high)));
  }
}

float largest_lane(__m128 x) {
  x = _mm_max_ps(x, _mm_movehl_ps(x, x));
  return _mm_cvtss_f32(_mm_max_ss(x, _mm_shuffle_ps(x, x, 1)));
}

// Of 8 lanes in [0, 65535].
std::int32_t largest_lane(__m128i x) {
  return 65535 - _mm_extract_epi16(_mm_minpos_epu16(_mm_xor_si128(x, _mm_set1_epi32(-1))), 0);
}

std::int32_t sum_of_lanes(__m128i x) {
  x = _mm_add_epi32(x, _mm_shuffle_epi32(x, 0x4E));
  return _mm_cvtsi128_si32(_mm_add_epi32(x, _mm_shuffle_epi32(x, 0xB1)));
}

// Sums of four neighbouring byte products, unsigned by signed. The caller must rule out
// saturation of pmaddubsw.
__m128i dot4(__m128i unsigned_bytes, __m128i signed_bytes) {
  return _mm_madd_epi16(_mm_maddubs_epi16(unsigned_bytes, signed_bytes), _mm_set1_epi16(1));
}

float largest_magnitude(const float* row, int n) {
  const __m128 sign = _mm_set1_ps(-0.0f);
  __m128 most = _mm_setzero_ps();
  // maxps returns its second operand when one is not a number, so such an input is skipped, as
  // in the scalar port.
  for (int i = 0; i < n; i += 4) most = _mm_max_ps(_mm_andnot_ps(sign, _mm_loadu_ps(row + i)), most);
  return largest_lane(most);
}

// maxps turns what is not a number to 0. Numbers are positive once biased, and far below 2^31.
__m128i round_biased(__m128 x, std::int32_t offset) {
  const __m128 biased = _mm_add_ps(x, _mm_set1_ps(static_cast<float>(offset) + 0.5f));
  return _mm_sub_epi32(_mm_cvttps_epi32(_mm_max_ps(biased, _mm_setzero_ps())), _mm_set1_epi32(offset));
}

// The stages with partners at 1 and at 2. a + (-b) is a - b to the last bit.
__m128 rotate4(__m128 x) {
  const __m128 odd = _mm_castsi128_ps(_mm_set_epi32(INT32_MIN, 0, INT32_MIN, 0));
  const __m128 upper = _mm_castsi128_ps(_mm_set_epi32(INT32_MIN, INT32_MIN, 0, 0));
  x = _mm_add_ps(_mm_shuffle_ps(x, x, 0xB1), _mm_xor_ps(x, odd));
  return _mm_add_ps(_mm_shuffle_ps(x, x, 0x4E), _mm_xor_ps(x, upper));
}

void rotate_block(float* row, int n, float norm) {
  for (int i = 0; i < n; i += 16) {  // partners at 1, 2, 4 and 8
    const __m128 a = rotate4(_mm_loadu_ps(row + i));
    const __m128 b = rotate4(_mm_loadu_ps(row + i + 4));
    const __m128 c = rotate4(_mm_loadu_ps(row + i + 8));
    const __m128 d = rotate4(_mm_loadu_ps(row + i + 12));
    const __m128 sum0 = _mm_add_ps(a, b);
    const __m128 sum1 = _mm_add_ps(c, d);
    const __m128 difference0 = _mm_sub_ps(a, b);
    const __m128 difference1 = _mm_sub_ps(c, d);
    _mm_storeu_ps(row + i, _mm_add_ps(sum0, sum1));
    _mm_storeu_ps(row + i + 4, _mm_add_ps(difference0, difference1));
    _mm_storeu_ps(row + i + 8, _mm_sub_ps(sum0, sum1));
    _mm_storeu_ps(row + i + 12, _mm_sub_ps(difference0, difference1));
  }
  for (int half = 16; half < n; half *= 2) {
    for (int start = 0; start < n; start += 2 * half) {
      for (int i = start; i < start + half; i += 4) {
        const __m128 a = _mm_loadu_ps(row + i);
        const __m128 b = _mm_loadu_ps(row + i + half);
        _mm_storeu_ps(row + i, _mm_add_ps(a, b));
        _mm_storeu_ps(row + i + half, _mm_sub_ps(a, b));
      }
    }
  }
  for (int i = 0; i < n; i += 4) _mm_storeu_ps(row + i, _mm_mul_ps(_mm_loadu_ps(row + i), _mm_set1_ps(norm)));
}

void rotate(float* row, int head_dim) {
  int at = 0;
  for (int k = 4; k >= 0; --k) {
    const int block = 16 << k;
    if ((head_dim & block) == 0) continue;
    rotate_block(row + at, block, kBlockNorms[k]);
    at += block;
  }
}

template <int kBits>
struct Candidate {
  static constexpr int kCount = kBits == 2 ? 1 : 7;
  __m128i thresholds[kCount];

  explicit Candidate(int k) {
    for (int j = 0; j < kCount; ++j)
      thresholds[j] = _mm_set1_epi16(kBits == 2 ? kThresholds2.at[k] : kThresholds.at[k][j]);
  }
  // 0x8000 + level index of 8 magnitudes: the set top bit makes pshufb clear the upper bytes.
  __m128i level_indices(__m128i sizes) const {
    __m128i index = _mm_set1_epi16(INT16_MIN);
    for (int j = 0; j < kCount; ++j) index = _mm_sub_epi16(index, _mm_cmpgt_epi16(sizes, thresholds[j]));
    return index;
  }
};

// The levels above 0, in the lower bytes.
template <int kBits>
__m128i positive_levels() {
  if constexpr (kBits == 2) return _mm_set1_epi16(kLevels2[3] << 8 | kLevels2[2]);
  const __m128i levels = load(kLevels);
  return _mm_unpackhi_epi64(levels, levels);
}

std::uint16_t to_scale16(float scale) {
  return static_cast<std::uint16_t>((__builtin_bit_cast(std::uint32_t, scale) + 0x4000u) >> 15);
}

// To 2 or 4 bits.
template <int kBits>
std::uint16_t encode_row(const float* row, int head_dim, std::uint8_t* codes) {
  constexpr char kFirst = 1 << kBits >> 1;  // of the levels above 0
  const float most = largest_magnitude(row, head_dim);
  if (!(most >= kSmallest)) {
    for (int c = 0; c < head_dim; c += 16) store(codes + c, _mm_set1_epi8(kFirst));
    return 0;
  }
  const __m128 to_normal = _mm_set1_ps(16383.0f / most);
  alignas(16) std::int16_t normalised[kMaxHeadDim];
  alignas(16) std::int16_t sizes[kMaxHeadDim];
  for (int c = 0; c < head_dim; c += 8) {
    const __m128i low = round_biased(_mm_mul_ps(_mm_loadu_ps(row + c), to_normal), 16384);
    const __m128i high = round_biased(_mm_mul_ps(_mm_loadu_ps(row + c + 4), to_normal), 16384);
    const __m128i both = _mm_packs_epi32(low, high);
    store(normalised + c, both);
    store(sizes + c, _mm_abs_epi16(both));
  }
  int best = 0;
  float best_gain = -1;
  float best_ratio = 0;
  const __m128i levels = positive_levels<kBits>();
  for (int k = 0; k < kCandidates; ++k) {
    const Candidate<kBits> candidate(k);
    __m128i product = _mm_setzero_si128();
    __m128i energy = _mm_setzero_si128();
    for (int c = 0; c < head_dim; c += 8) {
      const __m128i size = load_aligned(sizes + c);
      const __m128i level = _mm_shuffle_epi8(levels, candidate.level_indices(size));
      product = _mm_add_epi32(product, _mm_madd_epi16(size, level));
      energy = _mm_add_epi32(energy, _mm_madd_epi16(level, level));
    }
    const float whole_product = static_cast<float>(sum_of_lanes(product));
    const float ratio = whole_product / static_cast<float>(sum_of_lanes(energy));
    const float gain = whole_product * ratio;
    if (gain > best_gain) {
      best = k;
      best_gain = gain;
      best_ratio = ratio;
    }
  }
  const Candidate<kBits> candidate(best);
  for (int c = 0; c < head_dim; c += 16) {
    const __m128i low = candidate.level_indices(load_aligned(sizes + c));
    const __m128i high = candidate.level_indices(load_aligned(sizes + c + 8));
    const __m128i low_byte = _mm_set1_epi16(0xFF);
    const __m128i index = _mm_packus_epi16(_mm_and_si128(low, low_byte), _mm_and_si128(high, low_byte));
    // kFirst + index for zero and above; all its bits flipped, which is kFirst - 1 - index, below.
    const __m128i rows = _mm_packs_epi16(load_aligned(normalised + c), load_aligned(normalised + c + 8));
    const __m128i flip = _mm_and_si128(_mm_cmpgt_epi8(_mm_setzero_si128(), rows), _mm_set1_epi8(2 * kFirst - 1));
    store(codes + c, _mm_xor_si128(_mm_add_epi8(index, _mm_set1_epi8(kFirst)), flip));
  }
  return to_scale16(best_ratio * (most * (1.0f / 16383.0f)));
}

float quantise_query(const float* row, int head_dim, std::int8_t* codes) {
  if (head_dim % 16 != 0) return scalar::quantise_query(row, head_dim, codes);  // a few outlier channels
  const float most = largest_magnitude(row, head_dim);
  if (!(most >= kSmallest)) {
    for (int c = 0; c < head_dim; c += 16) store(codes + c, _mm_setzero_si128());
    return 0;
  }
  const __m128 to_code = _mm_set1_ps(127.0f / most);
  for (int c = 0; c < head_dim; c += 16) {
    __m128i rounded[4];
    for (int k = 0; k < 4; ++k) rounded[k] = round_biased(_mm_mul_ps(_mm_loadu_ps(row + c + 4 * k), to_code), 128);
    const __m128i low = _mm_packs_epi32(rounded[0], rounded[1]);
    store(codes + c, _mm_packs_epi16(low, _mm_packs_epi32(rounded[2], rounded[3])));
  }
  return most * (1.0f / 127.0f);
}

std::uint16_t encode_bytes(const float* row, int head_dim, std::uint8_t* codes) {
  return to_scale16(quantise_query(row, head_dim, reinterpret_cast<std::int8_t*>(codes)));
}

// Levels of slots below 16, and of those 16 later.
struct Decoded {
  __m128i low, high;
};

template <int kBits>
struct Decoder {
  __m128i low, high;  // tables for nibbles: of 4 bits the same

  // Levels of 8 bits need no table, and get no offset.
  explicit Decoder(char offset)
      : low(_mm_add_epi8(load(kBits == 2 ? kNibbleLevels2.low : kLevels), _mm_set1_epi8(offset))),
        high(_mm_add_epi8(load(kBits == 2 ? kNibbleLevels2.high : kLevels), _mm_set1_epi8(offset))) {}

  // 16 bytes of a group of four channels or slots. Of 2 bits an even group and the next share them; of 8 bits those of
  // the slots 16 later are `further` on.
  Decoded operator()(const std::uint8_t* codes, int group, int further) const {
    const __m128i bytes = load_aligned(codes);
    if constexpr (kBits == 8) return {bytes, load_aligned(codes + further)};
    const __m128i lower = _mm_and_si128(bytes, _mm_set1_epi8(15));
    const __m128i upper = _mm_and_si128(_mm_srli_epi16(bytes, 4), _mm_set1_epi8(15));
    if constexpr (kBits == 4) return {_mm_shuffle_epi8(low, lower), _mm_shuffle_epi8(high, upper)};
    const __m128i index = group % 2 == 0 ? lower : upper;
    return {_mm_shuffle_epi8(low, index), _mm_shuffle_epi8(high, index)};
  }
};

// Levels, made unsigned if of 2 or 4 bits, by queries. Pairs: 2 * 127 * 127 fits int16.
template <int kBits>
__m128i key_products(__m128i levels, __m128i query) {
  // The sign moves to the query.
  if constexpr (kBits == 8) return dot4(_mm_abs_epi8(levels), _mm_sign_epi8(query, levels));
  return dot4(levels, query);
}

// Processes kVectors of the four vectors of a group at a time: as many sums as
// fit in the registers.
template <int kBits, int kRows, int kVectors>
void key_dots_of(const std::uint8_t* codes, int head_dim, const std::int8_t* queries, const std::int32_t* query_sums,
                 std::int32_t* dots) {
  constexpr int kGroups = kBits == 2 ? 2 : 1;   // in the same bytes
  constexpr int kOffset = kBits == 8 ? 0 : 64;  // level + 64 is unsigned. Sums start at minus the excess.
  const Decoder<kBits> decode(kOffset);
  for (int v = 0; v < 4; v += kVectors) {
    __m128i low_sums[kRows][kVectors];
    __m128i high_sums[kRows][kVectors];
    for (int r = 0; r < kRows; ++r) {
      for (int k = 0; k < kVectors; ++k) low_sums[r][k] = high_sums[r][k] = _mm_set1_epi32(-kOffset * query_sums[r]);
    }
    for (int c = 0; c < head_dim; c += 4 * kGroups) {
      for (int k = 0; k < kVectors; ++k) {
        for (int g = 0; g < kGroups; ++g) {
          const Decoded levels = decode(codes + c * 4 * kBits + (v + k) * 16, g, 64);
          for (int r = 0; r < kRows; ++r) {
            const __m128i query = broadcast4(queries + r * head_dim + c + 4 * g);
            low_sums[r][k] = _mm_add_epi32(low_sums[r][k], key_products<kBits>(levels.low, query));
            high_sums[r][k] = _mm_add_epi32(high_sums[r][k], key_products<kBits>(levels.high, query));
          }
        }
      }
    }
    for (int r = 0; r < kRows; ++r) {
      for (int k = 0; k < kVectors; ++k) {
        store(dots + r * 32 + (v + k) * 4, low_sums[r][k]);
        store(dots + r * 32 + (v + k) * 4 + 16, high_sums[r][k]);
      }
    }
  }
}

template <int kBits>
void key_dots(const std::uint8_t* codes, int head_dim, const std::int8_t* queries, const std::int32_t* query_sums,
              int count, std::int32_t* dots) {
  for (; count >= 4; count -= 4, queries += 4 * head_dim, query_sums += 4, dots += 4 * 32) {
    key_dots_of<kBits, 4, 1>(codes, head_dim, queries, query_sums, dots);
  }
  if (count == 3) key_dots_of<kBits, 3, 1>(codes, head_dim, queries, query_sums, dots);
  if (count == 2) key_dots_of<kBits, 2, 2>(codes, head_dim, queries, query_sums, dots);
  if (count == 1) key_dots_of<kBits, 1, 4>(codes, head_dim, queries, query_sums, dots);
}

void outlier_dots(const std::int8_t* outliers, int channels, const std::int8_t* queries, const std::int32_t*, int count,
                  std::int32_t* dots) {
  for (int t = 0; t < 32; t += 4) {
    for (int i = 0; i < count; ++i) {
      __m128i sum = _mm_setzero_si128();
      for (int c = 0; c < channels; c += 4) {
        const __m128i outlier = load_aligned(outliers + c * 32 + t * 4);
        sum = _mm_add_epi32(sum, key_products<8>(outlier, broadcast4(queries + i * channels + c)));
      }
      store(dots + i * 32 + t, sum);
    }
  }
}

// -(32768 >> whole) of 8 values of whole in [0, 15], except 0 for 15: upper and lower bytes
// come from a table each.
__m128i negative_power(__m128i whole) {
  const __m128i upper = _mm_set_epi64x(0x00FFFFFFFFFFFFFF, static_cast<long long>(0xFFFEFCF8F0E0C080));
  const __m128i lower = _mm_set_epi64x(0x00FEFCF8F0E0C080, 0);
  return _mm_or_si128(_mm_shuffle_epi8(upper, _mm_or_si128(_mm_slli_epi16(whole, 8), _mm_set1_epi16(0x80))),
                      _mm_shuffle_epi8(lower, whole));
}

// 2^-(octaves / 2048) in Q15 of 8 octaves in [0, 32767].
__m128i exp2_q15(__m128i octaves) {
  const __m128i f = _mm_and_si128(_mm_slli_epi16(octaves, 4), _mm_set1_epi16(0x7FF0));
  __m128i x = _mm_add_epi16(_mm_mulhrs_epi16(f, _mm_set1_epi16(kExp4)), _mm_set1_epi16(kExp3));
  x = _mm_add_epi16(_mm_mulhrs_epi16(f, x), _mm_set1_epi16(kExp2));
  x = _mm_add_epi16(_mm_mulhrs_epi16(f, x), _mm_set1_epi16(kExp1));
  x = _mm_add_epi16(_mm_mulhrs_epi16(f, x), _mm_set1_epi16(kExp0));
  return _mm_mulhrs_epi16(x, negative_power(_mm_srli_epi16(octaves, 11)));
}

void widen(const std::uint16_t* scales, float* wide) {
  for (int t = 0; t < 32; t += 8) {
    const __m128i eight = load(scales + t);
    store(wide + t, _mm_slli_epi32(_mm_cvtepu16_epi32(eight), 15));
    store(wide + t + 4, _mm_slli_epi32(_mm_cvtepu16_epi32(_mm_srli_si128(eight, 8)), 15));
  }
}

// All ones in the words of slots that the row sees, by the lowest 8 bits of `seen`.
__m128i words_seen(std::uint32_t seen) {
  const __m128i bits = _mm_set_epi16(128, 64, 32, 16, 8, 4, 2, 1);
  return _mm_cmpeq_epi16(_mm_and_si128(_mm_set1_epi16(static_cast<short>(seen)), bits), bits);
}

// The value scales that a row sees, in Q15 of the power of two above the largest.
struct ValueScales {
  std::int32_t exponent;
  __m128i q15[4];

  ValueScales(const std::uint16_t* scales16, std::uint32_t seen) {
    __m128i scales[4];
    __m128i most = _mm_set1_epi16(kLeastExponent << 8);
    for (int v = 0; v < 4; ++v) {
      scales[v] = load(scales16 + v * 8);
      if (seen != kAllSeen) scales[v] = _mm_and_si128(scales[v], words_seen(seen >> (v * 8)));
      most = _mm_max_epu16(scales[v], most);
    }
    exponent = largest_lane(most) >> 8;
    const __m128i exponents = _mm_set1_epi16(static_cast<short>(exponent));
    for (int v = 0; v < 4; ++v) {
      const __m128i octaves = _mm_min_epu16(_mm_sub_epi16(exponents, _mm_srli_epi16(scales[v], 8)), _mm_set1_epi16(15));
      const __m128i fraction = _mm_or_si128(_mm_and_si128(scales[v], _mm_set1_epi16(255)), _mm_set1_epi16(256));
      const __m128i mantissa = _mm_slli_epi16(fraction, 6);
      q15[v] = _mm_mulhrs_epi16(_mm_sub_epi16(_mm_setzero_si128(), mantissa), negative_power(octaves));
    }
  }
};

// What the steps of tile_weights pass on, for each pair of tile and row. Each step runs over all
// pairs before the next one starts, because within a pair each step depends on the one before.
struct PairBuffers {
  alignas(16) float logits[kMaxRows][32];           // without the factor query_scale when there are no biases
  alignas(16) std::int16_t products[kMaxRows][32];  // Q15: weight times value scale
  alignas(16) float most[kMaxRows] = {};            // largest logits
  alignas(16) float tops[kMaxRows];                 // (whole octave above the largest logit) * 2048 + 0.5
  alignas(16) std::int32_t exponents[kMaxRows];
  alignas(16) std::int32_t most_products[kMaxRows] = {};
  alignas(16) std::int32_t ups[kMaxRows];     // shifts that bring the largest product to [2^14, 2^15)
  alignas(16) std::int32_t ranges[kMaxRows];  // factors from products shifted like this to bytes
  alignas(16) float units[kMaxRows];          // what a byte of 1 stands for, without the value scales' exponent
  float scales[kMaxRows];                     // the factor from logits to 1 / 2048 octaves
  float powers[kMaxRows];                     // of the value scales' exponent
};

// Hides the slots that a row does not see, and returns the largest logits that are left.
__m128 hide_logits(float* logits, std::uint32_t seen) {
  const __m128i bits = _mm_set_epi32(8, 4, 2, 1);
  __m128 most = _mm_set1_ps(kHidden);
  for (int t = 0; t < 32; t += 4, seen >>= 4) {
    const __m128i lanes = _mm_and_si128(_mm_set1_epi32(static_cast<std::int32_t>(seen)), bits);
    const __m128 hidden = _mm_castsi128_ps(_mm_cmpeq_epi32(lanes, _mm_setzero_si128()));
    const __m128 logit = _mm_blendv_ps(_mm_load_ps(logits + t), _mm_set1_ps(kHidden), hidden);
    _mm_store_ps(logits + t, logit);
    most = _mm_max_ps(logit, most);
  }
  return most;
}

// What to add to the logits, in octaves.
void octaves_of(const std::uint8_t* biases, float* octaves) {
  for (int t = 0; t < 32; t += 4) {
    const __m128i four = _mm_cvtepu8_epi32(broadcast4(biases + t));
    _mm_store_ps(octaves + t, _mm_mul_ps(_mm_cvtepi32_ps(four), _mm_set1_ps(0.0625f)));
  }
}

template <bool kOutliers, bool kBiases>
void logits_of(const TileWeights& tile, int count, int p, PairBuffers& pair) {
  alignas(16) float key_scales[32];
  alignas(16) float biases[32];
  widen(tile.key_scales, key_scales);
  if (kBiases) octaves_of(tile.biases, biases);
  for (int i = 0; i < count; ++i, ++p) {
    const float factor = kBiases ? 1.0f : tile.query_scales[i];
    const __m128 scale = _mm_set1_ps(tile.query_scales[i]);
    const __m128 ratio = kOutliers ? _mm_set1_ps(tile.outlier_ratios[i]) : _mm_setzero_ps();
    __m128 most = _mm_set1_ps(kHidden);
    for (int t = 0; t < 32; t += 4) {
      __m128 logit = _mm_mul_ps(_mm_cvtepi32_ps(load(tile.dots + i * 32 + t)), _mm_load_ps(key_scales + t));
      if (kOutliers) {
        const __m128 outlier_dots = _mm_cvtepi32_ps(load(tile.outlier_dots + i * 32 + t));
        logit = _mm_add_ps(logit, _mm_mul_ps(outlier_dots, ratio));
      }
      if (kBiases) logit = _mm_add_ps(_mm_mul_ps(logit, scale), _mm_load_ps(biases + t));
      most = _mm_max_ps(logit, most);
      _mm_store_ps(pair.logits[p] + t, logit);
    }
    if (tile.seen[i] != kAllSeen) most = hide_logits(pair.logits[p], tile.seen[i]);
    pair.most[p] = largest_lane(most) * factor;
    pair.scales[p] = factor * 2048.0f;
  }
}

void find_logits(const TileWeights& tile, int count, int p, PairBuffers& pair) {
  const bool outliers = tile.outlier_dots != nullptr;
  if (tile.biases != nullptr) {
    (outliers ? logits_of<true, true> : logits_of<false, true>)(tile, count, p, pair);
  } else {
    (outliers ? logits_of<true, false> : logits_of<false, false>)(tile, count, p, pair);
  }
}

// Computes the tops and exponents from the largest logits.
void find_tops(int pairs, PairBuffers& pair) {
  for (int p = 0; p < pairs; p += 4) {
    const __m128 most = _mm_load_ps(pair.most + p);
    const __m128 flat = _mm_cmplt_ps(_mm_andnot_ps(_mm_set1_ps(-0.0f), most), _mm_set1_ps(kFlat));
    const __m128 whole = _mm_floor_ps(_mm_andnot_ps(flat, most));
    const __m128 top = _mm_mul_ps(_mm_add_ps(whole, _mm_set1_ps(1.0f)), _mm_set1_ps(2048.0f));
    _mm_store_ps(pair.tops + p, _mm_add_ps(top, _mm_set1_ps(0.5f)));
    const __m128 bounded = _mm_max_ps(_mm_min_ps(whole, _mm_set1_ps(kExponentLimit)), _mm_set1_ps(-kExponentLimit));
    store(pair.exponents + p, _mm_add_epi32(_mm_cvttps_epi32(bounded), _mm_set1_epi32(2)));
  }
}

// Octaves below top, in units of 1 / 2048; the bound keeps the conversion defined for any logit.
__m128i octaves_below(__m128 top, const float* logits, __m128 scale) {
  const __m128 below = _mm_sub_ps(top, _mm_mul_ps(_mm_load_ps(logits), scale));
  return _mm_cvttps_epi32(_mm_min_ps(below, _mm_set1_ps(kFaintest)));
}

void find_products(const TileWeights& tile, int count, int p, PairBuffers& pair) {
  ValueScales values(tile.value_scales, tile.seen[0]);
  for (int i = 0; i < count; ++i, ++p) {
    if (i != 0 && tile.seen[i] != tile.seen[i - 1]) values = ValueScales(tile.value_scales, tile.seen[i]);
    const __m128 top = _mm_set1_ps(pair.tops[p]);
    const __m128 scale = _mm_set1_ps(pair.scales[p]);
    __m128i masses = _mm_setzero_si128();
    __m128i most = _mm_setzero_si128();
    for (int v = 0; v < 4; ++v) {
      const float* logits = pair.logits[p] + v * 8;
      const __m128i weights =
          exp2_q15(_mm_packus_epi32(octaves_below(top, logits, scale), octaves_below(top, logits + 4, scale)));
      if (tile.softmax != nullptr) store(tile.softmax + i * 32 + v * 8, weights);
      const __m128i products = _mm_mulhrs_epi16(weights, values.q15[v]);
      masses = _mm_add_epi32(masses, _mm_madd_epi16(weights, _mm_set1_epi16(1)));
      most = _mm_max_epi16(most, products);
      store(pair.products[p] + v * 8, products);
    }
    tile.masses[i] = static_cast<std::uint32_t>(sum_of_lanes(masses));
    pair.most_products[p] = largest_lane(most);
    pair.powers[p] = __builtin_bit_cast(float, static_cast<std::uint32_t>(values.exponent + 23) << 23);
  }
}

// Computes, from the largest products, the factors to bytes, and what a byte of 1 stands for.
void find_ranges(int pairs, PairBuffers& pair) {
  for (int p = 0; p < pairs; p += 4) {
    const __m128i most = load_aligned(pair.most_products + p);
    const __m128i bits = _mm_castps_si128(_mm_cvtepi32_ps(most));
    const __m128i up = _mm_sub_epi32(_mm_set1_epi32(127 + 14), _mm_srli_epi32(bits, 23));
    const __m128i moved = _mm_add_epi32(bits, _mm_slli_epi32(up, 23));  // most << up, as float
    const __m128i range = _mm_cvttps_epi32(_mm_div_ps(_mm_set1_ps(kByteRange), _mm_castsi128_ps(moved)));
    const __m128i power = _mm_slli_epi32(_mm_sub_epi32(_mm_set1_epi32(127), up), 23);  // 2^-up
    const __m128 unit = _mm_mul_ps(_mm_div_ps(_mm_set1_ps(1.0f), _mm_cvtepi32_ps(range)), _mm_castsi128_ps(power));
    const __m128i none = _mm_cmpeq_epi32(most, _mm_setzero_si128());
    store(pair.ups + p, up);  // 141 for a largest product of 0, which shifts everything out
    store(pair.ranges + p, range);
    _mm_store_ps(pair.units + p, _mm_andnot_ps(_mm_castsi128_ps(none), unit));
  }
}

void find_bytes(const TileWeights& tile, int count, int p, const PairBuffers& pair) {
  for (int i = 0; i < count; ++i, ++p) {
    tile.exponents[i] = pair.exponents[p];
    tile.value_units[i] = pair.units[p] * pair.powers[p];
    const __m128i up = _mm_cvtsi32_si128(pair.ups[p]);
    const __m128i range = _mm_set1_epi16(static_cast<short>(pair.ranges[p]));
    __m128i bytes[4];
    for (int v = 0; v < 4; ++v) {
      const __m128i moved = _mm_sll_epi16(load_aligned(pair.products[p] + v * 8), up);
      bytes[v] = _mm_mulhrs_epi16(_mm_mulhrs_epi16(moved, range), _mm_set1_epi16(256));  // (x + 64) >> 7
    }
    store(tile.weights + i * 32, _mm_packus_epi16(bytes[0], bytes[1]));
    store(tile.weights + i * 32 + 16, _mm_packus_epi16(bytes[2], bytes[3]));
  }
}

void tile_weights(const TileWeights* tiles, int tile_count, int count) {
  PairBuffers pair;
  for (int j = 0; j < tile_count; ++j) find_logits(tiles[j], count, j * count, pair);
  find_tops(tile_count * count, pair);
  for (int j = 0; j < tile_count; ++j) find_products(tiles[j], count, j * count, pair);
  find_ranges(tile_count * count, pair);
  for (int j = 0; j < tile_count; ++j) find_bytes(tiles[j], count, j * count, pair);
}

// The sums over rows of softmax times factor, or of the largest such product in each group of rows:
// for 8 slots from `at` on.
void find_attention(const TileScores& tile, int at, __m128i (&attention)[2]) {
  __m128i low = _mm_setzero_si128();
  __m128i high = _mm_setzero_si128();
  if (tile.group == 1) {  // two rows at a time; an odd last one is paired with a factor of 0
    for (int i = 0; i < tile.count; i += 2) {
      const bool two = i + 1 < tile.count;
      const __m128i a = load(tile.softmax + i * 32 + at);
      const __m128i b = two ? load(tile.softmax + (i + 1) * 32 + at) : a;
      const __m128i factors = _mm_set1_epi32(tile.factors[i] | (two ? tile.factors[i + 1] << 16 : 0));
      low = _mm_add_epi32(low, _mm_madd_epi16(_mm_unpacklo_epi16(a, b), factors));
      high = _mm_add_epi32(high, _mm_madd_epi16(_mm_unpackhi_epi16(a, b), factors));
    }
  } else {
    const __m128i zero = _mm_setzero_si128();
    for (int i = 0; i < tile.count; i += tile.group) {
      __m128i most_low = zero;
      __m128i most_high = zero;
      for (int j = i; j < i + tile.group; ++j) {
        const __m128i weights = load(tile.softmax + j * 32 + at);
        const __m128i factor = _mm_set1_epi32(tile.factors[j]);
        most_low = _mm_max_epi32(most_low, _mm_madd_epi16(_mm_unpacklo_epi16(weights, zero), factor));
        most_high = _mm_max_epi32(most_high, _mm_madd_epi16(_mm_unpackhi_epi16(weights, zero), factor));
      }
      low = _mm_add_epi32(low, most_low);
      high = _mm_add_epi32(high, most_high);
    }
  }
  attention[0] = low;
  attention[1] = high;
}

__m128i shift_rounded(__m128i x, int shift) {
  const __m128i half = _mm_set1_epi32(static_cast<std::int32_t>((1u << shift) >> 1));
  return _mm_srl_epi32(_mm_add_epi32(x, half), _mm_cvtsi32_si128(shift));
}

void add_scores(const TileScores& tile) {
  for (int at = 0; at < 32; at += 8) {
    __m128i attention[2];
    find_attention(tile, at, attention);
    if (tile.global != nullptr) {
      for (int k = 0; k < 2; ++k) {
        std::uint32_t* global = tile.global + at + 4 * k;
        const __m128i more = shift_rounded(attention[k], tile.global_shift);
        const __m128i room = _mm_xor_si128(more, _mm_set1_epi32(-1));
        store(global, _mm_add_epi32(_mm_min_epu32(load(global), room), more));
      }
    }
    if (tile.local != nullptr) {
      const __m128i eight = load(tile.local + at);
      __m128i sums[2] = {_mm_cvtepu16_epi32(eight), _mm_cvtepu16_epi32(_mm_srli_si128(eight, 8))};
      for (int k = 0; k < 2; ++k) {
        const __m128i lost = _mm_mullo_epi32(sums[k], _mm_set1_epi32(static_cast<std::int32_t>(tile.fade)));
        sums[k] = _mm_sub_epi32(sums[k], _mm_srli_epi32(_mm_add_epi32(lost, _mm_set1_epi32(65535)), 16));
        sums[k] = _mm_add_epi32(sums[k], shift_rounded(attention[k], tile.local_shift));
        sums[k] = _mm_min_epu32(sums[k], _mm_set1_epi32(65535));
      }
      store(tile.local + at, _mm_packus_epi32(sums[0], sums[1]));
    }
  }
}

template <int kBits, int kRows>
void value_sums_of(const std::uint8_t* codes, int head_dim, const std::uint8_t* weights, const float* scales,
                   float* sums) {
  const Decoder<kBits> decode(0);
  __m128i wide_weights[4][2][kRows];  // of four slots, repeated four times
  for (int g = 0; g < 4; ++g) {
    for (int r = 0; r < kRows; ++r) {
      wide_weights[g][0][r] = broadcast4(weights + r * 32 + g * 4);
      wide_weights[g][1][r] = broadcast4(weights + r * 32 + g * 4 + 16);
    }
  }
  for (int c = 0; c < head_dim; c += 4) {
    __m128i whole[kRows];
    for (int r = 0; r < kRows; ++r) whole[r] = _mm_setzero_si128();
    for (int g = 0; g < 4; ++g) {
      const int block = kBits == 2 ? g / 2 : g;
      const Decoded levels = decode(codes + (block * head_dim + c) * 4, g, 16 * head_dim);
      for (int r = 0; r < kRows; ++r) {  // of 8 bits |127 * 127 * 2| fits int16, of others |127 * 63 * 4|
        const __m128i one = _mm_set1_epi16(1);
        const __m128i low = _mm_maddubs_epi16(wide_weights[g][0][r], levels.low);
        const __m128i high = _mm_maddubs_epi16(wide_weights[g][1][r], levels.high);
        const __m128i both = kBits == 8 ? _mm_add_epi32(_mm_madd_epi16(low, one), _mm_madd_epi16(high, one))
                                        : _mm_madd_epi16(_mm_add_epi16(low, high), one);
        whole[r] = _mm_add_epi32(whole[r], both);
      }
    }
    for (int r = 0; r < kRows; ++r) {
      float* to = sums + r * head_dim + c;
      _mm_storeu_ps(to, _mm_add_ps(_mm_loadu_ps(to), _mm_mul_ps(_mm_cvtepi32_ps(whole[r]), _mm_set1_ps(scales[r]))));
    }
  }
}

// 4 logits, bounded and rounded.
__m128i sign_logits_of(__m128i dots, __m128i sizes, const SignLogits& page) {
  const __m128 scaled = _mm_mul_ps(_mm_cvtepi32_ps(_mm_mullo_epi32(dots, sizes)), _mm_set1_ps(page.unit));
  __m128 logit = _mm_add_ps(_mm_set1_ps(page.base), scaled);
  logit = _mm_max_ps(_mm_min_ps(logit, _mm_set1_ps(ports::kMostLogit)), _mm_set1_ps(-ports::kMostLogit));
  return _mm_sub_epi32(_mm_cvttps_epi32(_mm_add_ps(logit, _mm_set1_ps(32768.5f))), _mm_set1_epi32(32768));
}

std::int16_t sign_logits(const SignLogits& page) {
  const __m128i nibble = _mm_set1_epi8(15);
  const __m128i ones = _mm_set1_epi8(1);
  __m128i largest = _mm_set1_epi16(INT16_MIN);
  for (int t = 0; t < 32; t += 16) {
    __m128i low = _mm_setzero_si128();  // of 8 slots
    __m128i high = _mm_setzero_si128();
    for (int c = 0; c < page.head_dim; c += 8) {
      const __m128i eight = load(page.signs + c * 4 + t);
      const __m128i first = _mm_shuffle_epi8(load(page.sums + c * 4), _mm_and_si128(eight, nibble));
      const __m128i second =
          _mm_shuffle_epi8(load(page.sums + c * 4 + 16), _mm_and_si128(_mm_srli_epi16(eight, 4), nibble));
      low = _mm_add_epi16(low, _mm_maddubs_epi16(ones, _mm_unpacklo_epi8(first, second)));
      high = _mm_add_epi16(high, _mm_maddubs_epi16(ones, _mm_unpackhi_epi8(first, second)));
    }
    const __m128i dots[2] = {low, high};
    for (int i = 0; i < 2; ++i) {
      const __m128i sizes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(page.sizes + t + 8 * i));
      const __m128i near = sign_logits_of(_mm_cvtepi16_epi32(dots[i]), _mm_cvtepu8_epi32(sizes), page);
      const __m128i far = sign_logits_of(_mm_cvtepi16_epi32(_mm_srli_si128(dots[i], 8)),
                                         _mm_cvtepu8_epi32(_mm_srli_si128(sizes, 4)), page);
      const __m128i logits = _mm_packs_epi32(near, far);
      store(page.logits + t + 8 * i, logits);
      largest = _mm_max_epi16(largest, logits);
    }
  }
  // The least of unsigned words is found in one instruction.
  const __m128i below = _mm_minpos_epu16(_mm_sub_epi16(_mm_set1_epi16(INT16_MAX), largest));
  return static_cast<std::int16_t>(INT16_MAX - _mm_extract_epi16(below, 0));
}

template <int kBits>
void value_sums(const std::uint8_t* codes, int head_dim, const std::uint8_t* weights, const float* scales, int count,
                float* sums) {
  for (; count >= 4; count -= 4, weights += 4 * 32, scales += 4, sums += 4 * head_dim) {
    value_sums_of<kBits, 4>(codes, head_dim, weights, scales, sums);
  }
  if (count == 3) value_sums_of<kBits, 3>(codes, head_dim, weights, scales, sums);
  if (count == 2) value_sums_of<kBits, 2>(codes, head_dim, weights, scales, sums);
  if (count == 1) value_sums_of<kBits, 1>(codes, head_dim, weights, scales, sums);
}

}  // namespace

constexpr Kernels kSse41Kernels = {.name = "sse41",
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
