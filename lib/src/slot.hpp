#pragma once

#include <cstddef>
#include <cstdint>

#include "access.hpp"

namespace nibkv {

/// Index of the byte of key channel c in slot `lane`; the nibble is lane / 16. See lib/FORMAT.md.
constexpr std::size_t key_byte(std::uint32_t lane, std::uint32_t c) {
  return c / 4 * 64 + lane % 16 * 4 + c % 4;
}
/// The same for a value channel.
constexpr std::size_t value_byte(std::uint32_t lane, std::uint32_t c, std::uint32_t head_dim) {
  return std::size_t{lane % 16 / 4} * head_dim * 4 + c * 4 + lane % 4;
}
/// Index of the outlier byte of the n-th outlier channel in slot `lane`.
constexpr std::size_t outlier_byte(std::uint32_t lane, std::uint32_t n) {
  return n / 4 * 128 + lane * 4 + n % 4;
}

inline void put_nibble(std::uint8_t& byte, std::uint32_t lane, std::uint8_t code) {
  byte = static_cast<std::uint8_t>(lane < 16 ? (byte & 0xf0) | code : (byte & 0x0f) | code << 4);
}
inline std::uint8_t get_nibble(std::uint8_t byte, std::uint32_t lane) {
  return static_cast<std::uint8_t>(lane < 16 ? byte & 0x0f : byte >> 4);
}

/// Copies one slot: codes and side data, but not its position.
void move_slot(const Access& to, std::uint32_t from_tile, std::uint32_t from_lane, std::uint32_t to_tile,
               std::uint32_t to_lane);

}  // namespace nibkv
