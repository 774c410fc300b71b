#include "bench/llm/message_reader.hpp"

#include <signal.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <string_view>

#include "bench/llm/gguf.hpp"
#include "bench/llm/signals.hpp"

namespace nibkv::llm {
namespace {

constexpr std::string_view kPrompt = "> ";

void show(std::string_view text) {
  std::cerr << text << std::flush;
}

// Keys one by one, and marks around what is pasted, as long as it lives. Ctrl-C, Ctrl-Z and Ctrl-\ are
// keys, so that a paste may contain them and the terminal can be put back first.
class EditingMode {
 public:
  EditingMode() {
    if (::tcgetattr(STDIN_FILENO, &before_) != 0) return;
    termios mode = before_;
    mode.c_lflag &= ~static_cast<tcflag_t>(ICANON | ECHO | IEXTEN);
    mode.c_cc[VMIN] = 1;
    mode.c_cc[VTIME] = 0;
    mode.c_cc[VINTR] = mode.c_cc[VSUSP] = mode.c_cc[VQUIT] = _POSIX_VDISABLE;
    is_set_ = ::tcsetattr(STDIN_FILENO, TCSANOW, &mode) == 0;
    show("\x1b[?2004h");
  }
  EditingMode(const EditingMode&) = delete;
  EditingMode& operator=(const EditingMode&) = delete;
  ~EditingMode() {
    if (is_set_) ::tcsetattr(STDIN_FILENO, TCSANOW, &before_);
    show("\x1b[?2004l");
  }

 private:
  termios before_ = {};
  bool is_set_ = false;
};

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

}  // namespace

MessageReader::MessageReader() : is_terminal_(::isatty(STDIN_FILENO) != 0), edits_(is_terminal_ && can_edit()) {}

std::optional<std::string> MessageReader::next() {
  if (edits_) return edited();
  if (is_terminal_) show(kPrompt);
  return line();
}

// False at the end of input and after a signal.
bool MessageReader::read_more(std::string& bytes) const {
  char block[4096];
  if (!wait_for_input()) return false;
  const ssize_t got = ::read(STDIN_FILENO, block, sizeof block);
  // A terminal that is gone has no more to say.
  if (got < 0 && errno != EIO) throw Error(std::string("cannot read standard input: ") + std::strerror(errno));
  if (got > 0) bytes.assign(block, static_cast<std::size_t>(got));
  return got > 0;
}

std::optional<std::string> MessageReader::line() {
  std::size_t end = 0;
  std::string more;
  while ((end = buffer_.find('\n')) == std::string::npos && read_more(more)) buffer_ += more;
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
      mode.reset();
      show("\n");
      ::kill(0, event == Event::kSuspend ? SIGTSTP : SIGQUIT);
      mode.emplace();
    }
    show(editor_.drawn(kPrompt, columns_of_terminal()));
    if (event != Event::kNone) continue;
    if (!read_more(more)) return std::nullopt;
    editor_.push(more);
  }
}

}  // namespace nibkv::llm
