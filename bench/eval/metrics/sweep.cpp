#include "bench/eval/metrics/sweep.hpp"

#include <algorithm>
#include <chrono>
#include <memory>
#include <optional>

#include "bench/eval/metrics/perplexity.hpp"
#include "bench/eval/metrics/retrieval.hpp"

namespace nibkv::llm {
namespace {

StoreOptions exact(const SweepOptions& options) {
  StoreOptions out;
  out.storage = Storage::kF32;
  out.tokens = static_cast<std::uint32_t>(options.context);
  out.port = options.store.port;
  out.workers = options.store.workers;
  return out;
}

Hiding hiding_of(const SweepOptions& options, std::size_t place) {
  Hiding hiding;
  hiding.kind = options.needles;
  hiding.length = options.context - std::min(options.context, kAnswerTokens);
  hiding.depth = depth_of(place, options.retrieval);
  return hiding;
}

/// Several caches of one model that read the same text together.
class SideBySide {
 public:
  SideBySide(Model& model, ThreadPool& pool, const SweepOptions& options, std::span<const SweepCase> cases)
      : model_(model), pool_(pool), options_(options), reference_(model.config(), exact(options)) {
    for (const SweepCase& what : cases) tested_.push_back(std::make_unique<Tested>(model.config(), options, what));
    logits_.resize(kSweepStep * vocabulary());
    reference_logits_.resize(kSweepStep * vocabulary());
  }

  /// @param step_done  called after each pass of a cache over a step
  void run_window(std::span<const std::int32_t> window, const std::function<void(std::size_t tokens)>& step_done) {
    reference_.clear();
    for (const auto& tested : tested_) tested->store.clear();
    const std::size_t first_row = options_.score_from - 1;
    for (std::size_t at = 0; at < window.size(); at += kSweepStep) {
      const std::size_t count = std::min(kSweepStep, window.size() - at);
      const auto tokens = window.subspan(at, count);
      const std::size_t rows = at + count <= first_row ? 0 : std::min(count, at + count - first_row);
      // The row of the last token predicts one that is not in the window.
      const std::size_t scored = rows != 0 && at + count == window.size() ? rows - 1 : rows;
      const auto targets = window.subspan(at + count - rows + (scored != 0 ? 1 : 0), scored);
      model_.forward(tokens, at, reference_, reference_logits_.data(), rows);
      score_rows(pool_, reference_logits_.data(), reference_logits_.data(), vocabulary(), targets, reference_totals_);
      step_done(count);
      for (const auto& tested : tested_) {
        feed(*tested, tokens, at, rows, targets);
        step_done(count);
      }
    }
    for (const auto& tested : tested_) tested->end_window();
  }

  /// @param asked  called after each question, with the tokens of its prompt
  void ask(const Haystack& haystack, const std::function<void(std::size_t tokens)>& asked) {
    for (const auto& tested : tested_) {
      for (std::size_t place = 0; place < options_.retrieval; ++place) {
        const Hiding hiding = hiding_of(options_, place);
        tested->store.clear();
        name_errors(*tested, [&] {
          const Answer answer =
              hide_and_ask(model_, *options_.tokenizer, haystack, tested->store.store(), hiding, 1, {});
          tested->row.retrieval_correct += answer.right ? 1 : 0;
        });
        ++tested->row.retrieval_asked;
        asked(hiding.length);
      }
    }
  }

  double reference_cross_entropy() const { return reference_totals_.mean(reference_totals_.loss); }

  std::vector<SweepRow> rows() const {
    std::vector<SweepRow> out;
    for (const auto& tested : tested_) {
      SweepRow row = tested->row;
      const ScoreTotals& totals = tested->totals;
      row.context = options_.context;
      row.budget = tested->store.tokens();
      row.arena_bytes = tested->store.arena_bytes();
      if (row.peak_bytes != 0) {
        row.compression =
            static_cast<double>(reference_.f16_bytes(options_.context)) / static_cast<double>(row.peak_bytes);
      }
      row.cross_entropy = totals.mean(totals.loss);
      row.standard_error = totals.standard_error();
      row.kl_divergence = totals.mean(totals.divergence);
      row.top1_agreement = totals.mean(static_cast<double>(totals.same_top));
      row.tokens_per_second = static_cast<double>(tested->fed) / std::max(tested->seconds, 1e-9);
      out.push_back(row);
    }
    return out;
  }

 private:
  struct Tested {
    Tested(const Config& model, const SweepOptions& options, const SweepCase& what)
        : store(model, options.store, what, options.context) {
      row.what = what;
    }
    void end_window() {
      row.window_cross_entropies.push_back((totals.loss - before.loss) /
                                           static_cast<double>(totals.rows - before.rows));
      before = totals;
      row.peak_bytes = std::max(row.peak_bytes, store.peak_bytes());
      row.bits_per_channel = std::max(row.bits_per_channel, store.bits_per_channel());
    }

    SweepStore store;
    SweepRow row;
    ScoreTotals totals;
    ScoreTotals before;  // of the windows that have ended
    std::size_t fed = 0;
    double seconds = 0;
  };

  std::size_t vocabulary() const { return model_.config().vocabulary; }

  template <typename F>
  static void name_errors(const Tested& tested, F&& work) try {
    work();
  } catch (const Error& error) {
    const SweepCase& what = tested.row.what;
    throw Error(name_of(what) + ", budget " + what.budget + ": " + error.what());
  }

  void feed(Tested& tested, std::span<const std::int32_t> tokens, std::size_t at, std::size_t rows,
            std::span<const std::int32_t> targets) {
    const auto start = std::chrono::steady_clock::now();
    name_errors(tested, [&] { model_.forward(tokens, at, tested.store.store(), logits_.data(), rows); });
    tested.seconds += std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    tested.fed += tokens.size();
    score_rows(pool_, logits_.data(), reference_logits_.data(), vocabulary(), targets, tested.totals);
  }

  Model& model_;
  ThreadPool& pool_;
  const SweepOptions& options_;
  TileStore reference_;
  std::vector<std::unique_ptr<Tested>> tested_;
  std::vector<float> logits_, reference_logits_;  // [step][vocabulary]
  ScoreTotals reference_totals_;
};

void check(const Config& model, std::size_t tokens, const SweepOptions& options) {
  if (options.context > model.context) {
    throw Error("a context of " + std::to_string(options.context) + " tokens is larger than the model's " +
                std::to_string(model.context));
  }
  if (options.score_from < 1 || options.score_from >= options.context) {
    throw Error("a context of " + std::to_string(options.context) + " tokens has none to score from " +
                std::to_string(options.score_from) + " on");
  }
  if (tokens < options.context) {
    throw Error("the text has " + std::to_string(tokens) + " tokens, less than one window of " +
                std::to_string(options.context));
  }
}

}  // namespace

void measure_sweep(Model& model, ThreadPool& pool, std::span<const std::int32_t> tokens, const SweepOptions& options,
                   std::span<const SweepCase> cases, const SweepDone& done, const TokensDone& progress) {
  check(model.config(), tokens.size(), options);
  // Errors must be reported now and not after an hour.
  for (const SweepCase& what : cases) SweepStore(model.config(), options.store, what, options.context);
  const std::size_t windows = std::min(options.windows, tokens.size() / options.context);
  const std::size_t together = std::max<std::size_t>(1, options.side_by_side);
  const std::size_t groups = (cases.size() + together - 1) / together;
  std::optional<Haystack> haystack;
  std::size_t questions = 0;  // tokens of all questions to one cache
  if (options.retrieval != 0) haystack.emplace(*options.tokenizer, tokens);
  for (std::size_t place = 0; place < options.retrieval; ++place) {
    const Hiding hiding = hiding_of(options, place);
    questions += haystack->hide(make_needle(hiding.kind, hiding.seed), hiding).tokens.size();
  }
  const std::size_t all = (cases.size() + groups) * windows * options.context + cases.size() * questions;
  std::size_t fed = 0;
  const auto note = [&](std::size_t count) {
    fed += count;
    if (progress) progress(fed, all);
  };
  for (std::size_t first = 0; first < cases.size(); first += together) {
    SideBySide group(model, pool, options, cases.subspan(first, std::min(together, cases.size() - first)));
    for (std::size_t window = 0; window < windows; ++window) {
      group.run_window(tokens.subspan(window * options.context, options.context), note);
    }
    if (haystack) group.ask(*haystack, note);
    done(group.rows(), group.reference_cross_entropy());
  }
}

}  // namespace nibkv::llm
