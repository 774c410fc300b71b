#pragma once

#include <optional>
#include <string>

#include "bench/assistant/conversation.hpp"
#include "bench/runner/programs/store_arguments.hpp"

namespace nibkv::llm {

/// What --help prints.
extern const char* const kAssistantHelp;

/// The options of nibkv-assistant.
struct Settings {
  bool help = false;
  bool version = false;
  bool list_ports = false;
  std::optional<std::string> prompt;
  std::optional<std::string> prompt_file;  ///< - for standard input
  std::optional<std::string> chat_template;
  std::string model;
  std::optional<std::string> save;
  std::optional<std::string> load;
  StoreArguments cache;  ///< its profile is empty to find or make one
  ConversationOptions conversation;
};

/// @throws UsageError or Error for wrong options. With help or version nothing else is read.
Settings parse_assistant(int count, const char* const* words);

}  // namespace nibkv::llm
