#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "nibkv/shape.hpp"

namespace nibkv::test {

// For what AddressSanitizer watches between the regions of an arena (see Rig).
#if defined(__clang__)
#define NIBKV_UNWATCHED [[clang::no_sanitize("address")]]
#else
#define NIBKV_UNWATCHED
#endif

/// The bytes of an arena, those in between too. Not by memcpy, which is watched everywhere.
NIBKV_UNWATCHED inline std::vector<std::byte> copy_of(std::span<const std::byte> bytes) {
  std::vector<std::byte> copy(bytes.size());
  const volatile std::byte* from = bytes.data();
  for (std::byte& to : copy) to = *from++;
  return copy;
}
/// The other way round.
NIBKV_UNWATCHED inline void put_back(std::span<const std::byte> copy, std::span<std::byte> bytes) {
  volatile std::byte* to = bytes.data();
  for (const std::byte from : copy) *to++ = from;
}

/// Memory for an arena, filled with a pattern, between guard bytes.
class Arena {
 public:
  /// @param offset  bytes past a multiple of kArenaAlignment
  explicit Arena(std::size_t bytes, std::size_t offset = 0)
      : storage_(bytes + 2 * kGuard + kArenaAlignment, kGuardByte) {
    const auto address = reinterpret_cast<std::uintptr_t>(storage_.data()) + kGuard;
    start_ = kGuard + (kArenaAlignment - address % kArenaAlignment) % kArenaAlignment + offset;
    size_ = bytes;
    std::fill_n(storage_.begin() + static_cast<std::ptrdiff_t>(start_), size_, kFill);
  }

  std::span<std::byte> bytes() { return {storage_.data() + start_, size_}; }
  std::span<const std::byte> bytes() const { return {storage_.data() + start_, size_}; }
  std::vector<std::byte> copy() const { return copy_of(bytes()); }

  /// True if no byte before or after the arena was written.
  bool guards_intact() const {
    const auto whole = [](std::byte byte) { return byte == kGuardByte; };
    const auto begin = storage_.begin();
    return std::all_of(begin, begin + static_cast<std::ptrdiff_t>(start_), whole) &&
           std::all_of(begin + static_cast<std::ptrdiff_t>(start_ + size_), storage_.end(), whole);
  }

 private:
  static constexpr std::size_t kGuard = 4096;
  static constexpr std::byte kGuardByte{0xc3};
  static constexpr std::byte kFill{0xa5};

  std::vector<std::byte> storage_;
  std::size_t start_ = 0;
  std::size_t size_ = 0;
};

}  // namespace nibkv::test
