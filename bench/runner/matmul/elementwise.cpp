#include "bench/runner/matmul/elementwise.hpp"

#include <cmath>

namespace nibkv::llm {
void rms_norm(const float* input, const float* weight, float epsilon, std::size_t count, float* output) {
  float lanes[16] = {};
  std::size_t i = 0;
  for (; i + 16 <= count; i += 16) {
    for (std::size_t lane = 0; lane < 16; ++lane) lanes[lane] += input[i + lane] * input[i + lane];
  }
  for (; i < count; ++i) lanes[i % 16] += input[i] * input[i];
  double sum = 0;
  for (const float lane : lanes) sum += static_cast<double>(lane);
  const float factor =
      static_cast<float>(1.0 / std::sqrt(sum / static_cast<double>(count) + static_cast<double>(epsilon)));
  for (i = 0; i < count; ++i) output[i] = input[i] * factor * weight[i];
}

void add(float* target, const float* addend, std::size_t count) {
  for (std::size_t i = 0; i < count; ++i) target[i] += addend[i];
}

void rotate(float* head, const float* cosines, const float* sines, std::size_t pairs, bool adjacent) {
  if (adjacent) {
    for (std::size_t i = 0; i < pairs; ++i) {
      const float a = head[2 * i], b = head[2 * i + 1];
      head[2 * i] = a * cosines[i] - b * sines[i];
      head[2 * i + 1] = a * sines[i] + b * cosines[i];
    }
    return;
  }
  for (std::size_t i = 0; i < pairs; ++i) {
    const float a = head[i], b = head[i + pairs];
    head[i] = a * cosines[i] - b * sines[i];
    head[i + pairs] = a * sines[i] + b * cosines[i];
  }
}

}  // namespace nibkv::llm
