#include "bench/eval/metrics/perplexity.hpp"

#include <algorithm>
#include <cmath>
#include <string>

#include "bench/eval/commands/commands.hpp"
#include "bench/runner/stores/policy_settings.hpp"
#include "bench/runner/stores/storage_name.hpp"

// nibkv-eval perplexity

namespace nibkv::llm {
namespace {

constexpr const char* kHelp =
    R"(nibkv-eval perplexity --text PATH [options]
  The perplexity of a text as llama.cpp measures it. The text is tokenised whole, without a
  beginning-of-sequence token, and cut into windows of N tokens. Each is fed into an empty cache,
  and the tokens at positions N/2 to N-1 are scored: N/2 a window, predicted by the rows of logits
  N/2-1 to N-2. The same model with an f32 cache that keeps everything runs side by side as the
  reference. cross_entropy and kl_divergence (of the cache from the reference) are means over the
  scored tokens, in nats.

  --context N          tokens of a window (default 1024)
  --windows N          (default 8; as many whole ones as the text has)
  --json PATH          write the figures as JSON too; - prints JSON instead of lines
)";

struct PerplexityJob {
  Measured measured;
  PerplexityOptions options;

  explicit PerplexityJob(const Arguments& arguments) : measured(arguments, context_of(arguments, 1024)) {
    if (arguments.flag("force-fold")) force_fold(measured.cache.store.settings);
    check_settings(measured.cache.store.settings, measured.cache.store.policy);
    options.context = context_of(arguments, 1024);
    options.windows = static_cast<std::size_t>(arguments.integer("windows", options.windows, 1, 1u << 20));
  }
  void operator()();
  Report report(const PerplexityFigures& figures) const;
};

void PerplexityJob::operator()() {
  if (!measured.json.empty() && measured.json != "-") check_place(measured.json);
  Subject subject(measured.model, measured.text, measured.cache.threads);
  options.store = measured.store(subject.model->config());
  say_notes(subject.model->config(), options.store);
  const std::size_t windows = std::min(options.windows, subject.tokens.size() / options.context);
  if (windows != 0 && windows < options.windows) {
    say("note: the text has " + std::to_string(subject.tokens.size()) + " tokens, enough for " +
        std::to_string(windows) + " of " + std::to_string(options.windows) + " windows");
  }
  PerplexityFigures figures;
  {
    Progress line(kProgram);
    figures = measure_perplexity(*subject.model, subject.pool, subject.tokens, options, [&](const auto& progress) {
      std::string what = "window " + std::to_string(progress.windows_done) + " of " + std::to_string(windows);
      if (progress.cross_entropy > 0) what += ", cross-entropy " + std::to_string(progress.cross_entropy);
      line.show(what, progress.fed, progress.all);
    });
  }
  publish(report(figures), measured.json);
}

Report PerplexityJob::report(const PerplexityFigures& figures) const {
  return {
      {"windows", std::uint64_t{figures.windows}},
      {"context", std::uint64_t{figures.context}},
      {"scored_tokens", std::uint64_t{figures.scored_tokens}},
      {"storage", std::string(storage_name(options.store.storage))},
      {"policy", policy_text(options.store)},
      {"fold", figures.fold},
      {"outlier_channels", std::uint64_t{figures.outlier_channels}},
      {"port", figures.port},
      {"threads", std::uint64_t{measured.cache.threads}},
      {"cross_entropy", figures.cross_entropy},
      {"standard_error", figures.standard_error},
      {"perplexity", std::exp(figures.cross_entropy)},
      {"cross_entropy_f32", figures.cross_entropy_f32},
      {"kl_divergence", figures.kl_divergence},
      {"top1_agreement", figures.top1_agreement},
      {"bits_per_channel", figures.bits_per_channel},
      {"arena_bytes", figures.arena_bytes},
      {"peak_bytes", figures.peak_bytes},
      {"compression", figures.compression},
      {"tokens_per_second", figures.tokens_per_second},
  };
}

}  // namespace

Command perplexity_command() {
  return {"perplexity",
          "the perplexity of a text, beside that with an f32 cache",
          kHelp,
          {"model", "text", "context", "windows", "storage", "policy", "set", "tokens", "arena", "profile", "outliers",
           "port", "threads", "json"},
          {"force-fold"},
          [](const Arguments& arguments) -> Job { return PerplexityJob(arguments); }};
}

}  // namespace nibkv::llm
