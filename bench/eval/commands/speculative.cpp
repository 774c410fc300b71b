#include "bench/eval/metrics/speculative.hpp"

#include <string>

#include "bench/eval/commands/commands.hpp"
#include "bench/runner/stores/policy_settings.hpp"
#include "bench/runner/stores/storage_name.hpp"

// nibkv-eval speculative

namespace nibkv::llm {
namespace {

constexpr const char* kHelp =
    R"(nibkv-eval speculative --text PATH [options]
  Speculative decoding: a text is read in passes of one token and some drafts of those after it,
  and after each pass the drafts from the first wrong one on are taken back. Beside it the same
  text goes through a cache of the same kind token by token. Rows of logits that both have follow
  the same tokens: same_rows are those of which every byte is the same, kl_divergence is of the run
  with drafts from the one without, in nats.

  --length N           tokens of the text (default 2000)
  --drafts N           in a pass (default 4)
  --right PERCENT      of the drafts are right, by chance; the others are tokens from elsewhere in
                       the text (default 70)
  --seed N             of that chance (default 1)
  --within-space       no pass has more tokens than the cache has space for before it drops some:
                       then space is made before the same tokens as without drafts
  --replay             the queries of a pass are drafts, which no score counts, and all of it goes
                       back; keys, values and queries of what was right go in again then, token by
                       token, without the model
  --profile PATH|none|measured
                       of the model's keys and values (default none; measured takes passes of 16
                       tokens or more)
)";

struct SpeculativeJob {
  Measured measured;
  SpeculativeOptions options;

  explicit SpeculativeJob(const Arguments& arguments) : measured(arguments, room(arguments)) {
    if (!arguments.text("profile")) measured.take_no_basis();  // a pass is too short to measure anything
    check_settings(measured.cache.store.settings, measured.cache.store.policy);
    options.length = length(arguments);
    options.drafts = drafts(arguments);
    options.right = static_cast<std::size_t>(arguments.integer("right", options.right, 0, 100));
    options.seed = arguments.integer("seed", options.seed, 0, ~std::uint64_t{0});
    options.within_space = arguments.flag("within-space");
    options.replay = arguments.flag("replay");
  }
  void operator()();

 private:
  static std::size_t length(const Arguments& arguments) {
    return static_cast<std::size_t>(arguments.integer("length", 2000, 1, kMaxTokens - 1024));
  }
  static std::size_t drafts(const Arguments& arguments) {
    return static_cast<std::size_t>(arguments.integer("drafts", 4, 0, 1023));
  }
  static std::size_t room(const Arguments& arguments) { return length(arguments) + drafts(arguments); }
};

void SpeculativeJob::operator()() {
  if (!measured.json.empty() && measured.json != "-") check_place(measured.json);
  Subject subject(measured.model, measured.text, measured.cache.threads);
  options.store = measured.store(subject.model->config());
  say_notes(subject.model->config(), options.store);
  SpeculativeFigures figures;
  {
    Progress line(kProgram);
    figures =
        measure_speculative(*subject.model, subject.pool, subject.tokens, options,
                            [&](std::size_t done, std::size_t all) { line.show("passes with drafts", done, all); });
  }
  const ScoreTotals& totals = figures.totals;
  publish({{"length", std::uint64_t{options.length}},
           {"drafts", std::uint64_t{options.drafts}},
           {"seed", options.seed},
           {"passes", std::uint64_t{figures.passes}},
           {"drafted", std::uint64_t{figures.drafted}},
           {"accepted", std::uint64_t{figures.accepted}},
           {"storage", std::string(storage_name(options.store.storage))},
           {"policy", policy_text(options.store)},
           {"outlier_channels", std::uint64_t{figures.outlier_channels}},
           {"port", figures.port},
           {"threads", std::uint64_t{measured.cache.threads}},
           {"arena_bytes", figures.arena_bytes},
           {"pass_milliseconds", 1000 * figures.pass_seconds / static_cast<double>(figures.passes)},
           {"replay_milliseconds", 1000 * figures.replay_seconds / static_cast<double>(figures.passes)},
           {"rows", std::uint64_t{totals.rows}},
           {"same_rows", std::uint64_t{figures.same_rows}},
           {"same_top", std::uint64_t{totals.same_top}},
           {"kl_divergence", totals.mean(totals.divergence)},
           {"largest_kl_divergence", figures.worst},
           {"cross_entropy", totals.mean(totals.loss)},
           {"cross_entropy_without_drafts", totals.mean(totals.reference_loss)}},
          measured.json);
}

}  // namespace

Command speculative_command() {
  return {"speculative",
          "drafts that are taken back, beside a run without them",
          kHelp,
          {"model", "text", "length", "drafts", "right", "seed", "storage", "policy", "set", "tokens", "arena",
           "profile", "outliers", "port", "threads", "json"},
          {"within-space", "replay"},
          [](const Arguments& arguments) -> Job { return SpeculativeJob(arguments); }};
}

}  // namespace nibkv::llm
