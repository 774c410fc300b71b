#pragma once

#include "arena/view.hpp"

#if defined(__SANITIZE_ADDRESS__)
#define NIBKV_POISONS 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define NIBKV_POISONS 1
#endif
#endif

#if defined(NIBKV_POISONS) && defined(NIBKV_ASSERTS)
extern "C" void __asan_poison_memory_region(const volatile void* at, std::size_t bytes);
extern "C" void __asan_unpoison_memory_region(const volatile void* at, std::size_t bytes);

namespace nibkv {

/// Under AddressSanitizer, with NIBKV_ASSERTS, what lies between the regions of an arena's state may not be
/// read or written, until the arena is used for another cache: its memory must not serve anything else.
inline void poison_gaps(const ArenaView& to) {
  for (const Region& region : kRegions) {
    const std::uint64_t begin = to.layout().*region.offset;
    if (region.size != Region::Size::kLayout && begin >= to.layout().plan) continue;  // scratch lies in these
    const std::uint64_t end = begin + region.bytes(to.shape(), to.policy(), to.layout());
    __asan_poison_memory_region(to.at<std::byte>(end),
                                static_cast<std::size_t>(detail::round_up(end, kArenaAlignment) - end));
  }
}
inline void unpoison(std::span<std::byte> arena) {
  __asan_unpoison_memory_region(arena.data(), arena.size());
}

}  // namespace nibkv
#else
namespace nibkv {

inline void poison_gaps(const ArenaView&) {}
inline void unpoison(std::span<std::byte>) {}

}  // namespace nibkv
#endif
