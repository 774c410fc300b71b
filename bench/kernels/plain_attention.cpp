#include "bench/kernels/plain_attention.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>

// The baselines may use the CPU's vector units too: the compiler makes each of these functions
// twice, and the loader chooses.
#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__)
#define NIBKV_CLONED __attribute__((target_clones("arch=haswell", "default")))
#else
#define NIBKV_CLONED
#endif

namespace nibkv::bench {

namespace {

constexpr std::size_t kLanes = 16;  // independent sums, so that a compiler may vectorise without reordering

// dots[t] = scale * (query . keys[t]) for every token and every query head of a group.
NIBKV_CLONED void dots_of_group(const float* keys, const float* queries, std::size_t group, std::size_t tokens,
                                std::size_t dim, float scale, float* dots) {
  for (std::size_t t = 0; t < tokens; ++t) {
    const float* key = keys + t * dim;
    for (std::size_t g = 0; g < group; ++g) {
      const float* query = queries + g * dim;
      float sums[kLanes] = {};
      for (std::size_t c = 0; c < dim; c += kLanes) {
        for (std::size_t i = 0; i < kLanes; ++i) sums[i] += key[c + i] * query[c + i];
      }
      for (std::size_t half = kLanes / 2; half != 0; half /= 2) {
        for (std::size_t i = 0; i < half; ++i) sums[i] += sums[i + half];
      }
      dots[g * tokens + t] = sums[0] * scale;
    }
  }
}

NIBKV_CLONED void sums_of_group(const float* values, const float* weights, std::size_t group, std::size_t tokens,
                                std::size_t dim, float* out) {
  for (std::size_t t = 0; t < tokens; ++t) {
    const float* value = values + t * dim;
    for (std::size_t g = 0; g < group; ++g) {
      const float weight = weights[g * tokens + t];
      float* sum = out + g * dim;
      for (std::size_t c = 0; c < dim; ++c) sum[c] += weight * value[c];
    }
  }
}

// In place; the weights sum to 1.
void softmax(float* weights, std::size_t tokens) {
  const float most = *std::max_element(weights, weights + tokens);
  float mass = 0;
  for (std::size_t t = 0; t < tokens; ++t) {
    weights[t] = std::exp(weights[t] - most);
    mass += weights[t];
  }
  for (std::size_t t = 0; t < tokens; ++t) weights[t] /= mass;
}

}  // namespace

NIBKV_CLONED std::uint64_t sum_of_words(const std::byte* bytes, std::size_t count) {
  std::uint64_t sum = 0;
  for (std::size_t i = 0; i < count; i += sizeof(std::uint64_t)) {
    std::uint64_t word;
    std::memcpy(&word, bytes + i, sizeof word);
    sum += word;
  }
  return sum;
}

void plain_attention(const Shape& shape, std::size_t tokens, const float* keys, const float* values, const float* query,
                     float* weights, float* out) {
  const std::size_t dim = shape.head_dim;
  const std::size_t group = shape.group();
  const float scale = 1.0f / std::sqrt(static_cast<float>(dim));
  std::fill_n(out, shape.query_heads * dim, 0.0f);
  for (std::size_t head = 0; head < shape.kv_heads; ++head) {
    const std::size_t at = head * tokens * dim;
    const std::size_t first_row = head * group * dim;
    dots_of_group(keys + at, query + first_row, group, tokens, dim, scale, weights);
    for (std::size_t g = 0; g < group; ++g) softmax(weights + g * tokens, tokens);
    sums_of_group(values + at, weights, group, tokens, dim, out + first_row);
  }
}

}  // namespace nibkv::bench
