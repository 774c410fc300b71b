#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "bench/llm/arguments.hpp"
#include "bench/llm/chat.hpp"
#include "bench/llm/conversation.hpp"
#include "bench/llm/fingerprint.hpp"
#include "bench/llm/gguf_cursor.hpp"
#include "bench/llm/output_file.hpp"
#include "bench/llm/policy_settings.hpp"
#include "bench/llm/profile_maker.hpp"
#include "bench/llm/progress.hpp"
#include "bench/llm/signals.hpp"
#include "bench/llm/store_arguments.hpp"

// nibkv-assistant: talks with a model whose keys and values lie in one nibkv arena.

namespace nibkv::llm {
namespace {

constexpr const char* kHelp =
    R"(nibkv-assistant [options]: talk with a language model whose KV cache is one nibkv arena

Without --prompt it reads a message a line from standard input and answers each.

  --prompt TEXT        answer this message and end
  --system TEXT        what the conversation begins with (default: what the model's chat template begins with, if so)
  --template NAME      how a conversation is written: chatml, llama3, gemma, llama2, mistral, phi3, zephyr, or none for
                       messages as they stand (default: as the model's chat template says; none without one)
  --model PATH         GGUF file (default: $NIBKV_MODEL, or else the tiny built-in model)
  --temperature X      0 takes the likeliest token always (default 0.4)
  --top-p X            draw only from the likeliest tokens that together have this share (default 0.9)
  --greedy             the same as --temperature 0
  --seed N             of the draws; the same seed gives the same text (default 1)
  --max-tokens N       of an answer (default 256)
  --tokens N           tokens that the cache holds (default: the model's context, at most 4096)
  --arena BYTES        size of the cache instead, such as 65536, 512K or 2M
  --policy NAME        of what goes when the cache is full. ems: what matters least is merged or dropped (default);
                       streaming_llm: what is neither at the beginning nor recent is dropped; full: nothing, the chat
                       stops; others: nibkv-eval --help
  --set KEY=VALUE,...  fields of the policy (nibkv-eval --help)
  --profile PATH|none  of the model's keys and values (default: made at the first start, kept beside the model)
  --outliers N         key channels at 8 bits: 0, 4, 8, 12 or 16 (default 8, without a profile 0)
  --save FILE          keep the conversation there at the end, whole or not at all. A new file is for its owner only; an
                       old one keeps its mode, and other hard links to it keep what it held
  --load FILE          go on with a conversation that --save kept, as if it had never stopped: with the same model,
                       profile, policy and size of the cache (--tokens says it more surely than --arena, of which
                       threads take a part). Its draws go on too: --seed is not read
  --port NAME          of the computing kernels (default: the fastest)
  --list-ports         print the ports of this program and end
  --threads N          (default: as many as cores)
  --help               print this and end

While it chats: /help, /reset, /stats, /quit. Ctrl-C stops an answer; at the prompt it ends the program. So do SIGTERM,
SIGHUP and an output that nobody reads any more, at any time; --save keeps the conversation all the same.

Exit status: 0; 1 after an error; 2 for wrong options; 128 and the signal's number after SIGTERM (143), SIGHUP (129), an
output that was closed (SIGPIPE, 141), or Ctrl-C in the answer to --prompt (130).
)";

constexpr const char* kChatHelp =
    "  /reset  forget the conversation\n"
    "  /stats  what it took so far\n"
    "  /quit   end (so does the end of input)\n"
    "  Ctrl-C  stop an answer\n";

constexpr std::size_t kCalibrationContext = 2048;
constexpr std::size_t kDefaultTokens = 4096;

constexpr const char* kProgram = "nibkv-assistant";
constexpr double kQuietSeconds = 0.5;  // a message that is read within them shows no progress

void say(const std::string& line) {
  std::cerr << kProgram << ": " << line << '\n';
}

struct Settings {
  bool help = false;
  bool list_ports = false;
  std::optional<std::string> prompt;
  std::optional<std::string> chat_template;
  std::string model;
  std::optional<std::string> save;
  std::optional<std::string> load;
  StoreArguments cache;  // its profile is empty to find or make one
  ConversationOptions conversation;
};

void read_sampling(const Arguments& arguments, ConversationOptions& options) {
  if (arguments.flag("greedy") && arguments.text("temperature")) {
    throw UsageError("--greedy and --temperature exclude each other");
  }
  SamplerOptions& sampler = options.sampler;
  sampler.temperature = arguments.flag("greedy") ? 0 : arguments.number("temperature", sampler.temperature, 0, 100);
  sampler.top_p = arguments.number("top-p", sampler.top_p, 0, 1);
  sampler.seed = arguments.integer("seed", sampler.seed, 0, ~std::uint64_t{0});
  options.max_tokens = static_cast<std::size_t>(arguments.integer("max-tokens", options.max_tokens, 1, kMaxTokens));
  options.system = arguments.text("system");
}

Settings parse(int count, const char* const* words) {
  const Arguments arguments(
      count, words,
      {"prompt", "system", "model", "temperature", "top-p", "seed", "max-tokens", "tokens", "arena", "policy", "set",
       "profile", "outliers", "port", "threads", "save", "load", "template"},
      {"greedy", "list-ports", "help"});
  if (!arguments.words().empty()) throw UsageError("unexpected argument '" + arguments.words().front() + "'");
  Settings settings;
  settings.help = arguments.flag("help");
  settings.list_ports = arguments.flag("list-ports");
  settings.prompt = arguments.text("prompt");
  settings.chat_template = arguments.text("template");
  if (settings.chat_template && find_chat_template(*settings.chat_template) == nullptr) {
    throw UsageError("unknown template '" + *settings.chat_template + "'; there are " + chat_template_names());
  }
  settings.model = choose_model(arguments);
  settings.save = arguments.text("save");
  settings.load = arguments.text("load");
  read_sampling(arguments, settings.conversation);
  settings.cache = read_store_arguments(arguments, "ems", "");
  check_settings(settings.cache.store.settings, settings.cache.store.policy);
  return settings;
}

void list_ports() {
  for (std::uint32_t i = 0; !port_name(i).empty(); ++i) {
    std::cout << port_name(i) << (port_runs(port_name(i)) ? "" : " (not on this CPU)") << '\n';
  }
}

/// Lines from standard input. The C++ streams would not let a signal end the wait.
class LineReader {
 public:
  /// The next line without its end; nothing at the end of input or after a signal.
  std::optional<std::string> next() {
    std::size_t end = 0;
    while ((end = buffer_.find('\n')) == std::string::npos) {
      char bytes[4096];
      const ssize_t got = wait_for_input() ? ::read(STDIN_FILENO, bytes, sizeof bytes) : -1;
      if (got <= 0) break;
      buffer_.append(bytes, static_cast<std::size_t>(got));
    }
    if (stop_asked() || buffer_.empty()) return std::nullopt;
    std::string line = buffer_.substr(0, end);
    buffer_.erase(0, end == std::string::npos ? end : end + 1);
    if (!line.empty() && line.back() == '\r') line.pop_back();
    return line;
  }

 private:
  std::string buffer_;
};

/// A conversation with a person or a script.
class Session {
 public:
  Session(Conversation& conversation, Progress& reading) : conversation_(conversation), reading_(reading) {}

  /// Returns false when the answer was stopped by a signal. @throws Error as Conversation::answer does
  bool ask(const std::string& message) {
    const auto print = [this](std::string_view text) {
      reading_.hide();
      std::cout << text << std::flush;
    };
    Ending ending = Ending::kStopped;
    try {
      ending = conversation_.answer(message, print, stop_asked);
    } catch (const Error&) {
      reading_.hide();
      std::cout << std::endl;
      throw;
    }
    reading_.hide();
    std::cout << std::endl;
    if (!std::cout) throw Error("cannot write to standard output");
    return ending != Ending::kStopped;
  }

  void chat() {
    LineReader reader;
    while (ended_by() == 0) {
      forget_interrupt();
      if (is_terminal_) std::cerr << "> " << std::flush;
      const std::optional<std::string> line = reader.next();
      if (!line) {
        if (is_terminal_) std::cerr << '\n';
        return;
      }
      if (line->find_first_not_of(" \t") == std::string::npos) continue;
      if (is_command(*line)) {
        if (*line == "/quit") return;
        obey(*line);
        continue;
      }
      try {
        ask(*line);
      } catch (const Error& error) {
        // A person can go on with /reset; a script cannot know.
        if (!is_terminal_) throw;
        say(error.what());
      }
    }
  }

 private:
  static bool is_command(const std::string& line) {
    return line.size() > 1 && line[0] == '/' &&
           std::all_of(line.begin() + 1, line.end(), [](char letter) { return letter >= 'a' && letter <= 'z'; });
  }

  void obey(const std::string& command) {
    if (command == "/help") {
      std::cerr << kChatHelp;
    } else if (command == "/stats") {
      std::cerr << summary(conversation_);
    } else if (command == "/reset") {
      conversation_.reset();
      say("the conversation begins anew");
    } else {
      say("unknown command " + command + "; /help lists them");
    }
  }

  Conversation& conversation_;
  Progress& reading_;  // of the messages
  bool is_terminal_ = ::isatty(STDIN_FILENO) != 0;
};

std::vector<std::byte> choose_profile(const Settings& settings, Model& model, ThreadPool& pool,
                                      const Tokenizer& tokenizer, const Chat& chat) {
  if (settings.cache.profile == "none") return {};
  if (!settings.cache.profile.empty()) return read_profile(settings.cache.profile, model.config());
  const auto make = [&] {
    say("making a profile of the model's keys and values, once");
    const std::size_t context = std::min(model.config().context, kCalibrationContext);
    const std::vector<std::int32_t> tokens = calibration_tokens(tokenizer, chat);
    Progress line(kProgram);
    return make_profile(model, pool, tokens, context,
                        [&](std::size_t done) { line.show("profile", done, tokens.size()); });
  };
  return find_or_make_profile(profile_places(settings.model), model.config(), make, say);
}

// What a conversation needs to go on.
std::string cache_words(const TileStore& store, const Settings& settings) {
  const Cache& cache = store.cache();
  return std::to_string(cache.policy().tokens) + " tokens, policy " + policy_text(settings.cache.store) + ", " +
         std::to_string(cache.shape().outlier_channels) + " outlier channels, " +
         (settings.cache.store.profile.empty() ? "no profile" : "a profile");
}

void describe(const TileStore& store, const Chat& chat, const Settings& settings) {
  const Cache& cache = store.cache();
  say("cache of " + std::to_string(cache.policy().tokens) + " tokens in " + std::to_string(cache.usage().arena_bytes) +
      " bytes, policy " + policy_text(settings.cache.store) + ", port " + std::string(cache.port()) + ", " +
      std::to_string(cache.shape().outlier_channels) + " outlier channels, " + std::string(chat.format().title));
  if (settings.conversation.system) return;
  if (chat.default_system())
    say("system message of the model's chat template: " + detail::quoted(*chat.default_system()));
  if (chat.has_dated_system()) {
    say("the system message of the model's chat template has the date in it, and is left out; --system gives one");
  }
}

void load(Conversation& conversation, const std::string& path, std::uint64_t model, const std::string& words) {
  const std::string bytes = read_text(path);
  try {
    conversation.load(std::as_bytes(std::span(bytes)), model);
  } catch (const Error& error) {
    throw Error(path + ": " + error.what() + "; this one is of " + words);
  }
  say("the conversation of " + path + " goes on after " + std::to_string(conversation.position()) + " tokens");
}

int run(Settings settings) {
  if (settings.save) check_place(*settings.save);
  const bool is_builtin = settings.model == NIBKV_TINY_MODEL;
  say("model " + settings.model + (is_builtin ? " (tiny, built in: it shows that all works, and knows nothing)" : ""));
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
  options.outlier_channels = settings.cache.outliers.value_or(options.profile.empty() ? 0 : 8);
  if (options.tokens == 0 && options.arena_bytes == 0) {
    options.tokens = static_cast<std::uint32_t>(std::min(config.context, kDefaultTokens));
  }
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
  if (settings.load) load(conversation, *settings.load, fingerprint, words);
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
  std::signal(SIGXFSZ, SIG_IGN);  // a file that grows too large is an error like any other
  Settings settings;
  try {
    settings = parse(count - 1, words + 1);
  } catch (const Error& error) {
    say(std::string(error.what()) + " (--help lists the options)");
    return 2;
  }
  try {
    if (settings.help) std::cout << kHelp;
    if (settings.list_ports) list_ports();
    if (settings.help || settings.list_ports) return 0;
    return run(std::move(settings));
  } catch (const std::exception& error) {
    say(error.what());
    return 1;
  }
}
