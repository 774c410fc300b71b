#pragma once

#include <cstddef>
#include <cstdint>

namespace nibkv {

/// Asks for memory that is read soon, into the second-level cache. Always inline: gcc takes a function that only
/// prefetches for one without effect, and drops calls of it.
[[gnu::always_inline]] inline void prefetch(const void* at, std::uint32_t bytes) {
  for (std::uint32_t offset = 0; offset < bytes; offset += 64)
    __builtin_prefetch(static_cast<const std::byte*>(at) + offset, 0, 2);
}

}  // namespace nibkv
