#pragma once

#include <cstddef>

#include "tests/baremetal/print.hpp"

/// What a program on a bare board gets from the debugger, here qemu: its arguments, output
/// (print.hpp), the exit status.
namespace nibkv::metal {

/// Ends in a zero; empty if it does not fit.
void read_command_line(char* text, std::size_t bytes);
[[noreturn]] void leave(int status);

/// The maximum stack depth so far, in bytes.
std::size_t stack_used();

}  // namespace nibkv::metal
