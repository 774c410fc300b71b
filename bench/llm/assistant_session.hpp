#pragma once

#include <string>

#include "bench/llm/conversation.hpp"

namespace nibkv::llm {

/// A line on standard error, after the program's name.
void say(const std::string& line);

/// A conversation with a person or a script.
class Session {
 public:
  explicit Session(Conversation& conversation) : conversation_(conversation) {}

  /// Returns false when the answer was stopped by a signal. @throws Error as Conversation::answer does
  bool ask(const std::string& message);

  /// Answers the messages of standard input until it ends, or a signal or /quit comes.
  void chat();

 private:
  void obey(const std::string& command);

  Conversation& conversation_;
};

}  // namespace nibkv::llm
