#include "bench/runner/stores/plain_store.hpp"

#include <algorithm>
#include <cmath>

#include "bench/runner/gguf/half.hpp"

namespace nibkv::llm {
namespace {

/// Sums in eight lanes, which compilers turn into vectors without changing the result.
float dot(const float* a, const float* b, std::size_t count) {
  float lanes[8] = {};
  std::size_t i = 0;
  for (; i + 8 <= count; i += 8) {
    for (std::size_t lane = 0; lane < 8; ++lane) lanes[lane] += a[i + lane] * b[i + lane];
  }
  for (; i < count; ++i) lanes[i % 8] += a[i] * b[i];
  return ((lanes[0] + lanes[4]) + (lanes[1] + lanes[5])) + ((lanes[2] + lanes[6]) + (lanes[3] + lanes[7]));
}

/// Cuts to `tokens` rows: the first `sinks`, and those after `skipped` others.
struct Visible {
  std::size_t sinks, skipped, tokens;
};

void attend_one(const float* query, const float* keys, const float* values, const Visible& visible,
                std::size_t head_dim, float* scores, float* out) {
  const float scale = 1.0f / std::sqrt(static_cast<float>(head_dim));
  const auto offset = [&](std::size_t i) { return (i < visible.sinks ? i : i + visible.skipped) * head_dim; };
  const std::size_t tokens = visible.tokens;
  float highest = -std::numeric_limits<float>::infinity();
  for (std::size_t i = 0; i < tokens; ++i) {
    scores[i] = dot(query, keys + offset(i), head_dim) * scale;
    highest = std::max(highest, scores[i]);
  }
  std::fill_n(out, head_dim, 0.0f);
  double sum = 0;
  for (std::size_t i = 0; i < tokens; ++i) {
    const float weight = std::exp(scores[i] - highest);
    sum += static_cast<double>(weight);
    const float* value = values + offset(i);
    for (std::size_t d = 0; d < head_dim; ++d) out[d] += weight * value[d];
  }
  const float inverse = static_cast<float>(1.0 / sum);
  for (std::size_t d = 0; d < head_dim; ++d) out[d] *= inverse;
}

}  // namespace

PlainStore::PlainStore(std::size_t layers, std::size_t query_heads, std::size_t kv_heads, std::size_t head_dim,
                       std::size_t max_chunk)
    : query_heads_(query_heads),
      kv_heads_(kv_heads),
      head_dim_(head_dim),
      max_chunk_(max_chunk),
      heads_(layers * kv_heads) {}

void PlainStore::keep_f16(std::size_t sinks, std::size_t tokens) {
  sinks_ = sinks;
  window_ = tokens;
  half_ = true;
}

void PlainStore::append(int layer, std::size_t count, const float* keys, const float* values, ThreadPool&) {
  for (std::size_t h = 0; h < kv_heads_; ++h) {
    Head& head = heads_[static_cast<std::size_t>(layer) * kv_heads_ + h];
    const std::size_t held = head.keys.size();
    for (std::size_t t = 0; t < count; ++t) {
      const std::size_t at = (t * kv_heads_ + h) * head_dim_;
      head.keys.insert(head.keys.end(), keys + at, keys + at + head_dim_);
      head.values.insert(head.values.end(), values + at, values + at + head_dim_);
    }
    if (!half_) continue;
    for (std::vector<float>* rows : {&head.keys, &head.values}) {
      for (std::size_t i = held; i < rows->size(); ++i) (*rows)[i] = rounded_to_f16((*rows)[i]);
      // Cut rarely, because moving the rest takes longer than attending to it.
      const std::size_t needed = (window_ + count) * head_dim_;
      if (rows->size() <= 2 * needed) continue;
      const auto sinks_end = rows->begin() + static_cast<std::ptrdiff_t>(sinks_ * head_dim_);
      rows->erase(sinks_end, rows->end() - static_cast<std::ptrdiff_t>(needed - sinks_ * head_dim_));
    }
  }
}

void PlainStore::attend(int layer, std::size_t count, const float* queries, float* out, ThreadPool& pool) {
  const std::size_t group = query_heads_ / kv_heads_;
  scores_.resize(std::max(scores_.size(), pool.workers()));
  pool.run(count * kv_heads_, [&](std::size_t task, std::size_t worker) {
    const std::size_t kv_head = task / count;
    const std::size_t token = task % count;
    const Head& head = heads_[static_cast<std::size_t>(layer) * kv_heads_ + kv_head];
    const std::size_t seen = head.keys.size() / head_dim_ - count + token + 1;
    const std::size_t tokens = std::min(seen, window_);
    const Visible visible = {sinks_, seen - tokens, tokens};
    scores_[worker].resize(std::max(scores_[worker].size(), tokens));
    for (std::size_t g = 0; g < group; ++g) {
      const std::size_t at = (token * query_heads_ + kv_head * group + g) * head_dim_;
      attend_one(queries + at, head.keys.data(), head.values.data(), visible, head_dim_, scores_[worker].data(),
                 out + at);
    }
  });
}

void PlainStore::clear() {
  truncate(0);
}

void PlainStore::truncate(std::size_t tokens) {
  for (Head& head : heads_) {
    head.keys.resize(tokens * head_dim_);
    head.values.resize(tokens * head_dim_);
  }
}

std::span<float> PlainStore::keys(std::size_t layer, std::size_t kv_head) {
  return heads_[layer * kv_heads_ + kv_head].keys;
}

std::span<float> PlainStore::values(std::size_t layer, std::size_t kv_head) {
  return heads_[layer * kv_heads_ + kv_head].values;
}

std::size_t PlainStore::size() const {
  return heads_.empty() ? 0 : heads_.front().keys.size() / head_dim_;
}

}  // namespace nibkv::llm
