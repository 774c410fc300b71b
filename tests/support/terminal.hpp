#pragma once

#include <fcntl.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <stdexcept>
#include <string>

namespace nibkv::test {

/// What a command did whose standard error is a terminal; `status` is -1 when a signal ended it.
struct TerminalResult {
  int status = -1;
  std::string terminal;  ///< what came there, with "\r\n" for the end of a line
};

/// @param command  for a shell, which sends standard output elsewhere
inline TerminalResult run_on_terminal(const std::string& command, unsigned short columns = 100) {
  const int master = ::posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
  if (master < 0 || ::grantpt(master) != 0 || ::unlockpt(master) != 0) throw std::runtime_error("no terminal");
  const int slave = ::open(::ptsname(master), O_RDWR | O_NOCTTY | O_CLOEXEC);
  winsize size = {24, columns, 0, 0};
  if (slave < 0 || ::ioctl(slave, TIOCSWINSZ, &size) != 0) throw std::runtime_error("no terminal");
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
