#pragma once

#include <cstddef>
#include <vector>

#include "bench/runner/gguf/gguf.hpp"

namespace nibkv::llm {

/// The shape of a model, as given by its file. Everything is checked: sizes are positive, with
/// limits far above those of any model that fits a device.
struct Config {
  /// Reads the keys of a model of the "llama" or "qwen2" architecture.
  /// @throws Error naming the file and the key that is missing, impossible, or asks for what this
  ///         runner does not do; unknown keys of the architecture count as such (model_keys.hpp).
  static Config from(const Gguf& file);

  std::size_t layers = 0;
  std::size_t width = 0;
  std::size_t ffn_width = 0;
  std::size_t query_heads = 0;
  std::size_t kv_heads = 0;  ///< divides query_heads
  std::size_t head_dim = 0;
  std::size_t vocabulary = 0;
  std::size_t context = 0;  ///< tokens it was trained for
  float norm_epsilon = 0;
  double rope_base = 0;
  double rope_scale = 1;             ///< positions are multiplied by it
  std::size_t rope_pairs = 0;        ///< pairs of a head that are rotated; the others stay
  bool rope_adjacent = true;         ///< pairs (2i, 2i + 1); otherwise (i, i + rope_pairs)
  std::vector<float> rope_divisors;  ///< one per pair, or none
  std::uint32_t weights = 0;         ///< identifies the weights for profiles: half of the fingerprint, never 0
};

}  // namespace nibkv::llm
