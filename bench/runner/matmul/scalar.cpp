#include "bench/runner/gguf/half.hpp"
#include "bench/runner/matmul/kernels.hpp"

namespace nibkv::llm {
namespace {

constexpr std::size_t kTile = 8;  // tokens that share the work on weights

/// The codes of a group, one per byte: quad after quad.
void unpack(const unsigned char* packed, std::size_t bits, unsigned char* codes) {
  const std::size_t count = kPanelRows * group_length(bits);
  if (bits == 8) {
    for (std::size_t i = 0; i < count; ++i) codes[i] = packed[i];
    return;
  }
  const std::size_t half = count / 2;
  for (std::size_t i = 0; i < half; ++i) {
    codes[i] = packed[i] & 15;
    codes[half + i] = packed[i] >> 4;
  }
  if (bits == 4) return;
  const std::size_t more = bits - 4, mask = (1u << more) - 1;
  for (std::size_t quad = 0; quad < count / 64; ++quad) {
    for (std::size_t i = 0; i < 64; ++i) {
      codes[quad * 64 + i] =
          static_cast<unsigned char>(codes[quad * 64 + i] | (packed[half + i] >> (quad * more) & mask) << 4);
    }
  }
}

/// Scales or minimums of 16 rows.
void read_halves(const unsigned char* data, float* values) {
  const std::uint16_t* halves = reinterpret_cast<const std::uint16_t*>(data);
  for (std::size_t r = 0; r < kPanelRows; ++r) values[r] = f16_to_f32(halves[r]);
}

/// Iterates over the scales of a panel, group by group.
class Scales {
 public:
  explicit Scales(const Panel& panel)
      : panel_(panel), next_(panel.data + panel.columns / group_length(panel.bits) * group_code_bytes(panel.bits)) {}

  /// Returns those of the group that begins at `column`. It must have been called for
  /// every group before.
  void advance(std::size_t column) {
    if (!panel_.in_blocks || column % kScaleBlock == 0) {
      read_halves(next_, of_block);
      if (panel_.has_minimum) read_halves(next_ + 32, minimum_of_block);
      next_ += panel_.has_minimum ? 64 : 32;
    }
    for (std::size_t r = 0; r < kPanelRows; ++r) {
      scale[r] = panel_.in_blocks ? of_block[r] * factor(r) : of_block[r];
      minimum[r] =
          panel_.in_blocks && panel_.has_minimum ? minimum_of_block[r] * factor(kPanelRows + r) : minimum_of_block[r];
    }
    if (panel_.in_blocks) next_ += panel_.has_minimum ? 32 : 16;
  }

  float scale[kPanelRows], minimum[kPanelRows];

 private:
  float factor(std::size_t index) const { return static_cast<float>(static_cast<std::int8_t>(next_[index])); }

  const Panel& panel_;
  const unsigned char* next_;
  float of_block[kPanelRows], minimum_of_block[kPanelRows] = {};
};

/// Products of a group, summed by row.
void add_products(const unsigned char* codes, std::size_t quads, const std::int8_t* inputs, std::int32_t* dots) {
  for (std::size_t quad = 0; quad < quads; ++quad) {
    for (std::size_t r = 0; r < kPanelRows; ++r) {
      for (std::size_t i = 0; i < 4; ++i) dots[r] += codes[64 * quad + 4 * r + i] * inputs[4 * quad + i];
    }
  }
}

void codes_tile(const Panel& panel, const Inputs& inputs, std::size_t first, std::size_t tokens, float* outputs,
                std::size_t stride) {
  const std::size_t length = group_length(panel.bits);
  const unsigned char* packed = panel.data;
  Scales scales(panel);
  float totals[kTile][kPanelRows] = {};
  for (std::size_t column = 0; column < panel.columns; column += length, packed += group_code_bytes(panel.bits)) {
    unsigned char codes[kPanelRows * 32];
    unpack(packed, panel.bits, codes);
    scales.advance(column);
    for (std::size_t t = 0; t < tokens; ++t) {
      const std::size_t at = (first + t) * panel.columns + column;
      std::int32_t dots[kPanelRows] = {};  // |dot| <= 32 * 255 * 127
      add_products(codes, length / 4, inputs.codes + at, dots);
      std::int32_t sum = inputs.sums[at / kActivationSumGroup];
      if (length == kActivationGroup) sum += inputs.sums[at / kActivationSumGroup + 1];
      const std::size_t group = at / kActivationGroup;
      for (std::size_t r = 0; r < kPanelRows; ++r) {
        const std::int32_t dot = dots[r] - panel.offset * sum;
        totals[t][r] += static_cast<float>(dot) * (scales.scale[r] * inputs.scales[group]);
        if (panel.has_minimum) totals[t][r] += scales.minimum[r] * inputs.moments[group];
      }
    }
  }
  for (std::size_t t = 0; t < tokens; ++t) {
    for (std::size_t r = 0; r < panel.rows; ++r) outputs[(first + t) * stride + r] = totals[t][r];
  }
}

void multiply_codes(const Panel& panel, const Inputs& inputs, std::size_t tokens, float* outputs, std::size_t stride) {
  for (std::size_t first = 0; first < tokens; first += kTile) {
    codes_tile(panel, inputs, first, tokens - first < kTile ? tokens - first : kTile, outputs, stride);
  }
}

/// One column's weights of all rows.
void read_reals(const Panel& panel, std::size_t column, float* weights) {
  const float* reals = reinterpret_cast<const float*>(panel.data) + column * kPanelRows;
  const std::uint16_t* halves = reinterpret_cast<const std::uint16_t*>(panel.data) + column * kPanelRows;
  for (std::size_t r = 0; r < kPanelRows; ++r) {
    weights[r] = panel.real == RealFormat::kF32   ? reals[r]
                 : panel.real == RealFormat::kF16 ? f16_to_f32(halves[r])
                                                  : bf16_to_f32(halves[r]);
  }
}

void multiply_reals(const Panel& panel, const Inputs& inputs, std::size_t tokens, float* outputs, std::size_t stride) {
  for (std::size_t first = 0; first < tokens; first += kTile) {
    const std::size_t count = tokens - first < kTile ? tokens - first : kTile;
    float totals[kTile][kPanelRows] = {};
    for (std::size_t column = 0; column < panel.columns; ++column) {
      float weights[kPanelRows];
      read_reals(panel, column, weights);
      for (std::size_t t = 0; t < count; ++t) {
        const float input = inputs.reals[(first + t) * panel.columns + column];
        for (std::size_t r = 0; r < kPanelRows; ++r) totals[t][r] += weights[r] * input;
      }
    }
    for (std::size_t t = 0; t < count; ++t) {
      for (std::size_t r = 0; r < panel.rows; ++r) outputs[(first + t) * stride + r] = totals[t][r];
    }
  }
}

#include "bench/runner/matmul/row_loops.inc"

}  // namespace

const MatmulKernels kScalarMatmul = {"scalar", multiply_codes, multiply_reals, quantise_row, swiglu_row};

}  // namespace nibkv::llm
