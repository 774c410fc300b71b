#include "codec/row.hpp"

#include "codec/rotation.hpp"
#include "codec/slot.hpp"

namespace nibkv {
void to_levels(std::uint32_t bits, const std::uint8_t* codes, std::uint32_t head_dim, std::int8_t* levels) {
  const std::int8_t* const table = ports::levels_of(bits);
  for (std::uint32_t c = 0; c < head_dim; ++c)
    levels[c] = table == nullptr ? static_cast<std::int8_t>(codes[c]) : table[codes[c]];
}

namespace {

// For each byte of codes: the squared levels of its slots below 16, plus 2^16 times those of the others.
struct SquareTable {
  std::uint32_t at[256];
};
template <int kBits>
constexpr SquareTable make_squares() {
  SquareTable table{};
  for (std::uint32_t byte = 0; byte < 256; ++byte) {
    for (std::uint32_t at = 0; at < 8; at += kBits) {
      const std::int32_t level = ports::levels_of(kBits)[byte >> at & ((1u << kBits) - 1)];
      table.at[byte] += static_cast<std::uint32_t>(level * level) << (at % (2 * kBits) == 0 ? 0 : 16);
    }
  }
  return table;
}
template <int kBits>
constexpr SquareTable kSquares = make_squares<kBits>();

// A sum of 16 squares fits 16 bits: 16 * 63^2 < 2^16.
template <int kBits>
void square_codes(const std::uint8_t* codes, std::uint32_t head_dim, float* energies) {
  for (std::uint32_t c = 0; c < head_dim; c += 16, codes += 64 * kBits) {
    std::uint32_t sums[16] = {};
    for (std::uint32_t word = 0; word < 16 * kBits; ++word) {
      const std::uint8_t* four = codes + word * 4;
      sums[word % 16] += kSquares<kBits>.at[four[0]] + kSquares<kBits>.at[four[1]] + kSquares<kBits>.at[four[2]] +
                         kSquares<kBits>.at[four[3]];
    }
    for (std::uint32_t t = 0; t < 16; ++t) {
      energies[t] += static_cast<float>(sums[t] & 0xffff);
      energies[t + 16] += static_cast<float>(sums[t] >> 16);
    }
  }
}

void square_bytes(const std::uint8_t* codes, std::uint32_t head_dim, float* energies) {
  std::int32_t sums[kTileSlots] = {};
  for (std::uint32_t i = 0; i < kTileSlots * head_dim; ++i) {
    const std::int32_t level = static_cast<std::int8_t>(codes[i]);
    sums[i / 4 % kTileSlots] += level * level;
  }
  for (std::uint32_t t = 0; t < kTileSlots; ++t) energies[t] = static_cast<float>(sums[t]);
}

}  // namespace

void key_row(const ArenaView& to, std::uint32_t tile, std::uint32_t lane, std::uint8_t* row) {
  get_key_codes(key_plane(to, tile), to.key_codes(tile), lane, row);
}

void value_row(const ArenaView& to, std::uint32_t tile, std::uint32_t lane, std::uint8_t* row) {
  get_value_codes(value_plane(to, tile), to.value_codes(tile), lane, row);
}

void key_levels(const ArenaView& to, std::uint32_t tile, std::uint32_t lane, std::int8_t* levels) {
  std::uint8_t codes[kMaxHeadDim];
  key_row(to, tile, lane, codes);
  to_levels(key_plane(to, tile).bits, codes, to.shape().head_dim, levels);
}

void value_levels(const ArenaView& to, std::uint32_t tile, std::uint32_t lane, std::int8_t* levels) {
  std::uint8_t codes[kMaxHeadDim];
  value_row(to, tile, lane, codes);
  to_levels(value_plane(to, tile).bits, codes, to.shape().head_dim, levels);
}

void restore_key(const ArenaView& to, const Basis& basis, std::uint32_t tile, std::uint32_t lane, float* row) {
  std::int8_t levels[kMaxHeadDim];
  std::int8_t outliers[kMaxOutlierChannels];
  const std::uint32_t dim = to.shape().head_dim;
  key_levels(to, tile, lane, levels);
  const float scale = from_scale16(to.key_scales(tile)[lane]);
  for (std::uint32_t c = 0; c < dim; ++c) row[c] = static_cast<float>(levels[c]) * scale;
  rotate_out(to.kernels(), row, dim, row);
  for (std::uint32_t n = 0; n < to.shape().outlier_channels; ++n)
    outliers[n] = to.outliers(tile)[outlier_byte(lane, n)];
  basis.join_key(row, outliers);
}

namespace {

// Codes of 8 bits without -128, which rows beyond the range of floats may give.
const std::uint8_t* without_least(std::uint32_t bits, const std::uint8_t* codes, std::uint32_t head_dim,
                                  std::uint8_t* space) {
  if (bits != 8) return codes;
  for (std::uint32_t c = 0; c < head_dim; ++c) space[c] = codes[c] == 0x80 ? std::uint8_t{0x81} : codes[c];
  return space;
}

}  // namespace

void put_key(const ArenaView& to, std::uint32_t tile, std::uint32_t lane, const std::uint8_t* codes,
             std::uint16_t scale) {
  NIBKV_ASSERT(lane < kTileSlots && (scale == 0 || scale >= 256));
  to.key_scales(tile)[lane] = scale < kMostKeyScale16 ? scale : kMostKeyScale16;
  const CodePlane plane = key_plane(to, tile);
  std::uint8_t space[kMaxHeadDim];
  put_key_codes(plane, to.key_codes(tile), lane, without_least(plane.bits, codes, plane.head_dim, space));
}

void put_value(const ArenaView& to, std::uint32_t tile, std::uint32_t lane, const std::uint8_t* codes,
               std::uint16_t scale) {
  NIBKV_ASSERT(lane < kTileSlots && (scale == 0 || scale >= 256));
  to.value_scales(tile)[lane] = scale < kMostValueScale16 ? scale : kMostValueScale16;
  const CodePlane plane = value_plane(to, tile);
  std::uint8_t space[kMaxHeadDim];
  put_value_codes(plane, to.value_codes(tile), lane, without_least(plane.bits, codes, plane.head_dim, space));
}

namespace {

// Codes of 8 bits that stand for a row with fewer: what put_wider_key and put_wider_value make of it. Rows coded at 8
// bits have a level of 127.
bool narrow_exactly(std::uint32_t bits, std::uint32_t head_dim, std::uint8_t* codes, std::uint16_t& scale) {
  const std::int8_t* const levels = ports::levels_of(bits);
  const std::uint32_t count = 1u << bits;
  const auto code_of = [&](std::uint8_t level) {
    std::uint32_t code = 0;
    while (code < count && 2 * levels[code] != static_cast<std::int8_t>(level)) ++code;
    return code;
  };
  for (std::uint32_t c = 0; c < head_dim; ++c) {
    if (code_of(codes[c]) == count) return false;
  }
  for (std::uint32_t c = 0; c < head_dim; ++c) codes[c] = static_cast<std::uint8_t>(code_of(codes[c]));
  if (scale != 0) scale = static_cast<std::uint16_t>(scale + 256);
  return true;
}

// Codes with fewer bits.
// @param row  f32[head_dim], workspace: written if the row was coded again, which `codes` then are of
// @returns whether it was
bool narrow(std::uint32_t bits, const CodePlane& plane, const CodeKernels& kernels, std::uint8_t* codes,
            std::uint16_t& scale, float* row) {
  if (bits == 8 && narrow_exactly(plane.bits, plane.head_dim, codes, scale)) return false;
  std::int8_t levels[kMaxHeadDim];
  to_levels(bits, codes, plane.head_dim, levels);
  const float unit = from_scale16(scale);
  for (std::uint32_t c = 0; c < plane.head_dim; ++c) row[c] = static_cast<float>(levels[c]) * unit;
  scale = kernels.encode_row(row, static_cast<int>(plane.head_dim), codes);
  return true;
}

}  // namespace

void Recoder::put_key(std::uint32_t bits, std::uint8_t* codes, const Place& at) const {
  const CodePlane plane = key_plane(to_, at.tile);
  if (bits <= plane.bits) return put_wider_key(to_, at, bits, codes);
  std::uint16_t scale = to_.key_scales(at.tile)[at.lane];
  float* const row = to_.encoding();
  if (narrow(bits, plane, to_.key_kernels(at.tile), codes, scale, row) && scale != 0) {
    if (refiner_ != nullptr) {
      scale = refiner_->refine(plane.bits, row, codes, scale);
    } else {
      scale = KeyRefiner(to_, basis_, to_.refining()).refine(plane.bits, row, codes, scale);
    }
  }
  nibkv::put_key(to_, at.tile, at.lane, codes, scale);
}

void Recoder::put_value(std::uint32_t bits, std::uint8_t* codes, const Place& at) const {
  const CodePlane plane = value_plane(to_, at.tile);
  if (bits <= plane.bits) return put_wider_value(to_, at, bits, codes);
  std::uint16_t scale = to_.value_scales(at.tile)[at.lane];
  narrow(bits, plane, to_.value_kernels(at.tile), codes, scale, to_.encoding());
  nibkv::put_value(to_, at.tile, at.lane, codes, scale);
}

void key_energies(const ArenaView& to, std::uint32_t tile, float* energies) {
  for (std::uint32_t t = 0; t < kTileSlots; ++t) energies[t] = 0;
  const std::uint32_t bits = key_plane(to, tile).bits;
  if (ports::is_built(4) && bits == 4) square_codes<4>(to.key_codes(tile), to.shape().head_dim, energies);
  if (ports::is_built(2) && bits == 2) square_codes<2>(to.key_codes(tile), to.shape().head_dim, energies);
  if (ports::is_built(8) && bits == 8) square_bytes(to.key_codes(tile), to.shape().head_dim, energies);
}

}  // namespace nibkv
