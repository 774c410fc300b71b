#include <algorithm>

#include "bench/eval/benchmarks/babilong.hpp"
#include "bench/eval/benchmarks/ruler.hpp"
#include "bench/eval/commands/commands.hpp"
#include "bench/eval/commands/questions/tested_caches.hpp"
#include "bench/eval/report/benchmark_report.hpp"
#include "bench/runner/text/chat.hpp"

// nibkv-eval benchmark

namespace nibkv::llm {
namespace {

constexpr const char* kHelp =
    R"(nibkv-eval benchmark --ruler FILE | --babilong FILE [options]
  Asks the questions of a published benchmark, greedily, and scores the answers as it does.

  --ruler FILE         as RULER's generator writes it: an object on each line with "input", "outputs"
                       and maybe "answer_prefix". The score is the share of the outputs that are in
                       the answer, in any case; of qa, whether one is
  --babilong FILE      BABILong's samples: objects with "input", "question" and "target", one on each
                       line or in an array. Right is an answer whose first sentence names the target
                       and nothing else that answers of the task may be
  --task NAME          of RULER niah, qa, vt, cwe or fwe, of BABILong qa1 to qa20 (default: what the
                       path says, such as niah_single_1/validation.jsonl)
  --samples N          the first N (default: all)
  --answer-tokens N    the most that an answer has (default: the benchmark's: niah 128, qa 32, vt 30,
                       cwe 120, fwe 50; BABILong 20)
  --prompt FORM        plain (default), or chat: as one message in the model's own template
  --instructions FILE  of BABILong, what surrounds text and question: an object with "instruction",
                       "examples", "post_prompt" and "template", as its authors publish them beside
                       their results. Without it the words are this program's, and scores are not
                       comparable with published ones
  --policy NAME        one of --policies
  --tokens N           that a head holds; of no meaning to f32 and full
  --json PATH          write the answers and their scores as JSON
)";

class BenchmarkJob {
 public:
  explicit BenchmarkJob(const Arguments& arguments);
  void operator()();

 private:
  struct Asked {
    const Sample* sample = nullptr;
    std::vector<std::int32_t> tokens;
  };

  void read();
  std::vector<Asked> questions(const Gguf& file, const Tokenizer& tokenizer, std::size_t context) const;
  void ask(Model& model, const Tokenizer& tokenizer, const std::vector<Asked>& questions, std::size_t room);

  MeasuredCache measured_;
  TestedCaches caches_;
  bool is_ruler_ = false, is_chat_ = false;
  std::string path_, task_name_, instructions_;
  std::size_t most_samples_ = 0, answer_tokens_ = 0;
  std::vector<Sample> samples_;
  BenchmarkTask task_;
  BenchmarkReport report_;
};

BenchmarkJob::BenchmarkJob(const Arguments& arguments)
    : measured_(arguments, kMaxTokens),
      caches_(arguments, measured_.cache.store.storage),
      is_ruler_(arguments.text("ruler").has_value()),
      is_chat_(parse_prompt_form(arguments.text("prompt", "plain")) == PromptForm::kChatMl),
      instructions_(arguments.text("instructions", "")),
      most_samples_(static_cast<std::size_t>(arguments.integer("samples", kMaxTokens, 1, kMaxTokens))),
      answer_tokens_(static_cast<std::size_t>(arguments.integer("answer-tokens", 0, 1, 65536))) {
  if (is_ruler_ == arguments.text("babilong").has_value()) throw UsageError("it takes either --ruler or --babilong");
  if (is_ruler_ && !instructions_.empty()) throw UsageError("--instructions is for --babilong");
  if (measured_.json == "-") throw UsageError("--json takes a path here");
  path_ = arguments.text("ruler", arguments.text("babilong", ""));
  task_name_ = arguments.text("task", is_ruler_ ? ruler_task_of(path_) : babilong_task_of(path_));
  if (task_name_.empty()) throw UsageError("--task is missing, and the path does not say it");
  task_ = is_ruler_ ? ruler_task(task_name_) : babilong_task(task_name_, {});
  report_.benchmark = is_ruler_ ? "RULER" : "BABILong";
  report_.prompt = arguments.text("prompt", "plain");
}

void BenchmarkJob::read() {
  const std::string text = read_text(path_);
  if (is_ruler_) {
    samples_ = read_ruler(path_, text);
  } else {
    BabilongPrompt prompt = BabilongPrompt::plain();
    try {
      if (!instructions_.empty()) prompt = BabilongPrompt::parse(read_text(instructions_));
    } catch (const Error& error) {
      throw Error(instructions_ + ": " + error.what());
    }
    samples_ = read_babilong(path_, text, prompt);
    task_ = babilong_task(task_name_, samples_);
  }
  if (answer_tokens_ != 0) task_.answer_tokens = answer_tokens_;
  samples_.resize(std::min(samples_.size(), most_samples_));
}

std::vector<BenchmarkJob::Asked> BenchmarkJob::questions(const Gguf& file, const Tokenizer& tokenizer,
                                                         std::size_t context) const {
  std::optional<Chat> chat;
  if (is_chat_) chat = Chat::from(file, tokenizer);
  std::vector<Asked> asked;
  for (const Sample& sample : samples_) {
    Asked& one = asked.emplace_back();
    one.sample = &sample;
    if (chat) {
      one.tokens = chat->first(chat->default_system(), sample.prompt);
      const std::vector<std::int32_t> lead = tokenizer.encode(sample.lead, false, false);
      one.tokens.insert(one.tokens.end(), lead.begin(), lead.end());
    } else {
      one.tokens = tokenizer.encode(sample.prompt + sample.lead, false, true);
    }
    const std::string which = path_ + ", question " + std::to_string(asked.size()) + ": ";
    if (one.tokens.empty()) throw Error(which + "the prompt has no tokens");
    if (one.tokens.size() + task_.answer_tokens > context) {
      throw Error(which + std::to_string(one.tokens.size()) + " tokens, and " + std::to_string(task_.answer_tokens) +
                  " of the answer, are more than the model's context of " + std::to_string(context));
    }
  }
  return asked;
}

void BenchmarkJob::operator()() {
  if (!measured_.json.empty()) check_place(measured_.json);
  read();
  ThreadPool pool(measured_.cache.threads);
  const Gguf file = Gguf::open(measured_.model);
  check_shape(Config::from(file), measured_.model);
  const Tokenizer tokenizer = Tokenizer::from(file);
  Model model(file, pool);
  const std::vector<Asked> asked = questions(file, tokenizer, model.config().context);
  std::size_t room = 0;
  for (const Asked& one : asked) room = std::max(room, one.tokens.size() + task_.answer_tokens);
  const StoreOptions common = measured_.store(model.config());
  caches_.begin(model.config(), common, room);
  report_.model = measured_.model;
  report_.file = path_;
  report_.task = task_.name;
  report_.profile = measured_.cache.profile;
  report_.outlier_channels = common.outlier_channels;
  ask(model, tokenizer, asked, room);
  if (!measured_.json.empty()) write_file(measured_.json, report_.as_json());
  print(report_.as_table());
}

void BenchmarkJob::ask(Model& model, const Tokenizer& tokenizer, const std::vector<Asked>& asked, std::size_t room) {
  std::size_t all = 0, done = 0;  // tokens
  for (const Asked& one : asked) all += one.tokens.size() * caches_.all().size();
  Progress line(kProgram);
  for (const Tested& cache : caches_.all()) {
    SweepStore store = caches_.store(model.config(), cache, room);
    for (const Asked& one : asked) {
      BenchmarkRow row;
      row.policy = cache.name;
      row.mode = mode_name(cache.mode);
      row.tokens = cache.options.tokens;
      row.number = static_cast<std::uint64_t>(&one - asked.data()) + 1;
      row.length = one.tokens.size();
      line.show(cache.name + ", " + row.mode + ", question " + std::to_string(row.number) + " of " +
                    std::to_string(asked.size()),
                done, all);
      const auto before_answer = [&] {
        if (cache.mode == AskMode::kSeen) store.compact_now(caches_.tokens());
      };
      store.clear();
      row.said = let_answer(model, tokenizer, store.store(), one.tokens, before_answer, task_.answer_tokens,
                            [&](const std::string& said) { return task_.is_over(*one.sample, said); });
      row.score = task_.score(*one.sample, row.said);
      row.arena_bytes = store.arena_bytes();
      report_.rows.push_back(row);
      done += one.tokens.size();
    }
  }
}

}  // namespace

Command benchmark_command() {
  return {"benchmark",
          "questions of RULER and BABILong, from their files",
          kHelp,
          {"model", "ruler", "babilong", "task", "samples", "answer-tokens", "prompt", "instructions", "policy",
           "policies", "tokens", "set", "mode", "json", "profile", "outliers", "storage", "port", "threads"},
          {"force-fold"},
          [](const Arguments& arguments) -> Job { return BenchmarkJob(arguments); }};
}

}  // namespace nibkv::llm
