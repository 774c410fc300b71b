#pragma once

#include <cstddef>

namespace nibkv::llm {

/// output[i] = input[i] * weight[i] / sqrt(mean of squares + epsilon). `output` may be `input`.
void rms_norm(const float* input, const float* weight, float epsilon, std::size_t count, float* output);

/// target[i] += addend[i].
void add(float* target, const float* addend, std::size_t count);

/// Rotates pairs of elements by the angles whose cosines and sines are given.
///
/// @param adjacent  pairs are (2i, 2i + 1); otherwise (i, i + pairs).
void rotate(float* head, const float* cosines, const float* sines, std::size_t pairs, bool adjacent);

}  // namespace nibkv::llm
