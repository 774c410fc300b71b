#include <algorithm>
#include <csignal>
#include <iostream>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "bench/assistant/conversation.hpp"
#include "bench/assistant/kept_profile.hpp"
#include "bench/assistant/session.hpp"
#include "bench/assistant/settings.hpp"
#include "bench/runner/gguf/fingerprint.hpp"
#include "bench/runner/gguf/gguf_cursor.hpp"
#include "bench/runner/profile/head_scores.hpp"
#include "bench/runner/profile/profile_maker.hpp"
#include "bench/runner/profile/wide_layers.hpp"
#include "bench/runner/programs/arguments.hpp"
#include "bench/runner/programs/output_file.hpp"
#include "bench/runner/programs/progress.hpp"
#include "bench/runner/programs/signals.hpp"
#include "bench/runner/stores/policy_notes.hpp"
#include "bench/runner/stores/policy_settings.hpp"
#include "bench/runner/text/builtin_text.hpp"
#include "bench/runner/text/chat.hpp"
#include "nibkv/version.h"

// nibkv-assistant: talks with a model whose keys and values are in one nibkv arena.

namespace nibkv::llm {
namespace {

constexpr std::size_t kCalibrationContext = 2048;
constexpr std::size_t kNeedleLength = 256;  // longer prompts find the same heads
constexpr std::size_t kDefaultTokens = 4096;

constexpr double kQuietSeconds = 0.5;  // a message that is read within them shows no progress

std::string ports() {
  std::string lines;
  for (std::uint32_t i = 0; !port_name(i).empty(); ++i) {
    lines += std::string(port_name(i)) + (port_runs(port_name(i)) ? "" : " (not on this CPU)") + '\n';
  }
  return lines;
}

// The message of --prompt-file.
std::string read_message(const std::string& path) {
  std::string message = path == "-" ? read_standard_input() : read_text(path);
  if (message.ends_with('\n')) message.pop_back();
  if (message.ends_with('\r')) message.pop_back();
  if (message.empty()) throw Error((path == "-" ? "standard input" : path) + " has no message in it");
  return message;
}

// Which heads look things up, by needles hidden in the built-in text. Without a model that finds any, all heads stay equal.
void add_head_scores(std::vector<std::byte>& profile, Model& model, const Tokenizer& tokenizer) {
  std::string prose;
  for (const std::string_view part : builtin_text()) prose.append(part).append("\n\n");
  const std::vector<std::int32_t> tokens = tokenizer.encode(prose, false, false);
  HeadScoreOptions options;
  options.lengths = {kNeedleLength};
  try {
    Progress line(kProgram);
    const HeadScores heads =
        measure_head_scores(model, tokenizer, Haystack(tokenizer, tokens), options,
                            [&](std::size_t done, std::size_t all) { line.show("heads", done, all); });
    require(set_head_scores(profile, shape_of(model.config(), {}), heads.scores), "head scores");
  } catch (const Error& error) {
    say(std::string("all heads get the same number of slots: ") + error.what());
  }
}

// Tokens from which the errors of codes are measured.
constexpr std::size_t kErrorTokensRead = 128;

std::vector<std::byte> choose_profile(const Settings& settings, Model& model, ThreadPool& pool,
                                      const Tokenizer& tokenizer, const Chat& chat) {
  if (settings.cache.profile == "none" || settings.cache.profile == "measured") return {};
  if (!settings.cache.profile.empty()) return read_profile(settings.cache.profile, model.config());
  const auto make = [&] {
    say("making a profile of the model's keys and values, once");
    const std::size_t context = std::min(model.config().context, kCalibrationContext);
    const std::vector<std::int32_t> tokens = calibration_tokens(tokenizer, chat);
    Progress line(kProgram);
    std::vector<std::byte> profile = make_profile(model, pool, tokens, context,
                                                  [&](std::size_t done) { line.show("profile", done, tokens.size()); });
    line.hide();
    add_head_scores(profile, model, tokenizer);
    return profile;
  };
  return find_or_make_profile(profile_places(settings.model), model.config(), make, say);
}

// Layers whose keys 4 bits cannot hold get wider codes, unless the settings say which do.
void widen_layers(StoreOptions& options, Model& model, const Tokenizer& tokenizer, const Chat& chat) {
  if (!reads_setting(options.policy, "wide") || options.storage == Storage::kQ8 || options.storage == Storage::kQ8Q4)
    return;
  for (const auto& [key, value] : options.settings) {
    if (key.starts_with("wide")) return;
  }
  std::vector<std::int32_t> tokens = calibration_tokens(tokenizer, chat);
  tokens.resize(std::min({tokens.size(), model.config().context, kErrorTokensRead}));
  if (tokens.size() < kErrorTokens) return;
  const std::vector<std::size_t> layers = lossy_layers(measure_logit_errors(model, tokens, options));
  if (layers.empty()) return;
  options.settings.emplace_back("wide", wide_setting(layers));
  say("keys of 8 bits in " + std::string(layers.size() == 1 ? "layer " : "layers ") + layer_names(layers) +
      ": fewer cannot hold what it attends to");
}

// What a conversation needs to continue.
std::string cache_words(const TileStore& store, const Settings& settings) {
  const Cache& cache = store.cache();
  return std::to_string(cache.policy().tokens) + " tokens, policy " + policy_text(settings.cache.store) + ", " +
         std::to_string(cache.shape().outlier_channels) + " outlier channels, " +
         (!settings.cache.store.profile.empty()        ? "a profile"
          : cache.shape().basis == KeyBasis::kMeasured ? "a measured basis"
                                                       : "no profile");
}

void describe(const TileStore& store, const Chat& chat, const Settings& settings) {
  const Cache& cache = store.cache();
  say("cache of " + std::to_string(cache.policy().tokens) + " tokens in " + std::to_string(cache.usage().arena_bytes) +
      " bytes, policy " + policy_text(settings.cache.store) + ", port " + std::string(cache.port()) + ", " +
      std::to_string(cache.shape().outlier_channels) + " outlier channels, " + std::string(chat.format().title));
  for (const std::string& note : policy_notes(settings.cache.store, {cache.shape(), cache.policy()})) say(note);
  if (settings.conversation.system) return;
  if (chat.default_system())
    say("system message of the model's chat template: " + detail::quoted(*chat.default_system()));
  if (chat.has_dated_system()) {
    say("the system message of the model's chat template has the date in it, and is left out; --system gives one");
  }
}

void load(Conversation& conversation, const std::string& path, const std::string& bytes, std::uint64_t model,
          const std::string& words) {
  try {
    conversation.load(std::as_bytes(std::span(bytes)), model);
  } catch (const Error& error) {
    throw Error(path + ": " + error.what() + "; this one is of " + words);
  }
  say("the conversation of " + path + " goes on after " + std::to_string(conversation.position()) + " tokens");
}

int run(Settings settings) {
  if (settings.prompt_file) settings.prompt = read_message(*settings.prompt_file);
  if (settings.save) check_place(*settings.save);
  // Before what takes long.
  const std::string saved = settings.load ? read_text(*settings.load) : std::string();
  const bool is_tiny = settings.model == tiny_model();
  say("model " + settings.model + (is_tiny ? " (tiny: it shows that all works, and knows nothing)" : ""));
  const Gguf file = Gguf::open(settings.model);
  const Config config = Config::from(file);
  check_shape(config, settings.model);
  const Tokenizer tokenizer = Tokenizer::from(file);
  const Chat chat = Chat::from(file, tokenizer, settings.chat_template);
  ThreadPool pool(settings.cache.threads);
  Model model(file, pool);

  StoreOptions& options = settings.cache.store;
  options.workers = pool.workers();
  options.profile = choose_profile(settings, model, pool, tokenizer, chat);
  options.outlier_channels = settings.cache.outliers.value_or(default_outliers(options));
  if (options.tokens == 0 && options.arena_bytes == 0) {
    options.tokens = static_cast<std::uint32_t>(std::min(config.context, kDefaultTokens));
  }
  widen_layers(options, model, tokenizer, chat);
  options.reach = endless_reach(config, options);
  options.warn = [&settings](const std::string& note) { settings.conversation.say(note); };
  TileStore store(config, options);
  describe(store, chat, settings);

  if (!settings.conversation.system) settings.conversation.system = chat.default_system();
  Progress reading(kProgram, kQuietSeconds);
  settings.conversation.reading = [&](std::size_t done, std::size_t all) {
    if (done == 0) reading.start();
    reading.show("reading", done, all);
  };
  settings.conversation.say = [&](const std::string& line) {
    reading.hide();
    say(line);
  };
  Conversation conversation(model, tokenizer, chat, store, settings.conversation);
  const std::uint64_t fingerprint = settings.save || settings.load ? model_fingerprint(file) : 0;
  const std::string words = cache_words(store, settings);
  if (settings.load) load(conversation, *settings.load, saved, fingerprint, words);
  Session session(conversation, reading);
  catch_signals();
  constexpr int kInterrupted = 128 + SIGINT;
  int result = 0;
  try {
    if (!settings.prompt) {
      session.chat();
    } else if (!session.ask(*settings.prompt)) {
      result = kInterrupted;
    }
  } catch (const Error& error) {
    say(error.what());
    result = 1;
  }
  if (ended_by() != 0) result = 128 + ended_by();
  std::cerr << summary(conversation);
  if (settings.save) write_file(*settings.save, conversation.save(fingerprint, words), Readers::kOwner);
  return result;
}

}  // namespace
}  // namespace nibkv::llm

int main(int count, char** words) {
  using namespace nibkv::llm;
  open_standard_files();
  std::signal(SIGXFSZ, SIG_IGN);  // a file that grows too large is an ordinary error
  Settings settings;
  try {
    settings = parse_assistant(count - 1, words + 1);
  } catch (const Error& error) {
    say(std::string(error.what()) + " (--help lists the options)");
    return 2;
  }
  try {
    if (settings.help) {
      print(kAssistantHelp);
    } else if (settings.version) {
      print("nibkv-assistant " NIBKV_VERSION_STRING "\n");
    } else if (settings.list_ports) {
      print(ports());
    } else {
      return run(std::move(settings));
    }
    return 0;
  } catch (const std::exception& error) {
    say(error.what());
    return 1;
  }
}
