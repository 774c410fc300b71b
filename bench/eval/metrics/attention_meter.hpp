#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "bench/runner/model/model.hpp"
#include "nibkv/classify.hpp"
#include "nibkv/profile.hpp"

namespace nibkv::llm {

/// Measures how the attention of each KV head spreads over a context (HeadAttention): every 16th query after the first
/// quarter of the context is compared with all keys that it sees, in f32. Takes 4 bytes a key channel of the context.
class AttentionMeter final : public AttentionObserver {
 public:
  /// @param classes  of the context's tokens; the first four count as special, since every cache keeps them
  AttentionMeter(const Config& model, std::vector<TokenClass> classes);

  void observe(int layer, std::size_t first_position, std::size_t count, const float* queries, const float* keys,
               const float* values) override;

  /// [layers][kv_heads], once all layers have seen the whole context; the mean over the query heads of a group.
  std::vector<HeadAttention> measure(ThreadPool& pool) const;

 private:
  HeadAttention measure(std::size_t layer, std::size_t kv_head) const;
  void weigh(std::size_t layer, std::size_t kv_head, std::size_t query, std::span<float> weights) const;

  std::size_t layers_, kv_heads_, group_, head_dim_, context_;
  std::vector<TokenClass> classes_;
  std::vector<std::size_t> positions_;       // of the queries
  std::vector<std::vector<float>> keys_;     // [layer] of [token][kv_head][head_dim]
  std::vector<std::vector<float>> queries_;  // [layer] of [query][query_head][head_dim]
};

}  // namespace nibkv::llm
