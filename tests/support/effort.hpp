#pragma once

namespace nibkv::test {

/// Long random runs are this many times shorter where they usually run under an emulator.
#if defined(__x86_64__) || defined(__i386__)
inline constexpr unsigned kShorter = 1;
#else
inline constexpr unsigned kShorter = 10;
#endif

/// Tests walk all ports that run here; on a board, whose emulator is slow, the best one alone: parity and the golden
/// word have the others.
#ifdef NIBKV_NO_THREADS
inline constexpr bool kEveryPort = false;
#else
inline constexpr bool kEveryPort = true;
#endif

}  // namespace nibkv::test
