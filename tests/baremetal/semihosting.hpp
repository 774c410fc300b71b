#pragma once

#include <cstddef>

/// What a program on a bare board asks of the debugger, here qemu: output and the exit status.
namespace nibkv::metal {

/// @param text  ends with a zero
void say(const char* text);
[[noreturn]] void leave(int status);

}  // namespace nibkv::metal
