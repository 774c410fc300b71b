// The port that defines the results of all others, to the last bit.
#include "ports/kernels.hpp"

namespace nibkv {
namespace ports::scalar {
namespace {

float magnitude(float x) {
  return x < 0 ? -x : x;
}

float largest_magnitude(const float* row, int n) {
  float most = 0;
  for (int i = 0; i < n; ++i) most = magnitude(row[i]) > most ? magnitude(row[i]) : most;
  return most;
}

// Rounds a value known to lie in [-offset, offset] to the nearest integer, halves up: truncation of a positive number,
// which every instruction set has. The comparison keeps the conversion defined when the input was not finite.
std::int32_t round_biased(float x, std::int32_t offset) {
  const float biased = x + (static_cast<float>(offset) + 0.5f);
  return (biased > 0 && biased < 65536.0f ? static_cast<std::int32_t>(biased) : 0) - offset;
}

std::uint32_t bits_of(float x) {
  return __builtin_bit_cast(std::uint32_t, x);
}
float float_of(std::uint32_t bits) {
  return __builtin_bit_cast(float, bits);
}

float wide(std::uint16_t scale16) {
  return float_of(static_cast<std::uint32_t>(scale16) << 15);
}

// A size is a number's bits without its sign.
float from_f16(std::uint16_t half) {
  const std::uint32_t sign = (half & 0x8000u) << 16;
  const std::uint32_t size = half & 0x7fffu;
  if (size < 0x400) return float_of(sign | bits_of(static_cast<float>(size) * 0x1p-24f));
  const std::uint32_t rebias = size < 0x7c00 ? 127 - 15 : 255 - 31;
  return float_of(sign | ((size << 13) + (rebias << 23)));
}

std::uint16_t to_f16(float x) {
  const std::uint32_t sign = bits_of(x) >> 16 & 0x8000;
  const std::uint32_t size = bits_of(x) & 0x7fffffff;
  std::uint32_t half = 0x7c00;
  if (size > 0x7f800000) {
    half = 0x7e00;
  } else if (size < 0x38800000) {  // below 2^-14. From 0.5 to 1 an f32 has the steps of a denormal f16
    half = bits_of(float_of(size) + 0.5f) - 0x3f000000;
  } else if (size < 0x47800000) {  // below 2^16. What rounds up to that carries into the exponent of infinity
    half = (size - ((127u - 15u) << 23) + 0xfff + (size >> 13 & 1)) >> 13;
  }
  return static_cast<std::uint16_t>(sign | half);
}

std::uint16_t to_bf16(float x) {
  const std::uint32_t bits = bits_of(x);
  if ((bits & 0x7fffffff) > 0x7f800000) return static_cast<std::uint16_t>(bits >> 16 | 0x40);
  return static_cast<std::uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

void rotate_block(float* row, int n, float norm) {
  for (int half = 1; half < n; half *= 2) {
    for (int start = 0; start < n; start += 2 * half) {
      for (int i = start; i < start + half; ++i) {
        const float a = row[i];
        const float b = row[i + half];
        row[i] = a + b;
        row[i + half] = a - b;
      }
    }
  }
  for (int i = 0; i < n; ++i) row[i] *= norm;
}

}  // namespace

void widen(const void* halves, int head_dim, Half half, float* row) {
  const auto* from = static_cast<const std::uint16_t*>(halves);
  for (int c = 0; c < head_dim; ++c) {
    row[c] = half == Half::kF16 ? from_f16(from[c]) : float_of(static_cast<std::uint32_t>(from[c]) << 16);
  }
}

void narrow(const float* row, int head_dim, Half half, void* halves) {
  auto* to = static_cast<std::uint16_t*>(halves);
  for (int c = 0; c < head_dim; ++c) to[c] = half == Half::kF16 ? to_f16(row[c]) : to_bf16(row[c]);
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

namespace {

// The number of levels below a magnitude.
template <int kBits>
int level_index(std::int32_t normalised, int candidate) {
  if constexpr (kBits == 2) return normalised > kThresholds2.at[candidate] ? 1 : 0;
  int index = 0;
  for (int j = 0; j < 7; ++j) index += normalised > kThresholds.at[candidate][j] ? 1 : 0;
  return index;
}

template <int kBits>
std::int32_t level_of(std::uint32_t code) {
  if constexpr (kBits == 8) return static_cast<std::int8_t>(code);
  return kBits == 2 ? kLevels2[code] : kLevels[code];
}

std::uint16_t to_scale16(float scale) {
  return static_cast<std::uint16_t>((bits_of(scale) + 0x4000u) >> 15);
}

template <int kBits>
std::uint16_t encode_in_levels(const float* row, int head_dim, std::uint8_t* codes) {
  constexpr int kFirst = 1 << kBits >> 1;  // of the levels above 0
  const float most = largest_magnitude(row, head_dim);
  if (!(most >= kSmallest)) {
    for (int c = 0; c < head_dim; ++c) codes[c] = kFirst;
    return 0;
  }
  const float to_normal = 16383.0f / most;
  std::int16_t normalised[kMaxHeadDim];
  for (int c = 0; c < head_dim; ++c) normalised[c] = static_cast<std::int16_t>(round_biased(row[c] * to_normal, 16384));
  int best = 0;
  float best_gain = -1;
  float best_ratio = 0;
  for (int k = 0; k < kCandidates; ++k) {
    std::int32_t product = 0;  // <= 256 * 16384 * 63 < 2^29
    std::int32_t energy = 0;   // <= 256 * 63^2 < 2^20
    for (int c = 0; c < head_dim; ++c) {
      const std::int32_t size = normalised[c] < 0 ? -normalised[c] : normalised[c];
      const std::int32_t level = level_of<kBits>(static_cast<std::uint32_t>(kFirst + level_index<kBits>(size, k)));
      product += size * level;
      energy += level * level;
    }
    // The squared error that remains with the least-squares scale is |row|^2 - product^2 / energy.
    const float ratio = static_cast<float>(product) / static_cast<float>(energy);
    const float gain = static_cast<float>(product) * ratio;
    if (gain > best_gain) {
      best = k;
      best_gain = gain;
      best_ratio = ratio;
    }
  }
  for (int c = 0; c < head_dim; ++c) {
    const std::int32_t size = normalised[c] < 0 ? -normalised[c] : normalised[c];
    const int index = level_index<kBits>(size, best);
    codes[c] = static_cast<std::uint8_t>(normalised[c] < 0 ? kFirst - 1 - index : kFirst + index);
  }
  return to_scale16(best_ratio * (most * (1.0f / 16383.0f)));
}

}  // namespace

float quantise_query(const float* row, int head_dim, std::int8_t* codes) {
  const float most = largest_magnitude(row, head_dim);
  if (!(most >= kSmallest)) {
    for (int c = 0; c < head_dim; ++c) codes[c] = 0;
    return 0;
  }
  const float to_code = 127.0f / most;
  for (int c = 0; c < head_dim; ++c) codes[c] = static_cast<std::int8_t>(round_biased(row[c] * to_code, 128));
  return most * (1.0f / 127.0f);
}

namespace {

template <int kBits>
std::uint16_t encode(const float* row, int head_dim, std::uint8_t* codes) {
  if constexpr (kBits == 8) {
    std::int8_t levels[kMaxHeadDim];
    const float scale = quantise_query(row, head_dim, levels);
    for (int c = 0; c < head_dim; ++c) codes[c] = static_cast<std::uint8_t>(levels[c]);
    return to_scale16(scale);
  } else {
    return encode_in_levels<kBits>(row, head_dim, codes);
  }
}

// The n-th code of a byte, the lowest first, as a level.
template <int kBits>
std::int32_t level_in(std::uint8_t byte, int n) {
  return level_of<kBits>(static_cast<std::uint32_t>(byte) >> n * kBits & ((1u << kBits) - 1));
}

// Slots t and t + 16 at once: at 4 and 2 bits they share bytes.
template <int kBits>
void multiply_keys(const std::uint8_t* codes, int head_dim, const std::int8_t* queries, int count, std::int32_t* dots) {
  constexpr int kGroups = kBits == 2 ? 2 : 1;  // of four channels that share bytes
  for (int i = 0; i < count; ++i) {
    const std::int8_t* const query = queries + i * head_dim;
    for (int t = 0; t < 16; ++t) {
      std::int32_t low = 0;
      std::int32_t high = 0;
      for (int c = 0; c < head_dim; c += 4 * kGroups) {
        const std::uint8_t* const four = codes + c * kBits * 4 + t * 4;
        for (int j = 0; j < 4; ++j) {
          for (int g = 0; g < kGroups; ++g) {
            const std::uint8_t upper = kBits == 8 ? four[64 + j] : four[j];
            low += level_in<kBits>(four[j], 2 * g) * query[c + 4 * g + j];
            high += level_in<kBits>(upper, kBits == 8 ? 0 : 2 * g + 1) * query[c + 4 * g + j];
          }
        }
      }
      dots[i * 32 + t] = low;
      dots[i * 32 + 16 + t] = high;
    }
  }
}

}  // namespace

void outlier_dots(const std::int8_t* outliers, int channels, const std::int8_t* queries, const std::int32_t*, int count,
                  std::int32_t* dots) {
  for (int i = 0; i < count; ++i) {
    for (int t = 0; t < 32; ++t) {
      std::int32_t sum = 0;
      for (int c = 0; c < channels; ++c) sum += outliers[c / 4 * 128 + t * 4 + c % 4] * queries[i * channels + c];
      dots[i * 32 + t] = sum;
    }
  }
}

namespace {

// (a * b * 2 + 2^15) >> 16, as pmulhrsw and vqrdmulh compute it. Never called with both -32768.
std::int32_t multiply_high(std::int32_t a, std::int32_t b) {
  return (a * b + 0x4000) >> 15;
}

// 2^-(octaves / 2048) in Q15, at most 32767; 0 from 15 octaves on.
std::int32_t exp2_q15(std::int32_t octaves) {
  const std::int32_t whole = octaves >> 11;
  if (whole >= 15) return 0;
  const std::int32_t f = (octaves & 2047) << 4;
  std::int32_t x = multiply_high(f, kExp4) + kExp3;
  x = multiply_high(f, x) + kExp2;
  x = multiply_high(f, x) + kExp1;
  x = multiply_high(f, x) + kExp0;
  return multiply_high(x, -(32768 >> whole));
}

float floor_of(float x) {
  if (!(magnitude(x) < 0x1p23f)) return x;  // whole, or not finite
  const auto whole = static_cast<float>(static_cast<std::int32_t>(x));
  return whole > x ? whole - 1.0f : whole;
}

// The value scales that a row sees, in Q15 of the power of two above the largest: scale = q15 * 2^(exponent - 141).
struct ValueScales {
  std::int32_t exponent = kLeastExponent;
  std::int32_t q15[32] = {};
};

bool sees(std::uint32_t seen, int t) {
  return (seen >> t & 1) != 0;
}

ValueScales value_scales_of(const std::uint16_t* scales16, std::uint32_t seen) {
  std::uint16_t visible[32];
  if (seen != kAllSeen) {
    for (int t = 0; t < 32; ++t) visible[t] = sees(seen, t) ? scales16[t] : 0;
    scales16 = visible;
  }
  ValueScales scales;
  for (int t = 0; t < 32; ++t) {
    const std::int32_t exponent = scales16[t] >> 8;
    scales.exponent = exponent > scales.exponent ? exponent : scales.exponent;
  }
  for (int t = 0; t < 32; ++t) {
    const std::int32_t octaves = scales.exponent - (scales16[t] >> 8);
    const std::int32_t mantissa = ((scales16[t] & 255) | 256) << 6;
    scales.q15[t] = octaves < 15 ? multiply_high(mantissa, 32768 >> octaves) : 0;
  }
  return scales;
}

void tile_weights_of_row(const TileWeights& tile, int i) {
  // A bias is in octaves, so the query's scale must be applied before it; without biases, it is
  // applied at the end.
  const float factor = tile.biases != nullptr ? 1.0f : tile.query_scales[i];
  float logits[32];
  float most = kHidden;
  for (int t = 0; t < 32; ++t) {
    float logit = static_cast<float>(tile.dots[i * 32 + t]) * wide(tile.key_scales[t]);
    if (tile.outlier_dots != nullptr) {
      logit = logit + static_cast<float>(tile.outlier_dots[i * 32 + t]) * tile.outlier_ratios[i];
    }
    if (tile.biases != nullptr) logit = logit * tile.query_scales[i] + static_cast<float>(tile.biases[t]) * 0.0625f;
    logits[t] = sees(tile.seen[i], t) ? logit : kHidden;
    most = logits[t] > most ? logits[t] : most;
  }
  most = most * factor;
  const float whole = magnitude(most) < kFlat ? 0.0f : floor_of(most);
  // A Q15 weight relative to 2^(whole + 1) is a Q0.16 weight relative to 2^(whole + 2).
  const float bounded = whole < kExponentLimit ? whole : kExponentLimit;
  tile.exponents[i] = static_cast<std::int32_t>(bounded > -kExponentLimit ? bounded : -kExponentLimit) + 2;

  const ValueScales scales = value_scales_of(tile.value_scales, tile.seen[i]);
  const float top = (whole + 1.0f) * 2048.0f + 0.5f;
  const float scale = factor * 2048.0f;
  std::uint32_t mass = 0;
  std::int32_t products[32];  // Q15, of weight and value scale
  std::int32_t most_product = 0;
  for (int t = 0; t < 32; ++t) {
    float octaves = top - logits[t] * scale;
    octaves = octaves < kFaintest ? octaves : kFaintest;
    octaves = octaves > 0.0f ? octaves : 0.0f;
    const std::int32_t weight = exp2_q15(static_cast<std::int32_t>(octaves));
    if (tile.softmax != nullptr) tile.softmax[i * 32 + t] = static_cast<std::uint16_t>(weight);
    mass += static_cast<std::uint32_t>(weight);
    products[t] = multiply_high(weight, scales.q15[t]);
    most_product = products[t] > most_product ? products[t] : most_product;
  }
  tile.masses[i] = mass;

  // To bytes: the largest product is moved to [2^14, 2^15), then two rounding steps make it 127.
  if (most_product == 0) {
    tile.value_units[i] = 0;
    for (int t = 0; t < 32; ++t) tile.weights[i * 32 + t] = 0;
    return;
  }
  int up = 0;
  while (most_product << up < 0x4000) ++up;
  // In [16256, 32512].
  const auto range = static_cast<std::int32_t>(kByteRange / static_cast<float>(most_product << up));
  // weight * value scale = product * 2^(exponent - 126) = byte / range * 2^(exponent - 104 - up).
  const float power = float_of(static_cast<std::uint32_t>(scales.exponent + 23 - up) << 23);
  tile.value_units[i] = 1.0f / static_cast<float>(range) * power;
  for (int t = 0; t < 32; ++t) {
    tile.weights[i * 32 + t] = static_cast<std::uint8_t>((multiply_high(products[t] << up, range) + 64) >> 7);
  }
}

}  // namespace

void tile_weights(const TileWeights* tiles, int tile_count, int count) {
  for (int j = 0; j < tile_count; ++j) {
    for (int i = 0; i < count; ++i) tile_weights_of_row(tiles[j], i);
  }
}

void add_scores(const TileScores& tile) {
  for (int t = 0; t < 32; ++t) {
    std::uint32_t attention = 0;
    for (int i = 0; i < tile.count; i += tile.group) {
      std::uint32_t most = 0;
      for (int j = i; j < i + tile.group; ++j) {
        const std::uint32_t product =
            std::uint32_t{tile.softmax[j * 32 + t]} * static_cast<std::uint32_t>(tile.factors[j]);
        most = product > most ? product : most;
      }
      attention += most;
    }
    if (tile.global != nullptr) {
      const std::uint32_t more = (attention + ((1u << tile.global_shift) >> 1)) >> tile.global_shift;
      const std::uint32_t sum = tile.global[t] + more;
      tile.global[t] = sum >= more ? sum : 0xffffffff;
    }
    if (tile.local != nullptr) {
      std::uint32_t sum = tile.local[t];
      sum -= (sum * tile.fade + 65535) >> 16;
      sum += (attention + ((1u << tile.local_shift) >> 1)) >> tile.local_shift;
      tile.local[t] = static_cast<std::uint16_t>(sum < 65535 ? sum : 65535);
    }
  }
}

std::int16_t sign_logits(const SignLogits& page) {
  std::int16_t largest = INT16_MIN;
  for (int t = 0; t < 32; ++t) {
    std::int32_t dot = 0;
    for (int c = 0; c < page.head_dim; c += 8) {
      const std::uint8_t eight = page.signs[c * 4 + t];
      const std::int8_t* const sums = page.sums + c * 4;
      dot += sums[eight & 15] + sums[16 + (eight >> 4)];
    }
    float logit = page.base + static_cast<float>(dot * page.sizes[t]) * page.unit;
    logit = logit < kMostLogit ? logit : kMostLogit;
    logit = logit > -kMostLogit ? logit : -kMostLogit;
    const auto rounded = static_cast<std::int16_t>(static_cast<std::int32_t>(logit + 32768.5f) - 32768);
    page.logits[t] = rounded;
    largest = rounded > largest ? rounded : largest;
  }
  return largest;
}

namespace {

// The slot of the n-th code of the b-th byte that a channel has in a tile.
template <int kBits>
int slot_of(int b, int n) {
  if constexpr (kBits == 8) return b;
  if constexpr (kBits == 4) return b + 16 * n;
  return b / 4 * 8 + b % 4 + n % 2 * 16 + n / 2 * 4;
}

template <int kBits>
void sum_values(const std::uint8_t* codes, int head_dim, const std::uint8_t* weights, const float* scales, int count,
                float* sums) {
  for (int i = 0; i < count; ++i) {
    for (int c = 0; c < head_dim; ++c) {
      std::int32_t sum = 0;  // <= 32 * 127 * 127 < 2^19
      for (int b = 0; b < 4 * kBits; ++b) {
        const std::uint8_t byte = codes[b / 4 * head_dim * 4 + c * 4 + b % 4];
        for (int n = 0; n < 8 / kBits; ++n) sum += level_in<kBits>(byte, n) * weights[i * 32 + slot_of<kBits>(b, n)];
      }
      sums[i * head_dim + c] += static_cast<float>(sum) * scales[i];
    }
  }
}

}  // namespace

// Specialisations, whose symbols no other object shares.
#define NIBKV_SPECIALISE(bits)                                                                                     \
  template <>                                                                                                      \
  std::uint16_t encode_row<bits>(const float* row, int head_dim, std::uint8_t* codes) {                            \
    return encode<bits>(row, head_dim, codes);                                                                     \
  }                                                                                                                \
  template <>                                                                                                      \
  void key_dots<bits>(const std::uint8_t* codes, int head_dim, const std::int8_t* queries, const std::int32_t*,    \
                      int count, std::int32_t* dots) {                                                             \
    multiply_keys<bits>(codes, head_dim, queries, count, dots);                                                    \
  }                                                                                                                \
  template <>                                                                                                      \
  void value_sums<bits>(const std::uint8_t* codes, int head_dim, const std::uint8_t* weights, const float* scales, \
                        int count, float* sums) {                                                                  \
    sum_values<bits>(codes, head_dim, weights, scales, count, sums);                                               \
  }
#if NIBKV_CODE_BITS & 2
NIBKV_SPECIALISE(2)
#endif
#if NIBKV_CODE_BITS & 4
NIBKV_SPECIALISE(4)
#endif
#if NIBKV_CODE_BITS & 8
NIBKV_SPECIALISE(8)
#endif

}  // namespace ports::scalar

constexpr Kernels kScalarKernels = {.name = "scalar",
                                    .widen = ports::scalar::widen,
                                    .narrow = ports::scalar::narrow,
                                    .rotate = ports::scalar::rotate,
                                    .quantise_query = ports::scalar::quantise_query,
                                    .outlier_dots = ports::scalar::outlier_dots,
                                    .tile_weights = ports::scalar::tile_weights,
                                    .add_scores = ports::scalar::add_scores,
                                    .sign_logits = ports::scalar::sign_logits,
                                    .q2 = ports::scalar::codes<2>(),
                                    .q4 = ports::scalar::codes<4>(),
                                    .q8 = ports::scalar::codes<8>()};

}  // namespace nibkv
