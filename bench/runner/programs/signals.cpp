#include "bench/runner/programs/signals.hpp"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <initializer_list>
#include <iterator>

namespace nibkv::llm {
namespace {

constexpr int kTerminalSignals[] = {SIGQUIT, SIGTSTP, SIGCONT};

volatile std::sig_atomic_t interrupted = 0;
volatile std::sig_atomic_t ending = 0;
volatile std::sig_atomic_t came[32] = {};  // those of the terminal, by their numbers
// One byte for each signal, so that one that comes just before the wait, or in another thread,
// still ends the wait.
int wake[2] = {-1, -1};

void note(int signal) {
  const int before = errno;
  if (signal == SIGINT) {
    interrupted = 1;
  } else if (signal == SIGQUIT || signal == SIGTSTP || signal == SIGCONT) {
    came[signal] = 1;
  } else {
    ending = signal;
  }
  [[maybe_unused]] const ssize_t written = ::write(wake[1], "", 1);
  errno = before;
}

// Puts a handler in place of another one.
void replace_handler(int signal, void (*old)(int), void (*handler)(int)) {
  struct sigaction action = {};
  sigaction(signal, nullptr, &action);
  if (action.sa_handler != old) return;
  action = {};
  action.sa_handler = handler;
  action.sa_flags = SA_RESTART;
  sigemptyset(&action.sa_mask);
  sigaction(signal, &action, nullptr);
}

}  // namespace

void catch_signals() {
  if (::pipe(wake) == 0) {
    for (const int end : wake) ::fcntl(end, F_SETFL, O_NONBLOCK);
  }
  for (const int signal : {SIGINT, SIGTERM, SIGHUP, SIGPIPE}) replace_handler(signal, SIG_DFL, note);
  replace_handler(SIGPIPE, SIG_IGN, note);
}

void open_standard_files() {
  for (const int file : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
    const bool is_closed = ::fcntl(file, F_GETFD) < 0 && errno == EBADF;
    // It gets the lowest number that is free: this one.
    if (is_closed) ::open("/dev/null", file == STDOUT_FILENO ? O_RDONLY : O_RDWR);
  }
}

bool stop_asked() {
  return interrupted != 0 || ending != 0;
}

int ended_by() {
  return ending;
}

void forget_interrupt() {
  interrupted = 0;
}

TerminalSignals::TerminalSignals() {
  for (const int signal : kTerminalSignals) replace_handler(signal, SIG_DFL, note);
}

TerminalSignals::~TerminalSignals() {
  for (const int signal : kTerminalSignals) replace_handler(signal, note, SIG_DFL);
}

int take_terminal_signal() {
  for (const int signal : kTerminalSignals) {
    if (came[signal] == 0) continue;
    came[signal] = 0;
    return signal;
  }
  return 0;
}

Waited wait_for_input(int milliseconds) {
  const auto any = [] {
    return stop_asked() || std::any_of(std::begin(kTerminalSignals), std::end(kTerminalSignals),
                                       [](int signal) { return came[signal] != 0; });
  };
  pollfd files[] = {{STDIN_FILENO, POLLIN, 0}, {wake[0], POLLIN, 0}};
  while (!any()) {
    const int ready = ::poll(files, 2, milliseconds);
    if (ready == 0) return Waited::kLate;
    if (ready < 0 && errno != EINTR) return Waited::kInput;  // reading will report the error
    char bytes[16];
    while (::read(wake[0], bytes, sizeof bytes) > 0) {
    }
    if (ready > 0 && files[0].revents != 0 && !any()) return Waited::kInput;
  }
  return Waited::kSignal;
}

}  // namespace nibkv::llm
