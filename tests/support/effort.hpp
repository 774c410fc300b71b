#pragma once

#include <cstdlib>

namespace nibkv::test {

/// Long random runs are this many times shorter where they usually run under an emulator.
#if defined(__x86_64__) || defined(__i386__)
inline constexpr unsigned kShorter = 1;
#else
inline constexpr unsigned kShorter = 10;
#endif

/// How many times as long they are to be: NIBKV_EFFORT of the environment, 1 without it.
inline unsigned effort() {
  const char* text = std::getenv("NIBKV_EFFORT");
  const long times = text != nullptr ? std::strtol(text, nullptr, 10) : 1;
  return times >= 1 && times <= 1000000 ? static_cast<unsigned>(times) : 1;
}
/// Tests walk all ports that run here; on a board, whose emulator is slow, the best one alone: parity and the golden
/// word have the others.
#ifdef NIBKV_NO_THREADS
inline constexpr bool kEveryPort = false;
#else
inline constexpr bool kEveryPort = true;
#endif

}  // namespace nibkv::test
