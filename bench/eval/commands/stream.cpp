#include "bench/eval/metrics/stream.hpp"

#include <algorithm>
#include <chrono>
#include <string>

#include "bench/eval/commands/commands.hpp"
#include "bench/runner/stores/policy_settings.hpp"

// nibkv-eval stream

namespace nibkv::llm {
namespace {

constexpr const char* kHelp =
    R"(nibkv-eval stream --text PATH [options]
  How well a model predicts a text as it goes on and on in one cache, beyond the length that the
  model was trained for: the cross-entropy in nats of the tokens in each bin of positions, each
  predicted from what the cache holds of all before it. from_N is that of the tokens predicted at
  positions N to N + bin - 1. For a policy that keeps by importance, held_N says which tokens are
  left: the share of those positions in what all heads hold at the end, but for the sinks and the
  recent window.

  --length N           tokens of the text that are read (default 16384; as many as it has)
  --bin N              positions of a bin (default 1024)
  --json PATH          write the figures as JSON too; - prints JSON instead of lines
)";

struct StreamJob {
  Measured measured;
  std::size_t length;
  std::size_t bin;

  explicit StreamJob(const Arguments& arguments)
      : measured(arguments, static_cast<std::size_t>(arguments.integer("length", 16384, 2, kMaxTokens))),
        length(static_cast<std::size_t>(arguments.integer("length", 16384, 2, kMaxTokens))),
        bin(static_cast<std::size_t>(arguments.integer("bin", 1024, 1, kMaxTokens))) {
    check_settings(measured.cache.store.settings, measured.cache.store.policy);
  }

  void operator()() {
    if (!measured.json.empty() && measured.json != "-") check_place(measured.json);
    Subject subject(measured.model, measured.text, measured.cache.threads);
    const StoreOptions options = measured.store(subject.model->config());
    say_notes(subject.model->config(), options);
    const auto tokens = std::span(subject.tokens).first(std::min(length, subject.tokens.size()));
    if (tokens.size() < length) say("note: the text has " + std::to_string(tokens.size()) + " tokens");
    StreamFigures figures;
    const auto start = std::chrono::steady_clock::now();
    {
      Progress line(kProgram);
      figures = measure_stream(*subject.model, subject.pool, tokens, options, bin,
                               [&](std::size_t fed) { line.show("reading", fed, tokens.size()); });
    }
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    Report report = {{"tokens", std::uint64_t{tokens.size()}},
                     {"bin", std::uint64_t{bin}},
                     {"policy", policy_text(options)},
                     {"reach", std::uint64_t{options.reach}},
                     {"tokens_per_second", static_cast<double>(tokens.size()) / std::max(seconds, 1e-9)}};
    for (std::size_t i = 0; i < figures.bins.size(); ++i)
      report.emplace_back("from_" + std::to_string(i * bin), figures.bins[i].mean(figures.bins[i].loss));
    for (std::size_t i = 0; i < figures.held.size(); ++i)
      report.emplace_back("held_" + std::to_string(i * bin), figures.held[i]);
    publish(report, measured.json);
  }
};

}  // namespace

Command stream_command() {
  return {"stream",
          "the cross-entropy of a text without end, by position",
          kHelp,
          {"model", "text", "length", "bin", "storage", "policy", "set", "tokens", "arena", "profile", "outliers",
           "reach", "port", "threads", "json", "cold"},
          {},
          [](const Arguments& arguments) -> Job { return StreamJob(arguments); }};
}

}  // namespace nibkv::llm
