#include "bench/assistant/message_reader.hpp"

#include <signal.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <string_view>

#include "bench/runner/gguf/gguf.hpp"
#include "bench/runner/programs/signals.hpp"

namespace nibkv::llm {
namespace {

constexpr std::string_view kPrompt = "> ";

void show(std::string_view text) {
  std::cerr << text << std::flush;
}

constexpr int kSequenceMilliseconds = 50;  // in which the rest of a key's sequence comes

// Keys one by one, and marks around what is pasted, as long as it lives. Ctrl-C, Ctrl-Z and Ctrl-\ are
// keys, so that a paste may contain them and the terminal can be put back first.
class EditingMode {
 public:
  EditingMode() {
    if (::tcgetattr(STDIN_FILENO, &before_) != 0) return;
    mode_ = before_;
    mode_.c_lflag &= ~static_cast<tcflag_t>(ICANON | ECHO | IEXTEN);
    mode_.c_cc[VMIN] = 1;
    mode_.c_cc[VTIME] = 0;
    mode_.c_cc[VINTR] = mode_.c_cc[VSUSP] = mode_.c_cc[VQUIT] = _POSIX_VDISABLE;
    set();
  }
  EditingMode(const EditingMode&) = delete;
  EditingMode& operator=(const EditingMode&) = delete;
  ~EditingMode() {
    if (is_set_) ::tcsetattr(STDIN_FILENO, TCSANOW, &before_);
    show("\x1b[?2004l");
  }

  // Again, after others may have had the terminal.
  void set() {
    is_set_ = ::tcsetattr(STDIN_FILENO, TCSANOW, &mode_) == 0;
    show("\x1b[?2004h");
  }

 private:
  TerminalSignals signals_;  // outlives the mode
  termios before_ = {}, mode_ = {};
  bool is_set_ = false;
};

// What the terminal does on Ctrl-Z and Ctrl-\, where keys do not: the others of the group first, then this process, at
// this place.
void signal_group(int signal) {
  const auto handler = ::signal(signal, SIG_IGN);
  ::kill(0, signal);
  ::signal(signal, handler);
  ::raise(signal);
}

bool can_edit() {
  const char* term = std::getenv("TERM");
  return ::isatty(STDERR_FILENO) != 0 && term != nullptr && *term != '\0' && std::string_view(term) != "dumb";
}

std::size_t columns_of_terminal() {
  constexpr std::size_t kLeast = 8, kUsual = 80;  // terminals that know no size say 0
  winsize size = {};
  if (::ioctl(STDERR_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_col < kLeast) return kUsual;
  return size.ws_col;
}

// Stops or ends the program with the terminal as it was. Goes on when the program does.
template <typename Act>
void leave(std::optional<EditingMode>& mode, const Act& act) {
  mode.reset();
  show("\n");
  act();
  mode.emplace();
}

}  // namespace

MessageReader::MessageReader() : is_terminal_(::isatty(STDIN_FILENO) != 0), edits_(is_terminal_ && can_edit()) {}

std::optional<std::string> MessageReader::next() {
  if (edits_) return edited();
  if (is_terminal_) show(kPrompt);
  return line();
}

// False at the end of input.
bool MessageReader::read_more(std::string& bytes) const {
  char block[4096];
  const ssize_t got = ::read(STDIN_FILENO, block, sizeof block);
  // A terminal that is gone has no more to say.
  if (got < 0 && errno != EIO) throw Error(std::string("cannot read standard input: ") + std::strerror(errno));
  if (got > 0) bytes.assign(block, static_cast<std::size_t>(got));
  return got > 0;
}

std::optional<std::string> MessageReader::line() {
  std::size_t end = 0;
  std::string more;
  while ((end = buffer_.find('\n')) == std::string::npos && wait_for_input() == Waited::kInput && read_more(more)) {
    buffer_ += more;
  }
  if (stop_asked() || buffer_.empty()) return std::nullopt;
  std::string line = buffer_.substr(0, end);
  buffer_.erase(0, end == std::string::npos ? end : end + 1);
  if (!line.empty() && line.back() == '\r') line.pop_back();
  return line;
}

std::optional<std::string> MessageReader::edited() {
  using Event = LineEditor::Event;
  std::optional<EditingMode> mode(std::in_place);
  editor_.begin();
  std::string more;
  for (;;) {
    const Event event = editor_.go_on();
    if (event == Event::kMessage) {
      show(editor_.finished(kPrompt));
      const std::string message = editor_.text();
      editor_.begin(message);
      return message;
    }
    if (event == Event::kEnd) return std::nullopt;
    if (event == Event::kInterrupt) {
      // Ctrl-C forgets what was typed; where nothing was, it ends the wait.
      if (editor_.text().empty()) return std::nullopt;
      editor_.begin();
      show("^C\n");
    } else if (event != Event::kNone) {
      leave(mode, [&] { signal_group(event == Event::kSuspend ? SIGTSTP : SIGQUIT); });
    }
    show(editor_.drawn(kPrompt, columns_of_terminal()));
    if (event != Event::kNone) continue;
    const Waited waited = wait_for_input(editor_.waits_for_sequence() ? kSequenceMilliseconds : -1);
    if (stop_asked()) return std::nullopt;
    if (waited == Waited::kInput) {
      if (!read_more(more)) return std::nullopt;
      editor_.push(more);
    } else if (waited == Waited::kLate) {
      editor_.drop_sequence();
    } else if (const int signal = take_terminal_signal(); signal == SIGCONT) {
      mode->set();
    } else if (signal != 0) {
      leave(mode, [&] { ::raise(signal); });
    }
  }
}

}  // namespace nibkv::llm
