#pragma once

#include <cstddef>
#include <cstdint>

#include "arena/view.hpp"
#include "codec/basis.hpp"

namespace nibkv {

/// First bytes of a page in a store. Then side data and codes of 32 tokens of a head, as a tile has them.
struct PageHeader {
  std::uint32_t magic;
  std::uint32_t sum;  // of what follows it
  std::uint32_t identity;
  std::uint32_t profile;
  std::uint32_t head;  // layer * kv_heads + kv_head
  std::uint32_t page;  // as the log counts them, not its place
  std::uint32_t bytes;
  std::uint32_t reserved;
};
static_assert(sizeof(PageHeader) == detail::kColdPageHeaderBytes);

/// A page in memory.
struct PageBytes {
  const ArenaView& to;
  std::byte* bytes;

  std::byte* side() const { return bytes + sizeof(PageHeader); }
  std::uint32_t sum() const {
    std::uint32_t value;
    std::memcpy(&value, bytes + offsetof(PageHeader, sum), sizeof value);
    return value;
  }
  std::uint8_t* keys() const { return reinterpret_cast<std::uint8_t*>(side() + to.layout().side_bytes); }
  std::uint8_t* values() const { return keys() + to.layout().key_bytes; }
  std::uint16_t key_scale(std::uint32_t lane) const { return scale(kFirstSides.key_scales, lane); }
  std::uint16_t value_scale(std::uint32_t lane) const { return scale(kFirstSides.value_scales, lane); }
  std::int8_t outlier(std::size_t index) const {
    return static_cast<std::int8_t>(side()[kFirstSides.outliers + index]);
  }

 private:
  std::uint16_t scale(std::uint32_t offset, std::uint32_t lane) const {
    std::uint16_t value;
    std::memcpy(&value, side() + offset + lane * 2, sizeof value);
    return value;
  }
};

/// Puts a slot into a page, or takes it from there.
void slot_to_page(const PageBytes& page, const Place& from, std::uint32_t lane);
void slot_from_page(const PageBytes& page, std::uint32_t lane, const Place& place);

/// Completes a page and writes it.
/// @returns false if the store could not, or if it was to be read back and was not what was written
bool write_page(const PageBytes& page, std::size_t head_index, std::uint32_t index, std::uint32_t number);

/// Reads a page.
/// @param index  the head's number among the indexed ones
/// @param sum    of the page that was written
/// @returns false if the store could not, and if it is not that page
bool read_page(const PageBytes& page, std::size_t head_index, std::uint32_t index, std::uint32_t number,
               std::uint32_t sum);
/// Tells the store that read_page follows.
void prefetch_page(const ArenaView& to, std::uint32_t index, std::uint32_t number);

}  // namespace nibkv
