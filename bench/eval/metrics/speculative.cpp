#include "bench/eval/metrics/speculative.hpp"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <random>
#include <vector>

namespace nibkv::llm {
namespace {

class Drafter {
 public:
  Drafter(std::span<const std::int32_t> text, const SpeculativeOptions& options)
      : text_(text), right_(options.right), random_(options.seed) {}

  /// The token at a position of the text, or another one.
  std::int32_t draft(std::size_t position) {
    const std::int32_t truth = text_[position];
    if (random_() % 100 < right_) return truth;
    for (int tries = 0; tries < 1000; ++tries) {
      const std::int32_t other = text_[static_cast<std::size_t>(random_() % text_.size())];
      if (other != truth) return other;
    }
    return truth;  // the text has no other token
  }

 private:
  std::span<const std::int32_t> text_;
  std::size_t right_;
  std::mt19937_64 random_;
};

/// The cache of a text that is read with drafts.
class Draftable {
 public:
  Draftable(Model& model, ThreadPool& pool, const SpeculativeOptions& options)
      : model_(model), pool_(pool), replays_(options.replay), store_(model.config(), options.store) {}

  const TileStore& store() const { return store_; }

  /// Reads a pass from a position on, of which the first `right` tokens stay.
  /// @param logits  [pass][vocabulary]
  void read(std::span<const std::int32_t> pass, std::size_t at, std::size_t right, float* logits,
            SpeculativeFigures& figures) {
    Rows rows(model_.config());
    const Clock pass_begin;
    store_.expect_drafts(replays_);
    model_.forward(pass, at, store_, logits, pass.size(), replays_ ? &rows : nullptr);
    store_.expect_drafts(false);
    figures.pass_seconds += pass_begin.seconds();
    require(store_.truncate(replays_ ? at : at + right), "truncate");
    if (!replays_) return;
    const Clock replay_begin;
    replay(rows, right);
    figures.replay_seconds += replay_begin.seconds();
  }

 private:
  struct Clock {
    std::chrono::steady_clock::time_point start = std::chrono::steady_clock::now();
    double seconds() const { return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count(); }
  };

  /// What a pass gave each layer.
  struct Rows : AttentionObserver {
    struct Layer {
      std::vector<float> queries, keys, values;
    };
    std::vector<Layer> layers;
    std::size_t query_width, kv_width;

    explicit Rows(const Config& config)
        : layers(config.layers),
          query_width(config.query_heads * config.head_dim),
          kv_width(config.kv_heads * config.head_dim) {}
    void observe(int layer, std::size_t, std::size_t count, const float* queries, const float* keys,
                 const float* values) override {
      Layer& to = layers[static_cast<std::size_t>(layer)];
      to.queries.insert(to.queries.end(), queries, queries + count * query_width);
      to.keys.insert(to.keys.end(), keys, keys + count * kv_width);
      to.values.insert(to.values.end(), values, values + count * kv_width);
    }
  };

  void replay(const Rows& rows, std::size_t right) {
    std::vector<float> out(rows.query_width);
    for (std::size_t token = 0; token < right; ++token) {
      for (std::size_t layer = 0; layer < rows.layers.size(); ++layer) {
        const Rows::Layer& from = rows.layers[layer];
        store_.append(static_cast<int>(layer), 1, from.keys.data() + token * rows.kv_width,
                      from.values.data() + token * rows.kv_width, pool_);
        store_.attend(static_cast<int>(layer), 1, from.queries.data() + token * rows.query_width, out.data(), pool_);
      }
    }
  }

  Model& model_;
  ThreadPool& pool_;
  bool replays_;
  TileStore store_;
};

// Before a cache is made for so many tokens.
void check(const Model& model, std::size_t tokens, const SpeculativeOptions& options) {
  const std::size_t most = options.length + options.drafts;
  if (tokens < options.length + 1) {
    throw Error("the text has " + std::to_string(tokens) + " tokens; " + std::to_string(options.length + 1) +
                " are needed");
  }
  if (most > model.config().context) {
    throw Error(std::to_string(options.length) + " tokens and their drafts are more than the model's context of " +
                std::to_string(model.config().context));
  }
}

void check(const TileStore& store, const SpeculativeOptions& options) {
  if (store.max_chunk() < 1 + options.drafts) {
    throw Error("a pass of " + std::to_string(1 + options.drafts) + " tokens is longer than the cache's chunks of " +
                std::to_string(store.max_chunk()));
  }
}

}  // namespace

SpeculativeFigures measure_speculative(Model& model, ThreadPool& pool, std::span<const std::int32_t> tokens,
                                       const SpeculativeOptions& options, const TokensDone& progress) {
  check(model, tokens.size(), options);
  Draftable drafting(model, pool, options);
  TileStore plain(model.config(), options.store);
  check(plain, options);
  const std::size_t vocabulary = model.config().vocabulary;
  std::vector<float> drafted((1 + options.drafts) * vocabulary), expected(vocabulary);
  Drafter drafter(tokens.first(options.length + 1), options);
  SpeculativeFigures figures;
  for (std::size_t at = 0; at < options.length;) {
    std::vector<std::int32_t> pass = {tokens[at]};
    std::size_t most = std::min(1 + options.drafts, options.length - at);
    if (const std::size_t space = drafting.store().space(); options.within_space && space != 0)
      most = std::min(most, space);
    while (pass.size() < most) {
      pass.push_back(drafter.draft(at + pass.size()));
    }
    std::size_t right = 1;
    while (right < pass.size() && pass[right] == tokens[at + right]) ++right;
    drafting.read(pass, at, right, drafted.data(), figures);
    for (std::size_t i = 0; i < right; ++i) {
      const float* tested = drafted.data() + i * vocabulary;
      model.forward(tokens.subspan(at + i, 1), at + i, plain, expected.data(), 1);
      if (std::memcmp(tested, expected.data(), vocabulary * sizeof(float)) == 0) ++figures.same_rows;
      const RowScore score = score_row(tested, expected.data(), vocabulary, tokens[at + i + 1]);
      figures.totals.add(score);
      figures.worst = std::max(figures.worst, score.divergence);
    }
    ++figures.passes;
    figures.drafted += pass.size() - 1;
    figures.accepted += right - 1;
    at += right;
    if (progress) progress(at, options.length);
  }
  figures.arena_bytes = plain.cache().usage().arena_bytes;
  figures.outlier_channels = plain.cache().shape().outlier_channels;
  figures.port = std::string(plain.cache().port());
  return figures;
}

}  // namespace nibkv::llm
