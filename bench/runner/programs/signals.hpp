#pragma once

// Signals are only recorded; a program acts on them when nothing can be lost.

namespace nibkv::llm {

/// From now on SIGINT, SIGTERM, SIGHUP and SIGPIPE are only recorded, except those that were
/// ignored before (nohup), which still are.
void catch_signals();

/// Opens /dev/null in place of standard input, output and error if they are closed, so that no file
/// or pipe gets their numbers. Input is at its end then, errors are lost, and output cannot be written,
/// which is an error as on a full disk.
void open_standard_files();

/// Whether work should stop, because one of them came.
bool stop_asked();

/// The signal that ends the program: any but SIGINT. 0 for none.
int ended_by();

/// Clears a SIGINT that was meant for work that has stopped.
void forget_interrupt();

/// What comes from outside while a program has changed the modes of the terminal: as long as this lives, SIGTSTP and
/// SIGQUIT are only recorded, so that the terminal can be put back first, and SIGCONT is, so that its modes can be set
/// again, which somebody else may have changed meanwhile. Those that were ignored before still are.
class TerminalSignals {
 public:
  TerminalSignals();
  TerminalSignals(const TerminalSignals&) = delete;
  TerminalSignals& operator=(const TerminalSignals&) = delete;
  ~TerminalSignals();
};

/// The one of them that came since the last call; 0 for none.
int take_terminal_signal();

/// What ends a wait: input that can be read, the end of the time, or a signal.
enum class Waited : unsigned char { kInput, kLate, kSignal };

/// Waits until standard input can be read, or any of these signals comes.
/// @param milliseconds  at most; -1 for any time
Waited wait_for_input(int milliseconds = -1);

}  // namespace nibkv::llm
