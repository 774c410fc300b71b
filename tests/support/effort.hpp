#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdlib>

namespace nibkv::test {

/// Long runs, random ones and those that try everything, are this many times shorter where they usually run under an
/// emulator, most of all that of a board, and under sanitizers. Of a list of cases every kEvery-th is tried there: a
/// prime, so that lists in lists are gone through evenly. What goes through a snapshot bit by bit or byte by byte takes
/// steps of kStride, odd ones, which reach all bits of a byte.
#if defined(NIBKV_NO_THREADS)
inline constexpr unsigned kShorter = 60, kEvery = 31, kStride = 61;
#elif !defined(__x86_64__) && !defined(__i386__)
inline constexpr unsigned kShorter = 10, kEvery = 7, kStride = 11;
#elif defined(NIBKV_SANITIZED)
inline constexpr unsigned kShorter = 4, kEvery = 3, kStride = 1;
#else
inline constexpr unsigned kShorter = 1, kEvery = 1, kStride = 1;
#endif

/// What is left of so many turns, but at least so many.
constexpr unsigned turns(unsigned all, unsigned least) {
  return std::max(all / kShorter, std::min(all, least));
}

/// What follows i where all of [0, last] is tried, kStride apart; the last is always among them.
constexpr std::size_t after(std::size_t i, std::size_t last) {
  return i < last ? std::min<std::size_t>(i + kStride, last) : last + 1;
}

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
