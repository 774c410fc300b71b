#include "slot.hpp"

namespace nibkv {

void move_slot(const Access& to, std::uint32_t from_tile, std::uint32_t from_lane, std::uint32_t to_tile,
               std::uint32_t to_lane) {
  const Shape& shape = to.shape();
  if (shape.storage == Storage::kF32) {
    for (std::uint32_t c = 0; c < shape.head_dim; ++c) {
      to.key_rows(to_tile)[c * kTileSlots + to_lane] = to.key_rows(from_tile)[c * kTileSlots + from_lane];
    }
    std::memmove(to.value_rows(to_tile) + to_lane * shape.head_dim,
                 to.value_rows(from_tile) + from_lane * shape.head_dim, shape.head_dim * sizeof(float));
    return;
  }
  const std::uint8_t* from_keys = to.key_codes(from_tile);
  const std::uint8_t* from_values = to.value_codes(from_tile);
  std::uint8_t* to_keys = to.key_codes(to_tile);
  std::uint8_t* to_values = to.value_codes(to_tile);
  for (std::uint32_t c = 0; c < shape.head_dim; ++c) {
    put_nibble(to_keys[key_byte(to_lane, c)], to_lane, get_nibble(from_keys[key_byte(from_lane, c)], from_lane));
    put_nibble(to_values[value_byte(to_lane, c, shape.head_dim)], to_lane,
               get_nibble(from_values[value_byte(from_lane, c, shape.head_dim)], from_lane));
  }
  for (std::uint32_t n = 0; n < shape.outlier_channels; ++n) {
    to.outliers(to_tile)[outlier_byte(to_lane, n)] = to.outliers(from_tile)[outlier_byte(from_lane, n)];
  }
  to.key_scales(to_tile)[to_lane] = to.key_scales(from_tile)[from_lane];
  to.value_scales(to_tile)[to_lane] = to.value_scales(from_tile)[from_lane];
  if (keeps_global(to.policy())) to.global(to_tile)[to_lane] = to.global(from_tile)[from_lane];
  if (keeps_local(to.policy())) to.local(to_tile)[to_lane] = to.local(from_tile)[from_lane];
  if (merges(to.policy())) {
    to.bias(to_tile)[to_lane] = to.bias(from_tile)[from_lane];
    to.merged(to_tile)[to_lane] = to.merged(from_tile)[from_lane];
  }
}

}  // namespace nibkv
