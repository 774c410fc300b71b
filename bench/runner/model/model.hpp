#pragma once

#include <cstddef>
#include <cstdint>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "bench/runner/gguf/gguf.hpp"
#include "bench/runner/matmul/matmul.hpp"
#include "bench/runner/model/model_config.hpp"
#include "bench/runner/model/threads.hpp"
#include "bench/runner/stores/kv_store.hpp"

namespace nibkv::llm {

/// Observes the inputs of a model's attention, layer by layer and chunk by chunk,
/// before they are stored.
class AttentionObserver {
 public:
  virtual ~AttentionObserver() = default;

  /// @param first_position  position of the first of the `count` tokens.
  /// @param queries         [count][query_heads][head_dim], after rotary embedding.
  /// @param keys            [count][kv_heads][head_dim], after rotary embedding.
  /// @param values          [count][kv_heads][head_dim].
  virtual void observe(int layer, std::size_t first_position, std::size_t count, const float* queries,
                       const float* keys, const float* values) = 0;
};

/// A decoder-only transformer: RMS norm, rotary embedding, grouped-query attention, SwiGLU.
class Model {
 public:
  struct Options {
    /// Maximum tokens that go through the layers together, if the store takes as many: [1, 4096], clamped.
    std::size_t max_batch = 256;
    std::string_view kernels = {};  ///< kernels of the matrix products, by name; empty for the fastest
  };

  /// Reads, checks and repacks the weights. `file` and `pool` must outlive the model.
  /// @throws Error naming the key or tensor that is missing, unknown or has a shape that does not fit.
  Model(const Gguf& file, ThreadPool& pool, const Options& options);
  Model(const Gguf& file, ThreadPool& pool) : Model(file, pool, Options()) {}

  const Config& config() const { return config_; }
  const MatmulKernels& kernels() const { return kernels_; }

  /// Bytes of the repacked weights.
  std::size_t weight_bytes() const;

  /// Appends `tokens` to `store` and computes the logits of the last `logit_rows` of them.
  ///
  /// Results do not depend on how a text is divided into calls, on the batch size, or on the
  /// workers, unless those of the store do.
  ///
  /// @param tokens          each in [0, vocabulary).
  /// @param first_position  position of tokens[0], from 0; the tokens before are in `store`.
  /// @param logits          [logit_rows][vocabulary].
  /// @param logit_rows      [0, tokens.size()].
  /// @param observer        may be null.
  /// @throws Error for a token or a number of rows that is out of range, before anything is changed.
  void forward(std::span<const std::int32_t> tokens, std::size_t first_position, KvStore& store, float* logits,
               std::size_t logit_rows, AttentionObserver* observer = nullptr);

 private:
  struct Layer {
    std::vector<float> attention_norm, ffn_norm;  // [width]
    Matrix query, key, value, attention_out, gate, up, down;
    std::vector<float> query_bias, key_bias, value_bias;  // as long as the rows, or empty
  };

  // Loading; in model_load.cpp.
  const Tensor& take(const std::string& name);
  std::vector<float> take_vector(const std::string& name, std::size_t length, bool optional);
  Matrix take_matrix(const std::string& name, std::size_t rows, std::size_t columns);
  void load_layer(std::size_t index);
  void load();

  void make_room(std::size_t count);
  void forward_batch(std::span<const std::int32_t> tokens, std::size_t first_position, KvStore& store, float* logits,
                     std::size_t logit_rows, AttentionObserver* observer);
  void attention(const Layer& layer, int index, std::size_t first_position, std::size_t count, KvStore& store,
                 AttentionObserver* observer);
  void feed_forward(const Layer& layer, std::size_t count);
  void prepare_rotation(std::size_t first_position, std::size_t count);
  void bias_and_rotate(const Layer& layer, std::size_t token);
  void normalise(const std::vector<float>& weight, bool add_projected, std::size_t first, std::size_t count);
  template <typename F>
  void for_each_matrix(F&& fn) const;
  template <typename F>
  void for_each_token(std::size_t count, F&& fn);

  const Gguf& file_;
  ThreadPool& pool_;
  const MatmulKernels& kernels_;
  Config config_;
  std::size_t max_batch_;
  std::set<std::string, std::less<>> taken_;  // tensors that were read, while loading

  const Tensor* embedding_ = nullptr;
  std::vector<Layer> layers_;
  std::vector<float> output_norm_;
  Matrix output_;

  std::vector<TokenClass> classes_;  // of the vocabulary, once a store has asked

  // For one batch, one row per token; there is space for `room_` rows.
  std::size_t room_ = 0;
  std::vector<float> hidden_;     // the residual stream
  std::vector<float> projected_;  // what a block adds to the stream
  std::vector<float> normed_;
  std::vector<float> queries_, keys_, values_, attended_;
  std::vector<float> gate_, up_;
  std::vector<float> cosines_, sines_;
  Activations inputs_;  // of the next products
};

}  // namespace nibkv::llm
