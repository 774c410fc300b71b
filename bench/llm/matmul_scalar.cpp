#include "bench/llm/matmul_kernels.hpp"

namespace nibkv::llm {
namespace {

/// Adds the products of one quad of columns to the sum of every row.
template <int kShift, int kMask>
void add_quad(const unsigned char* codes, const std::int8_t* inputs, std::int32_t* dots) {
  for (std::size_t r = 0; r < kPanelRows; ++r) {
    for (std::size_t i = 0; i < 4; ++i) dots[r] += ((codes[4 * r + i] >> kShift) & kMask) * inputs[i];
  }
}

float real_at(const unsigned char* data, std::size_t index) {
  return reinterpret_cast<const float*>(data)[index];
}

void multiply_codes(const Panel& panel, const Inputs& inputs, std::size_t tokens, float* outputs, std::size_t stride) {
  const std::size_t length = panel.small_groups ? 16 : 32;
  const std::size_t heading = (panel.has_minimum ? 2 : 1) * kPanelRows * sizeof(float);
  const std::size_t group_bytes = heading + kPanelRows * length / (panel.narrow ? 2 : 1);
  for (std::size_t t = 0; t < tokens; ++t) {
    float total[kPanelRows] = {};
    const unsigned char* data = panel.data;
    for (std::size_t column = 0; column < panel.columns; column += length, data += group_bytes) {
      const std::int8_t* codes = inputs.codes + t * panel.columns + column;
      const std::size_t group = (t * panel.columns + column) / kActivationGroup;
      std::int32_t dots[kPanelRows] = {};  // |dot| <= 32 * 255 * 127
      for (std::size_t quad = 0; quad < (panel.narrow ? 4 : length / 4); ++quad) {
        const unsigned char* packed = data + heading + quad * 64;
        if (panel.narrow) {
          add_quad<0, 15>(packed, codes + 4 * quad, dots);
          add_quad<4, 15>(packed, codes + 4 * quad + 16, dots);
        } else {
          add_quad<0, 255>(packed, codes + 4 * quad, dots);
        }
      }
      const std::size_t sum_group = (t * panel.columns + column) / kActivationSumGroup;
      std::int32_t sum = inputs.sums[sum_group];
      if (!panel.small_groups) sum += inputs.sums[sum_group + 1];
      for (std::size_t r = 0; r < kPanelRows; ++r) {
        const std::int32_t dot = dots[r] - panel.offset * sum;
        total[r] += static_cast<float>(dot) * (real_at(data, r) * inputs.scales[group]);
        if (panel.has_minimum) total[r] += real_at(data, kPanelRows + r) * inputs.moments[group];
      }
    }
    for (std::size_t r = 0; r < panel.rows; ++r) outputs[t * stride + r] = total[r];
  }
}

void multiply_reals(const Panel& panel, const Inputs& inputs, std::size_t tokens, float* outputs, std::size_t stride) {
  const float* weights = reinterpret_cast<const float*>(panel.data);
  for (std::size_t t = 0; t < tokens; ++t) {
    float total[kPanelRows] = {};
    for (std::size_t column = 0; column < panel.columns; ++column) {
      const float input = inputs.reals[t * panel.columns + column];
      for (std::size_t r = 0; r < kPanelRows; ++r) total[r] += weights[column * kPanelRows + r] * input;
    }
    for (std::size_t r = 0; r < panel.rows; ++r) outputs[t * stride + r] = total[r];
  }
}

#include "bench/llm/row_loops.inc"

}  // namespace

const MatmulKernels kScalarMatmul = {"scalar", multiply_codes, multiply_reals, quantise_row, swiglu_row};

}  // namespace nibkv::llm
