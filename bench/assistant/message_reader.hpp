#pragma once

#include <optional>
#include <string>

#include "bench/assistant/line_editor.hpp"

namespace nibkv::llm {

/// Messages from standard input. A line is one; on a terminal what is pasted at once is one, and keys edit it. The C++
/// streams would not let a signal end the wait.
class MessageReader {
 public:
  MessageReader();

  /// Whether a person types: then a prompt is shown on standard error.
  bool is_terminal() const { return is_terminal_; }

  /// The next message without its line break; nothing at the end of input or after a signal. However it returns, the
  /// terminal is as it was. @throws Error when standard input cannot be read
  std::optional<std::string> next();

 private:
  std::optional<std::string> line();
  std::optional<std::string> edited();
  bool read_more(std::string& bytes) const;

  bool is_terminal_, edits_;
  std::string buffer_;
  LineEditor editor_;
};

}  // namespace nibkv::llm
