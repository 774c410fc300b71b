#pragma once

#include <cstddef>
#include <span>

#include "bench/runner/model/threads.hpp"
#include "nibkv/classify.hpp"

namespace nibkv::llm {

/// Stores a model's keys and values, and computes attention over them. For one sequence;
/// the caller counts positions.
///
/// The model takes batches of tokens through all layers in order. In each layer it calls, for one
/// chunk of the batch after the other, `append` and then `attend` with the same `count`.
class KvStore {
 public:
  virtual ~KvStore() = default;

  /// The maximum number of tokens in one `append`; at least 1.
  virtual std::size_t max_chunk() const = 0;

  /// The most tokens that a layer may be ahead of the next one: the size of a batch. At least max_chunk().
  virtual std::size_t max_batch() const { return max_chunk(); }

  /// Whether the store reads what tokens are. Then the model says it of every batch before its first layer.
  virtual bool reads_classes() const { return false; }
  virtual void expect(std::span<const TokenClass>) {}

  /// Says before the first layer of each batch how many of its tokens are only read: no output is wanted of them, nor soon
  /// after them.
  virtual void reads_only(std::size_t) {}

  /// Stores the keys and values of the next `count` tokens.
  ///
  /// @param count   [1, max_chunk()].
  /// @param keys    [count][kv_heads][head_dim], after rotary embedding.
  /// @param values  [count][kv_heads][head_dim].
  virtual void append(int layer, std::size_t count, const float* keys, const float* values, ThreadPool& pool) = 0;

  /// Computes the attention of the `count` tokens appended last, each over itself and those before
  /// it, with the scale 1 / sqrt(head_dim). Query head h uses KV head h / (query_heads / kv_heads).
  ///
  /// @param queries  [count][query_heads][head_dim], after rotary embedding.
  /// @param out      [count][query_heads][head_dim], not overlapping `queries`.
  virtual void attend(int layer, std::size_t count, const float* queries, float* out, ThreadPool& pool) = 0;
};

}  // namespace nibkv::llm
