#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <iostream>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <variant>
#include <vector>

#include "bench/llm/arguments.hpp"
#include "bench/llm/conversation.hpp"
#include "bench/llm/json.hpp"
#include "bench/llm/perplexity.hpp"
#include "bench/llm/profile_maker.hpp"
#include "bench/llm/speed.hpp"
#include "bench/llm/store_arguments.hpp"

// nibkv-eval: measures what a cache does to a model, and makes profiles.

namespace nibkv::llm {
namespace {

constexpr const char* kHelp =
    R"(nibkv-eval COMMAND [options]: measure what a nibkv cache does to a language model

nibkv-eval perplexity --text PATH [options]
  The perplexity of a text as llama.cpp measures it. The text is tokenised whole, without a beginning-of-sequence token,
  and cut into windows of N tokens. Each is fed into an empty cache, and the tokens at positions N/2 to N-1 are scored:
  N/2 a window, foretold by the rows of logits N/2-1 to N-2. The same model with an f32 cache that keeps everything runs
  side by side as the reference.

  --model PATH         GGUF file (default: $NIBKV_MODEL, or else the tiny built-in model)
  --text PATH          UTF-8 text
  --context N          tokens of a window (default 1024)
  --windows N          (default 8; as many whole ones as the text has)
  --storage q4|f32     how the cache stores keys and values (default q4)
  --policy NAME        full (default) or streaming_llm
  --tokens N           tokens that the cache holds (default with policy full: the context)
  --arena BYTES        size of the cache instead, such as 65536, 512K or 2M
  --profile PATH|none  of the model's keys and values (default none)
  --outliers N         key channels at 8 bits: 0, 4, 8, 12 or 16 (default 8, without a profile 0)
  --port NAME          of the computing kernels (default: the fastest)
  --threads N          (default: as many as cores)
  --json PATH          write the figures as JSON too; - prints JSON instead of lines

  cross_entropy and kl_divergence (of the cache from the reference) are means over the scored tokens, in nats.

nibkv-eval speed --text PATH [options]
  Tokens per second of the whole model: prefill of a context, then decoding behind it, one token of the text at a time.

  --context N          tokens of the prefill (default 4096)
  --decode N           tokens decoded behind it (default 64)
  --model, --text, --storage, --policy, --tokens, --arena, --profile, --outliers, --port, --threads, --json  as above

nibkv-eval profile --text PATH -o PATH [options]
  Runs a text through the model and writes the profile of its keys and values.

  --model, --text, --threads  as above
  -o, --out PATH       the profile
  --header PATH        write it as a C++ header too
  --context N          tokens of a context (default 2048, at most the model's)
  --tokens N           tokens of the text that are used (default 12288)

nibkv-eval --help      print this and end
)";

void say(const std::string& line) {
  std::cerr << "nibkv-eval: " << line << '\n';
}

/// One line on a terminal that is rewritten; nothing elsewhere.
class ProgressLine {
 public:
  ~ProgressLine() {
    if (shown_) std::cerr << "\r\033[K" << std::flush;
  }

  /// @param done  share of the work, [0, 1]
  void show(const std::string& what, double done) {
    if (!is_terminal_) return;
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
    std::cerr << "\r\033[K" << what;
    if (done > 0) std::cerr << ", " << std::llround(seconds * (1 - done) / done) << " s left";
    std::cerr << std::flush;
    shown_ = true;
  }

 private:
  bool is_terminal_ = ::isatty(STDERR_FILENO) != 0;
  bool shown_ = false;
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

using Report = std::vector<std::pair<std::string, std::variant<std::uint64_t, double, std::string>>>;

std::string as_lines(const Report& report) {
  std::string lines;
  for (const auto& [name, value] : report) {
    lines += name + ' ';
    if (const auto* number = std::get_if<double>(&value)) {
      char digits[40];
      std::snprintf(digits, sizeof digits, "%.7g", *number);
      lines += digits;
    } else if (const auto* count = std::get_if<std::uint64_t>(&value)) {
      lines += std::to_string(*count);
    } else {
      lines += std::get<std::string>(value);
    }
    lines += '\n';
  }
  return lines;
}

std::string as_json(const Report& report) {
  JsonWriter json;
  json.begin_object();
  for (const auto& member : report) {
    std::visit([&](const auto& value) { json.member(member.first, value); }, member.second);
  }
  json.end_object();
  return json.text();
}

void print(const std::string& text) {
  std::cout << text << std::flush;
  if (!std::cout) throw Error("cannot write to standard output");
}

void print_help() {
  print(kHelp);
}

std::string required(const Arguments& arguments, const std::string& name) {
  const auto given = arguments.text(name);
  if (!given || given->empty()) throw UsageError("--" + name + " is missing");
  return *given;
}

// Long work shall not end at a place that does not exist.
void check_place(const std::string& path) {
  namespace fs = std::filesystem;
  std::error_code ignored;
  const fs::path folder = fs::path(path).parent_path();
  if (fs::is_directory(path, ignored)) throw Error("cannot write " + path + ": it is a directory");
  if (!folder.empty() && !fs::is_directory(folder, ignored)) {
    throw Error("cannot write " + path + ": there is no such folder");
  }
}

void write_text(const std::string& path, const std::string& text) {
  write_file(path, std::as_bytes(std::span(text)));
}

/// A model and the tokens of a text.
struct Subject {
  Subject(const std::string& model_path, const std::string& text_path, std::size_t threads)
      : pool(threads), file(Gguf::open(model_path)) {
    check_shape(Config::from(file), model_path);
    tokens = Tokenizer::from(file).encode(read_text(text_path), false, false);
    model.emplace(file, pool);
  }

  ThreadPool pool;
  Gguf file;
  std::vector<std::int32_t> tokens;
  std::optional<Model> model;
};

/// What a command does once its options are known to be right.
using Job = std::function<void()>;

/// The options that say what is measured, of every command that measures.
struct Measured {
  std::string model, text, json;
  StoreArguments cache;

  /// @param room  tokens that a store that keeps everything must hold
  Measured(const Arguments& arguments, std::size_t room);

  /// The store, now that the model is known.
  StoreOptions store(const Config& config) const;
};

Measured::Measured(const Arguments& arguments, std::size_t room)
    : model(choose_model(arguments)),
      text(required(arguments, "text")),
      json(arguments.text("json", "")),
      cache(read_store_arguments(arguments, "full", "none")) {
  const std::string storage = arguments.text("storage", "q4");
  if (storage != "q4" && storage != "f32") throw UsageError("--storage takes q4 or f32, not '" + storage + "'");
  if (storage == "f32" && cache.profile != "none") throw UsageError("--profile needs --storage q4");
  cache.store.storage = storage == "q4" ? Storage::kQ4 : Storage::kF32;
  if (cache.store.tokens == 0 && cache.store.arena_bytes == 0) {
    if (cache.store.policy != "full") throw UsageError("policy '" + cache.store.policy + "' needs --tokens or --arena");
    cache.store.tokens = static_cast<std::uint32_t>(room);
  }
}

StoreOptions Measured::store(const Config& config) const {
  StoreOptions store = cache.store;
  store.workers = cache.threads;
  if (cache.profile != "none") store.profile = read_profile(cache.profile, config);
  store.outlier_channels = cache.outliers.value_or(store.profile.empty() ? 0 : 8);
  return store;
}

void publish(const Report& report, const std::string& json) {
  print(json == "-" ? as_json(report) : as_lines(report));
  if (!json.empty() && json != "-") write_text(json, as_json(report));
}

std::size_t context_of(const Arguments& arguments, std::size_t otherwise) {
  return static_cast<std::size_t>(arguments.integer("context", otherwise, 2, kMaxTokens));
}

struct PerplexityJob {
  Measured measured;
  PerplexityOptions options;

  explicit PerplexityJob(const Arguments& arguments) : measured(arguments, context_of(arguments, 1024)) {
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
  const std::size_t windows = std::min(options.windows, subject.tokens.size() / options.context);
  if (windows != 0 && windows < options.windows) {
    say("note: the text has " + std::to_string(subject.tokens.size()) + " tokens, enough for " +
        std::to_string(windows) + " of " + std::to_string(options.windows) + " windows");
  }
  PerplexityFigures figures;
  {
    ProgressLine line;
    figures = measure_perplexity(*subject.model, subject.pool, subject.tokens, options, [&](const auto& progress) {
      std::string what = "window " + std::to_string(progress.windows_done) + " of " + std::to_string(windows);
      if (progress.cross_entropy > 0) what += ", cross-entropy " + std::to_string(progress.cross_entropy);
      line.show(what, progress.done);
    });
  }
  publish(report(figures), measured.json);
}

Report PerplexityJob::report(const PerplexityFigures& figures) const {
  return {
      {"windows", std::uint64_t{figures.windows}},
      {"context", std::uint64_t{figures.context}},
      {"scored_tokens", std::uint64_t{figures.scored_tokens}},
      {"storage", std::string(options.store.storage == Storage::kQ4 ? "q4" : "f32")},
      {"policy", options.store.policy},
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
      {"tokens_per_second", figures.tokens_per_second},
  };
}

struct SpeedJob {
  Measured measured;
  std::size_t context = 0;
  std::size_t decoded = 0;

  explicit SpeedJob(const Arguments& arguments)
      : measured(arguments,
                 context_of(arguments, 4096) + static_cast<std::size_t>(arguments.integer("decode", 64, 1, 65536))),
        context(context_of(arguments, 4096)),
        decoded(static_cast<std::size_t>(arguments.integer("decode", 64, 1, 65536))) {}
  void operator()();
};

void SpeedJob::operator()() {
  if (!measured.json.empty() && measured.json != "-") check_place(measured.json);
  Subject subject(measured.model, measured.text, measured.cache.threads);
  const StoreOptions store = measured.store(subject.model->config());
  const SpeedFigures figures = measure_speed(*subject.model, subject.tokens, context, decoded, store);
  publish({{"context", std::uint64_t{context}},
           {"decoded", std::uint64_t{decoded}},
           {"storage", std::string(store.storage == Storage::kQ4 ? "q4" : "f32")},
           {"policy", store.policy},
           {"outlier_channels", std::uint64_t{store.outlier_channels}},
           {"port", figures.port},
           {"threads", std::uint64_t{measured.cache.threads}},
           {"prefill_tokens_per_second", figures.prefill_tokens_per_second},
           {"decode_tokens_per_second", figures.decode_tokens_per_second},
           {"append_share_of_prefill", figures.append_share},
           {"attend_share_of_prefill", figures.prefill_attend_share},
           {"attend_share_of_decode", figures.attend_share},
           {"arena_bytes", figures.arena_bytes},
           {"peak_bytes", figures.peak_bytes}},
          measured.json);
}

struct ProfileJob {
  std::string model, text, out, header;
  std::size_t threads = 1;
  std::size_t context = 0;
  std::size_t tokens = 0;

  explicit ProfileJob(const Arguments& arguments);
  void operator()() const;
};

ProfileJob::ProfileJob(const Arguments& arguments)
    : model(choose_model(arguments)),
      text(required(arguments, "text")),
      out(required(arguments, "out")),
      header(arguments.text("header", "")),
      threads(read_store_arguments(arguments, "full", "none").threads),
      context(static_cast<std::size_t>(arguments.integer("context", 0, 1, kMaxTokens))),
      tokens(static_cast<std::size_t>(arguments.integer("tokens", 12288, 1, kMaxTokens))) {}

void ProfileJob::operator()() const {
  check_place(out);
  if (!header.empty()) check_place(header);
  Subject subject(model, text, threads);
  const std::size_t largest = subject.model->config().context;
  if (context > largest) {
    throw Error("a context of " + std::to_string(context) + " tokens is larger than the model's " +
                std::to_string(largest));
  }
  const std::size_t used = std::min(tokens, subject.tokens.size());
  if (used < tokens) {
    say("note: the text has " + std::to_string(used) + " tokens, less than the " + std::to_string(tokens) +
        " asked for");
  }
  const std::size_t of_context = context != 0 ? context : std::min<std::size_t>(largest, 2048);
  std::vector<std::byte> profile;
  {
    ProgressLine line;
    profile = make_profile(*subject.model, subject.pool, std::span(subject.tokens).first(used), of_context,
                           [&](std::size_t done) {
                             line.show(std::to_string(done) + " of " + std::to_string(used) + " tokens",
                                       static_cast<double>(done) / static_cast<double>(used));
                           });
  }
  write_file(out, profile);
  if (!header.empty()) write_profile_header(header, profile);
}

struct Command {
  const char* name;
  std::set<std::string> options;  // that take a value
  Job (*prepare)(const Arguments& arguments);
};

const std::vector<Command>& commands() {
  static const std::vector<Command> all = {
      {"perplexity",
       {"model", "text", "context", "windows", "storage", "policy", "tokens", "arena", "profile", "outliers", "port",
        "threads", "json"},
       [](const Arguments& arguments) -> Job { return PerplexityJob(arguments); }},
      {"speed",
       {"model", "text", "context", "decode", "storage", "policy", "tokens", "arena", "profile", "outliers", "port",
        "threads", "json"},
       [](const Arguments& arguments) -> Job { return SpeedJob(arguments); }},
      {"profile",
       {"model", "text", "out", "header", "context", "tokens", "threads"},
       [](const Arguments& arguments) -> Job { return ProfileJob(arguments); }},
  };
  return all;
}

Job parse(std::span<const char* const> words) {
  if (words.empty()) throw UsageError("no command");
  const std::string name = words[0];
  if (name == "--help") return print_help;
  std::string names;
  for (const Command& command : commands()) {
    if (name != command.name) {
      names += (names.empty() ? "" : ", ") + std::string(command.name);
      continue;
    }
    const Arguments arguments(static_cast<int>(words.size()) - 1, words.data() + 1, command.options, {"help"});
    if (arguments.flag("help")) return print_help;
    if (!arguments.words().empty()) throw UsageError("unexpected argument '" + arguments.words().front() + "'");
    return command.prepare(arguments);
  }
  throw UsageError((name.starts_with("-") ? "unknown option " + name : "unknown command '" + name + "'") +
                   "; the commands are " + names);
}

}  // namespace
}  // namespace nibkv::llm

int main(int count, char** words) {
  using namespace nibkv::llm;
  Job job;
  try {
    job = parse(std::span<const char* const>(words, static_cast<std::size_t>(count)).subspan(1));
  } catch (const Error& error) {
    say(std::string(error.what()) + " (--help lists the options)");
    return 2;
  }
  try {
    job();
    return 0;
  } catch (const std::exception& error) {
    say(error.what());
    return 1;
  }
}
