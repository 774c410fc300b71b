#pragma once

#include <set>
#include <string>

#include "bench/eval/commands/common.hpp"

namespace nibkv::llm {

/// A command of nibkv-eval: eval_NAME.cpp.
struct Command {
  const char* name;
  const char* summary;            ///< in the list of commands
  const char* help;               ///< what only this command has
  std::set<std::string> options;  ///< options that take a value
  std::set<std::string> flags;    ///< options that take none, in addition to help and version
  /// Reads the options.
  /// @throws UsageError or Error for wrong ones
  Job (*prepare)(const Arguments& arguments);
};

/// What COMMAND --help prints: its own help, and those of its options that several commands have.
std::string help_of(const Command& command);

Command perplexity_command();
Command kld_command();
Command speed_command();
Command stream_command();
Command profile_command();
Command sweep_command();
Command ablate_command();
Command speculative_command();
Command retrieval_command();
Command benchmark_command();
Command head_scores_command();
Command heads_command();
Command layers_command();
Command widths_command();

}  // namespace nibkv::llm
