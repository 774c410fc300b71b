#pragma once

#include <functional>
#include <string>

#include "bench/assistant/conversation.hpp"
#include "bench/runner/programs/progress.hpp"

namespace nibkv::llm {

inline constexpr const char* kProgram = "nibkv-assistant";

/// A line on standard error, after the program's name.
void say(const std::string& line);

/// A conversation with a person or a script.
class Session {
 public:
  /// @param reading  shows how much of a message was read
  Session(Conversation& conversation, Progress& reading) : conversation_(conversation), reading_(reading) {}

  /// Returns false when a signal stopped the answer.
  /// @throws Error as Conversation::answer does
  bool ask(const std::string& message);

  /// Answers the messages of standard input until it ends, or a signal or /quit comes.
  void chat();

 private:
  /// Makes an answer and prints it.
  using Make = std::function<Ending(const Conversation::Output&, const Conversation::Stop&)>;

  bool print_answer(const Make& make);
  void obey(const std::string& command);
  void undo();
  void regenerate();

  Conversation& conversation_;
  Progress& reading_;
};

}  // namespace nibkv::llm
