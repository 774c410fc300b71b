#include "bench/eval/metrics/attention_meter.hpp"

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>

namespace nibkv::llm {
namespace {

constexpr std::size_t kEvery = 16;
constexpr std::size_t kSinks = 4;
constexpr double kShare = 0.3;  // of the tokens, for the newest and for the most attended

std::uint16_t in_65535(double share) {
  return static_cast<std::uint16_t>(std::clamp(share, 0.0, 1.0) * 65535 + 0.5);
}

}  // namespace

AttentionMeter::AttentionMeter(const Config& model, std::vector<TokenClass> classes)
    : layers_(model.layers),
      kv_heads_(model.kv_heads),
      group_(model.query_heads / model.kv_heads),
      head_dim_(model.head_dim),
      context_(classes.size()),
      classes_(std::move(classes)),
      keys_(layers_),
      queries_(layers_) {
  std::fill_n(classes_.begin(), std::min(kSinks, context_), TokenClass::kSpecial);
  for (std::size_t at = context_ / 4; at < context_; at += kEvery) positions_.push_back(at);
}

void AttentionMeter::observe(int layer, std::size_t first_position, std::size_t count, const float* queries,
                             const float* keys, const float*) {
  const auto at = static_cast<std::size_t>(layer);
  keys_[at].insert(keys_[at].end(), keys, keys + count * kv_heads_ * head_dim_);
  const std::size_t row = kv_heads_ * group_ * head_dim_;
  for (std::size_t i = 0; i < count; ++i) {
    if (!std::binary_search(positions_.begin(), positions_.end(), first_position + i)) continue;
    queries_[at].insert(queries_[at].end(), queries + i * row, queries + (i + 1) * row);
  }
}

// The mean over the group of the softmax of a query's logits; 0 for what it does not see.
void AttentionMeter::weigh(std::size_t layer, std::size_t kv_head, std::size_t query, std::span<float> weights) const {
  const float scale = 1.0f / std::sqrt(static_cast<float>(head_dim_));
  const std::size_t seen = positions_[query] + 1;
  std::vector<float> logits(seen);
  std::ranges::fill(weights, 0.0f);
  for (std::size_t g = 0; g < group_; ++g) {
    const float* row = queries_[layer].data() + ((query * kv_heads_ + kv_head) * group_ + g) * head_dim_;
    for (std::size_t i = 0; i < seen; ++i) {
      const float* key = keys_[layer].data() + (i * kv_heads_ + kv_head) * head_dim_;
      float dot = 0;
      for (std::size_t c = 0; c < head_dim_; ++c) dot += row[c] * key[c];
      logits[i] = dot * scale;
    }
    const float highest = *std::max_element(logits.begin(), logits.end());
    float sum = 0;
    for (float& logit : logits) sum += logit = std::exp(logit - highest);
    for (std::size_t i = 0; i < seen; ++i) weights[i] += logits[i] / (sum * static_cast<float>(group_));
  }
}

HeadAttention AttentionMeter::measure(std::size_t layer, std::size_t kv_head) const {
  const std::size_t queries = positions_.size();
  std::vector<float> weights(queries * context_);
  std::vector<double> sums(context_), means(context_);
  for (std::size_t q = 0; q < queries; ++q) {
    const std::span row = std::span(weights).subspan(q * context_, context_);
    weigh(layer, kv_head, q, row);
    for (std::size_t i = 0; i < context_; ++i) sums[i] += static_cast<double>(row[i]);
  }
  for (std::size_t i = 0; i < context_; ++i) {
    const auto from = std::lower_bound(positions_.begin(), positions_.end(), i);
    means[i] = sums[i] / static_cast<double>(std::max<std::ptrdiff_t>(positions_.end() - from, 1));
  }
  std::vector<std::size_t> order(context_);
  std::iota(order.begin(), order.end(), std::size_t{0});
  const auto frequent = static_cast<std::ptrdiff_t>(kShare * static_cast<double>(context_));
  std::ranges::nth_element(order, order.begin() + frequent, std::greater<>(), [&](std::size_t i) { return means[i]; });
  std::vector<bool> attended(context_);
  for (std::ptrdiff_t i = 0; i < frequent; ++i) attended[order[static_cast<std::size_t>(i)]] = true;

  HeadAttention result;
  double recovered[kAttentionRules] = {};
  for (std::size_t q = 0; q < queries; ++q) {
    const auto seen = static_cast<double>(positions_[q] + 1);
    const auto newest = positions_[q] + 1 - static_cast<std::size_t>(kShare * seen);
    for (std::size_t i = 0; i <= positions_[q]; ++i) {
      const TokenClass kind = classes_[i];
      const std::size_t first_rule = kind == TokenClass::kSpecial       ? 0
                                     : kind == TokenClass::kPunctuation ? 1
                                     : i >= newest                      ? 2
                                     : attended[i]                      ? 3
                                                                        : kAttentionRules;
      for (std::size_t rule = first_rule; rule < kAttentionRules; ++rule)
        recovered[rule] += static_cast<double>(weights[q * context_ + i]);
    }
  }
  for (std::size_t rule = 0; rule < kAttentionRules; ++rule)
    result.recovered[rule] = in_65535(recovered[rule] / static_cast<double>(queries));

  std::ranges::sort(sums, std::greater<>());
  const double all = std::accumulate(sums.begin(), sums.end(), 0.0);
  double had = 0;
  std::size_t tokens = 0;
  for (std::size_t point = 0; point < kAttentionPoints; ++point) {
    const double rest = 1 - static_cast<double>(point + 1) / kAttentionPoints;
    while (tokens < context_ && had < all * (1 - rest * rest)) had += sums[tokens++];
    result.tokens[point] = static_cast<std::uint16_t>(std::min<std::size_t>(tokens, 65535));
  }
  return result;
}

std::vector<HeadAttention> AttentionMeter::measure(ThreadPool& pool) const {
  std::vector<HeadAttention> all(layers_ * kv_heads_);
  pool.run(all.size(), [&](std::size_t head, std::size_t) { all[head] = measure(head / kv_heads_, head % kv_heads_); });
  return all;
}

}  // namespace nibkv::llm
