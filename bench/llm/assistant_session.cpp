#include "bench/llm/assistant_session.hpp"

#include <unistd.h>

#include <algorithm>
#include <iostream>
#include <optional>
#include <string_view>

#include "bench/llm/signals.hpp"

namespace nibkv::llm {
namespace {

constexpr const char* kChatHelp =
    "  /reset  forget the conversation\n"
    "  /stats  what it took so far\n"
    "  /quit   end (so does the end of input)\n"
    "  Ctrl-C  stop an answer\n";

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

bool is_command(const std::string& line) {
  return line.size() > 1 && line[0] == '/' &&
         std::all_of(line.begin() + 1, line.end(), [](char letter) { return letter >= 'a' && letter <= 'z'; });
}

}  // namespace

void say(const std::string& line) {
  std::cerr << "nibkv-assistant: " << line << '\n';
}

bool Session::ask(const std::string& message) {
  const auto print = [](std::string_view text) { std::cout << text << std::flush; };
  Ending ending = Ending::kStopped;
  try {
    ending = conversation_.answer(message, print, stop_asked);
  } catch (const Error&) {
    std::cout << std::endl;
    throw;
  }
  std::cout << std::endl;
  if (!std::cout) throw Error("cannot write to standard output");
  return ending != Ending::kStopped;
}

void Session::chat() {
  LineReader reader;
  while (ended_by() == 0) {
    forget_interrupt();
    if (is_terminal_) std::cerr << "> " << std::flush;
    const std::optional<std::string> message = reader.next();
    if (!message) {
      if (is_terminal_) std::cerr << '\n';
      return;
    }
    if (message->find_first_not_of(" \t") == std::string::npos) continue;
    if (is_command(*message)) {
      if (*message == "/quit") return;
      obey(*message);
      continue;
    }
    try {
      ask(*message);
    } catch (const Error& error) {
      // A person can go on with /reset; a script cannot know.
      if (!is_terminal_) throw;
      say(error.what());
    }
  }
}

void Session::obey(const std::string& command) {
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

}  // namespace nibkv::llm
