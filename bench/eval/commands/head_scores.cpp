#include <algorithm>
#include <cstdio>
#include <numeric>

#include "bench/eval/commands/commands.hpp"
#include "bench/eval/metrics/retrieval.hpp"
#include "bench/runner/profile/head_scores.hpp"
#include "bench/runner/profile/profile_maker.hpp"

// nibkv-eval head-scores

namespace nibkv::llm {
namespace {

constexpr const char* kHelp =
    R"(nibkv-eval head-scores --text PATH --profile PATH -o PATH [options]
  How much each KV head looks answers up in far text: needles are hidden in the text and asked for,
  and the score of a head is the share of its attention that goes to the needle while the model
  answers. The scores go into a copy of the profile, where ems, ems_no_merge, head_kv and duo read
  them.

  --profile PATH       to be copied
  -o, --out PATH       the profile with head scores; may be the same
  --header PATH        write it as a C++ header too
  --lengths LIST       tokens of the prompt (default 1024)
  --depths N           places of the needle (default 5)
  --seeds N            needles at each place (default 2)
)";

class HeadScoresJob {
 public:
  explicit HeadScoresJob(const Arguments& arguments);
  void operator()() const;

 private:
  std::string table(const HeadScores& measured, const Config& config) const;

  std::string model_, text_, profile_, out_, header_;
  std::size_t threads_ = 1;
  HeadScoreOptions options_;
};

HeadScoresJob::HeadScoresJob(const Arguments& arguments)
    : model_(choose_model(arguments)),
      text_(required(arguments, "text")),
      profile_(required(arguments, "profile")),
      out_(required(arguments, "out")),
      header_(arguments.text("header", "")),
      threads_(read_store_arguments(arguments, "full", "none").threads) {
  options_.kind = parse_needle(arguments.text("needles", "passkey"));
  options_.form = parse_prompt_form(arguments.text("prompt", "plain"));
  options_.lengths = parse_lengths(arguments.text("lengths", "1024"));
  options_.depths = static_cast<std::size_t>(arguments.integer("depths", options_.depths, 1, 1000));
  options_.seeds = static_cast<std::size_t>(arguments.integer("seeds", options_.seeds, 1, 1000));
}

void HeadScoresJob::operator()() const {
  check_place(out_);
  if (!header_.empty()) check_place(header_);
  Subject subject(model_, text_, threads_);
  const Config& config = subject.model->config();
  std::vector<std::byte> profile = read_profile(profile_, config);
  HeadScoreOptions options = options_;
  for (std::size_t& length : options.lengths) length = prompt_length(length, config);
  const Tokenizer tokenizer = Tokenizer::from(subject.file);
  const Haystack haystack(tokenizer, subject.tokens);
  HeadScores measured;
  {
    Progress line(kProgram);
    measured = measure_head_scores(*subject.model, tokenizer, haystack, options,
                                   [&](std::size_t done, std::size_t all) { line.show("needles", done, all); });
  }
  require(set_head_scores(profile, shape_of(config, {}), measured.scores), "head scores");
  write_file(out_, profile);
  if (!header_.empty()) write_profile_header(header_, profile);
  print(table(measured, config));
}

std::string HeadScoresJob::table(const HeadScores& measured, const Config& config) const {
  constexpr std::size_t kShown = 10;
  std::vector<std::size_t> order(measured.scores.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return measured.scores[a] > measured.scores[b]; });
  std::string lines = "needles found " + std::to_string(measured.answered) + " of " + std::to_string(measured.asked) +
                      "\nlayer  KV head  score\n";
  for (std::size_t i = 0; i < std::min(kShown, order.size()); ++i) {
    char line[60];
    std::snprintf(line, sizeof line, "%5zu  %7zu  %.4f\n", order[i] / config.kv_heads, order[i] % config.kv_heads,
                  static_cast<double>(measured.scores[order[i]]));
    lines += line;
  }
  return lines;
}

}  // namespace

Command head_scores_command() {
  return {"head-scores",
          "how much each KV head looks answers up in far text",
          kHelp,
          {"model", "text", "profile", "out", "header", "lengths", "depths", "seeds", "needles", "prompt", "threads"},
          {},
          [](const Arguments& arguments) -> Job { return HeadScoresJob(arguments); }};
}

}  // namespace nibkv::llm
