#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdlib>

namespace nibkv::test {

/// Long runs, whether random or exhaustive, are this many times shorter where they usually run
/// under an emulator, especially that of a board, and under sanitizers. Of a list of cases, every
/// kEvery-th is tried there: a prime, so that nested lists are covered evenly. Tests that go
/// through a snapshot bit by bit or byte by byte take steps of kStride, which is odd, so that all
/// bits of a byte are reached.
#if defined(NIBKV_NO_THREADS)
inline constexpr unsigned kShorter = 60, kEvery = 31, kStride = 61;
#elif !defined(__x86_64__) && !defined(__i386__)
inline constexpr unsigned kShorter = 20, kEvery = 13, kStride = 17;
#elif defined(NIBKV_SANITIZED)
inline constexpr unsigned kShorter = 8, kEvery = 5, kStride = 1;
#else
inline constexpr unsigned kShorter = 1, kEvery = 1, kStride = 1;
#endif

/// The reduced number of turns, but at least this many.
constexpr unsigned turns(unsigned all, unsigned least) {
  return std::max(all / kShorter, std::min(all, least));
}

/// The number after i when [0, last] is tried in steps of kStride; the last is always included.
constexpr std::size_t after(std::size_t i, std::size_t last) {
  return i < last ? std::min<std::size_t>(i + kStride, last) : last + 1;
}

/// How many times longer they should be: NIBKV_EFFORT of the environment, 1 without it.
inline unsigned effort() {
  const char* text = std::getenv("NIBKV_EFFORT");
  const long times = text != nullptr ? std::strtol(text, nullptr, 10) : 1;
  return times >= 1 && times <= 1000000 ? static_cast<unsigned>(times) : 1;
}
/// Tests go through all ports that run here; under an emulator or sanitizers only through the fastest one: parity holds
/// the others to its bytes, and watches what they write.
inline constexpr bool kEveryPort = kShorter == 1;

}  // namespace nibkv::test
