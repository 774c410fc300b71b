#pragma once

#include <set>
#include <string>

#include "bench/llm/eval_common.hpp"

namespace nibkv::llm {

/// A command of nibkv-eval: eval_NAME.cpp.
struct Command {
  const char* name;
  const char* help;               ///< a part of --help
  std::set<std::string> options;  ///< options that take a value
  std::set<std::string> flags;    ///< options that take none, in addition to --help
  /// Reads the options.
  /// @throws UsageError or Error for wrong ones
  Job (*prepare)(const Arguments& arguments);
};

Command perplexity_command();
Command speed_command();
Command profile_command();
Command sweep_command();
Command ablate_command();
Command retrieval_command();
Command head_scores_command();
Command heads_command();
Command layers_command();

}  // namespace nibkv::llm
