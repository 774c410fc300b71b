#pragma once

#include <cstddef>
#include <limits>
#include <span>
#include <vector>

#include "bench/runner/stores/kv_store.hpp"

namespace nibkv::llm {

/// A KvStore that keeps every key and value as f32 and grows without limit: the reference for
/// the others. Or one that keeps the last tokens as f16, and optionally some of the first: what
/// a cache of a given size does without this library.
///
/// Attention is computed in a fixed order, so results do not depend on chunks or workers.
class PlainStore final : public KvStore {
 public:
  /// @param query_heads  a multiple of `kv_heads`.
  PlainStore(std::size_t layers, std::size_t query_heads, std::size_t kv_heads, std::size_t head_dim,
             std::size_t max_chunk = std::numeric_limits<std::size_t>::max());

  /// From now on, keys and values are rounded to f16, and every token attends to `tokens` ones:
  /// the first `sinks` and the most recent others, itself included. Keys keep the positions for
  /// which they were rotated.
  /// @param tokens  more than `sinks`
  void keep_f16(std::size_t sinks, std::size_t tokens);

  std::size_t max_chunk() const override { return max_chunk_; }
  void append(int layer, std::size_t count, const float* keys, const float* values, ThreadPool&) override;
  void attend(int layer, std::size_t count, const float* queries, float* out, ThreadPool& pool) override;

  /// Forgets everything.
  void clear();

  /// Forgets all but the first `tokens`, which must exist.
  void truncate(std::size_t tokens);

  /// Rows of a head, to be changed in place, [token][head_dim].
  std::span<float> keys(std::size_t layer, std::size_t kv_head);
  std::span<float> values(std::size_t layer, std::size_t kv_head);

  /// The number of tokens held in layer 0, sometimes more than are attended to.
  std::size_t size() const;

 private:
  struct Head {
    std::vector<float> keys;    // [token][head_dim]
    std::vector<float> values;  // [token][head_dim]
  };

  std::size_t query_heads_;
  std::size_t kv_heads_;
  std::size_t head_dim_;
  std::size_t max_chunk_;
  std::size_t sinks_ = 0;
  std::size_t window_ = std::numeric_limits<std::size_t>::max();  // number of tokens attended to, sinks included
  bool half_ = false;
  std::vector<Head> heads_;                 // [layer][kv_head]
  std::vector<std::vector<float>> scores_;  // one a worker
};

}  // namespace nibkv::llm
