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

namespace {

std::uint32_t step_of(const Rotary& rotary) {
  std::uint32_t step = 1;
  while (2 * step <= rotary.reach / 2) step *= 2;
  return step;
}

}  // namespace

std::uint32_t shift_of(const Rotary& rotary, std::uint32_t query, std::uint32_t slot) {
  std::uint32_t shift = 0;
  while (query > slot + shift + rotary.reach) shift += step_of(rotary);
  return shift;
}

std::vector<double> met(std::span<const double> key, const Rotary& rotary, std::uint32_t query, std::uint32_t slot,
                        bool q4) {
  const std::uint32_t wrapped = q4 ? slot / step_of(rotary) * step_of(rotary) : 0;
  return turned(key, rotary, static_cast<double>(wrapped) + shift_of(rotary, query, slot));
}

}  // namespace nibkv::reference
