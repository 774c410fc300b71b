#include "bench/assistant/session.hpp"

#include <algorithm>
#include <iostream>
#include <optional>
#include <string_view>

#include "bench/assistant/message_reader.hpp"
#include "bench/runner/programs/signals.hpp"
#include "bench/runner/stores/kept_map.hpp"

namespace nibkv::llm {
namespace {

constexpr const char* kChatHelp = R"(  /context     draw which tokens the cache holds
  /undo        take back the last question and its answer; again, those before them
  /regenerate  answer the last question again, with the next draws of --seed: another answer, but
               the same one each time that the same lines are typed. With --greedy the same answer
               under --policy full; what other policies drop may have changed
  /reset       forget the conversation; the draws begin again, which they do not after /undo
  /stats       what it took so far; what was taken back counts
  /help        this list
  /quit        end (so do Ctrl-D and the end of input)
  Ctrl-C       stop an answer, forget what is typed, or end where nothing is
On a terminal what is pasted is one message, however many lines it has. Arrows, Home, End, Delete,
Ctrl-U, Ctrl-K and Ctrl-W edit it; Up brings earlier ones back.
)";

// A slash and letters, whatever stands behind them: "/usr/bin", "//x" and "/ x" are messages.
bool is_command(const std::string& line) {
  const std::string word = line.substr(0, line.find_first_of(" \t\n"));
  const auto is_letter = [](char byte) { return (byte >= 'a' && byte <= 'z') || (byte >= 'A' && byte <= 'Z'); };
  return word.size() > 1 && word[0] == '/' && std::all_of(word.begin() + 1, word.end(), is_letter);
}

}  // namespace

void say(const std::string& line) {
  std::cerr << kProgram << ": " << line << '\n';
}

bool Session::ask(const std::string& message) {
  return print_answer([&](const Conversation::Output& output, const Conversation::Stop& stop) {
    return conversation_.answer(message, output, stop);
  });
}

bool Session::print_answer(const Make& make) {
  const auto print = [this](std::string_view text) {
    reading_.hide();
    std::cout << text << std::flush;
  };
  Ending ending = Ending::kStopped;
  try {
    ending = make(print, [] { return stop_asked() || !std::cout; });
  } catch (const Error&) {
    reading_.hide();
    std::cout << std::endl;
    throw;
  }
  reading_.hide();
  std::cout << std::endl;
  if (!std::cout) throw Error("cannot write to standard output");
  if (ending == Ending::kCut) {
    const std::size_t most = conversation_.max_tokens();
    say("the answer was cut after " + std::to_string(most) + (most == 1 ? " token" : " tokens") + " (--max-tokens)");
  }
  return ending != Ending::kStopped;
}

void Session::chat() {
  MessageReader reader;
  if (reader.is_terminal()) say("/help lists commands, Ctrl-D ends");
  while (ended_by() == 0) {
    forget_interrupt();
    const std::optional<std::string> message = reader.next();
    if (!message) {
      if (reader.is_terminal()) std::cerr << '\n';
      return;
    }
    const std::size_t end = message->find_last_not_of(" \t\n");
    if (end == std::string::npos) continue;
    const std::string command = is_command(*message) ? message->substr(0, end + 1) : "";
    if (command == "/quit") return;
    try {
      if (!command.empty()) {
        obey(command);
      } else {
        ask(*message);
      }
    } catch (const Error& error) {
      // A person can go on with /reset; a script cannot know.
      if (!reader.is_terminal()) throw;
      const std::string what = error.what();
      say(what + (what.starts_with("the arena is full") ? "; /undo and /reset make space" : ""));
    }
  }
}

void Session::obey(const std::string& command) {
  if (command == "/help") {
    std::cerr << kChatHelp;
  } else if (command == "/context") {
    std::cerr << as_text(kept_map_of(conversation_.store().cache(), ""));
  } else if (command == "/stats") {
    std::cerr << summary(conversation_);
  } else if (command == "/reset") {
    conversation_.reset();
    say("the conversation starts again");
  } else if (command == "/undo") {
    undo();
  } else if (command == "/regenerate") {
    regenerate();
  } else {
    say("unknown command " + command.substr(0, command.find('\n')) + "; /help lists them");
  }
}

void Session::undo() {
  if (!conversation_.undo()) {
    say("nothing was said that could be taken back");
    return;
  }
  const std::size_t left = conversation_.turns();
  say("the last question and its answer are taken back; " +
      (left == 0 ? "nothing is left of the conversation"
                 : std::to_string(left) + (left == 1 ? " question is left" : " questions are left")));
}

void Session::regenerate() {
  if (conversation_.turns() == 0) {
    say("nothing was asked that could be answered again");
    return;
  }
  print_answer([&](const Conversation::Output& output, const Conversation::Stop& stop) {
    return conversation_.regenerate(output, stop);
  });
}

}  // namespace nibkv::llm
