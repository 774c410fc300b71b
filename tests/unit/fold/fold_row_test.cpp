#include "fold/fold_row.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numbers>

#include "arena/select.hpp"
#include "tests/reference/arena_model.hpp"
#include "tests/reference/attention.hpp"
#include "tests/support/rig.hpp"

namespace nibkv::fold_row_test {
namespace {

using reference::scale16_value;
using test::Random;
using Levels = std::vector<std::int8_t>;
using Codes = std::vector<std::uint8_t>;

constexpr std::uint32_t kPublished = 154;  // 0.6 in 1 / 256

double dot(const std::vector<double>& a, const std::vector<double>& b) {
  double sum = 0;
  for (std::size_t c = 0; c < a.size(); ++c) sum += a[c] * b[c];
  return sum;
}

std::vector<double> unit(std::span<const std::int8_t> row) {
  std::vector<double> out(row.begin(), row.end());
  const double norm = reference::norm(out);
  for (double& x : out) x /= norm;
  return out;
}

double angle_between(const std::vector<double>& a, const std::vector<double>& b) {
  // Not by acos, which is inaccurate for small angles.
  std::vector<double> sum = a;
  std::vector<double> difference = a;
  for (std::size_t c = 0; c < a.size(); ++c) sum[c] += b[c], difference[c] -= b[c];
  return 2 * std::atan2(reference::norm(difference), reference::norm(sum));
}

// Spherical interpolation by its formula.
std::vector<double> slerp(const std::vector<double>& a, const std::vector<double>& b, double t) {
  const double angle = angle_between(a, b);
  const double sine = std::sin(angle);
  std::vector<double> out;
  for (std::size_t c = 0; c < a.size(); ++c) {
    out.push_back(sine < 1e-9 ? (1 - t) * a[c] + t * b[c]
                              : (std::sin((1 - t) * angle) * a[c] + std::sin(t * angle) * b[c]) / sine);
  }
  const double norm = reference::norm(out);
  for (double& x : out) x /= norm;
  return out;
}

std::vector<double> direction(const Levels& a, const Levels& b, std::uint32_t t) {
  std::int32_t weights[2];
  Arc(a.data(), b.data(), static_cast<std::uint32_t>(a.size())).weigh(t, weights[0], weights[1]);
  EXPECT_GE(std::min(weights[0], weights[1]), 0);
  EXPECT_LT(std::max(weights[0], weights[1]), 1 << 17);
  EXPECT_GE(std::max(weights[0], weights[1]), 1 << 15);
  std::vector<double> out;
  for (std::size_t c = 0; c < a.size(); ++c) out.push_back(weights[0] * a[c] + weights[1] * b[c]);
  const double norm = reference::norm(out);
  for (double& x : out) x /= norm;
  return out;
}

Levels levels_of(const Codes& codes) {
  Levels levels;
  for (const std::uint8_t code : codes) levels.push_back(ports::kLevels[code]);
  return levels;
}

// Codes of which about `same` / 16 equal those of `other`.
Codes random_codes(Random& random, std::uint32_t dim, const Codes& other, std::uint32_t same) {
  Codes codes;
  for (std::uint32_t c = 0; c < dim; ++c)
    codes.push_back(!other.empty() && random.below(16) < same ? other[c] : static_cast<std::uint8_t>(random.below(16)));
  return codes;
}

struct TwoRows {
  std::uint32_t dim;
  Codes a, b;  // more or less similar
};

TwoRows random_rows(Random& random) {
  TwoRows rows;
  rows.dim = 16 * random.within(1, 16);
  rows.a = random_codes(random, rows.dim, {}, 0);
  rows.b = random_codes(random, rows.dim, rows.a, random.below(16));
  return rows;
}

struct Folded {
  Codes codes;
  std::uint16_t scales[2];
};

Folded fold(const Codes& a, std::uint16_t scale_a, const Codes& b, std::uint16_t scale_b, std::uint32_t t,
            std::string_view port = "scalar") {
  const Kernels* kernels = nullptr;
  EXPECT_EQ(select_port(port, kernels), Status::kOk);
  RowPair pair{{a.data(), b.data()}, {scale_a, scale_b}};
  std::vector<float> row(a.size());
  Folded out{Codes(a.size()), {}};
  fold_row(*kernels, pair, static_cast<std::uint32_t>(a.size()), t, row.data(), out.codes.data());
  std::copy(pair.scales, pair.scales + 2, out.scales);
  return out;
}

double size_of(const Codes& codes, std::uint16_t scale) {
  const Levels levels = levels_of(codes);
  return scale16_value(scale) * reference::norm(std::vector<double>(levels.begin(), levels.end()));
}

TEST(Arc, GivesTheVectorsOfThePaper) {
  const auto at = direction({1, 0}, {0, 2}, kPublished);
  EXPECT_NEAR(at[0], 0.587785, 0.0026);  // 154 / 256 is 0.0016 beyond 0.6
  EXPECT_NEAR(at[1], 0.809017, 0.0026);
  const auto near = direction({1, 0}, {1, 1}, kPublished);
  EXPECT_NEAR(near[0], 0.891007, 0.0013);
  EXPECT_NEAR(near[1], 0.453990, 0.0013);
  EXPECT_NEAR(Arc(Levels{1, 0}.data(), Levels{0, 2}.data(), 2).angle(), std::numbers::pi / 2 * 65536, 16);
  EXPECT_NEAR(Arc(Levels{1, 0}.data(), Levels{1, 1}.data(), 2).angle(), std::numbers::pi / 4 * 65536, 8);
}

TEST(Arc, IsWhatSphericalInterpolationIsInDoublePrecision) {
  Random random(91);
  double worst = 0;
  for (int round = 0; round < 4000; ++round) {
    const std::uint32_t dim = 16 * random.within(1, 16);
    const Codes a = random_codes(random, dim, {}, 0);
    Codes b = random_codes(random, dim, a, random.below(17));
    if (random.below(4) == 0) b[random.below(dim)] ^= 1;
    if (random.below(3) == 0) {
      for (std::uint8_t& code : b) code = static_cast<std::uint8_t>(15 - code);  // the opposite row
    }
    const Levels la = levels_of(a);
    const Levels lb = levels_of(b);
    const double angle = angle_between(unit(la), unit(lb));
    const Arc arc(la.data(), lb.data(), dim);
    ASSERT_NEAR(arc.angle(), angle * 65536, angle * 8 + 4) << "angle " << angle << ", head_dim " << dim;
    if (angle > 3.1) continue;  // they cancel out: any direction is equally good
    const std::uint32_t t = random.below(5) == 0 ? 255 * random.below(2) : random.below(256);
    const double error = reference::distance(direction(la, lb, t), slerp(unit(la), unit(lb), t / 256.0));
    worst = std::max(worst, error * std::max(std::sin(angle), 0.03));
    ASSERT_LE(error * std::max(std::sin(angle), 0.03), 0x1p-15) << "angle " << angle << ", t " << t;
  }
  std::printf("[ measured ] slerp: error %.3g at most, times the sine of the angle\n", worst);
}

TEST(FoldRow, LiesOnTheWayAndKeepsBothNorms) {
  Random random(92);
  for (int round = 0; round < 2000; ++round) {
    const auto [dim, a, b] = random_rows(random);
    if (a == b) continue;
    const auto scale_a = static_cast<std::uint16_t>(random.within(100 << 8, 140 << 8));
    const auto scale_b = static_cast<std::uint16_t>(random.within(100 << 8, 140 << 8));
    const std::uint32_t t = random.below(256);
    const Folded out = fold(a, scale_a, b, scale_b, t);
    const auto wanted = slerp(unit(levels_of(a)), unit(levels_of(b)), t / 256.0);
    // The error of 4 bits: 0.11 of a row's norm, more with few channels.
    EXPECT_GE(dot(unit(levels_of(out.codes)), wanted), 0.975) << "head_dim " << dim << ", t " << t;
    EXPECT_NEAR(size_of(out.codes, out.scales[0]) / size_of(a, scale_a), 1, 0.0022);
    EXPECT_NEAR(size_of(out.codes, out.scales[1]) / size_of(b, scale_b), 1, 0.0022);
  }
}

TEST(FoldRow, LeavesEqualRowsAsTheyAre) {
  Random random(93);
  const Codes a = random_codes(random, 64, {}, 0);
  const Folded out = fold(a, 30000, a, 31234, kPublished);
  EXPECT_EQ(out.codes, a);
  EXPECT_EQ(out.scales[0], 30000);
  EXPECT_EQ(out.scales[1], 31234);
}

TEST(FoldRow, LeavesTheOtherRowAsItIsBesideAZeroOne) {
  Random random(94);
  const Codes a = random_codes(random, 48, {}, 0);
  const Codes b = random_codes(random, 48, {}, 0);
  for (const std::uint32_t t : std::initializer_list<std::uint32_t>{0, 100, kPublished, 255}) {
    const Folded first = fold(a, 0, b, 31000, t);
    EXPECT_EQ(first.codes, b);
    EXPECT_EQ(first.scales[0], 0);
    EXPECT_EQ(first.scales[1], 31000);
    const Folded second = fold(a, 31000, b, 0, t);
    EXPECT_EQ(second.codes, a);
    EXPECT_EQ(second.scales[0], 31000);
    EXPECT_EQ(second.scales[1], 0);
    const Folded neither = fold(a, 0, b, 0, t);
    EXPECT_EQ(neither.scales[0], 0);
    EXPECT_EQ(neither.scales[1], 0);
  }
}

TEST(FoldRow, OppositeRowsKeepTheHeavierOnesCodesOrADirectionOnTheWay) {
  Random random(95);
  const Codes a = random_codes(random, 64, {}, 0);
  Codes b;
  for (const std::uint8_t code : a) b.push_back(static_cast<std::uint8_t>(15 - code));
  const Folded half = fold(a, 30000, b, 30000, 128);
  EXPECT_EQ(half.codes, b);
  EXPECT_EQ(half.scales[0], 30000);
  EXPECT_EQ(half.scales[1], 30000);
  EXPECT_GE(dot(unit(levels_of(fold(a, 30000, b, 30000, 200).codes)), unit(levels_of(b))), 0.97);
  EXPECT_GE(dot(unit(levels_of(fold(a, 30000, b, 30000, 50).codes)), unit(levels_of(a))), 0.97);
}

TEST(FoldRow, AScaleThatKernelsDoNotTakeBecomesZero) {
  Random random(96);
  const Codes large(32, 15);
  Codes small(32, 8);
  for (std::size_t c = 0; c < 16; ++c) small[c] = 7;
  const Folded out = fold(small, static_cast<std::uint16_t>(57 << 8), large, 30000, 200);
  EXPECT_EQ(out.scales[0], 0);
  EXPECT_NE(out.scales[1], 0);
}

TEST(FoldRow, IsTheSameOnAllPorts) {
  Random random(97);
  for (int round = 0; round < 300; ++round) {
    const auto [dim, a, b] = random_rows(random);
    const Folded wanted = fold(a, 30000, b, 31000, kPublished);
    for (const std::string& port : test::running_ports()) {
      const Folded out = fold(a, 30000, b, 31000, kPublished, port);
      ASSERT_EQ(out.codes, wanted.codes) << port;
      ASSERT_EQ(out.scales[0], wanted.scales[0]) << port;
      ASSERT_EQ(out.scales[1], wanted.scales[1]) << port;
    }
  }
}

}  // namespace
}  // namespace nibkv::fold_row_test
