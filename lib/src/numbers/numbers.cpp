#include "numbers/numbers.hpp"

namespace nibkv {

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

bool halves_finite(const std::uint16_t* numbers, std::size_t count, std::uint16_t exponent) {
  // What is not finite carries into the bit of the sign.
  const auto carry = static_cast<std::uint16_t>(0x8000 - exponent);
  std::uint16_t found[16] = {};
  for (std::size_t i = 0; i < count; i += 16) {
    for (std::size_t k = 0; k < 16; ++k)
      found[k] = static_cast<std::uint16_t>(found[k] | ((numbers[i + k] & 0x7fff) + carry));
  }
  std::uint32_t words[8];
  std::memcpy(words, found, sizeof words);
  std::uint32_t all = 0;
  for (const std::uint32_t word : words) all |= word;
  return (all & 0x80008000) == 0;
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
