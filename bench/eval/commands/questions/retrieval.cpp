#include <algorithm>
#include <chrono>
#include <filesystem>

#include "bench/eval/commands/commands.hpp"
#include "bench/eval/commands/questions/tested_caches.hpp"
#include "bench/eval/metrics/retrieval.hpp"
#include "bench/eval/report/retrieval_report.hpp"

// nibkv-eval retrieval

namespace nibkv::llm {
namespace {

constexpr const char* kHelp =
    R"(nibkv-eval retrieval --text PATH [options]
  Needles in a haystack: facts are hidden in the prose of a text, and the model is asked for one
  after it, greedily.

  --policy NAME        one of --policies
  --tokens N           that a head holds; of no meaning to f32 and full
  --lengths LIST       tokens of the prompt, question included (default 1024,2048); so many fewer as
                       an answer needs when that is all of the model's context
  --depths N           places of the needle, equally far from one another (default 9)
  --seeds N            needles at each place (default 3)
  --json PATH          write rows and sums as JSON, anew while there are more
  --resume             ask only what that file has no row for
  --svg PATH           draw depth against length; with several caches the name of each goes
                       before .svg
)";

class RetrievalJob {
 public:
  explicit RetrievalJob(const Arguments& arguments);
  void operator()();

 private:
  void begin(const Config& config);
  void go_on();
  std::vector<RetrievalRow> open_rows(const Tested& cache, std::size_t length) const;
  void ask(Subject& subject, const Tokenizer& tokenizer);
  void keep(bool at_once);

  Measured measured_;
  TestedCaches caches_;
  bool resume_ = false;
  Hiding hiding_;
  std::vector<std::size_t> lengths_;
  std::size_t depths_ = 0, seeds_ = 0;
  std::string svg_;
  RetrievalReport report_;
  std::chrono::steady_clock::time_point kept_ = std::chrono::steady_clock::now();
};

// --policy is read by read_store_arguments; no budget is needed if everything is kept.
RetrievalJob::RetrievalJob(const Arguments& arguments)
    : measured_(arguments, kMaxTokens),
      caches_(arguments, measured_.cache.store.storage),
      resume_(arguments.flag("resume")),
      lengths_(parse_lengths(arguments.text("lengths", "1024,2048"))),
      depths_(static_cast<std::size_t>(arguments.integer("depths", 9, 1, 1000))),
      seeds_(static_cast<std::size_t>(arguments.integer("seeds", 3, 1, 1000))),
      svg_(arguments.text("svg", "")) {
  if (resume_ && measured_.json.empty()) throw UsageError("--resume needs --json");
  if (measured_.json == "-") throw UsageError("--json takes a path here");
  hiding_.kind = parse_needle(arguments.text("needles", "passkey"));
  hiding_.form = parse_prompt_form(arguments.text("prompt", "plain"));
  report_.prompt = arguments.text("prompt", "plain");
}

// What all caches have in common, now that the model is known.
void RetrievalJob::begin(const Config& config) {
  const StoreOptions common = measured_.store(config);
  caches_.begin(config, common, lengths_.front() + kAnswerTokens);
  report_.model = measured_.model;
  report_.text = measured_.text;
  report_.profile = measured_.cache.profile;
  report_.outlier_channels = common.outlier_channels;
}

void RetrievalJob::go_on() {
  if (!resume_ || !std::filesystem::is_regular_file(measured_.json)) return;
  try {
    report_.go_on_from(RetrievalReport::parse(read_text(measured_.json)));
  } catch (const Error& error) {
    throw Error("cannot go on from " + measured_.json + ": " + error.what());
  }
}

void RetrievalJob::operator()() {
  if (!measured_.json.empty()) check_place(measured_.json);
  if (!svg_.empty()) check_place(svg_);
  Subject subject(measured_.model, measured_.text, measured_.cache.threads);
  const Config& config = subject.model->config();
  for (const std::size_t length : lengths_) {
    const std::size_t tokens = prompt_length(length, config);
    if (tokens == length) continue;
    say("note: prompts of " + std::to_string(length) + " tokens get " + std::to_string(tokens) +
        ", so that an answer fits the model's context");
  }
  begin(config);
  go_on();
  ask(subject, Tokenizer::from(subject.file));
  keep(true);
  print(report_.as_table());
  if (svg_.empty()) return;
  const auto maps = report_.as_svgs();
  const std::string stem = svg_.ends_with(".svg") ? svg_.substr(0, svg_.size() - 4) : svg_;
  const bool is_one_file = maps.size() == 1 || !is_replaced(svg_);
  for (const auto& [name, svg] : maps) write_file(is_one_file ? svg_ : stem + "-" + name + ".svg", svg);
}

// The questions not asked yet.
std::vector<RetrievalRow> RetrievalJob::open_rows(const Tested& cache, std::size_t length) const {
  std::vector<RetrievalRow> rows;
  for (std::size_t place = 0; place < depths_; ++place) {
    for (std::size_t seed = 1; seed <= seeds_; ++seed) {
      RetrievalRow row;
      row.policy = cache.name;
      row.mode = mode_name(cache.mode);
      row.tokens = cache.options.tokens;
      row.needle = needle_name(hiding_.kind);
      row.length = length;
      row.depth = depth_of(place, depths_);
      row.seed = seed;
      if (!report_.has(row)) rows.push_back(row);
    }
  }
  return rows;
}

void RetrievalJob::ask(Subject& subject, const Tokenizer& tokenizer) {
  const Haystack haystack(tokenizer, subject.tokens);
  std::size_t all = 0, done = 0;  // tokens
  for (const Tested& cache : caches_.all()) {
    for (const std::size_t length : lengths_) {
      all += open_rows(cache, length).size() * length;
    }
  }
  Progress line(kProgram);
  for (const Tested& cache : caches_.all()) {
    for (const std::size_t length : lengths_) {
      std::vector<RetrievalRow> rows = open_rows(cache, length);
      if (rows.empty()) continue;
      SweepStore store = caches_.store(subject.model->config(), cache, length + kAnswerTokens);
      for (std::size_t i = 0; i < rows.size(); ++i) {
        RetrievalRow& row = rows[i];
        line.show(cache.name + ", " + row.mode + ", length " + std::to_string(length) + ", question " +
                      std::to_string(i + 1) + " of " + std::to_string(rows.size()),
                  done, all);
        Hiding hiding = hiding_;
        hiding.length = prompt_length(length, subject.model->config());
        hiding.depth = row.depth;
        const auto before_answer = [&] {
          if (cache.mode == AskMode::kSeen) store.compact_now(caches_.tokens());
        };
        store.clear();
        row.right =
            hide_and_ask(*subject.model, tokenizer, haystack, store.store(), hiding, row.seed, before_answer).right;
        row.arena_bytes = store.arena_bytes();
        report_.rows.push_back(row);
        done += length;
        keep(false);
      }
    }
  }
}

// Long runs should lose no more than a few seconds.
void RetrievalJob::keep(bool at_once) {
  if (measured_.json.empty()) return;
  const auto now = std::chrono::steady_clock::now();
  if (!at_once && (now - kept_ < std::chrono::seconds(5) || !is_replaced(measured_.json))) return;
  write_file(measured_.json, report_.as_json());
  kept_ = now;
}

}  // namespace

Command retrieval_command() {
  return {"retrieval",
          "facts hidden in a text, and asked for",
          kHelp,
          {"model", "text", "policy", "policies", "tokens", "set", "mode", "needles", "prompt", "lengths", "depths",
           "seeds", "json", "svg", "profile", "outliers", "storage", "port", "threads"},
          {"resume", "force-fold"},
          [](const Arguments& arguments) -> Job { return RetrievalJob(arguments); }};
}

}  // namespace nibkv::llm
