#include "bench/eval/metrics/perplexity.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <optional>
#include <vector>

#include "bench/runner/stores/policy_settings.hpp"

namespace nibkv::llm {
namespace {

// At most this many rows of logits are kept at a time, so that a large vocabulary stays
// within about 25 MiB.
constexpr std::size_t kRows = 64;

class Measurement {
 public:
  Measurement(Model& model, ThreadPool& pool, const PerplexityOptions& options)
      : model_(model), pool_(pool), context_(options.context), tested_(model.config(), options.store) {
    if (options.store.storage != Storage::kF32 || tested_.cache().policy().keep != Keep::kAll) {
      StoreOptions exact;
      exact.storage = Storage::kF32;
      exact.tokens = static_cast<std::uint32_t>(context_);
      exact.port = options.store.port;
      exact.workers = options.store.workers;
      reference_.emplace(model.config(), exact);
    }
    // Whole chunks of the tested store, so that it gets the same chunks as if the
    // window were fed at once.
    const std::size_t chunk = tested_.max_chunk();
    step_ = std::max<std::size_t>(1, kRows / chunk) * chunk;
    logits_.resize(step_ * vocabulary());
    if (reference_) reference_logits_.resize(step_ * vocabulary());
  }

  /// @param tokens  of the window
  template <typename F>
  void run_window(std::span<const std::int32_t> tokens, F&& step_done) {
    tested_.clear();
    if (reference_) reference_->clear();
    const std::size_t first_row = context_ / 2 - 1;
    for (std::size_t at = 0; at < context_; at += step_) {
      const std::size_t count = std::min(step_, context_ - at);
      const std::size_t rows = at + count <= first_row ? 0 : std::min(count, at + count - first_row);
      if (reference_) model_.forward(tokens.subspan(at, count), at, *reference_, reference_logits_.data(), rows);
      const auto start = std::chrono::steady_clock::now();
      model_.forward(tokens.subspan(at, count), at, tested_, logits_.data(), rows);
      seconds_ += std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
      fed_ += count;
      // The row of the last token predicts one that is not in the window.
      const std::size_t scored = at + count == context_ ? rows - 1 : rows;
      score_rows(pool_, logits_.data(), reference_ ? reference_logits_.data() : logits_.data(), vocabulary(),
                 tokens.subspan(at + count - rows + 1, scored), totals_);
      step_done(at + count);
    }
    bits_per_channel_ = std::max(bits_per_channel_, tested_.bits_per_channel());
    peak_bytes_ = std::max<std::uint64_t>(peak_bytes_, tested_.cache().usage().peak_bytes);
  }

  const ScoreTotals& totals() const { return totals_; }

  PerplexityFigures figures() const {
    PerplexityFigures out;
    out.context = context_;
    out.scored_tokens = totals_.rows;
    out.cross_entropy = totals_.mean(totals_.loss);
    out.standard_error = totals_.standard_error();
    out.cross_entropy_f32 = totals_.mean(totals_.reference_loss);
    out.kl_divergence = totals_.mean(totals_.divergence);
    out.top1_agreement = totals_.mean(static_cast<double>(totals_.same_top));
    out.bits_per_channel = bits_per_channel_;
    out.tokens_per_second = static_cast<double>(fed_) / std::max(seconds_, 1e-9);
    out.arena_bytes = tested_.cache().usage().arena_bytes;
    out.peak_bytes = peak_bytes_;
    if (peak_bytes_ != 0) {
      out.compression = static_cast<double>(tested_.f16_bytes(context_)) / static_cast<double>(peak_bytes_);
    }
    out.fold = fold_text(tested_.cache().shape(), tested_.cache().policy());
    out.outlier_channels = tested_.cache().shape().outlier_channels;
    out.port = std::string(tested_.cache().port());
    return out;
  }

 private:
  std::size_t vocabulary() const { return model_.config().vocabulary; }

  Model& model_;
  ThreadPool& pool_;
  std::size_t context_;
  TileStore tested_;
  std::optional<TileStore> reference_;  // none if it would be the same as the tested one
  std::size_t step_ = 0;
  std::vector<float> logits_, reference_logits_;  // [step][vocabulary]
  ScoreTotals totals_;
  std::size_t fed_ = 0;
  double seconds_ = 0;
  double bits_per_channel_ = 0;
  std::uint64_t peak_bytes_ = 0;
};

}  // namespace

void ScoreTotals::add(const RowScore& score) {
  ++rows;
  loss += score.loss;
  squared_loss += score.loss * score.loss;
  reference_loss += score.reference_loss;
  divergence += score.divergence;
  same_top += score.same_top ? 1 : 0;
}

double ScoreTotals::standard_error() const {
  if (rows < 2) return 0;
  const double variance = mean(squared_loss) - mean(loss) * mean(loss);
  return std::sqrt(std::max(0.0, variance) / static_cast<double>(rows - 1));
}

void score_rows(ThreadPool& pool, const float* tested, const float* reference, std::size_t vocabulary,
                std::span<const std::int32_t> targets, ScoreTotals& totals) {
  std::vector<RowScore> scores(targets.size());
  pool.run(targets.size(), [&](std::size_t row, std::size_t) {
    const std::size_t at = row * vocabulary;
    scores[row] = score_row(tested + at, reference + at, vocabulary, targets[row]);
  });
  for (const RowScore& score : scores) totals.add(score);
}

RowScore score_row(const float* tested, const float* reference, std::size_t vocabulary, std::int32_t target) {
  const auto top = [vocabulary](const float* row) {
    return static_cast<std::size_t>(std::max_element(row, row + vocabulary) - row);
  };
  const std::size_t at = static_cast<std::size_t>(target);
  const std::size_t tested_top = top(tested);
  const double tested_shift = tested[tested_top];
  RowScore score;
  double sum = 0;
  if (tested == reference) {
    for (std::size_t i = 0; i < vocabulary; ++i) sum += std::exp(tested[i] - tested_shift);
    score.loss = score.reference_loss = std::log(sum) + tested_shift - tested[at];
    return score;
  }
  const std::size_t reference_top = top(reference);
  const double reference_shift = reference[reference_top];
  double reference_sum = 0, weighted = 0;  // sum of p * (log p - log q), before either is normalised
  for (std::size_t i = 0; i < vocabulary; ++i) {
    const double log_p = reference[i] - reference_shift;
    const double log_q = tested[i] - tested_shift;
    const double p = std::exp(log_p);
    sum += std::exp(log_q);
    reference_sum += p;
    weighted += p * (log_p - log_q);
  }
  score.loss = std::log(sum) + tested_shift - tested[at];
  score.reference_loss = std::log(reference_sum) + reference_shift - reference[at];
  score.divergence = weighted / reference_sum + std::log(sum) - std::log(reference_sum);
  score.same_top = tested_top == reference_top;
  return score;
}

PerplexityFigures measure_perplexity(Model& model, ThreadPool& pool, std::span<const std::int32_t> tokens,
                                     const PerplexityOptions& options,
                                     const std::function<void(const PerplexityProgress&)>& progress) {
  const std::size_t context = options.context;
  if (context < 2) throw Error("a context of less than 2 tokens has nothing to score");
  if (context > model.config().context) {
    throw Error("a context of " + std::to_string(context) + " tokens is larger than the model's " +
                std::to_string(model.config().context));
  }
  const std::size_t windows = std::min(options.windows, tokens.size() / context);
  if (windows == 0) {
    throw Error("the text has " + std::to_string(tokens.size()) + " tokens, less than one window of " +
                std::to_string(context));
  }
  Measurement measurement(model, pool, options);
  for (std::size_t window = 0; window < windows; ++window) {
    measurement.run_window(tokens.subspan(window * context, context), [&](std::size_t fed) {
      if (!progress) return;
      const ScoreTotals& totals = measurement.totals();
      progress(
          {window + (fed == context ? 1 : 0), window * context + fed, windows * context, totals.mean(totals.loss)});
    });
  }
  PerplexityFigures figures = measurement.figures();
  figures.windows = windows;
  return figures;
}

}  // namespace nibkv::llm
