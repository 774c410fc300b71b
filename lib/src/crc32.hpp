#pragma once

#include <cstddef>
#include <cstdint>

namespace nibkv {

/// CRC-32 of IEEE 802.3 (reflected, polynomial 0xedb88320), without tables. Start with 0 and pass the last result on to
/// go on.
inline std::uint32_t crc32(std::uint32_t crc, const std::byte* bytes, std::size_t count) {
  crc = ~crc;
  for (std::size_t i = 0; i < count; ++i) {
    crc ^= static_cast<std::uint32_t>(bytes[i]);
    for (int bit = 0; bit < 8; ++bit) crc = crc >> 1 ^ (0xedb88320u & (0u - (crc & 1u)));
  }
  return ~crc;
}

}  // namespace nibkv
