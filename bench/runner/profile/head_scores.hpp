#pragma once

#include <cstddef>
#include <functional>
#include <span>
#include <vector>

#include "bench/runner/model/model.hpp"
#include "bench/runner/profile/needles.hpp"
#include "bench/runner/programs/progress.hpp"
#include "bench/runner/stores/plain_store.hpp"

namespace nibkv::llm {

/// An f32 store that keeps everything, and adds up how much attention some of the tokens receive.
class WatchedStore final : public KvStore {
 public:
  explicit WatchedStore(const Config& model);

  std::size_t max_chunk() const override { return plain_.max_chunk(); }
  void append(int layer, std::size_t count, const float* keys, const float* values, ThreadPool& pool) override;
  void attend(int layer, std::size_t count, const float* queries, float* out, ThreadPool& pool) override;

  /// Forgets everything and watches nothing.
  void clear();
  /// From now on, records tokens fed one at a time: the attention that they give to `count`
  /// tokens from `first` on.
  void watch(std::size_t first, std::size_t count);

  /// The number of recorded tokens.
  std::size_t steps() const { return steps_; }
  /// [layers][kv_heads]: the share of the softmax that the watched tokens received, from the query
  /// head of the group that gave them most, summed over the steps.
  std::span<const double> shares() const { return shares_; }

 private:
  double share(const float* query, std::span<const float> keys, std::vector<float>& weights) const;

  std::size_t layers_, kv_heads_, group_, head_dim_;
  PlainStore plain_;
  std::vector<std::vector<float>> keys_;  // [layer][kv_head] of [token][head_dim]
  std::vector<double> shares_;
  std::vector<std::vector<float>> weights_;  // one per KV head
  std::size_t first_ = 0, count_ = 0, steps_ = 0;
};

struct HeadScoreOptions {
  NeedleKind kind = NeedleKind::kPasskey;
  PromptForm form = PromptForm::kPlain;
  std::vector<std::size_t> lengths = {1024};
  std::size_t depths = 5;
  std::size_t seeds = 2;
};

struct HeadScores {
  std::vector<float> scores;  ///< [layers][kv_heads], [0, 1]
  std::size_t asked = 0;
  std::size_t answered = 0;  ///< number of correct answers
};

/// How much each KV head retrieves answers from distant text (HeadKV, arXiv 2410.19258): needles
/// are hidden in a haystack, and the score of a head is the share of its attention that goes
/// to the needle while the model says the answer, averaged over the needles that it finds.
///
/// @param progress  counts the tokens of prompts; may be empty
/// @throws Error if the model finds no needle, and as Haystack::hide does
HeadScores measure_head_scores(Model& model, const Tokenizer& tokenizer, const Haystack& haystack,
                               const HeadScoreOptions& options, const TokensDone& progress);

}  // namespace nibkv::llm
