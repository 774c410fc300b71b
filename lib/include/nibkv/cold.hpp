#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "nibkv/macros_push.hpp"

namespace nibkv {

/// Where the tokens go for which an arena has no space (Policy::log): a file, flash, slow memory. It holds pages of
/// cold_page_bytes(), one for 32 tokens of a head, each at a multiple of that, cold_bytes() in all. Pages are read
/// and written whole, so this is where a cipher goes, and a page is overwritten only when its tokens are forgotten.
///
/// One cache writes a store; clone takes another one for the copy. Where two did, each would find pages of the other,
/// and lose its own.
///
/// Nothing that a store returns is trusted: each page has a checksum, its number, its head and the store's `identity`,
/// and the arena knows the checksum. A page that cannot be read, or is another one, an older one of the same number
/// too, counts as lost (RecallUsage::lost_pages), and its tokens with it.
struct ColdStore {
  /// Writes a page at a byte offset. From append, tidy, and what else makes space.
  /// @returns false if it could not: the page's tokens are lost then
  bool (*write)(void* context, std::uint64_t offset, const void* page, std::size_t bytes) = nullptr;
  /// Reads a page. From recall, on several threads at a time if recall is called on several.
  /// @returns false if it could not
  bool (*read)(void* context, std::uint64_t offset, void* page, std::size_t bytes) = nullptr;
  /// Says which page recall reads later in the same call; may be null.
  void (*prefetch)(void* context, std::uint64_t offset, std::size_t bytes) = nullptr;
  void* context = nullptr;
  /// A number for what the cache holds, such as that of a conversation: pages of another one are foreign.
  std::uint32_t identity = 0;
  /// Whether each page is read back once it is written. One that comes back otherwise is lost, and known to be.
  bool verify = false;
};

namespace detail {
inline constexpr char kColdPageMagic[4] = {'N', 'B', 'K', 'P'};  ///< what a page begins with

struct ColdMemory {
  static bool write(void* context, std::uint64_t offset, const void* page, std::size_t bytes) {
    std::memcpy(static_cast<std::byte*>(context) + offset, page, bytes);
    return true;
  }
  static bool read(void* context, std::uint64_t offset, void* page, std::size_t bytes) {
    std::memcpy(page, static_cast<const std::byte*>(context) + offset, bytes);
    return true;
  }
};
}  // namespace detail

/// A store in memory that is slower than the arena's: external RAM of a board (PSRAM, SDRAM), FRAM, a region that
/// another core serves. What a copy cannot write, such as flash, needs callbacks; for files there is file_store.hpp.
///
/// Pages are copied whole, by the thread that calls append or recall, so nothing has to be flushed for this library.
/// What the memory held before does not matter.
/// @param memory  cold_bytes() or more, of any alignment; must outlive the cache
inline ColdStore memory_store(std::byte* memory, std::uint32_t identity = 0) {
  return {detail::ColdMemory::write, detail::ColdMemory::read, nullptr, memory, identity, false};
}

}  // namespace nibkv

#include "nibkv/macros_pop.hpp"
