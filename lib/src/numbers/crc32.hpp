#pragma once

#include <cstddef>
#include <cstdint>

namespace nibkv {

namespace detail {
struct CrcTable {
  std::uint32_t of[16];
};
// The remainders of all values of four bits.
constexpr CrcTable make_crc_table() {
  CrcTable table{};
  for (std::uint32_t nibble = 0; nibble < 16; ++nibble) {
    std::uint32_t crc = nibble;
    for (int bit = 0; bit < 4; ++bit) crc = crc >> 1 ^ (0xedb88320u & (0u - (crc & 1u)));
    table.of[nibble] = crc;
  }
  return table;
}
inline constexpr CrcTable kCrcTable = make_crc_table();
}  // namespace detail

/// CRC-32 of IEEE 802.3 (reflected, polynomial 0xedb88320), one nibble at a time: a table of 64
/// bytes. Start with 0, and pass the last result to continue.
inline std::uint32_t crc32(std::uint32_t crc, const std::byte* bytes, std::size_t count) {
  crc = ~crc;
  for (std::size_t i = 0; i < count; ++i) {
    crc ^= static_cast<std::uint32_t>(bytes[i]);
    crc = crc >> 4 ^ detail::kCrcTable.of[crc & 15];
    crc = crc >> 4 ^ detail::kCrcTable.of[crc & 15];
  }
  return ~crc;
}

}  // namespace nibkv
