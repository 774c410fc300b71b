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

/// Waits until standard input can be read. Returns false if a signal came before.
bool wait_for_input();

}  // namespace nibkv::llm
