#include "bench/assistant/settings.hpp"

#include <cstdint>

#include "bench/runner/programs/arguments.hpp"
#include "bench/runner/stores/policy_settings.hpp"
#include "bench/runner/stores/storage_name.hpp"
#include "bench/runner/text/chat_template.hpp"

namespace nibkv::llm {

const char* const kAssistantHelp =
    R"(nibkv-assistant [options]: talk with a language model whose KV cache is one nibkv arena

Without a prompt it reads messages from standard input, a line each, and answers them. Options may
be written --name VALUE or --name=VALUE.

  --prompt TEXT        answer this message and end
  --prompt-file FILE   the same with the message in a file, or - for all of standard input; any text
                       will do, of many lines too; its last line break is not part of it
  --system TEXT        what the conversation begins with (default: what the model's chat template
                       begins with, if so)
  --template NAME      how a conversation is written: chatml, llama3, gemma, llama2, mistral, phi3,
                       zephyr, or none for messages as they stand (default: as the model's chat
                       template says; none without one)
  --model PATH         GGUF file (default: $NIBKV_MODEL, or else the tiny model that comes with this
                       program)
  --temperature X      0 takes the likeliest token always (default 0.4)
  --top-p X            draw only from the likeliest tokens that together have this share (default
                       0.9)
  --greedy             the same as --temperature 0
  --repeat-penalty X   how much less likely tokens become that are among the last 64; 1.1 is a usual
                       value, 1 is none (default 1)
  --seed N             of the draws; the same seed gives the same text (default 1)
  --max-tokens N       of an answer (default 256)
  --tokens N           tokens that the cache holds (default: the model's context, at most 4096)
  --arena BYTES        size of the cache instead, such as 65536, 512K or 2M
  --policy NAME        of what goes when the cache is full. ems: what matters least is merged or
                       dropped (default); streaming_llm: what is neither at the beginning nor recent
                       is dropped; full: nothing, the chat stops; others: nibkv-eval perplexity
                       --help
  --set KEY=VALUE,...  fields of the policy (nibkv-eval perplexity --help)
  --profile PATH|none|measured
                       of the model's keys and values (default: made at the first start, kept beside
                       the model; measured: each layer measures its own keys from the first tokens,
                       if these are 16 or more)
  --outliers N         key channels at 8 bits: 0, 4, 8, 12 or 16 (default 8 with a profile,
                       measured 4, none 0)
  --storage NAME       how the cache stores keys and values: q4 (default), q8, q2, q8q4 (keys q8,
                       values q4) or q4q2
  --save FILE          keep the conversation there at the end, whole or not at all. A new file is
                       for its owner only; an old one keeps its mode, and other hard links to it
                       keep what it held
  --load FILE          go on with a conversation that --save kept, as if it had never stopped: with
                       the same model, profile, policy and size of the cache (--tokens says it more
                       surely than --arena, of which threads take a part). Its draws go on too:
                       --seed is not read
  --cold FILE          where the log of --policy recall goes (default: memory). With --save it stays
                       there, and --load goes on with it, in the file itself: keep copies of both
                       files to go back to. Without --load it must be new or empty; after a run
                       without --save, too, it is empty again
  --port NAME          of the computing kernels (default: the fastest)
  --list-ports         print the ports of this program and end
  --threads N          (default: as many as cores)
  -h, --help           print this and end
  --version            print the version and end

While it chats, /help says what it understands. Ctrl-C stops an answer; at an empty prompt it ends
the program. So do SIGTERM, SIGHUP and an output that nobody reads any more, at any time; --save
keeps the conversation all the same.

Exit status: 0; 1 after an error; 2 for wrong options; 128 and the signal's number after SIGTERM
(143), SIGHUP (129), an output that was closed (SIGPIPE, 141), or Ctrl-C in the answer to --prompt
(130).
)";

namespace {

void read_sampling(const Arguments& arguments, ConversationOptions& options) {
  if (arguments.flag("greedy") && arguments.text("temperature")) {
    throw UsageError("--greedy and --temperature exclude each other");
  }
  SamplerOptions& sampler = options.sampler;
  sampler.temperature = arguments.flag("greedy") ? 0 : arguments.number("temperature", sampler.temperature, 0, 100);
  sampler.top_p = arguments.number("top-p", sampler.top_p, 0, 1);
  sampler.repeat_penalty = arguments.number("repeat-penalty", sampler.repeat_penalty, 1, 10);
  sampler.seed = arguments.integer("seed", sampler.seed, 0, ~std::uint64_t{0});
  options.max_tokens = static_cast<std::size_t>(arguments.integer("max-tokens", options.max_tokens, 1, kMaxTokens));
  options.system = arguments.text("system");
}

}  // namespace

Settings parse_assistant(int count, const char* const* words) {
  const Arguments arguments(
      count, words,
      {"prompt",     "prompt-file", "system", "model",    "temperature", "top-p",   "repeat-penalty", "seed",
       "max-tokens", "tokens",      "arena",  "policy",   "set",         "profile", "outliers",       "port",
       "threads",    "save",        "load",   "template", "storage",     "cold"},
      {"greedy", "list-ports"}, {"system"});
  Settings settings;
  settings.help = arguments.flag("help");
  settings.version = arguments.flag("version");
  if (settings.help || settings.version) return settings;
  if (!arguments.words().empty()) {
    throw UsageError("unexpected argument '" + arguments.words().front() + "'; a message goes after --prompt");
  }
  settings.list_ports = arguments.flag("list-ports");
  settings.prompt = arguments.text("prompt");
  settings.prompt_file = arguments.text("prompt-file");
  if (settings.prompt && settings.prompt_file) throw UsageError("--prompt and --prompt-file exclude each other");
  settings.chat_template = arguments.text("template");
  if (settings.chat_template && find_chat_template(*settings.chat_template) == nullptr) {
    throw UsageError("unknown template '" + *settings.chat_template + "'; there are " + chat_template_names());
  }
  if (!settings.list_ports) settings.model = choose_model(arguments);
  settings.save = arguments.text("save");
  settings.load = arguments.text("load");
  read_sampling(arguments, settings.conversation);
  settings.cache = read_store_arguments(arguments, "ems", "");
  if (settings.cache.store.policy == "recall" && (settings.save || settings.load) &&
      settings.cache.store.cold_file.empty()) {
    throw UsageError("with --policy recall, --save and --load need the file of what leaves the cache: --cold");
  }
  settings.cache.store.cold_use = settings.load   ? PageFileUse::kOld
                                  : settings.save ? PageFileUse::kNew
                                                  : PageFileUse::kPassing;
  check_settings(settings.cache.store.settings, settings.cache.store.policy);
  settings.cache.store.storage = parse_storage(arguments.text("storage", "q4"));
  if (settings.cache.store.storage == Storage::kF32) throw UsageError("--storage f32 is for nibkv-eval");
  return settings;
}

}  // namespace nibkv::llm
