#pragma once

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <stdexcept>
#include <string>

namespace nibkv::test {

/// Both ends of a new pseudo terminal.
struct TerminalEnds {
  int master = -1, slave = -1;
};

inline TerminalEnds open_terminal(unsigned short columns) {
  TerminalEnds ends;
  ends.master = ::posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
  if (ends.master < 0 || ::grantpt(ends.master) != 0 || ::unlockpt(ends.master) != 0) {
    throw std::runtime_error("no terminal");
  }
  ends.slave = ::open(::ptsname(ends.master), O_RDWR | O_NOCTTY | O_CLOEXEC);
  winsize size = {24, columns, 0, 0};
  if (ends.slave < 0 || ::ioctl(ends.slave, TIOCSWINSZ, &size) != 0) throw std::runtime_error("no terminal");
  return ends;
}

/// A command that runs on a terminal of its own, where the test is the person: what is typed goes in, and what the
/// terminal shows comes out.
class Terminal {
 public:
  /// @param command  for a shell, which it replaces
  explicit Terminal(const std::string& command) {
    process_ = ::fork();
    if (process_ < 0) throw std::runtime_error("cannot fork");
    if (process_ == 0) {
      ::setsid();
      ::ioctl(ends_.slave, TIOCSCTTY, 0);
      for (const int file : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) ::dup2(ends_.slave, file);
      ::execl("/bin/sh", "sh", "-c", command.c_str(), static_cast<char*>(nullptr));
      ::_exit(127);
    }
  }
  Terminal(const Terminal&) = delete;
  Terminal& operator=(const Terminal&) = delete;
  ~Terminal() {
    if (process_ > 0) ::kill(process_, SIGKILL);
    if (process_ > 0) ::waitpid(process_, nullptr, 0);
    ::close(ends_.slave);
    ::close(ends_.master);
  }

  /// Types keys, all of them, reading what is shown meanwhile.
  void type(const std::string& keys) {
    std::size_t typed = 0;
    while (typed < keys.size()) {
      pollfd file = {ends_.master, POLLIN | POLLOUT, 0};
      ::poll(&file, 1, -1);
      if ((file.revents & POLLIN) != 0) read();
      if ((file.revents & POLLOUT) == 0) continue;
      const ssize_t written =
          ::write(ends_.master, keys.data() + typed, std::min<std::size_t>(keys.size() - typed, 512));
      if (written > 0) typed += static_cast<std::size_t>(written);
    }
  }

  /// Waits until `text` is shown once more, and returns all that came since the last call.
  /// Throws after a minute.
  std::string until(const std::string& text) {
    const auto start = std::chrono::steady_clock::now();
    std::size_t found = 0;
    while ((found = shown_.find(text, seen_)) == std::string::npos) {
      if (std::chrono::steady_clock::now() - start > std::chrono::minutes(1)) {
        throw std::runtime_error("'" + text + "' is not shown, but: " + shown_.substr(seen_));
      }
      pollfd file = {ends_.master, POLLIN, 0};
      if (::poll(&file, 1, 100) > 0) read();
    }
    const std::string more = shown_.substr(seen_, found + text.size() - seen_);
    seen_ = found + text.size();
    return more;
  }

  void signal(int number) { ::kill(process_, number); }

  /// Its exit status once it has ended; minus 1000 for a signal that killed it. Throws after a minute.
  int wait() {
    const auto start = std::chrono::steady_clock::now();
    int status = 0;
    while (::waitpid(process_, &status, WNOHANG) == 0) {
      if (std::chrono::steady_clock::now() - start > std::chrono::minutes(1)) {
        throw std::runtime_error("it does not end, but shows: " + shown_.substr(seen_));
      }
      pollfd file = {ends_.master, POLLIN, 0};
      if (::poll(&file, 1, 20) > 0) read();
    }
    process_ = -1;
    pollfd file = {ends_.master, POLLIN, 0};
    while (::poll(&file, 1, 0) > 0 && read()) {
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status) - 1000;
  }

  /// All that was shown.
  const std::string& shown() const { return shown_; }

  termios mode() const {
    termios mode = {};
    ::tcgetattr(ends_.slave, &mode);
    return mode;
  }

  /// As another program would that has the terminal for a while.
  void set_mode(const termios& mode) { ::tcsetattr(ends_.slave, TCSANOW, &mode); }

 private:
  bool read() {
    char bytes[4096];
    const ssize_t got = ::read(ends_.master, bytes, sizeof bytes);
    if (got > 0) shown_.append(bytes, static_cast<std::size_t>(got));
    return got > 0;
  }

  pid_t process_ = -1;
  const TerminalEnds ends_ = open_terminal(80);  // the slave stays open, so that what the program leaves can be read
  std::string shown_;
  std::size_t seen_ = 0;
};

/// What a command did whose standard error is a terminal; `status` is -1 when a signal ended it.
struct TerminalResult {
  int status = -1;
  std::string terminal;  ///< what came there, with "\r\n" for the end of a line
};

/// @param command  for a shell, which sends standard output elsewhere
inline TerminalResult run_on_terminal(const std::string& command, unsigned short columns = 100) {
  const auto [master, slave] = open_terminal(columns);
  const pid_t process = ::fork();
  if (process == 0) {
    ::dup2(slave, STDERR_FILENO);
    ::execl("/bin/sh", "sh", "-c", command.c_str(), static_cast<char*>(nullptr));
    ::_exit(127);
  }
  ::close(slave);
  TerminalResult result;
  char bytes[4096];
  // Linux says EIO once nobody has the terminal open any more.
  for (ssize_t got = 0; (got = ::read(master, bytes, sizeof bytes)) > 0;) {
    result.terminal.append(bytes, static_cast<std::size_t>(got));
  }
  ::close(master);
  int status = 0;
  if (process < 0 || ::waitpid(process, &status, 0) != process) throw std::runtime_error("no process");
  result.status = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  return result;
}

/// What a person sees in the end: lines with what was rewritten in them gone.
inline std::string seen_on_terminal(const std::string& written) {
  std::string seen;
  std::size_t line = 0;  // its start
  for (std::size_t i = 0; i < written.size(); ++i) {
    if (written.compare(i, 4, "\r\033[K") == 0) {
      seen.erase(line);
      i += 3;
    } else if (written.compare(i, 2, "\r\n") == 0) {
      seen += '\n';
      line = seen.size();
      i += 1;
    } else {
      seen += written[i];
    }
  }
  return seen;
}

}  // namespace nibkv::test
