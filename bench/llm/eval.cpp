#include <csignal>
#include <exception>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "bench/llm/eval_commands.hpp"
#include "bench/llm/signals.hpp"

// nibkv-eval: measures what a cache does to a model, and makes profiles.

namespace nibkv::llm {
namespace {

const std::vector<Command>& commands() {
  static const std::vector<Command> all = {
      perplexity_command(), speed_command(),       profile_command(), sweep_command(),  ablate_command(),
      retrieval_command(),  head_scores_command(), heads_command(),   layers_command(),
  };
  return all;
}

void print_help() {
  std::string help =
      "nibkv-eval COMMAND [options]: measure what a nibkv cache does to a language model\n\n"
      "Standard error shows how far a command is: in one line on a terminal, elsewhere in one every 30 seconds.\n";
  for (const Command& command : commands()) help += std::string("\n") + command.help;
  print(help + "\nnibkv-eval --help      print this and end\n");
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
    std::set<std::string> flags = command.flags;
    flags.insert("help");
    const Arguments arguments(static_cast<int>(words.size()) - 1, words.data() + 1, command.options, flags);
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
  open_standard_files();
  std::signal(SIGXFSZ, SIG_IGN);  // a file that grows too large is an error like any other
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
