#include "slot.hpp"

namespace nibkv {
namespace {

// Codes move as little-endian words, read and written in loops of their own, which compilers make vectors of: from and
// to may be one tile.
std::uint32_t word_at(const std::uint8_t* codes, std::uint32_t index) {
  std::uint32_t word;
  std::memcpy(&word, codes + index * 4, sizeof word);
  return word;
}
void put_word(std::uint8_t* codes, std::uint32_t index, std::uint32_t word) {
  std::memcpy(codes + index * 4, &word, sizeof word);
}

// A word is four channels of a slot and of the one 16 further on.
void move_keys(const std::uint8_t* from, std::uint32_t from_lane, std::uint8_t* to, std::uint32_t to_lane,
               std::uint32_t head_dim) {
  constexpr std::uint32_t kNibbles = 0x0f0f0f0f;
  std::uint32_t codes[kMaxHeadDim / 4];
  const std::uint32_t from_shift = from_lane < 16 ? 0 : 4;
  const std::uint32_t to_shift = to_lane < 16 ? 0 : 4;
  for (std::uint32_t g = 0; g < head_dim / 4; ++g) {
    codes[g] = word_at(from, g * 16 + from_lane % 16) >> from_shift & kNibbles;
  }
  for (std::uint32_t g = 0; g < head_dim / 4; ++g) {
    const std::uint32_t index = g * 16 + to_lane % 16;
    put_word(to, index, (word_at(to, index) & ~(kNibbles << to_shift)) | codes[g] << to_shift);
  }
}

// A word is one channel of four slots and of those 16 further on.
void move_values(const std::uint8_t* from, std::uint32_t from_lane, std::uint8_t* to, std::uint32_t to_lane,
                 std::uint32_t head_dim) {
  std::uint32_t codes[kMaxHeadDim];
  const std::uint32_t from_shift = from_lane % 4 * 8 + (from_lane < 16 ? 0 : 4);
  const std::uint32_t to_shift = to_lane % 4 * 8 + (to_lane < 16 ? 0 : 4);
  from += from_lane % 16 / 4 * head_dim * 4;
  to += to_lane % 16 / 4 * head_dim * 4;
  for (std::uint32_t c = 0; c < head_dim; ++c) codes[c] = (word_at(from, c) >> from_shift & 15) << to_shift;
  for (std::uint32_t c = 0; c < head_dim; ++c) {
    put_word(to, c, (word_at(to, c) & ~(std::uint32_t{15} << to_shift)) | codes[c]);
  }
}

}  // namespace

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
  // The codes that two layers share moved with the lower one.
  const bool upper = to.is_view(to_tile) && to.is_upper(to_tile);
  if (!upper || !to.shares_keys(to_tile))
    move_keys(to.key_codes(from_tile), from_lane, to.key_codes(to_tile), to_lane, shape.head_dim);
  if (!upper || !to.shares_values(to_tile))
    move_values(to.value_codes(from_tile), from_lane, to.value_codes(to_tile), to_lane, shape.head_dim);
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
