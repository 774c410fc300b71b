#include "bench/eval/commands/sweep_job.hpp"

#include <algorithm>
#include <filesystem>

#include "bench/runner/stores/policy_notes.hpp"
#include "bench/runner/stores/policy_settings.hpp"

namespace nibkv::llm {
namespace {

// The text after its first `characters`.
std::string text_from(const std::string& path, std::uint64_t characters) {
  const std::string text = read_text(path);
  std::uint64_t passed = 0;
  for (std::size_t at = 0; at <= text.size(); ++at) {
    const bool starts = at == text.size() || (static_cast<unsigned char>(text[at]) & 0xC0) != 0x80;
    if (starts && passed++ == characters) return text.substr(at);
  }
  throw Error(path + " has " + std::to_string(passed - 1) + " characters, less than " + std::to_string(characters));
}

}  // namespace

const std::set<std::string>& SweepJob::option_names() {
  static const std::set<std::string> names = {"model",   "text",     "from",      "context", "windows", "score-from",
                                              "budgets", "profile",  "outliers",  "port",    "threads", "json",
                                              "svg",     "together", "retrieval", "needles"};
  return names;
}

SweepJob::SweepJob(const Arguments& arguments, const std::string& budgets)
    : measured_(arguments, context_of(arguments, options_.context)),
      svg_(arguments.text("svg", "")),
      resume_(arguments.flag("resume")),
      budgets_(split_list(arguments.text("budgets", budgets))) {
  options_.context = context_of(arguments, options_.context);
  const std::size_t score_from = std::min(options_.score_from, options_.context / 2);
  options_.score_from = static_cast<std::size_t>(arguments.integer("score-from", score_from, 1, options_.context - 1));
  options_.windows = static_cast<std::size_t>(arguments.integer("windows", options_.windows, 1, 1u << 20));
  options_.side_by_side = static_cast<std::size_t>(arguments.integer("together", options_.side_by_side, 1, 1024));
  options_.retrieval = static_cast<std::size_t>(arguments.integer("retrieval", 0, 1, 1000));
  if (arguments.text("needles") && options_.retrieval == 0) throw UsageError("--needles needs --retrieval");
  options_.needles = parse_needle(arguments.text("needles", "passkey"));
  for (const std::string& budget : budgets_) {
    StoreOptions checked;
    set_budget(budget, options_.context, checked);
  }
  if (resume_ && (measured_.json.empty() || measured_.json == "-")) throw UsageError("--resume needs --json PATH");
  report_.model = measured_.model;
  report_.text = measured_.text;
  report_.text_from = arguments.integer("from", 0, 0, std::uint64_t{1} << 40);
  report_.context = options_.context;
  report_.score_from = options_.score_from;
  report_.windows = options_.windows;
  report_.profile = measured_.cache.profile;
  report_.retrieval = options_.retrieval;
  if (options_.retrieval != 0) report_.needles = needle_name(options_.needles);
}

void SweepJob::set_cases(const std::vector<SweepCase>& cases) {
  cases_.clear();
  for (const SweepCase& what : cases) {
    if (std::find(cases_.begin(), cases_.end(), what) == cases_.end()) cases_.push_back(what);
  }
}

bool SweepJob::turns_keys() const {
  return shape_of(Config::from(Gguf::open(measured_.model)), {}).rotary.known();
}

void SweepJob::operator()() {
  const bool has_file = !measured_.json.empty() && measured_.json != "-";
  if (has_file) check_place(measured_.json);
  if (!svg_.empty()) check_place(svg_);
  ThreadPool pool(measured_.cache.threads);
  const Gguf file = Gguf::open(measured_.model);
  check_shape(Config::from(file), measured_.model);
  options_.store = measured_.store(Config::from(file));
  report_.outlier_channels = options_.store.outlier_channels;
  if (resume_) go_on();
  if (measured_.json != "-")
    print(table_head(options_.retrieval != 0) + table_lines(report_.rows, report_.reference_cross_entropy));
  if (!cases_.empty()) {
    const Tokenizer tokenizer = Tokenizer::from(file);
    SweepOptions options = options_;
    options.tokenizer = &tokenizer;
    const auto tokens = tokenizer.encode(text_from(measured_.text, report_.text_from), false, false);
    Model model(file, pool);
    for (const SweepCase& what : cases_) say_notes_of(what, model.config());
    const std::string caches = std::to_string(cases_.size()) + (cases_.size() == 1 ? " cache" : " caches");
    Progress line(kProgram);
    measure_sweep(
        model, pool, tokens, options, cases_,
        [&](const auto& rows, double reference) {
          line.hide();
          keep(rows, reference);
        },
        [&](std::size_t done, std::size_t all) { line.show(caches, done, all); });
  }
  print(measured_.json == "-" ? report_.as_json() : paired_table(report_.rows));
  if (has_file && !is_replaced(measured_.json)) write_file(measured_.json, report_.as_json());
  if (!svg_.empty()) write_file(svg_, report_.as_svg());
}

void SweepJob::say_notes_of(const SweepCase& what, const Config& model) const {
  if (may_fold(what.policy)) {
    const std::string shared = SweepStore(model, options_.store, what, options_.context).fold();
    say("note: layers that share under " + name_of(what) + ", budget " + what.budget + ": " + shared);
    say_once(basis_note(store_options(options_.store, what, options_.context)));
    return;
  }
  try {
    say_notes(model, store_options(options_.store, what, options_.context));
  } catch (const Error&) {
    // A cache that cannot be is refused, by its name, when its turn comes.
  }
}

// Rows that the file already has are not measured again.
void SweepJob::go_on() {
  if (!std::filesystem::is_regular_file(measured_.json)) return;
  try {
    report_.go_on_from(SweepReport::parse(read_text(measured_.json)));
  } catch (const Error& error) {
    throw Error("cannot go on from " + measured_.json + ": " + error.what());
  }
  std::erase_if(cases_, [&](const SweepCase& what) { return report_.has(what); });
}

void SweepJob::keep(const std::vector<SweepRow>& rows, double reference_cross_entropy) {
  report_.reference_cross_entropy = reference_cross_entropy;
  report_.rows.insert(report_.rows.end(), rows.begin(), rows.end());
  if (measured_.json == "-") return;
  // The file first, because the reader of the lines may go away. If the output cannot be replaced,
  // only the last state is written.
  if (!measured_.json.empty() && is_replaced(measured_.json)) write_file(measured_.json, report_.as_json());
  print(table_lines(rows, reference_cross_entropy));
}

}  // namespace nibkv::llm
