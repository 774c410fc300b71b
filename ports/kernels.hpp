#pragma once

#include <cstddef>
#include <cstdint>

#include "nibkv/limits.hpp"

namespace nibkv {

static_assert(kTileSlots == 32);  // ports write the number: their vectors depend on it

/// A 16-bit format of a caller's rows.
enum class Half : std::uint8_t {
  kF16,   ///< IEEE 754 binary16
  kBf16,  ///< bfloat16: the upper half of an f32
};

/// The functions of a port that depend on the width of a code: 2, 4 or 8 bits. Null where a build leaves it out.
struct CodeKernels {
  /// Quantises a row. To 4 or 16 levels: with the scale that gives the smallest squared error among those tried
  /// (lib/DESIGN.md). To 8 bits: as quantise_query, with the scale rounded to scale16.
  /// @param codes  u8[head_dim], written: indices into the codebook, [0, 3] or [0, 15]; of 8 bits the levels, as int8
  /// @returns the scale as scale16; 0 for a row whose largest magnitude is below 2^-60
  std::uint16_t (*encode_row)(const float* row, int head_dim, std::uint8_t* codes);

  /// dots[i][t] = sum over channels of level(key code [t][c]) * queries[i][c].
  /// @param queries     i8[count][head_dim]
  /// @param query_sums  i32[count]: the sum of each row of `queries`, for ports that add an offset
  ///                    to make levels unsigned
  /// @param dots        i32[count][32], written
  void (*key_dots)(const std::uint8_t* codes, int head_dim, const std::int8_t* queries, const std::int32_t* query_sums,
                   int count, std::int32_t* dots);

  /// sums[i][c] += scales[i] * (sum over slots of level(value code [t][c]) * weights[i][t]), the inner sum exact, two
  /// f32 roundings.
  /// @param weights  u8[count][32] in [0, 127]: the sum of four products with levels of 2 or 4 bits fits int16, of two
  ///                 with levels of 8 bits
  /// @param sums     f32[count][head_dim], updated
  void (*value_sums)(const std::uint8_t* codes, int head_dim, const std::uint8_t* weights, const float* scales,
                     int count, float* sums);
};

/// A port: the few functions that a CPU's vector instructions speed up. Every port writes the same
/// bytes as the scalar one.
///
/// Units and layouts (lib/FORMAT.md draws them):
/// - count: number of query rows, in [1, kMaxRows].
/// - head_dim: number of channels, a multiple of 16 in [16, kMaxHeadDim]. A tile has 32 slots.
/// - key codes of 4 bits, 16 * head_dim bytes: for each group of 4 channels 64 bytes; byte (t % 16) * 4 + c % 4
///   holds slot t in its low nibble for t < 16, and in its high nibble for t >= 16.
/// - value codes of 4 bits, 16 * head_dim bytes: for each group of 4 slots, t % 16 / 4, head_dim * 4 bytes;
///   byte c * 4 + t % 4, nibbles as above.
/// - codes of 2 bits, half as many bytes: those of two groups of 4 channels (of values: of slots) share bytes, the
///   first in the low nibble; the low two bits of a nibble are for t < 16.
/// - codes of 8 bits, twice as many bytes: for each group of 4 channels 128 bytes, byte t * 4 + c % 4; of values for
///   each group of 4 slots, t / 4, head_dim * 4 bytes, byte c * 4 + t % 4; an int8 in [-127, 127].
/// - outliers: for each group of 4 channels 128 bytes; byte t * 4 + c % 4, an int8 in [-127, 127].
/// - scale16: a positive float's bits 30..15 (8 bits of exponent, 8 of fraction), rounded to nearest; 0 is zero.
/// - f32 arithmetic is one IEEE operation at a time in the order written in the scalar port; no fused multiply-add.
///
/// Pointers need only the alignment of their type, except codes and outliers, which start
/// at multiples of 32 bytes.
struct Kernels {
  const char* name;

  /// row[c] = halves[c], exactly, denormals and infinities too. NaNs stay NaNs, which may differ between ports.
  /// @param halves  16-bit numbers [head_dim], aligned to 2 bytes
  /// @param row     f32[head_dim], written
  void (*widen)(const void* halves, int head_dim, Half half, float* row);

  /// halves[c] = row[c], rounded to nearest, ties to even; infinite if that is beyond the format's range (f16: from
  /// 65520 on). NaNs as above.
  /// @param halves  16-bit numbers [head_dim], aligned to 2 bytes, written
  void (*narrow)(const float* row, int head_dim, Half half, void* halves);

  /// Orthonormal Hadamard transform in place, of each of the largest power-of-two blocks
  /// of head_dim channels in turn (96 = 64 + 32). Stages run from the closest partners to the
  /// farthest; the scale is applied last.
  void (*rotate)(float* row, int head_dim);

  /// row[c] ~ codes[c] * returned scale, codes in [-127, 127] by the largest magnitude; a row whose
  /// largest magnitude is below 2^-60 gives zeros, and returns 0.
  /// @param head_dim  also 4, 8 or 12: a query's outlier channels
  float (*quantise_query)(const float* row, int head_dim, std::int8_t* codes);

  /// dots[i][t] = sum over channels of outliers[t][c] * queries[i][c]. channels: 4, 8, 12 or 16; queries
  /// i8[count][channels]; query_sums as for key_dots.
  void (*outlier_dots)(const std::int8_t* outliers, int channels, const std::int8_t* queries,
                       const std::int32_t* query_sums, int count, std::int32_t* dots);

  /// Computes the weights of the values of some tiles from their dots: logits, block-floating
  /// softmax, value scales folded in. Tiles do not depend on one another; they are passed together
  /// because each is a long chain of dependent instructions. tile_count * count <= kMaxRows.
  void (*tile_weights)(const struct TileWeights* tiles, int tile_count, int count);

  /// Adds the attention that the slots of one tile received to their scores.
  void (*add_scores)(const struct TileScores& tile);

  /// Computes the logits of 32 tokens of which there are only signs.
  /// @returns the largest
  std::int16_t (*sign_logits)(const struct SignLogits& page);

  CodeKernels q2;
  CodeKernels q4;
  CodeKernels q8;

  /// @param bits  2, 4 or 8
  const CodeKernels& of(std::uint32_t bits) const { return bits == 4 ? q4 : bits == 2 ? q2 : q8; }
};

/// One tile's part of the arguments of tile_weights; arrays of `count` rows.
struct TileWeights {
  const std::int32_t* dots;           ///< i32[count][32] of key_dots
  const std::int32_t* outlier_dots;   ///< i32[count][32] of outlier_dots, or nullptr
  const std::uint16_t* key_scales;    ///< scale16[32], 0 or in [2^-70, 2^50]
  const std::uint16_t* value_scales;  ///< scale16[32], 0 or in [2^-70, 2^100]
  const float* query_scales;          ///< f32[count] in [2^-80, 2^40]: a logit in octaves (log2) is
                                      ///< (dot * key scale + outlier dot * outlier ratio) * query scale
  const float* outlier_ratios;        ///< f32[count], 0 or in [2^-110, 2^40], not read without outlier_dots
  const std::uint32_t* seen;          ///< u32[count], any mask: bit t is set if the row sees slot t. Other slots have
                                      ///< weight 0, and what they hold has no effect. With a mask of 0 the
                                      ///< results are as if all slots were hidden; callers ignore them
  const std::uint8_t* biases;         ///< u8[32]: 1/16 octaves added to the logits, or nullptr

  std::uint8_t* weights;    ///< u8[count][32], written: weight * value scale, relative to the row's largest, [0, 127]
  float* value_units;       ///< f32[count], written: what a weight of 1 stands for, relative to 2^exponent
  std::int32_t* exponents;  ///< i32[count], written: whole part of the largest logit, plus 2
  std::uint16_t* softmax;   ///< u16[count][32], written: the weights in Q0.16 relative to 2^exponent, [0, 32767],
                            ///< meaningless for a row that sees no slot; or nullptr
  /// u32[count], written: sum of the Q0.16 softmax weights relative to 2^exponent, at most 32 * 2^15.
  std::uint32_t* masses;
};

/// Arguments of add_scores. The attention of a slot is the sum over rows of softmax * factor,
/// below 2^31. If `group` is more than 1, it is the sum over runs of `group` rows of the
/// largest product in each.
struct TileScores {
  const std::uint16_t* softmax;  ///< u16[count][32] of tile_weights, [0, 32767]
  const std::int16_t* factors;   ///< i16[count], at least 0
  int count;                     ///< a multiple of group
  int group;
  int global_shift;       ///< [0, 31]: scores grow by the attention >> shift, rounded, halves up
  int local_shift;        ///< [0, 31]
  std::uint32_t fade;     ///< [0, 65536]: local scores first decrease by this many 1/65536 of themselves, rounded up
  std::uint32_t* global;  ///< u32[32], updated, saturating; or nullptr
  std::uint16_t* local;   ///< u16[32], updated, saturating; or nullptr
};

/// Arguments of sign_logits: logits[t] = base + (sum over channels of +- query[c]) * sizes[t] * unit, one f32 rounding
/// each for the product with `unit` and for the sum; bounded to [-32000, 32000]; 32768.5 is added, the fraction cut
/// off, and 32768 taken away.
struct SignLogits {
  const std::uint8_t* signs;  ///< u8[head_dim / 8][32]: bit c % 8 of byte [c / 8][t] is set where a channel counts as +
  const std::uint8_t* sizes;  ///< u8[32]
  const std::int8_t* sums;    ///< i8[head_dim / 4][16]: for four channels of a query the sum that four signs give, each
                              ///< in [-124, 124]
  int head_dim;
  float base;            ///< finite, as `unit` is
  float unit;            ///< at least 0, and such that no product overflows
  std::int16_t* logits;  ///< i16[32], written
};

namespace ports {

/// The bound of sign_logits.
constexpr float kMostLogit = 32000;

/// 1 / sqrt(16, 32, ..., 256): makes the blocks of rotate() orthonormal.
constexpr float kBlockNorms[] = {0.25f, 0.17677669529663687f, 0.125f, 0.08838834764831845f, 0.0625f};

/// The codebooks: the level of each code, in units of the row's scale.
constexpr std::int8_t kLevels[16] = {-63, -48, -37, -29, -22, -15, -9, -3, 3, 9, 15, 22, 29, 37, 48, 63};
constexpr std::int8_t kLevels2[4] = {-63, -19, 19, 63};
/// The levels of the two codes of 2 bits in a nibble: of the slot below 16, and of the slot 16 later.
struct NibbleLevels2 {
  std::int8_t low[16];
  std::int8_t high[16];
};
constexpr NibbleLevels2 make_nibble_levels2() {
  NibbleLevels2 levels{};
  for (int nibble = 0; nibble < 16; ++nibble) {
    levels.low[nibble] = kLevels2[nibble & 3];
    levels.high[nibble] = kLevels2[nibble >> 2];
  }
  return levels;
}
constexpr NibbleLevels2 kNibbleLevels2 = make_nibble_levels2();
/// Null for 8 bits, whose codes are levels.
constexpr const std::int8_t* levels_of(std::uint32_t bits) {
  return bits == 8 ? nullptr : bits == 4 ? kLevels : kLevels2;
}

/// encode_row tries these scales: the largest magnitude (16383 after normalising) is taken to be
/// this many level units. The stored scale is then the least-squares one for the codes.
inline constexpr int kCandidates = 8;
/// kThresholds[k][j]: a normalised magnitude above it has a level index of j + 1 or
/// more under candidate k.
/// Candidate k takes the largest magnitude to be (350 + 30 k) / 7 level units, 50 to 80.
struct Thresholds {
  std::int16_t at[kCandidates][7];
};
constexpr Thresholds make_thresholds() {
  Thresholds table{};
  for (int k = 0; k < kCandidates; ++k) {
    for (int j = 0; j < 7; ++j) {
      const int midpoint2 = kLevels[8 + j] + kLevels[9 + j];                           // twice the midpoint
      const int at = (midpoint2 * 7 * 16383 + (350 + 30 * k)) / (2 * (350 + 30 * k));  // rounded
      table.at[k][j] = static_cast<std::int16_t>(at < 16383 ? at : 16383);
    }
  }
  return table;
}
constexpr Thresholds kThresholds = make_thresholds();

/// The same for codes of 2 bits: a normalised magnitude above kThresholds2.at[k] has the outer level. Candidate k takes
/// the largest magnitude to be 70 + 10 k level units.
struct Thresholds2 {
  std::int16_t at[kCandidates];
};
constexpr Thresholds2 make_thresholds2() {
  Thresholds2 table{};
  for (int k = 0; k < kCandidates; ++k) {
    const int units = 70 + 10 * k;
    table.at[k] = static_cast<std::int16_t>(((kLevels2[2] + kLevels2[3]) * 16383 + units) / (2 * units));  // rounded
  }
  return table;
}
constexpr Thresholds2 kThresholds2 = make_thresholds2();

/// 2^-f for f in [0, 1), negated, in Q15 with rounding doubling high multiplies:
/// k0 + f (k1 + f (k2 + f (k3 + f k4))).
inline constexpr std::int16_t kExp0 = -32767;
inline constexpr std::int16_t kExp1 = 22713;
inline constexpr std::int16_t kExp2 = -7853;
inline constexpr std::int16_t kExp3 = 1744;
inline constexpr std::int16_t kExp4 = -220;

inline constexpr std::uint32_t kAllSeen = 0xffffffff;  ///< TileWeights::seen of a row that sees all slots

inline constexpr float kSmallest = 0x1p-60f;      ///< a row whose largest magnitude is below this is stored as zero
inline constexpr float kHidden = -1e38f;          ///< replaces the logit of a slot that a query may not see
inline constexpr float kExponentLimit = 0x1p29f;  ///< a tile's exponent saturates at this magnitude
inline constexpr float kFlat = 0x1p-100f;         ///< a largest logit closer to 0 counts as 0
inline constexpr float kFaintest = 31744.5f;      ///< 15.5 octaves, in 1 / 2048, and a half: a weight this small is 0
inline constexpr int kLeastExponent = 15;         ///< of scale16, so that a scale of 0 is 15 octaves below any other
inline constexpr float kByteRange = 127.0f * 128.0f * 32768.0f;  ///< bytes in Q7, factors in Q15

/// The widths of codes in a build: the sum of some of 2, 4 and 8. Caches of other widths are refused, and nothing
/// refers to their kernels.
#ifndef NIBKV_CODE_BITS
#define NIBKV_CODE_BITS 14
#endif
inline constexpr int kCodeBits = NIBKV_CODE_BITS;
constexpr bool is_built(int bits) {
  return (kCodeBits & bits) != 0;
}

/// The kernels of the scalar port, for what another port does not speed up: in its table, or for the rest of a row.
namespace scalar {
void widen(const void* halves, int head_dim, Half half, float* row);
void narrow(const float* row, int head_dim, Half half, void* halves);
void rotate(float* row, int head_dim);
float quantise_query(const float* row, int head_dim, std::int8_t* codes);
void outlier_dots(const std::int8_t* outliers, int channels, const std::int8_t* queries, const std::int32_t* query_sums,
                  int count, std::int32_t* dots);
void tile_weights(const TileWeights* tiles, int tile_count, int count);
void add_scores(const TileScores& tile);
std::int16_t sign_logits(const SignLogits& page);
// Of 2, 4 and 8 bits.
template <int kBits>
[[gnu::visibility("hidden")]] std::uint16_t encode_row(const float* row, int head_dim, std::uint8_t* codes);
template <int kBits>
[[gnu::visibility("hidden")]] void key_dots(const std::uint8_t* codes, int head_dim, const std::int8_t* queries,
                                            const std::int32_t* query_sums, int count, std::int32_t* dots);
template <int kBits>
[[gnu::visibility("hidden")]] void value_sums(const std::uint8_t* codes, int head_dim, const std::uint8_t* weights,
                                              const float* scales, int count, float* sums);
/// Null if the build leaves the width out.
template <int kBits>
consteval CodeKernels codes() {
  if constexpr (!is_built(kBits)) return {};
  return {encode_row<kBits>, key_dots<kBits>, value_sums<kBits>};
}
}  // namespace scalar

/// What a port has for a width of codes, if the build has it.
consteval CodeKernels if_built(int bits, const CodeKernels& kernels) {
  return is_built(bits) ? kernels : CodeKernels{};
}

}  // namespace ports

// The tables of all ports. A build contains those it was configured with.
extern const Kernels kAvx512vnniKernels;
extern const Kernels kAvx2Kernels;
extern const Kernels kSse41Kernels;
extern const Kernels kNeonDotprodKernels;
extern const Kernels kNeonKernels;
extern const Kernels kMveKernels;
extern const Kernels kDspKernels;
extern const Kernels kScalarKernels;

}  // namespace nibkv
