#include "codec/row.hpp"

#include "codec/rotation.hpp"
#include "codec/slot.hpp"

namespace nibkv {
namespace {

void to_levels(const std::uint8_t* codes, std::uint32_t head_dim, std::int8_t* levels) {
  for (std::uint32_t c = 0; c < head_dim; ++c) levels[c] = ports::kLevels[codes[c]];
}

// For each byte of codes: the square of the level of its low nibble, plus 2^16 times
// that of its high nibble.
struct SquareTable {
  std::uint32_t at[256];
};
constexpr SquareTable make_squares() {
  SquareTable table{};
  for (std::uint32_t byte = 0; byte < 256; ++byte) {
    const std::int32_t low = ports::kLevels[byte & 15];
    const std::int32_t high = ports::kLevels[byte >> 4];
    table.at[byte] = static_cast<std::uint32_t>(low * low + high * high * 65536);
  }
  return table;
}
constexpr SquareTable kSquares = make_squares();

}  // namespace

void key_row(const ArenaView& to, std::uint32_t tile, std::uint32_t lane, std::uint8_t* row) {
  get_key_codes(to.key_codes(tile), lane, to.shape().head_dim, row);
}

void value_row(const ArenaView& to, std::uint32_t tile, std::uint32_t lane, std::uint8_t* row) {
  get_value_codes(to.value_codes(tile), lane, to.shape().head_dim, row);
}

void key_levels(const ArenaView& to, std::uint32_t tile, std::uint32_t lane, std::int8_t* levels) {
  std::uint8_t codes[kMaxHeadDim];
  key_row(to, tile, lane, codes);
  to_levels(codes, to.shape().head_dim, levels);
}

void value_levels(const ArenaView& to, std::uint32_t tile, std::uint32_t lane, std::int8_t* levels) {
  std::uint8_t codes[kMaxHeadDim];
  value_row(to, tile, lane, codes);
  to_levels(codes, to.shape().head_dim, levels);
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

void put_key(const ArenaView& to, std::uint32_t tile, std::uint32_t lane, const std::uint8_t* codes,
             std::uint16_t scale) {
  NIBKV_ASSERT(lane < kTileSlots && (scale == 0 || scale >= 256));
  to.key_scales(tile)[lane] = scale < kMostKeyScale16 ? scale : kMostKeyScale16;
  put_key_codes(to.key_codes(tile), lane, to.shape().head_dim, codes);
}

void put_value(const ArenaView& to, std::uint32_t tile, std::uint32_t lane, const std::uint8_t* codes,
               std::uint16_t scale) {
  NIBKV_ASSERT(lane < kTileSlots && (scale == 0 || scale >= 256));
  to.value_scales(tile)[lane] = scale < kMostValueScale16 ? scale : kMostValueScale16;
  put_value_codes(to.value_codes(tile), lane, to.shape().head_dim, codes);
}

// A sum of 16 squares fits 16 bits: 16 * 63^2 < 2^16.
void key_energies(const ArenaView& to, std::uint32_t tile, float* energies) {
  for (std::uint32_t t = 0; t < kTileSlots; ++t) energies[t] = 0;
  const std::uint8_t* codes = to.key_codes(tile);
  for (std::uint32_t c = 0; c < to.shape().head_dim; c += 16) {
    std::uint32_t sums[16] = {};
    for (std::uint32_t group = c / 4; group < c / 4 + 4; ++group) {
      for (std::uint32_t t = 0; t < 16; ++t) {
        const std::uint8_t* four = codes + group * 64 + t * 4;
        sums[t] += kSquares.at[four[0]] + kSquares.at[four[1]] + kSquares.at[four[2]] + kSquares.at[four[3]];
      }
    }
    for (std::uint32_t t = 0; t < 16; ++t) {
      energies[t] += static_cast<float>(sums[t] & 0xffff);
      energies[t + 16] += static_cast<float>(sums[t] >> 16);
    }
  }
}

}  // namespace nibkv
