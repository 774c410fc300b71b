#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "nibkv/profile.hpp"
#include "numbers/crc32.hpp"
#include "numbers/numbers.hpp"

namespace nibkv {

/// A writable HeadProfile.
struct WritableHeadProfile {
  std::uint8_t* channels;
  std::uint8_t* outlier_scales;
  std::uint8_t* key_means;
  std::uint8_t* query_squares;
  std::uint8_t* head_score;
  std::uint8_t* cosines;
};

/// The bytes of one head's record, and of one head's maps.
constexpr std::size_t profile_record_bytes(std::size_t head_dim) {
  return kMaxOutlierChannels * 3 + head_dim * 4 + 2 + 5 * 2;
}
constexpr std::size_t profile_map_bytes(std::size_t head_dim) {
  return (head_dim * head_dim + head_dim) * 2;
}

inline std::uint16_t u16_at(const std::uint8_t* bytes, std::uint32_t index) {
  return static_cast<std::uint16_t>(bytes[2 * index] | bytes[2 * index + 1] << 8);
}
inline std::int16_t i16_at(const std::uint8_t* bytes, std::size_t index) {
  std::int16_t value;
  std::memcpy(&value, bytes + 2 * index, 2);
  return value;
}
inline float bf16_at(const std::uint8_t* bytes, std::uint32_t index) {
  return from_bf16(u16_at(bytes, index));
}
inline void put_u16(std::uint8_t* bytes, std::uint32_t index, std::uint16_t value) {
  std::memcpy(bytes + 2 * index, &value, 2);
}
inline void put_i16(std::uint8_t* bytes, std::size_t index, std::int16_t value) {
  std::memcpy(bytes + 2 * index, &value, 2);
}

/// The fields of one head's record inside the profile that starts at `data`; Byte is std::byte, const or not.
template <typename Byte>
auto head_profile_at(Byte* data, std::size_t index, std::uint32_t head_dim) {
  constexpr bool kConst = std::is_const_v<Byte>;
  using U8 = std::conditional_t<kConst, const std::uint8_t, std::uint8_t>;
  U8* channels = reinterpret_cast<U8*>(data) + sizeof(ProfileHeader) + index * profile_record_bytes(head_dim);
  U8* outlier_scales = channels + kMaxOutlierChannels;
  U8* key_means = outlier_scales + 2 * kMaxOutlierChannels;
  U8* query_squares = key_means + 2 * std::size_t{head_dim};
  U8* head_score = query_squares + 2 * std::size_t{head_dim};
  if constexpr (kConst) {
    return HeadProfile{channels, outlier_scales, key_means, query_squares, u16_at(head_score, 0)};
  } else {
    return WritableHeadProfile{channels, outlier_scales, key_means, query_squares, head_score, head_score + 2};
  }
}

/// The five cosines of a head's record.
inline const std::uint8_t* profile_cosines_at(const std::byte* data, std::size_t index, std::uint32_t head_dim) {
  const std::size_t end = sizeof(ProfileHeader) + (index + 1) * profile_record_bytes(head_dim);
  return reinterpret_cast<const std::uint8_t*>(data) + end - 5 * 2;
}

/// The maps of a head: its value map, then its key rotations.
/// @param heads  of all layers
/// @param above  number of the head among those above layer 0
template <typename Byte>
auto profile_maps_at(Byte* data, std::size_t heads, std::size_t above, std::uint32_t head_dim) {
  using U8 = std::conditional_t<std::is_const_v<Byte>, const std::uint8_t, std::uint8_t>;
  return reinterpret_cast<U8*>(data) + sizeof(ProfileHeader) + heads * profile_record_bytes(head_dim) +
         above * profile_map_bytes(head_dim);
}

/// The attention of a head, HeadAttention as its u16 one after the other.
/// @param heads  of all layers
/// @param above  heads above layer 0, which have maps; 0 without
template <typename Byte>
Byte* profile_attention_at(Byte* data, std::size_t heads, std::size_t above, std::size_t index,
                           std::uint32_t head_dim) {
  return data + sizeof(ProfileHeader) + heads * profile_record_bytes(head_dim) + above * profile_map_bytes(head_dim) +
         index * sizeof(HeadAttention);
}

/// Whether a record's channels, scales and mean key are in their ranges.
/// @param record  u8[16], scale16[16], bf16[head_dim]
[[gnu::visibility("hidden")]] bool good_channels(const std::uint8_t* record, std::uint32_t head_dim);

/// The checksum that a profile's header must have: over all bytes of the profile, with
/// this field taken as 0.
inline std::uint32_t profile_crc(const std::byte* data, std::size_t size) {
  constexpr std::size_t kCrcAt = offsetof(ProfileHeader, crc);
  const std::byte zero[4] = {};
  std::uint32_t crc = crc32(0, data, kCrcAt);
  crc = crc32(crc, zero, sizeof zero);
  return crc32(crc, data + kCrcAt + sizeof zero, size - kCrcAt - sizeof zero);
}

}  // namespace nibkv
