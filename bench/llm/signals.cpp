#include "bench/llm/signals.hpp"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <initializer_list>

namespace nibkv::llm {
namespace {

volatile std::sig_atomic_t interrupted = 0;
volatile std::sig_atomic_t ending = 0;
// One byte for each signal, so that one that comes just before the wait, or in another thread,
// still ends the wait.
int wake[2] = {-1, -1};

void note(int signal) {
  const int before = errno;
  if (signal == SIGINT) {
    interrupted = 1;
  } else {
    ending = signal;
  }
  [[maybe_unused]] const ssize_t written = ::write(wake[1], "", 1);
  errno = before;
}

}  // namespace

void catch_signals() {
  if (::pipe(wake) == 0) {
    for (const int end : wake) ::fcntl(end, F_SETFL, O_NONBLOCK);
  }
  for (const int signal : {SIGINT, SIGTERM, SIGHUP, SIGPIPE}) {
    struct sigaction action = {};
    sigaction(signal, nullptr, &action);
    if (action.sa_handler == SIG_IGN && signal != SIGPIPE) continue;
    action = {};
    action.sa_handler = note;
    action.sa_flags = SA_RESTART;
    sigemptyset(&action.sa_mask);
    sigaction(signal, &action, nullptr);
  }
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

bool wait_for_input() {
  pollfd files[] = {{STDIN_FILENO, POLLIN, 0}, {wake[0], POLLIN, 0}};
  while (!stop_asked()) {
    if (::poll(files, 2, -1) < 0 && errno != EINTR) return true;  // reading will report the error
    char bytes[16];
    while (::read(wake[0], bytes, sizeof bytes) > 0) {
    }
    if (files[0].revents != 0) return !stop_asked();
  }
  return false;
}

}  // namespace nibkv::llm
