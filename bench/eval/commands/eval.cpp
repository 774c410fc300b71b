#include <algorithm>
#include <csignal>
#include <exception>
#include <span>
#include <string>
#include <vector>

#include "bench/eval/commands/commands.hpp"
#include "bench/runner/programs/signals.hpp"
#include "nibkv/version.h"

// nibkv-eval: measures the effect of a cache on a model, and makes profiles.

namespace nibkv::llm {
namespace {

const std::vector<Command>& commands() {
  static const std::vector<Command> all = {
      perplexity_command(),  kld_command(),    speed_command(),       stream_command(),    profile_command(),
      sweep_command(),       ablate_command(), speculative_command(), retrieval_command(), benchmark_command(),
      head_scores_command(), heads_command(),  layers_command(),      widths_command(),
  };
  return all;
}

void print_help() {
  std::string help = "nibkv-eval COMMAND [options]: measure what a nibkv cache does to a language model\n\n";
  for (const Command& command : commands()) {
    const std::string name = command.name;
    help += "  " + name + std::string(13 - name.size(), ' ') + command.summary + '\n';
  }
  print(help + R"(
nibkv-eval COMMAND --help   print the options of a command and end
nibkv-eval --help           print this and end (-h too)
nibkv-eval --version        print the version and end

Standard error shows how far a command is: in one line on a terminal, elsewhere in one every 30
seconds. Options may be written --name VALUE or --name=VALUE. Exit status: 0; 1 after an error; 2
for wrong options.
)");
}

void print_version() {
  print("nibkv-eval " NIBKV_VERSION_STRING "\n");
}

// Before the command. Throws for any but those that end at once.
Job general_option(int count, const char* const* words) {
  const Arguments arguments(count, words, {}, {});
  if (arguments.flag("help")) return print_help;
  if (arguments.flag("version")) return print_version;
  throw UsageError("no command");
}

const Command* find_command(const std::string& name) {
  const auto found = std::find_if(commands().begin(), commands().end(),
                                  [&name](const Command& command) { return command.name == name; });
  return found == commands().end() ? nullptr : &*found;
}

Job parse(std::span<const char* const> words) {
  const int count = static_cast<int>(words.size());
  if (words.empty() || words[0][0] == '-') return general_option(count, words.data());
  const Command* command = find_command(words[0]);
  if (command == nullptr) {
    std::string names;
    for (const Command& each : commands()) names += (names.empty() ? "" : ", ") + std::string(each.name);
    throw UsageError("unknown command '" + std::string(words[0]) + "'; the commands are " + names);
  }
  const Arguments arguments(count - 1, words.data() + 1, command->options, command->flags);
  if (arguments.flag("help")) return [command] { print(help_of(*command)); };
  if (arguments.flag("version")) return print_version;
  if (!arguments.words().empty()) throw UsageError("unexpected argument '" + arguments.words().front() + "'");
  return command->prepare(arguments);
}

}  // namespace
}  // namespace nibkv::llm

int main(int count, char** words) {
  using namespace nibkv::llm;
  open_standard_files();
  std::signal(SIGXFSZ, SIG_IGN);  // a file that grows too large is an ordinary error
  Job job;
  try {
    job = parse(std::span<const char* const>(words, static_cast<std::size_t>(count)).subspan(1));
  } catch (const Error& error) {
    const bool has_command = count > 1 && find_command(words[1]) != nullptr;
    say(std::string(error.what()) + " (" + (has_command ? std::string(words[1]) + " " : "") +
        "--help lists the options)");
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
