#pragma once

#include <cstdint>

namespace nibkv::metal {

/// Output for programs without a heap, and hence without stdio: through semihosting on a board,
/// to standard output on a host.
/// @param text  ends with a zero
void say(const char* text);
void say_number(std::uint64_t number);
/// 0x and 16 digits.
void say_word(std::uint64_t word);

}  // namespace nibkv::metal
