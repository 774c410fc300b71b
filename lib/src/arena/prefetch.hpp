#pragma once

#include <cstddef>
#include <cstdint>

namespace nibkv {

/// Prefetches memory that will be read soon into the second-level cache. Always inline: gcc takes
/// a function that only prefetches to have no effect, and removes calls to it.
[[gnu::always_inline]] inline void prefetch(const void* at, std::uint32_t bytes) {
  for (std::uint32_t offset = 0; offset < bytes; offset += 64)
    __builtin_prefetch(static_cast<const std::byte*>(at) + offset, 0, 2);
}

}  // namespace nibkv
