#include "bench/runner/profile/head_scores.hpp"

#include <algorithm>
#include <cmath>

namespace nibkv::llm {

WatchedStore::WatchedStore(const Config& model)
    : layers_(model.layers),
      kv_heads_(model.kv_heads),
      group_(model.query_heads / model.kv_heads),
      head_dim_(model.head_dim),
      plain_(model.layers, model.query_heads, model.kv_heads, model.head_dim),
      keys_(layers_ * kv_heads_),
      shares_(layers_ * kv_heads_),
      weights_(kv_heads_) {}

void WatchedStore::append(int layer, std::size_t count, const float* keys, const float* values, ThreadPool& pool) {
  for (std::size_t h = 0; h < kv_heads_; ++h) {
    std::vector<float>& head = keys_[static_cast<std::size_t>(layer) * kv_heads_ + h];
    for (std::size_t t = 0; t < count; ++t) {
      const float* key = keys + (t * kv_heads_ + h) * head_dim_;
      head.insert(head.end(), key, key + head_dim_);
    }
  }
  plain_.append(layer, count, keys, values, pool);
}

void WatchedStore::attend(int layer, std::size_t count, const float* queries, float* out, ThreadPool& pool) {
  plain_.attend(layer, count, queries, out, pool);
  if (count_ == 0 || count != 1) return;
  pool.run(kv_heads_, [&](std::size_t h, std::size_t) {
    const std::size_t at = static_cast<std::size_t>(layer) * kv_heads_ + h;
    double most = 0;
    for (std::size_t g = 0; g < group_; ++g) {
      most = std::max(most, share(queries + (h * group_ + g) * head_dim_, keys_[at], weights_[h]));
    }
    shares_[at] += most;
  });
  if (static_cast<std::size_t>(layer) + 1 == layers_) ++steps_;
}

double WatchedStore::share(const float* query, std::span<const float> keys, std::vector<float>& weights) const {
  const float scale = 1.0f / std::sqrt(static_cast<float>(head_dim_));
  weights.resize(keys.size() / head_dim_);
  for (std::size_t i = 0; i < weights.size(); ++i) {
    float dot = 0;
    for (std::size_t c = 0; c < head_dim_; ++c) dot += query[c] * keys[i * head_dim_ + c];
    weights[i] = dot * scale;
  }
  const float highest = *std::max_element(weights.begin(), weights.end());
  double sum = 0, watched = 0;
  for (std::size_t i = 0; i < weights.size(); ++i) {
    const auto weight = static_cast<double>(std::exp(weights[i] - highest));
    sum += weight;
    if (i >= first_ && i - first_ < count_) watched += weight;
  }
  return watched / sum;
}

void WatchedStore::clear() {
  plain_.clear();
  for (std::vector<float>& head : keys_) head.clear();
  std::fill(shares_.begin(), shares_.end(), 0.0);
  first_ = count_ = steps_ = 0;
}

void WatchedStore::watch(std::size_t first, std::size_t count) {
  first_ = first;
  count_ = count;
}

HeadScores measure_head_scores(Model& model, const Tokenizer& tokenizer, const Haystack& haystack,
                               const HeadScoreOptions& options, const TokensDone& progress) {
  const Config& config = model.config();
  const std::size_t probes = options.lengths.size() * options.depths * options.seeds;
  std::vector<double> sums(config.layers * config.kv_heads);
  WatchedStore store(config);
  HeadScores result;
  std::size_t all = 0, asked = 0;  // tokens
  for (const std::size_t length : options.lengths) all += length * options.depths * options.seeds;
  for (std::size_t probe = 0; probe < probes; ++probe) {
    const std::size_t place = probe / options.seeds % options.depths;
    Hiding hiding;
    hiding.kind = options.kind;
    hiding.form = options.form;
    hiding.length = options.lengths[probe / options.seeds / options.depths];
    hiding.depth = options.depths == 1 ? 0.5 : static_cast<double>(place) / static_cast<double>(options.depths - 1);
    hiding.seed = probe;
    const Needle needle = make_needle(hiding.kind, hiding.seed);
    const Prompt prompt = haystack.hide(needle, hiding);
    store.clear();
    const auto watch = [&] { store.watch(prompt.needle_first, prompt.needle_count); };
    ++result.asked;
    // The attention of a head while the model says something else means nothing.
    if (ask_for_needle(model, tokenizer, store, prompt, needle, watch).right) {
      ++result.answered;
      const auto steps = static_cast<double>(store.steps());
      for (std::size_t i = 0; i < sums.size(); ++i) sums[i] += store.shares()[i] / steps;
    }
    asked += hiding.length;
    if (progress) progress(asked, all);
  }
  if (result.answered == 0) {
    throw Error("the model finds none of " + std::to_string(result.asked) +
                " needles, which says nothing about its heads");
  }
  for (const double sum : sums) result.scores.push_back(static_cast<float>(sum / static_cast<double>(result.answered)));
  return result;
}

}  // namespace nibkv::llm
