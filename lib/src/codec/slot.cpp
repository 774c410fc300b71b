#include "codec/slot.hpp"

#include "arena/band.hpp"

// Loops over the side fields of a slot, unrolled unless size matters more.
#ifdef __OPTIMIZE_SIZE__
#define NIBKV_UNROLL
#else
#define NIBKV_UNROLL _Pragma("GCC unroll 8")
#endif

namespace nibkv {
namespace {

// Codes are packed in little-endian words. These are read and written in separate loops, which
// compilers can vectorise.
std::uint32_t word_at(const std::uint8_t* codes, std::uint32_t index) {
  std::uint32_t word;
  std::memcpy(&word, codes + index * 4, sizeof word);
  return word;
}
void put_word(std::uint8_t* codes, std::uint32_t index, std::uint32_t word) {
  std::memcpy(codes + index * 4, &word, sizeof word);
}

// The slot's element of the n-th array of a side field.
std::byte* side_element(const ArenaView& to, const SideField& field, std::uint32_t tile, std::uint32_t n,
                        std::uint32_t lane) {
  return to.side(tile) + to.layout().side.*field.offset + (n * kTileSlots + lane) * field.bytes;
}

void copy_f32(const void* keys, const void* values, std::uint32_t lane, const ArenaView& to, const Place& to_at) {
  const std::uint32_t dim = to.shape().head_dim;
  const auto* from = static_cast<const float*>(keys);
  for (std::uint32_t c = 0; c < dim; ++c) {
    to.key_rows(to_at.tile)[c * kTileSlots + to_at.lane] = from[c * kTileSlots + lane];
  }
  std::memmove(to.value_rows(to_at.tile) + to_at.lane * dim, static_cast<const float*>(values) + lane * dim,
               dim * sizeof(float));
}

}  // namespace

// A word holds four channels of a slot and of the slot 16 after it.
void get_key_codes(const std::uint8_t* tile, std::uint32_t lane, std::uint32_t head_dim, std::uint8_t* codes) {
  const std::uint32_t shift = lane < 16 ? 0 : 4;
  for (std::uint32_t g = 0; g < head_dim / 4; ++g) {
    put_word(codes, g, word_at(tile, g * 16 + lane % 16) >> shift & 0x0f0f0f0f);
  }
}

void put_key_codes(std::uint8_t* tile, std::uint32_t lane, std::uint32_t head_dim, const std::uint8_t* codes) {
  const std::uint32_t shift = lane < 16 ? 0 : 4;
  const std::uint32_t others = ~(std::uint32_t{0x0f0f0f0f} << shift);
  for (std::uint32_t g = 0; g < head_dim / 4; ++g) {
    const std::uint32_t index = g * 16 + lane % 16;
    put_word(tile, index, (word_at(tile, index) & others) | word_at(codes, g) << shift);
  }
}

// A word holds one channel of four slots and of the four slots 16 after them.
void get_value_codes(const std::uint8_t* tile, std::uint32_t lane, std::uint32_t head_dim, std::uint8_t* codes) {
  const std::uint32_t shift = lane % 4 * 8 + (lane < 16 ? 0 : 4);
  tile += lane % 16 / 4 * head_dim * 4;
  for (std::uint32_t c = 0; c < head_dim; ++c) codes[c] = static_cast<std::uint8_t>(word_at(tile, c) >> shift & 15);
}

void put_value_codes(std::uint8_t* tile, std::uint32_t lane, std::uint32_t head_dim, const std::uint8_t* codes) {
  const std::uint32_t shift = lane % 4 * 8 + (lane < 16 ? 0 : 4);
  const std::uint32_t others = ~(std::uint32_t{15} << shift);
  tile += lane % 16 / 4 * head_dim * 4;
  for (std::uint32_t start = 0; start < head_dim; start += 16) {
    std::uint32_t words[16];  // apart from the codes, which compilers could not know otherwise
    std::memcpy(words, tile + start * 4, sizeof words);
    for (std::uint32_t c = 0; c < 16; ++c) words[c] = (words[c] & others) | std::uint32_t{codes[start + c]} << shift;
    std::memcpy(tile + start * 4, words, sizeof words);
  }
}

namespace {

// From a slot to another one, which may be in the same tile: get and put, in one where size does not come first.
#ifdef __OPTIMIZE_SIZE__
void move_key_codes(const std::uint8_t* from, std::uint32_t from_lane, std::uint8_t* to, std::uint32_t to_lane,
                    std::uint32_t head_dim) {
  std::uint8_t codes[kMaxHeadDim];
  get_key_codes(from, from_lane, head_dim, codes);
  put_key_codes(to, to_lane, head_dim, codes);
}

void move_value_codes(const std::uint8_t* from, std::uint32_t from_lane, std::uint8_t* to, std::uint32_t to_lane,
                      std::uint32_t head_dim) {
  std::uint8_t codes[kMaxHeadDim];
  get_value_codes(from, from_lane, head_dim, codes);
  put_value_codes(to, to_lane, head_dim, codes);
}
#else
void move_key_codes(const std::uint8_t* from, std::uint32_t from_lane, std::uint8_t* to, std::uint32_t to_lane,
                    std::uint32_t head_dim) {
  const std::uint32_t down = from_lane < 16 ? 0 : 4, up = to_lane < 16 ? 0 : 4;
  const std::uint32_t others = ~(std::uint32_t{0x0f0f0f0f} << up);
  from += from_lane % 16 * 4;
  to += to_lane % 16 * 4;
  for (std::uint32_t g = 0; g < head_dim / 4; ++g, from += 64, to += 64) {
    put_word(to, 0, (word_at(to, 0) & others) | (word_at(from, 0) >> down & 0x0f0f0f0f) << up);
  }
}

void move_value_codes(const std::uint8_t* from, std::uint32_t from_lane, std::uint8_t* to, std::uint32_t to_lane,
                      std::uint32_t head_dim) {
  const std::uint32_t down = from_lane % 4 * 8 + (from_lane < 16 ? 0 : 4);
  const std::uint32_t up = to_lane % 4 * 8 + (to_lane < 16 ? 0 : 4);
  const std::uint32_t others = ~(std::uint32_t{15} << up);
  from += from_lane % 16 / 4 * head_dim * 4;
  to += to_lane % 16 / 4 * head_dim * 4;
  for (std::uint32_t start = 0; start < head_dim; start += 16, from += 64, to += 64) {
    std::uint32_t codes[16], words[16];  // apart, as in put_value_codes
    std::memcpy(codes, from, sizeof codes);
    std::memcpy(words, to, sizeof words);
    for (std::uint32_t c = 0; c < 16; ++c) words[c] = (words[c] & others) | (codes[c] >> down & 15) << up;
    std::memcpy(to, words, sizeof words);
  }
}
#endif

}  // namespace

void start_slot(const ArenaView& to, const Chain& chain, std::uint32_t tile, std::uint32_t lane,
                std::uint32_t position) {
  to.set_position(tile, lane, position);
  NIBKV_UNROLL
  for (const SideField& field : kSideFields) {
    if (!field.starts_at_zero() || field.arrays(to.shape(), to.policy()) == 0) continue;
    std::memset(side_element(to, field, tile, 0, lane), 0, field.bytes);
  }
  if (keeps_local(to.policy())) to.local(tile)[lane] = chain.level;
}

void move_slot(const ArenaView& to, std::uint32_t from_tile, std::uint32_t from_lane, std::uint32_t to_tile,
               std::uint32_t to_lane) {
  const Shape& shape = to.shape();
  if (shape.storage == Storage::kF32) {
    copy_f32(to.key_rows(from_tile), to.value_rows(from_tile), from_lane, to, {to_tile, to_lane});
    return;
  }
  if (owns_keys(to, to_tile))
    move_key_codes(to.key_codes(from_tile), from_lane, to.key_codes(to_tile), to_lane, shape.head_dim);
  if (owns_values(to, to_tile))
    move_value_codes(to.value_codes(from_tile), from_lane, to.value_codes(to_tile), to_lane, shape.head_dim);
  const Side at = to.layout().side;
  const std::byte* const from_side = to.side(from_tile);
  std::byte* const to_side = to.side(to_tile);
  NIBKV_UNROLL
  for (const SideField& field : kSideFields) {
    if (field.rule == SideField::Rule::kPosition) continue;
    for (std::uint32_t n = 0; n < field.arrays(shape, to.policy()); ++n) {
      std::memcpy(to_side + at.*field.offset + (n * kTileSlots + to_lane) * field.bytes,
                  from_side + at.*field.offset + (n * kTileSlots + from_lane) * field.bytes, field.bytes);
    }
  }
}

void copy_slot(const TileBytes& from, std::uint32_t lane, const ArenaView& to, const Place& to_at) {
  const Shape& shape = to.shape();
  if (shape.storage == Storage::kF32) {
    copy_f32(from.keys, from.values, lane, to, to_at);
    return;
  }
  std::uint8_t codes[kMaxHeadDim];
  get_key_codes(from.keys, lane, shape.head_dim, codes);
  put_key_codes(to.key_codes(to_at.tile), to_at.lane, shape.head_dim, codes);
  get_value_codes(from.values, lane, shape.head_dim, codes);
  put_value_codes(to.value_codes(to_at.tile), to_at.lane, shape.head_dim, codes);
  for (const SideField& field : kSideFields) {
    if (field.rule == SideField::Rule::kPosition || field.arrays(shape, from.policy) == 0) continue;
    for (std::uint32_t n = 0; n < field.arrays(shape, to.policy()); ++n) {
      std::memcpy(side_element(to, field, to_at.tile, n, to_at.lane),
                  from.side + from.at.*field.offset + (n * kTileSlots + lane) * field.bytes, field.bytes);
    }
  }
}

}  // namespace nibkv
