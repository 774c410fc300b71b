#pragma once

namespace nibkv::test {

/// Long random runs are this many times shorter where they usually run under an emulator.
#if defined(__x86_64__) || defined(__i386__)
inline constexpr unsigned kShorter = 1;
#else
inline constexpr unsigned kShorter = 10;
#endif

}  // namespace nibkv::test
