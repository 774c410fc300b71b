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

void copy_f32(const float* keys, const float* values, std::uint32_t lane, const ArenaView& to, const Place& to_at) {
  const std::uint32_t dim = to.shape().head_dim;
  for (std::uint32_t c = 0; c < dim; ++c) {
    to.key_rows(to_at.tile)[c * kTileSlots + to_at.lane] = keys[c * kTileSlots + lane];
  }
  std::memmove(to.value_rows(to_at.tile) + to_at.lane * dim, values + lane * dim, dim * sizeof(float));
}

}  // namespace

namespace {

// A width of codes as a type.
template <int kBits>
struct Width {};

// Calls `visit` with the width. What the build leaves out is not compiled.
template <typename Visit>
void with_width(std::uint32_t bits, Visit visit) {
  if constexpr (ports::is_built(4)) {
    if (bits == 4) visit(Width<4>{});
  }
  if constexpr (ports::is_built(2)) {
    if (bits == 2) visit(Width<2>{});
  }
  if constexpr (ports::is_built(8)) {
    if (bits == 8) visit(Width<8>{});
  }
}

// The lowest code of a byte.
template <int kBits>
constexpr std::uint32_t kCode = (1u << kBits) - 1;
// Those of four bytes.
template <int kBits>
constexpr std::uint32_t kFourCodes = kCode<kBits> * 0x01010101u;

// Four channels of a slot's key are in one word, the channels g * 4 to g * 4 + 3 in word first + g / kShared * stride.
template <int kBits>
struct KeyLane {
  static constexpr std::uint32_t kShared = kBits == 2 ? 2 : 1;  // groups of channels that share a word
  static constexpr std::uint32_t kStride = kBits == 8 ? 32 : 16;
  std::uint32_t first;
  std::uint32_t shift;

  explicit KeyLane(std::uint32_t lane)
      : first(kBits == 8 ? lane : lane % 16), shift(kBits == 8 || lane < 16 ? 0 : kBits) {}
  std::uint32_t word(std::uint32_t g) const { return first + g / kShared * kStride; }
  std::uint32_t shift_of(std::uint32_t g) const { return shift + g % kShared * 4; }
};

// A channel of a slot's value is a part of the word of the channel, in the words of the slot's group.
template <int kBits>
struct ValueLane {
  std::uint32_t group;
  std::uint32_t shift;

  explicit ValueLane(std::uint32_t lane) {
    const std::uint32_t four = kBits == 8 ? lane / 4 : lane % 16 / 4;
    group = kBits == 2 ? four / 2 : four;
    shift = lane % 4 * 8 + (kBits == 2 ? four % 2 * 4 : 0) + (kBits == 8 || lane < 16 ? 0 : kBits);
  }
};

}  // namespace

void get_key_codes(const CodePlane& plane, const std::uint8_t* tile, std::uint32_t lane, std::uint8_t* codes) {
  with_width(plane.bits, [&]<int kBits>(Width<kBits>) {
    const KeyLane<kBits> at(lane);
    for (std::uint32_t g = 0; g < plane.head_dim / 4; ++g)
      put_word(codes, g, word_at(tile, at.word(g)) >> at.shift_of(g) & kFourCodes<kBits>);
  });
}

void put_key_codes(const CodePlane& plane, std::uint8_t* tile, std::uint32_t lane, const std::uint8_t* codes) {
  with_width(plane.bits, [&]<int kBits>(Width<kBits>) {
    const KeyLane<kBits> at(lane);
    for (std::uint32_t g = 0; g < plane.head_dim / 4; ++g) {
      const std::uint32_t others = ~(kFourCodes<kBits> << at.shift_of(g));
      put_word(tile, at.word(g), (word_at(tile, at.word(g)) & others) | word_at(codes, g) << at.shift_of(g));
    }
  });
}

void get_value_codes(const CodePlane& plane, const std::uint8_t* tile, std::uint32_t lane, std::uint8_t* codes) {
  with_width(plane.bits, [&]<int kBits>(Width<kBits>) {
    const ValueLane<kBits> at(lane);
    const std::uint8_t* const words = tile + at.group * plane.head_dim * 4;
    for (std::uint32_t c = 0; c < plane.head_dim; ++c)
      codes[c] = static_cast<std::uint8_t>(word_at(words, c) >> at.shift & kCode<kBits>);
  });
}

void put_value_codes(const CodePlane& plane, std::uint8_t* tile, std::uint32_t lane, const std::uint8_t* codes) {
  with_width(plane.bits, [&]<int kBits>(Width<kBits>) {
    const ValueLane<kBits> at(lane);
    const std::uint32_t others = ~(kCode<kBits> << at.shift);
    std::uint8_t* const group = tile + at.group * plane.head_dim * 4;
    for (std::uint32_t start = 0; start < plane.head_dim; start += 16) {
      std::uint32_t words[16];  // apart from the codes, which compilers could not know otherwise
      std::memcpy(words, group + start * 4, sizeof words);
      for (std::uint32_t c = 0; c < 16; ++c)
        words[c] = (words[c] & others) | std::uint32_t{codes[start + c]} << at.shift;
      std::memcpy(group + start * 4, words, sizeof words);
    }
  });
}

namespace {

// From a slot to another one, which may be in the same tile: get and put, in one where size does not come first.
#ifdef __OPTIMIZE_SIZE__
void move_key_codes(const CodePlane& plane, const std::uint8_t* from, std::uint32_t from_lane, std::uint8_t* to,
                    std::uint32_t to_lane) {
  std::uint8_t codes[kMaxHeadDim];
  get_key_codes(plane, from, from_lane, codes);
  put_key_codes(plane, to, to_lane, codes);
}

void move_value_codes(const CodePlane& plane, const std::uint8_t* from, std::uint32_t from_lane, std::uint8_t* to,
                      std::uint32_t to_lane) {
  std::uint8_t codes[kMaxHeadDim];
  get_value_codes(plane, from, from_lane, codes);
  put_value_codes(plane, to, to_lane, codes);
}
#else
void move_key_codes(const CodePlane& plane, const std::uint8_t* from, std::uint32_t from_lane, std::uint8_t* to,
                    std::uint32_t to_lane) {
  with_width(plane.bits, [&]<int kBits>(Width<kBits>) {
    const KeyLane<kBits> down(from_lane), up(to_lane);
    const std::uint32_t others = ~((kBits == 2 ? 0x33333333u : kFourCodes<kBits>) << up.shift);
    from += down.first * 4;
    to += up.first * 4;
    for (std::uint32_t g = 0; g < plane.head_dim / (4 * KeyLane<kBits>::kShared); ++g) {
      put_word(to, 0, (word_at(to, 0) & others) | (word_at(from, 0) >> down.shift & ~others >> up.shift) << up.shift);
      from += 4 * KeyLane<kBits>::kStride;
      to += 4 * KeyLane<kBits>::kStride;
    }
  });
}

void move_value_codes(const CodePlane& plane, const std::uint8_t* from, std::uint32_t from_lane, std::uint8_t* to,
                      std::uint32_t to_lane) {
  with_width(plane.bits, [&]<int kBits>(Width<kBits>) {
    const ValueLane<kBits> down(from_lane), up(to_lane);
    const std::uint32_t others = ~(kCode<kBits> << up.shift);
    from += down.group * plane.head_dim * 4;
    to += up.group * plane.head_dim * 4;
    for (std::uint32_t start = 0; start < plane.head_dim; start += 16, from += 64, to += 64) {
      std::uint32_t codes[16], words[16];  // apart, as in put_value_codes
      std::memcpy(codes, from, sizeof codes);
      std::memcpy(words, to, sizeof words);
      for (std::uint32_t c = 0; c < 16; ++c)
        words[c] = (words[c] & others) | (codes[c] >> down.shift & kCode<kBits>) << up.shift;
      std::memcpy(to, words, sizeof words);
    }
  });
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

void move_side(const ArenaView& to, const Place& from, const Place& to_at) {
  const Side at = to.layout().side;
  const std::byte* const from_side = to.side(from.tile);
  std::byte* const to_side = to.side(to_at.tile);
  NIBKV_UNROLL
  for (const SideField& field : kSideFields) {
    if (field.rule == SideField::Rule::kPosition) continue;
    for (std::uint32_t n = 0; n < field.arrays(to.shape(), to.policy()); ++n) {
      std::memcpy(to_side + at.*field.offset + (n * kTileSlots + to_at.lane) * field.bytes,
                  from_side + at.*field.offset + (n * kTileSlots + from.lane) * field.bytes, field.bytes);
    }
  }
}

void move_slot(const ArenaView& to, std::uint32_t from_tile, std::uint32_t from_lane, std::uint32_t to_tile,
               std::uint32_t to_lane) {
  const Shape& shape = to.shape();
  if (shape.storage == Storage::kF32) {
    copy_f32(to.key_rows(from_tile), to.value_rows(from_tile), from_lane, to, {to_tile, to_lane});
    return;
  }
  move_side(to, {from_tile, from_lane}, {to_tile, to_lane});
  if (to.pool_of(from_tile) != to.pool_of(to_tile)) {
    std::uint8_t codes[kMaxHeadDim];
    get_key_codes(key_plane(to, from_tile), to.key_codes(from_tile), from_lane, codes);
    put_wider_key(to, {to_tile, to_lane}, key_plane(to, from_tile).bits, codes);
    get_value_codes(value_plane(to, from_tile), to.value_codes(from_tile), from_lane, codes);
    put_wider_value(to, {to_tile, to_lane}, value_plane(to, from_tile).bits, codes);
    return;
  }
  if (owns_keys(to, to_tile))
    move_key_codes(key_plane(to, to_tile), to.key_codes(from_tile), from_lane, to.key_codes(to_tile), to_lane);
  if (owns_values(to, to_tile))
    move_value_codes(value_plane(to, to_tile), to.value_codes(from_tile), from_lane, to.value_codes(to_tile), to_lane);
}

// Codes of the same row that are wider, in place. Levels of 2 and 4 bits are exact at 8; those of 2 bits are within
// 4 % of 63 and 19 at 4 bits, as 48 and 15.
// @param most  that a scale may be
static void widen(std::uint32_t from_bits, std::uint32_t to_bits, std::uint32_t head_dim, std::uint8_t* codes,
                  std::uint16_t& scale, std::uint16_t most) {
  if (from_bits == to_bits) return;
  NIBKV_ASSERT(from_bits < to_bits);
  const std::int8_t* const levels = ports::levels_of(from_bits);
  constexpr std::uint8_t kOuter = 14, kInner = 10;  // of 48 and 15
  static_assert(ports::kLevels[kOuter] == 48 && ports::kLevels[kInner] == 15);
  for (std::uint32_t c = 0; c < head_dim; ++c) {
    const std::int32_t level = levels[codes[c]];
    const bool outer = level > 32 || level < -32;
    const std::uint8_t code = outer ? kOuter : kInner;
    codes[c] = static_cast<std::uint8_t>(to_bits == 8 ? 2 * level : level > 0 ? code : 15 - code);
  }
  if (to_bits == 8) {
    scale = scale < 512 ? std::uint16_t{0} : static_cast<std::uint16_t>(scale - 256);  // no row is so small
  } else if (scale != 0) {
    scale = to_scale16(from_scale16(scale) * 1.3125f);
  }
  if (scale > most) scale = most;
}

void put_wider_key(const ArenaView& to, const Place& at, std::uint32_t bits, std::uint8_t* codes) {
  const CodePlane plane = key_plane(to, at.tile);
  widen(bits, plane.bits, plane.head_dim, codes, to.key_scales(at.tile)[at.lane], kMostKeyScale16);
  put_key_codes(plane, to.key_codes(at.tile), at.lane, codes);
}

void put_wider_value(const ArenaView& to, const Place& at, std::uint32_t bits, std::uint8_t* codes) {
  const CodePlane plane = value_plane(to, at.tile);
  widen(bits, plane.bits, plane.head_dim, codes, to.value_scales(at.tile)[at.lane], kMostValueScale16);
  put_value_codes(plane, to.value_codes(at.tile), at.lane, codes);
}

void copy_side(const SideBytes& from, std::uint32_t lane, const ArenaView& to, const Place& to_at) {
  const Shape& shape = to.shape();
  for (const SideField& field : kSideFields) {
    if (field.rule == SideField::Rule::kPosition || field.arrays(shape, from.policy) == 0) continue;
    for (std::uint32_t n = 0; n < field.arrays(shape, to.policy()); ++n) {
      std::memcpy(side_element(to, field, to_at.tile, n, to_at.lane),
                  from.side + from.at.*field.offset + (n * kTileSlots + lane) * field.bytes, field.bytes);
    }
  }
}

void copy_f32_slot(const ArenaView& from, const Place& at, const ArenaView& to, const Place& to_at) {
  copy_f32(from.key_rows(at.tile), from.value_rows(at.tile), at.lane, to, to_at);
}

}  // namespace nibkv
