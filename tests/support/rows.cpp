#include "tests/support/rows.hpp"

namespace nibkv::test {

void plant_channels(const Shape& shape, std::uint64_t seed, std::uint32_t layer, std::uint32_t kv_head,
                    std::uint32_t* channels) {
  Random random(seed * 1000003 + layer * 1009u + kv_head);
  for (std::size_t n = 0; n < kPlantedChannels;) {
    channels[n] = random.below(shape.head_dim);
    bool taken = false;
    for (std::size_t i = 0; i < n; ++i) taken = taken || channels[i] == channels[n];
    if (!taken) ++n;
  }
}

void fill_bells(std::span<float> rows, Random& random) {
  for (float& x : rows) x = random.bell();
}

void fill_keys(std::span<float> keys, const Shape& shape, std::uint64_t seed, std::uint32_t layer, Random& random) {
  const std::uint32_t dim = shape.head_dim;
  const std::size_t count = keys.size() / dim / shape.kv_heads;
  for (std::uint32_t head = 0; head < shape.kv_heads; ++head) {
    std::uint32_t large[kPlantedChannels];
    plant_channels(shape, seed, layer, head, large);
    for (std::size_t i = 0; i < count; ++i) {
      float* row = keys.data() + (i * shape.kv_heads + head) * dim;
      for (std::uint32_t c = 0; c < dim; ++c) row[c] = random.bell() + static_cast<float>(c % 3) * 0.5f;
      for (std::size_t n = 0; n < kPlantedChannels; ++n) row[large[n]] *= 12.0f + 6.0f * static_cast<float>(n);
    }
  }
}

void fill_values(std::span<float> values, const Shape& shape, Random& random) {
  for (std::size_t i = 0; i < values.size(); ++i)
    values[i] = random.bell() + static_cast<float>(i % shape.head_dim % 5) * 0.25f;
}

Status write_profile(std::span<std::byte> profile, const Shape& shape, std::uint64_t seed, std::span<std::byte> memory,
                     std::span<float> keys, std::span<float> values, std::span<float> queries,
                     const CalibrationOptions& options) {
  const std::size_t heads_of_keys = kProfileTokens * shape.kv_heads * shape.head_dim;
  const std::size_t heads_of_queries = kProfileTokens * shape.query_heads * shape.head_dim;
  Calibrator calibrator;
  if (const Status status = calibrator.init(memory, shape, options); status != Status::kOk) return status;
  Random random(seed), random_values(seed + 1);
  for (std::uint32_t layer = 0; layer < shape.layers; ++layer) {
    fill_keys(keys.first(heads_of_keys), shape, seed, layer, random);
    fill_values(values.first(heads_of_keys), shape, random_values);
    fill_bells(queries.first(heads_of_queries), random);
    const Status status = calibrator.observe(layer, queries.first(heads_of_queries), keys.first(heads_of_keys),
                                             values.first(heads_of_keys));
    if (status != Status::kOk) return status;
  }
  return calibrator.write(profile);
}

CalibrationOptions calibration_of(const Policy& policy) {
  CalibrationOptions options;
  options.align = !policy.fold.aligned_keys.empty() || !policy.fold.aligned_values.empty();
  options.rotary.adjacent = true;
  return options;
}

bool needs_profile(const Shape& shape, const Policy& policy) {
  if (shape.basis == KeyBasis::kMeasured) return false;  // with no policy that needs one
  return shape.outlier_channels != 0 || needs_head_scores(policy) || needs_attention(policy) ||
         calibration_of(policy).align;
}

void fill_attention(std::span<HeadAttention> attention, std::uint64_t seed) {
  Random random(seed);
  for (HeadAttention& head : attention) {
    std::uint32_t share = 0, tokens = 0;
    for (std::uint16_t& each : head.recovered) {
      share += random.below(65536 - share);
      each = static_cast<std::uint16_t>(share);
    }
    for (std::uint16_t& each : head.tokens) {
      tokens += random.below(120);
      each = static_cast<std::uint16_t>(tokens);
    }
  }
}

void fill_head_scores(std::span<float> scores, std::uint64_t seed) {
  Random random(seed);
  for (float& score : scores) score = static_cast<float>(random.below(100));
}

}  // namespace nibkv::test
