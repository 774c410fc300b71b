#pragma once

// Signals are noted, and a program acts on them when there is nothing to lose.

namespace nibkv::llm {

/// From now on SIGINT, SIGTERM, SIGHUP and SIGPIPE are noted only, but those that were ignored before (nohup) still
/// are.
void catch_signals();

/// Opens /dev/null in place of standard input, output and error where they are closed: no file or pipe gets their
/// numbers then.
void open_standard_files();

/// Whether work shall stop: one of them came.
bool stop_asked();

/// The one that ends the program: any but SIGINT. 0 for none.
int ended_by();

/// SIGINT was for work that has stopped.
void forget_interrupt();

/// Waits until standard input can be read. False when a signal came before.
bool wait_for_input();

}  // namespace nibkv::llm
