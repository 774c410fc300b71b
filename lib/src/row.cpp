#include "row.hpp"

#include "slot.hpp"

namespace nibkv {

void key_row(const Access& to, std::uint32_t tile, std::uint32_t lane, std::uint8_t* row) {
  const std::uint8_t* codes = to.key_codes(tile);
  for (std::uint32_t c = 0; c < to.shape().head_dim; ++c) row[c] = get_nibble(codes[key_byte(lane, c)], lane);
}

void value_row(const Access& to, std::uint32_t tile, std::uint32_t lane, std::uint8_t* row) {
  const std::uint32_t dim = to.shape().head_dim;
  const std::uint8_t* codes = to.value_codes(tile);
  for (std::uint32_t c = 0; c < dim; ++c) row[c] = get_nibble(codes[value_byte(lane, c, dim)], lane);
}

void key_levels(const Access& to, std::uint32_t tile, std::uint32_t lane, std::int8_t* levels) {
  const std::uint8_t* codes = to.key_codes(tile);
  for (std::uint32_t c = 0; c < to.shape().head_dim; ++c) {
    levels[c] = ports::kLevels[get_nibble(codes[key_byte(lane, c)], lane)];
  }
}

void value_levels(const Access& to, std::uint32_t tile, std::uint32_t lane, std::int8_t* levels) {
  const std::uint32_t dim = to.shape().head_dim;
  const std::uint8_t* codes = to.value_codes(tile);
  for (std::uint32_t c = 0; c < dim; ++c) levels[c] = ports::kLevels[get_nibble(codes[value_byte(lane, c, dim)], lane)];
}

void restore_key(const Access& to, const Basis& basis, std::uint32_t tile, std::uint32_t lane, float* row) {
  std::int8_t levels[kMaxHeadDim];
  std::int8_t outliers[kMaxOutlierChannels];
  const std::uint32_t dim = to.shape().head_dim;
  key_levels(to, tile, lane, levels);
  const float scale = from_scale16(to.key_scales(tile)[lane]);
  for (std::uint32_t c = 0; c < dim; ++c) row[c] = static_cast<float>(levels[c]) * scale;
  to.kernels().rotate(row, static_cast<int>(dim));
  for (std::uint32_t n = 0; n < to.shape().outlier_channels; ++n)
    outliers[n] = to.outliers(tile)[outlier_byte(lane, n)];
  basis.join_key(row, outliers);
}

void put_key(const Access& to, std::uint32_t tile, std::uint32_t lane, const std::uint8_t* codes, std::uint16_t scale) {
  to.key_scales(tile)[lane] = scale < kMostKeyScale16 ? scale : kMostKeyScale16;
  std::uint8_t* keys = to.key_codes(tile);
  for (std::uint32_t c = 0; c < to.shape().head_dim; ++c) put_nibble(keys[key_byte(lane, c)], lane, codes[c]);
}

void put_value(const Access& to, std::uint32_t tile, std::uint32_t lane, const std::uint8_t* codes,
               std::uint16_t scale) {
  const std::uint32_t dim = to.shape().head_dim;
  to.value_scales(tile)[lane] = scale < kMostValueScale16 ? scale : kMostValueScale16;
  std::uint8_t* values = to.value_codes(tile);
  for (std::uint32_t c = 0; c < dim; ++c) put_nibble(values[value_byte(lane, c, dim)], lane, codes[c]);
}

float square_root(float x) {
  if (!(x > 0)) return 0;
  float root = float_from_bits((bits_from_float(x) >> 1) + 0x1fc00000);  // within 6 %
  for (int step = 0; step < 3; ++step) root = 0.5f * (root + x / root);
  return root;
}

float binary_logarithm(float x) {
  const std::uint32_t bits = bits_from_float(x);
  const auto whole = static_cast<float>(static_cast<std::int32_t>(bits >> 23) - 127);
  const float f = float_from_bits((bits & 0x7fffff) | 0x3f800000) - 1.0f;
  // log2(1 + f) within 0.0006: a polynomial that is exact at 0 and 1.
  return whole + f * (1.4417f + f * (-0.7097f + f * (0.4140f + f * (-0.1930f + f * 0.0470f))));
}

}  // namespace nibkv
