#include "tests/reference/rotary.hpp"

#include <cmath>
#include <complex>

namespace nibkv::reference {

std::vector<double> turned(std::span<const double> key, const Rotary& rotary, double positions) {
  std::vector<double> result(key.begin(), key.end());
  const std::size_t pairs = rotary.dims / 2;
  for (std::size_t i = 0; i < pairs; ++i) {
    const double exponent = -2.0 * static_cast<double>(i) / rotary.dims;
    const double angle = positions * rotary.scale * std::pow(static_cast<double>(rotary.base), exponent);
    const std::size_t first = rotary.adjacent ? 2 * i : i;
    const std::size_t second = rotary.adjacent ? 2 * i + 1 : i + pairs;
    const std::complex<double> pair = std::complex(key[first], key[second]) * std::polar(1.0, angle);
    result[first] = pair.real();
    result[second] = pair.imag();
  }
  return result;
}

}  // namespace nibkv::reference
