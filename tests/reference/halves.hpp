#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>

/// 16-bit numbers as IEEE 754 defines them, in double precision; written apart from the conversions of ports/.
namespace nibkv::reference {

struct HalfFormat {
  int fraction_bits;
  int bias;

  std::uint16_t infinity() const { return static_cast<std::uint16_t>((2 * bias + 1) << fraction_bits); }
};

inline constexpr HalfFormat kF16{10, 15};
inline constexpr HalfFormat kBf16{7, 127};

/// The number that the bits of one that is finite are. For infinity: the number after the largest.
inline double value_of(const HalfFormat& format, std::uint16_t bits) {
  const int exponent = (bits & 0x7fff) >> format.fraction_bits;
  const int fraction = bits & ((1 << format.fraction_bits) - 1);
  const int least = 1 - format.bias - format.fraction_bits;
  const double size = exponent == 0 ? std::ldexp(fraction, least)
                                    : std::ldexp(fraction + (1 << format.fraction_bits), exponent - 1 + least);
  return (bits & 0x8000) != 0 ? -size : size;
}

/// The bits of the number nearest to one that is not a NaN, the even one of two; infinity beyond the range.
inline std::uint16_t nearest(const HalfFormat& format, double number) {
  const std::uint32_t sign = std::signbit(number) ? 0x8000 : 0;
  const double size = std::fabs(number);
  if (size > std::numeric_limits<float>::max()) return static_cast<std::uint16_t>(sign | format.infinity());
  const int least = 1 - format.bias;
  const int exponent = size == 0 ? least : std::max(std::ilogb(size), least);
  const double steps = std::nearbyint(std::ldexp(size, format.fraction_bits - exponent));
  const std::uint32_t bits =
      (static_cast<std::uint32_t>(exponent - least) << format.fraction_bits) + static_cast<std::uint32_t>(steps);
  return static_cast<std::uint16_t>(sign | std::min<std::uint32_t>(bits, format.infinity()));
}

}  // namespace nibkv::reference
