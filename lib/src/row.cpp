#include "row.hpp"

#include "rotation.hpp"
#include "slot.hpp"

namespace nibkv {
namespace {

void to_levels(const std::uint8_t* codes, std::uint32_t head_dim, std::int8_t* levels) {
  for (std::uint32_t c = 0; c < head_dim; ++c) levels[c] = ports::kLevels[codes[c]];
}

}  // namespace

void key_row(const Access& to, std::uint32_t tile, std::uint32_t lane, std::uint8_t* row) {
  get_key_codes(to.key_codes(tile), lane, to.shape().head_dim, row);
}

void value_row(const Access& to, std::uint32_t tile, std::uint32_t lane, std::uint8_t* row) {
  get_value_codes(to.value_codes(tile), lane, to.shape().head_dim, row);
}

void key_levels(const Access& to, std::uint32_t tile, std::uint32_t lane, std::int8_t* levels) {
  std::uint8_t codes[kMaxHeadDim];
  key_row(to, tile, lane, codes);
  to_levels(codes, to.shape().head_dim, levels);
}

void value_levels(const Access& to, std::uint32_t tile, std::uint32_t lane, std::int8_t* levels) {
  std::uint8_t codes[kMaxHeadDim];
  value_row(to, tile, lane, codes);
  to_levels(codes, to.shape().head_dim, levels);
}

void restore_key(const Access& to, const Basis& basis, std::uint32_t tile, std::uint32_t lane, float* row) {
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

void put_key(const Access& to, std::uint32_t tile, std::uint32_t lane, const std::uint8_t* codes, std::uint16_t scale) {
  to.key_scales(tile)[lane] = scale < kMostKeyScale16 ? scale : kMostKeyScale16;
  put_key_codes(to.key_codes(tile), lane, to.shape().head_dim, codes);
}

void put_value(const Access& to, std::uint32_t tile, std::uint32_t lane, const std::uint8_t* codes,
               std::uint16_t scale) {
  to.value_scales(tile)[lane] = scale < kMostValueScale16 ? scale : kMostValueScale16;
  put_value_codes(to.value_codes(tile), lane, to.shape().head_dim, codes);
}

float square_root(float x) {
  if (!(x > 0)) return 0;
  float root = float_from_bits((bits_from_float(x) >> 1) + 0x1fc00000);  // within 6 %
  for (int step = 0; step < 3; ++step) root = 0.5f * (root + x / root);
  return root;
}

bool all_finite(const float* numbers, std::size_t count) {
  float sums[16] = {};  // as many as fit in vector registers
  for (std::size_t i = 0; i < count; i += 16) {
    for (std::size_t k = 0; k < 16; ++k) sums[k] += numbers[i + k];
  }
  float sum = 0;
  for (const float part : sums) sum += part;
  if (sum - sum == 0) return true;  // a number that is not finite makes the sum not finite
  for (std::size_t i = 0; i < count; ++i) {
    if ((bits_from_float(numbers[i]) & 0x7f800000) == 0x7f800000) return false;
  }
  return true;  // finite numbers whose sum is not
}

float binary_logarithm(float x) {
  const std::uint32_t bits = bits_from_float(x);
  const auto whole = static_cast<float>(static_cast<std::int32_t>(bits >> 23) - 127);
  const float f = float_from_bits((bits & 0x7fffff) | 0x3f800000) - 1.0f;
  // log2(1 + f) within 0.0006: a polynomial that is exact at 0 and 1.
  return whole + f * (1.4417f + f * (-0.7097f + f * (0.4140f + f * (-0.1930f + f * 0.0470f))));
}

}  // namespace nibkv
