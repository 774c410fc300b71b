// widen and narrow: the scalar port against numbers that are known by construction, other ports against its bytes.
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

#include "tests/parity/parity_support.hpp"
#include "tests/reference/halves.hpp"

namespace nibkv::parity {
namespace {

class HalfKernels : public PortTest {};

constexpr Half kHalves[] = {Half::kF16, Half::kBf16};

const reference::HalfFormat& format_of(Half half) {
  return half == Half::kF16 ? reference::kF16 : reference::kBf16;
}

bool is_nan(Half half, std::uint16_t bits) {
  return (bits & 0x7fff) > format_of(half).infinity();
}

std::uint32_t bits_of(float x) {
  std::uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  return bits;
}

TEST_P(HalfKernels, WidenAll65536NumbersExactly) {
  for (const Half half : kHalves) {
    const std::uint16_t infinity = format_of(half).infinity();
    Unaligned<std::uint16_t> halves{256};
    for (std::uint32_t first = 0; first < 0x10000; first += 256) {
      for (int c = 0; c < 256; ++c) halves[c] = static_cast<std::uint16_t>(first + static_cast<std::uint32_t>(c));
      Output<float> row{256};
      port().widen(halves.data(), 256, half, row.data());
      EXPECT_TRUE(row.guards_are_untouched());
      for (int c = 0; c < 256; ++c) {
        if (is_nan(half, halves[c])) {
          EXPECT_TRUE(std::isnan(row[c])) << std::hex << halves[c];
          continue;
        }
        const bool infinite = (halves[c] & 0x7fff) == infinity;
        const float expected =
            infinite ? std::copysign(std::numeric_limits<float>::infinity(), (halves[c] & 0x8000) != 0 ? -1.0f : 1.0f)
                     : static_cast<float>(reference::value_of(format_of(half), halves[c]));
        ASSERT_EQ(bits_of(row[c]), bits_of(expected)) << std::hex << halves[c];
      }
    }
  }
}

// Narrows 16 numbers at a time, and compares each with what it must become.
class Narrowing {
 public:
  Narrowing(const Kernels& port, Half half) : port_{port}, half_{half} {}

  /// The number and its negative.
  void add(float number, std::uint32_t bits) {
    put(number, bits);
    put(-number, bits | 0x8000);
  }
  void finish() {
    while (count_ != 0) put(0, 0);
  }
  int all() const { return all_; }

 private:
  void put(float number, std::uint32_t bits) {
    row_[count_] = number;
    expected_[count_] = static_cast<std::uint16_t>(bits);
    ++all_;
    if (++count_ < 16) return;
    count_ = 0;
    port_.narrow(row_.data(), 16, half_, halves_.data());
    for (int c = 0; c < 16; ++c) {
      if (halves_[c] == expected_[c]) continue;
      ADD_FAILURE() << std::hexfloat << row_[c] << " became " << std::hex << halves_[c] << ", not " << expected_[c];
    }
  }

  const Kernels& port_;
  Half half_;
  Unaligned<float> row_{16};
  Output<std::uint16_t> halves_{16};
  std::uint16_t expected_[16] = {};
  int count_ = 0;
  int all_ = 0;
};

TEST_P(HalfKernels, NarrowToTheNearestTiesToEven) {
  const float largest = std::numeric_limits<float>::max();
  for (const Half half : kHalves) {
    const reference::HalfFormat& format = format_of(half);
    Narrowing narrowing(port(), half);
    // Each number, the middle between it and the next, which is a tie, and the f32 on both sides of the middle.
    for (std::uint32_t bits = 0; bits < format.infinity() && !HasFailure(); ++bits) {
      const double low = reference::value_of(format, static_cast<std::uint16_t>(bits));
      const double high = reference::value_of(format, static_cast<std::uint16_t>(bits + 1));
      const auto middle = static_cast<float>((low + high) / 2);  // exact: f32 has more bits
      narrowing.add(static_cast<float>(low), bits);
      narrowing.add(middle, bits + (bits & 1));
      narrowing.add(std::nextafter(middle, 0.0f), bits);
      narrowing.add(std::nextafter(middle, largest), bits + 1);
    }
    if (half == Half::kF16) {
      for (const float number : {65536.0f, 1e5f, 131072.0f, 3e38f}) narrowing.add(number, format.infinity());
      for (const float number : {0x1p-26f, 0x1p-126f, 0x1p-149f, 0x1.fffffep-26f}) narrowing.add(number, 0);
    }
    narrowing.add(largest, format.infinity());
    narrowing.add(std::numeric_limits<float>::infinity(), format.infinity());
    narrowing.finish();
    EXPECT_GE(narrowing.all(), 8 * 0x7c00);
  }
}

TEST_P(HalfKernels, RowsOfAnyBitsHaveTheScalarBytes) {
  Random random{21};
  for (int round = 0; round < 1000; ++round) {
    const int head_dim = 16 * random.between(1, 16);
    const Half half = kHalves[random.below(2)];
    Unaligned<float> row{head_dim};
    Unaligned<std::uint16_t> halves{head_dim};
    for (int c = 0; c < head_dim; ++c) {
      const std::uint32_t bits = random.bits();
      std::memcpy(&row[c], &bits, sizeof bits);
      if (std::isnan(row[c])) row[c] = 0;
      if (random.below(2) == 0) row[c] = random.bell() * std::ldexp(1.0f, random.between(-27, 17));
      halves[c] = static_cast<std::uint16_t>(random.bits());
      if (is_nan(half, halves[c])) halves[c] = 0;
    }
    Output<std::uint16_t> narrowed{head_dim};
    Output<std::uint16_t> expected_narrowed{head_dim};
    port().narrow(row.data(), head_dim, half, narrowed.data());
    scalar().narrow(row.data(), head_dim, half, expected_narrowed.data());
    Output<float> widened{head_dim};
    Output<float> expected_widened{head_dim};
    port().widen(halves.data(), head_dim, half, widened.data());
    scalar().widen(halves.data(), head_dim, half, expected_widened.data());
    ASSERT_TRUE(narrowed.same_bytes(expected_narrowed) && widened.same_bytes(expected_widened)) << "round " << round;
  }
}

TEST_P(HalfKernels, WhatIsNotANumberStaysSo) {
  Unaligned<float> row{16};
  for (int c = 0; c < 16; ++c) {
    const std::uint32_t bits = (c % 2 == 0 ? 0x7f800001u : 0xffffffffu) + (c % 2 == 0 ? 1u << c : 0);
    std::memcpy(&row[c], &bits, sizeof bits);
  }
  for (const Half half : kHalves) {
    Output<std::uint16_t> halves{16};
    port().narrow(row.data(), 16, half, halves.data());
    for (int c = 0; c < 16; ++c) EXPECT_TRUE(is_nan(half, halves[c])) << c;
  }
}

INSTANTIATE_TEST_SUITE_P(BuiltPorts, HalfKernels, testing::ValuesIn(kPorts), port_of);

}  // namespace
}  // namespace nibkv::parity
