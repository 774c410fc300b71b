#include <algorithm>
#include <optional>
#include <string>

#include "bench/eval/commands/commands.hpp"
#include "bench/eval/metrics/divergence.hpp"
#include "bench/eval/report/divergence_report.hpp"
#include "bench/runner/programs/signals.hpp"
#include "bench/runner/stores/policy_settings.hpp"
#include "bench/runner/stores/storage_name.hpp"

// nibkv-eval kld

namespace nibkv::llm {
namespace {

constexpr const char* kHelp =
    R"(nibkv-eval kld --base FILE [options]
nibkv-eval kld --base FILE --tested FILE
nibkv-eval kld --write FILE --text PATH [options]
  How far a cache is from what llama.cpp computes, with the statistics of its tool:
  'llama-perplexity --kl-divergence-base FILE' without '--kl-divergence' makes the base. Its
  tokens are the text. Each of its chunks of N tokens is fed into an empty cache, with BOS in
  place of the first token if the model asks for it, and the rows of logits from position N/2 to
  N-2 are compared with those of the base: one row less than 'perplexity' scores. 'Q' is the
  cache. KLD is KL(base || Q) in nats, Delta p what the probability of the token that came gains.
  JSON has Delta p, 'Same top p' and the correlation as shares, not in percent.

  --base FILE          log-probabilities to compare with
  --tested FILE        those of Q, from a file of the same tokens instead of a model
  --write FILE         makes such a file, in the format that llama-perplexity reads
  --context N          of --write: tokens of a chunk (default 512)
  --chunks N           (default with --write 8, otherwise all; as many whole ones as there are)
  --storage q4|f32     how the cache stores keys and values (default q4, with --write f32)
  --json PATH          write the figures as JSON too; - prints JSON instead of the table
)";

// What has no meaning with a file of the tested cache.
constexpr const char* kModelOptions[] = {"model",    "storage", "policy",     "set",  "tokens",  "arena", "profile",
                                         "outliers", "port",    "force-fold", "text", "context", "write"};

constexpr std::uint64_t kAll = 0x7fffffff;  // chunks

void exclude(const Arguments& arguments, const std::string& name, const std::string& other) {
  if (arguments.text(name) && (arguments.text(other) || arguments.flag(other))) {
    throw UsageError("--" + name + " and --" + other + " exclude each other");
  }
}

// Shows the progress of work on chunks, and ends it if a signal asks for that.
TokensDone in_line(Progress& line, std::size_t context) {
  return [&line, context](std::size_t done, std::size_t all) {
    if (stop_asked()) throw Error("stopped by a signal");
    const std::size_t chunk = std::min(done / context + 1, all / context);
    line.show("chunk " + std::to_string(chunk) + " of " + std::to_string(all / context), done, all);
  };
}

void add(Report& report, const std::string& name, const Estimate& estimate) {
  report.emplace_back(name, estimate.value);
  report.emplace_back(name + "_error", estimate.error);
}

// kl_divergence_99_9 is the percentile 99.9.
template <std::size_t kCount>
void add(Report& report, const std::string& name, const std::array<double, kCount>& levels,
         const std::array<double, kCount>& values) {
  for (std::size_t i = 0; i < kCount; ++i) {
    const int per_mille = static_cast<int>(1000 * levels[i] + 0.5), rest = per_mille % 10;
    std::string percent = std::to_string(per_mille / 10);
    if (rest != 0) percent += '_' + std::to_string(rest);
    const bool has_name = levels[i] == 1 || levels[i] == 0.5 || levels[i] == 0;
    const char* word = levels[i] == 1 ? "maximum" : levels[i] == 0 ? "minimum" : "median";
    report.emplace_back((name + '_').append(has_name ? word : percent), values[i]);
  }
}

/// @param about  comes before the figures
void publish_divergence(Report about, const DivergenceFigures& figures, const std::string& json) {
  const std::string table = as_lines(about) + '\n' + as_table(figures);
  add(about, "perplexity", figures.perplexity);
  add(about, "perplexity_base", figures.base_perplexity);
  about.emplace_back("correlation", figures.correlation);
  add(about, "log_ratio", figures.log_ratio);
  add(about, "ratio", figures.ratio);
  add(about, "difference", figures.difference);
  add(about, "kl_divergence", figures.divergence);
  add(about, "kl_divergence", kDivergenceLevels, figures.divergences);
  add(about, "delta_p", figures.change);
  add(about, "delta_p", kChangeLevels, figures.changes);
  add(about, "delta_p_rms", figures.change_rms);
  add(about, "same_top", figures.same_top);
  publish(about, json, table);
}

/// Two files, and no model.
struct FilesJob {
  std::string base, tested, json;
  std::size_t chunks, threads;

  explicit FilesJob(const Arguments& arguments)
      : base(required(arguments, "base")),
        tested(required(arguments, "tested")),
        json(arguments.text("json", "")),
        chunks(static_cast<std::size_t>(arguments.integer("chunks", kAll, 1, kAll))),
        threads(read_store_arguments(arguments, "full", "none").threads) {
    for (const char* option : kModelOptions) exclude(arguments, "tested", option);
  }

  void operator()() const {
    if (!json.empty() && json != "-") check_place(json);
    LogitsFile file(base), other(tested);
    const LogitsShape& shape = file.shape();
    ThreadPool pool(threads);
    DivergenceFigures figures;
    {
      Progress line(kProgram);
      figures = compare_files(pool, file, other, std::min(chunks, shape.chunks), in_line(line, shape.context));
    }
    publish_divergence({{"chunks", std::uint64_t{figures.rows / shape.rows()}},
                        {"context", std::uint64_t{shape.context}},
                        {"scored_tokens", std::uint64_t{figures.rows}}},
                       figures, json);
  }
};

struct Loaded {
  ThreadPool pool;
  Gguf file;
  Tokenizer tokenizer;
  std::optional<Model> model;

  Loaded(const std::string& path, std::size_t threads)
      : pool(threads), file(Gguf::open(path)), tokenizer(Tokenizer::from(file)) {
    check_shape(Config::from(file), path);
  }
};

struct KldJob {
  std::string base, write, text;
  std::size_t context, chunks;
  MeasuredCache measured;

  explicit KldJob(const Arguments& arguments)
      : base(arguments.text("base", "")),
        write(arguments.text("write", "")),
        text(arguments.text("text", "")),
        context(static_cast<std::size_t>(arguments.integer("context", 512, 3, kMaxTokens))),
        chunks(static_cast<std::size_t>(arguments.integer("chunks", write.empty() ? kAll : 8, 1, kAll))),
        measured(arguments, 0, write.empty() ? "q4" : "f32") {
    exclude(arguments, "write", "base");
    if (write.empty()) {
      if (base.empty()) throw UsageError("--base or --write is missing");
      exclude(arguments, "base", "text");
      exclude(arguments, "base", "context");
    } else {
      required(arguments, "text");
    }
    if (arguments.flag("force-fold")) force_fold(measured.cache.store.settings);
    check_settings(measured.cache.store.settings, measured.cache.store.policy);
  }

  void operator()() {
    if (!measured.json.empty() && measured.json != "-") check_place(measured.json);
    write.empty() ? compare() : write_base();
  }

 private:
  void write_base();
  void compare();
  ChunkOptions options(const Loaded& loaded, std::size_t room);
  Report about_cache(const LogitsShape& shape, const StoreOptions& store, const CacheFigures& cache,
                     std::size_t rows) const;
};

// --tokens, unless it is given, is the room that a whole chunk needs.
ChunkOptions KldJob::options(const Loaded& loaded, std::size_t room) {
  StoreOptions& asked = measured.cache.store;
  if (asked.tokens == 0 && asked.arena_bytes == 0) asked.tokens = static_cast<std::uint32_t>(room);
  ChunkOptions out;
  out.store = measured.store(loaded.model->config());
  if (loaded.tokenizer.adds_bos()) out.bos = loaded.tokenizer.bos();
  say_notes(loaded.model->config(), out.store);
  return out;
}

Report KldJob::about_cache(const LogitsShape& shape, const StoreOptions& store, const CacheFigures& cache,
                           std::size_t rows) const {
  return {
      {"chunks", std::uint64_t{rows / shape.rows()}},
      {"context", std::uint64_t{shape.context}},
      {"scored_tokens", std::uint64_t{rows}},
      {"storage", std::string(storage_name(store.storage))},
      {"policy", policy_text(store)},
      {"fold", cache.fold},
      {"outlier_channels", std::uint64_t{cache.outlier_channels}},
      {"port", cache.port},
      {"threads", std::uint64_t{measured.cache.threads}},
      {"bits_per_channel", cache.bits_per_channel},
      {"arena_bytes", cache.arena_bytes},
      {"peak_bytes", cache.peak_bytes},
  };
}

void KldJob::write_base() {
  check_place(write);
  Loaded loaded(measured.model, measured.cache.threads);
  const std::vector<std::int32_t> tokens = loaded.tokenizer.encode(read_text(text), false, true);
  const std::size_t whole = tokens.size() / context;
  if (whole == 0) {
    throw Error("the text has " + std::to_string(tokens.size()) + " tokens, less than one chunk of " +
                std::to_string(context));
  }
  if (whole < chunks) {
    say("note: the text has " + std::to_string(tokens.size()) + " tokens, enough for " + std::to_string(whole) +
        " of " + std::to_string(chunks) + " chunks");
  }
  loaded.model.emplace(loaded.file, loaded.pool);
  const LogitsShape shape = {context, loaded.model->config().vocabulary, std::min(chunks, whole)};
  const ChunkOptions how = options(loaded, context);
  catch_signals();  // a part of a large file should not be left behind
  WrittenLogits written;
  {
    Progress line(kProgram);
    written = write_logits(write, *loaded.model, loaded.pool, std::span(tokens).first(shape.chunks * context), shape,
                           how, in_line(line, context));
  }
  Report report = about_cache(shape, how.store, written.cache, written.rows);
  report.emplace_back("perplexity", written.perplexity.value);
  report.emplace_back("perplexity_error", written.perplexity.error);
  publish(report, measured.json);
}

void KldJob::compare() {
  LogitsFile file(base);
  Loaded loaded(measured.model, measured.cache.threads);
  loaded.model.emplace(loaded.file, loaded.pool);
  const ChunkOptions how = options(loaded, file.shape().context);
  MeasuredDivergence result;
  {
    Progress line(kProgram);
    result = measure_divergence(*loaded.model, loaded.pool, file, std::min(chunks, file.shape().chunks), how,
                                in_line(line, file.shape().context));
  }
  publish_divergence(about_cache(file.shape(), how.store, result.cache, result.figures.rows), result.figures,
                     measured.json);
}

}  // namespace

Command kld_command() {
  return {"kld",
          "a cache, beside what llama-perplexity wrote of the same model",
          kHelp,
          {"base", "tested", "write", "model", "text", "context", "chunks", "storage", "policy", "set", "tokens",
           "arena", "profile", "outliers", "port", "threads", "json"},
          {"force-fold"},
          [](const Arguments& arguments) -> Job {
            if (arguments.text("tested")) return FilesJob(arguments);
            return KldJob(arguments);
          }};
}

}  // namespace nibkv::llm
