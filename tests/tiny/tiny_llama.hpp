#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "nibkv/nibkv.hpp"

namespace nibkv::metal {

/// A Llama model that is used in place, such as from flash: matrices of Q8_0, norms of F32, tied
/// embedding and output, rotary embedding in all channels of a head. No heap, no copy of a weight.
/// It computes the same as bench/runner/model/model.hpp, to the last bit, one token at a time.
class TinyLlama {
 public:
  static constexpr std::size_t kMostLayers = 8;
  static constexpr std::size_t kMostWidth = 256;  ///< of the residual stream and of all query heads
  static constexpr std::size_t kMostFfn = 512;
  static constexpr std::size_t kMostVocabulary = 512;

  /// @param file  a GGUF file, aligned to 32 bytes; must outlive the model
  /// @returns false for a file that is not such a model, or is too large
  bool open(std::span<const std::byte> file);

  /// The shape of its cache, for one token at a time.
  Shape shape() const;
  std::size_t vocabulary() const { return vocabulary_; }

  /// Appends a token to the cache; the logits of the next are in logits().
  /// @param token  [0, vocabulary)
  /// @returns the first status of the library that was not kOk
  Status feed(std::uint32_t token, Cache& cache);
  std::span<const float> logits() const { return {logits_, vocabulary_}; }

 private:
  /// Rows of blocks: f16 scale, 32 x int8.
  struct Matrix {
    const std::byte* data = nullptr;
    std::size_t rows = 0;
    std::size_t columns = 0;
  };
  struct Layer {
    const float* attention_norm;
    const float* ffn_norm;
    Matrix query, key, value, attention_out, gate, up, down;
  };

  bool read_layer(std::span<const std::byte> file, std::size_t index);
  void set_inputs(const float* row, std::size_t columns);
  void multiply(const Matrix& matrix, float* out) const;

  Matrix embedding_;
  const float* output_norm_ = nullptr;
  Layer layers_[kMostLayers];
  std::size_t layer_count_ = 0;
  std::size_t width_ = 0;
  std::size_t ffn_ = 0;
  std::size_t query_heads_ = 0;
  std::size_t kv_heads_ = 0;
  std::size_t head_dim_ = 0;
  std::size_t vocabulary_ = 0;
  float norm_epsilon_ = 0;
  double rope_base_ = 0;

  // Of one token.
  float hidden_[kMostWidth], projected_[kMostWidth], normed_[kMostWidth];
  float queries_[kMostWidth], keys_[kMostWidth], values_[kMostWidth], attended_[kMostWidth];
  float gate_[kMostFfn], up_[kMostFfn];
  float cosines_[kMaxHeadDim / 2], sines_[kMaxHeadDim / 2];
  float logits_[kMostVocabulary];
  // The inputs of the next products, as MatmulKernels::quantise writes them.
  std::int8_t input_codes_[kMostFfn];
  float input_scales_[kMostFfn / 32], input_moments_[kMostFfn / 32];
  std::int32_t input_sums_[kMostFfn / 16];
};

}  // namespace nibkv::metal
