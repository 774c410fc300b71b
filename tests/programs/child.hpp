#pragma once

#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstddef>
#include <stdexcept>
#include <string>

namespace nibkv::test {

/// A command that runs concurrently with the test, which writes to its standard input and reads
/// its standard output.
class Child {
 public:
  /// @param command  for a shell, which the command replaces
  explicit Child(const std::string& command) {
    int in[2], out[2];
    if (::pipe2(in, O_CLOEXEC) != 0 || ::pipe2(out, O_CLOEXEC) != 0) throw std::runtime_error("no pipes");
    process_ = ::fork();
    if (process_ < 0) throw std::runtime_error("cannot fork");
    if (process_ == 0) {
      ::dup2(in[0], STDIN_FILENO);
      ::dup2(out[1], STDOUT_FILENO);
      ::execl("/bin/sh", "sh", "-c", command.c_str(), static_cast<char*>(nullptr));
      ::_exit(127);
    }
    ::close(in[0]);
    ::close(out[1]);
    in_ = in[1];
    out_ = out[0];
  }
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;
  ~Child() {
    if (process_ > 0) ::kill(process_, SIGKILL);
    if (process_ > 0) ::waitpid(process_, nullptr, 0);
    ::close(in_);
    stop_reading();
  }

  void write(const std::string& text) {
    if (::write(in_, text.data(), text.size()) != static_cast<ssize_t>(text.size())) {
      throw std::runtime_error("the program does not read");
    }
  }

  /// Reads its output, up to this many bytes or the end of a line.
  std::string read(std::size_t most = ~std::size_t{0}) {
    std::string text;
    for (char byte = 0; text.size() < most && byte != '\n' && ::read(out_, &byte, 1) == 1;) text += byte;
    return text;
  }

  void stop_reading() {
    if (out_ >= 0) ::close(out_);
    out_ = -1;
  }

  void signal(int number) { ::kill(process_, number); }

  /// Like a person who holds Ctrl-C down, because a single one may come too early and
  /// hit something else.
  void signal_until_it_ends(int number) {
    siginfo_t ended = {};
    while (::waitid(P_PID, static_cast<id_t>(process_), &ended, WEXITED | WNOHANG | WNOWAIT) == 0 &&
           ended.si_pid == 0) {
      signal(number);
      ::usleep(50000);
    }
  }

  /// Its exit status once it has ended; the signal minus 1000 if one killed it.
  int wait() {
    int status = 0;
    struct rusage usage = {};
    ::wait4(process_, &status, 0, &usage);
    peak_bytes_ = static_cast<std::size_t>(usage.ru_maxrss) * 1024;
    process_ = -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status) - 1000;
  }

  /// The maximum memory that it held, known once it has ended.
  std::size_t peak_bytes() const { return peak_bytes_; }

 private:
  pid_t process_ = -1;
  std::size_t peak_bytes_ = 0;
  int in_ = -1, out_ = -1;
};

}  // namespace nibkv::test
