#pragma once

#include <cstddef>
#include <cstdint>

/// The inner loops of a model, one table per instruction set, and the memory layout that they share.
///
/// A matrix is stored as panels of 16 rows. A panel of codes is a sequence of groups of columns, each
///   f32 scale[16]            of the group in each row
///   f32 minimum[16]          only if `has_minimum`
///   codes                    unsigned; `quad` k is columns 4k..4k+3 of all rows, byte 4 * row + (column & 3)
/// where a group of 4-bit codes has 32 columns: quads 0..3 in the low nibbles of 256 bytes, quads 4..7 in the high
/// ones; and a group of 8-bit codes has 32 columns (512 bytes) or 16 (256 bytes). A weight is
///   scale * (code - offset) + minimum.
/// A panel of reals is f32 weight[columns][16].
///
/// Kernels of one kind compute the same numbers to the last bit: a group's sum of code * activation is an integer,
/// groups are added in order, and products are rounded before they are added (no fused multiply-add).
namespace nibkv::llm {

inline constexpr std::size_t kPanelRows = 16;
inline constexpr std::size_t kActivationGroup = 32;     ///< activations that share a scale
inline constexpr std::size_t kActivationSumGroup = 16;  ///< activations that share a sum

/// One panel, or its first `rows` rows.
struct Panel {
  const unsigned char* data = nullptr;  ///< aligned to 64 bytes
  std::size_t columns = 0;
  std::size_t rows = kPanelRows;  ///< [1, 16]; no further outputs are written
  std::int32_t offset = 0;        ///< [0, 255]
  bool narrow = false;            ///< 4-bit codes
  bool small_groups = false;      ///< groups of 16 columns; only 8-bit codes without minimum
  bool has_minimum = false;       ///< then `offset` is 0
};

/// The inputs of consecutive tokens. Rows lie one after another without a gap.
struct Inputs {
  const std::int8_t* codes = nullptr;  ///< [tokens][columns], in [-127, 127]
  const float* scales = nullptr;       ///< [tokens][columns / 32]
  const float* moments = nullptr;      ///< [tokens][columns / 32]: scale times the sum of the group's codes
  const std::int32_t* sums = nullptr;  ///< [tokens][columns / 16]: sums of codes
  const float* reals = nullptr;        ///< [tokens][columns], what the codes stand for
};

/// Writes outputs[t * stride + r], for t in [0, tokens) and r in [0, panel.rows).
using PanelKernel = void (*)(const Panel& panel, const Inputs& inputs, std::size_t tokens, float* outputs,
                             std::size_t stride);

/// Rounds each group of 32 inputs to codes of one scale, the largest magnitude / 127, and sums them as Inputs has it.
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
