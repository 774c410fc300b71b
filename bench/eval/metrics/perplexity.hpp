#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>

#include "bench/runner/model/model.hpp"
#include "bench/runner/stores/tile_store.hpp"

namespace nibkv::llm {

/// How well one row of logits predicts a token, and how far it is from a reference.
struct RowScore {
  double loss = 0;            ///< -log(probability of the target), in nats
  double reference_loss = 0;  ///< the same for the reference
  double divergence = 0;      ///< KL(reference || tested), in nats
  bool same_top = true;       ///< whether the most likely token is the same in both
};

/// @param tested     logits, [vocabulary], finite.
/// @param reference  the same; may be `tested`.
/// @param target     [0, vocabulary)
/// Cost: 2 * vocabulary exponentials in double; half of that if both are the same.
RowScore score_row(const float* tested, const float* reference, std::size_t vocabulary, std::int32_t target);

/// The sums of scores over rows.
struct ScoreTotals {
  std::size_t rows = 0;
  double loss = 0;
  double squared_loss = 0;
  double reference_loss = 0;
  double divergence = 0;
  std::size_t same_top = 0;

  void add(const RowScore& score);
  /// @param sum  one of those above; 0 without rows
  double mean(double sum) const { return rows == 0 ? 0 : sum / static_cast<double>(rows); }
  /// The standard error of the mean loss, as if the losses were independent.
  double standard_error() const;
};

/// Scores one row of logits per target, and adds up the scores in the order of the rows, so that
/// the sums do not depend on the workers.
/// @param tested, reference  logits, [targets][vocabulary], finite
void score_rows(ThreadPool& pool, const float* tested, const float* reference, std::size_t vocabulary,
                std::span<const std::int32_t> targets, ScoreTotals& totals);

struct PerplexityOptions {
  std::size_t context = 1024;  ///< tokens of a window, at least 2
  std::size_t windows = 8;     ///< at least 1; fewer are used if the text is shorter
  StoreOptions store;          ///< what is tested
};

struct PerplexityFigures {
  std::size_t windows = 0;
  std::size_t context = 0;
  std::size_t scored_tokens = 0;
  double cross_entropy = 0;      ///< nats per token
  double standard_error = 0;     ///< of cross_entropy, as if the losses were independent
  double cross_entropy_f32 = 0;  ///< of the reference
  double kl_divergence = 0;      ///< mean of KL(reference || tested)
  double top1_agreement = 1;     ///< share of the rows in which the most likely token is the same in both
  double bits_per_channel = 0;   ///< TileStore::bits_per_channel, maximum over the windows
  double tokens_per_second = 0;  ///< of the tested store's forward passes
  std::uint64_t arena_bytes = 0;
  std::uint64_t peak_bytes = 0;
  double compression = 0;  ///< bytes of the context in f16 / peak_bytes
  std::string fold;        ///< which layers share codes, in words
  std::uint32_t outlier_channels = 0;
  std::string port;
};

/// The progress of a measurement.
struct PerplexityProgress {
  std::size_t windows_done = 0;
  std::size_t fed = 0;       ///< tokens
  std::size_t all = 0;       ///< of so many
  double cross_entropy = 0;  ///< so far; 0 before the first scored token
};

/// The perplexity of a text as llama.cpp measures it: window c is tokens [c N, (c + 1) N), fed from
/// position 0 into an empty store, and the tokens at its positions [N / 2, N) are scored, that is,
/// the rows of logits from N / 2 - 1 to N - 2. (llama.cpp's tool omits the first of these.) The
/// reference is a store of the same model in f32 that keeps everything, fed side by side.
///
/// @param tokens    of the text.
/// @param progress  may be empty.
/// @throws Error if the text is shorter than a window, the context larger than the model's, or
///         the store refuses.
PerplexityFigures measure_perplexity(Model& model, ThreadPool& pool, std::span<const std::int32_t> tokens,
                                     const PerplexityOptions& options,
                                     const std::function<void(const PerplexityProgress&)>& progress);

}  // namespace nibkv::llm
