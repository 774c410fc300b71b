#pragma once

#include <cstddef>
#include <cstdint>

/// The inner loops of a model: one table per instruction set, and the memory
/// layout that they share.
///
/// A matrix is stored as panels of 16 rows, which take as many bytes as in a file. A panel of codes
/// has the codes of all its groups of columns, and then their scales.
///
/// Codes are unsigned. `Quad` k of a group is its columns 4k..4k+3 in all rows: 64 bytes, byte 4 * row + (column & 3).
///   8 bits, 32 columns   the quads
///   4 bits, 32 columns   four times 64 bytes: quad k in the low nibbles, quad k + 4 in the high ones
///   5 bits, 32 columns   as 4 bits, and 64 bytes whose bits k are the fifth bits of quad k
///   6 bits, 16 columns   two times 64 bytes: quad k low, quad k + 2 high; and 64 bytes whose bits
///                        2k and 2k + 1 are the upper bits of quad k
/// Scales of a group are f16 scale[16] and, only if `has_minimum`, f16 minimum[16]. With `in_blocks` these come before
/// the first group of every 256 columns, and each group has i8 factor[16] and, if `has_minimum`, i8 factor[16] of the
/// minimum. A weight is
///   scale * factor * (code - offset) + minimum * factor.
///
/// A panel of reals is weight[columns][16], as f32, f16 or bf16.
///
/// All tables of kernels compute the same numbers, to the last bit: a group's sum of code *
/// activation is an integer, groups are added in order, and products are rounded before they are
/// added (no fused multiply-add).
namespace nibkv::llm {

inline constexpr std::size_t kPanelRows = 16;
inline constexpr std::size_t kActivationGroup = 32;     ///< activations that share a scale
inline constexpr std::size_t kActivationSumGroup = 16;  ///< activations that share a sum

inline constexpr std::size_t kScaleBlock = 256;  ///< columns that share the scales of blocks

/// How the reals of a panel are stored.
enum class RealFormat : std::uint8_t { kF32, kF16, kBF16 };

/// One panel, or its first `rows` rows.
struct Panel {
  const unsigned char* data = nullptr;  ///< aligned to 64 bytes
  std::size_t columns = 0;
  std::size_t bytes = 0;               ///< size of the whole panel: the next one follows it
  std::size_t rows = kPanelRows;       ///< [1, 16]; no further outputs are written
  RealFormat real = RealFormat::kF32;  ///< format of a panel of reals
  std::int32_t offset = 0;             ///< [0, 255]
  std::uint8_t bits = 8;               ///< of a code: 4, 5, 6 or 8
  bool in_blocks = false;              ///< always with 6 bits, never with 8
  bool has_minimum = false;            ///< then `offset` is 0; never with 6 or 8 bits
};

/// The number of columns that share a scale.
constexpr std::size_t group_length(std::size_t bits) {
  return bits == 6 ? 16 : 32;
}

/// The bytes of a group's codes.
constexpr std::size_t group_code_bytes(std::size_t bits) {
  return kPanelRows * group_length(bits) * bits / 8;
}

/// The inputs of consecutive tokens. Rows follow one another without gaps.
struct Inputs {
  const std::int8_t* codes = nullptr;  ///< [tokens][columns], in [-127, 127]
  const float* scales = nullptr;       ///< [tokens][columns / 32]
  const float* moments = nullptr;      ///< [tokens][columns / 32]: scale times the sum of the group's codes
  const std::int32_t* sums = nullptr;  ///< [tokens][columns / 16]: sums of codes
  const float* reals = nullptr;        ///< [tokens][columns], the values of the codes
};

/// Writes outputs[t * stride + r], for t in [0, tokens) and r in [0, panel.rows).
using PanelKernel = void (*)(const Panel& panel, const Inputs& inputs, std::size_t tokens, float* outputs,
                             std::size_t stride);

/// Rounds each group of 32 inputs to codes with one scale, the largest magnitude / 127, and
/// computes the sums that Inputs has.
///
/// @param row      [columns], finite.
/// @param columns  a multiple of 32.
using QuantiseKernel = void (*)(const float* row, std::size_t columns, std::int8_t* codes, float* scales,
                                float* moments, std::int32_t* sums);

/// gate[i] = gate[i] / (1 + exp(-gate[i])) * up[i], without overlap.
using SwigluKernel = void (*)(float* gate, const float* up, std::size_t count);

struct MatmulKernels {
  const char* name;
  PanelKernel codes;
  PanelKernel reals;
  QuantiseKernel quantise;
  SwigluKernel swiglu;
};

extern const MatmulKernels kScalarMatmul;
extern const MatmulKernels kAvx2Matmul;        ///< x86-64 builds only
extern const MatmulKernels kAvx512VnniMatmul;  ///< x86-64 builds only
extern const MatmulKernels kDotprodMatmul;     ///< AArch64 builds only

}  // namespace nibkv::llm
