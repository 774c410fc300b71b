#include <gtest/gtest.h>

#include <cmath>

#include "nibkv/nibkv.hpp"
#include "tests/reference/attention.hpp"
#include "tests/support/rows.hpp"
#include "tests/support/snapshots.hpp"

namespace nibkv::measure_test {
namespace {

using test::Random;
using test::Rig;

constexpr std::uint32_t kDim = 64, kTokens = 400;

Shape shape_of(KeyBasis basis, std::uint16_t channels) {
  Shape shape = {.layers = 1, .query_heads = 1, .kv_heads = 1, .head_dim = kDim, .max_chunk = 40};
  shape.outlier_channels = channels;
  shape.basis = basis;
  return shape;
}

// Keys with a mean far from 0, as biases of projections give, and two channels that are far larger than the others.
struct Text {
  std::vector<float> keys, values, query;

  explicit Text(std::uint64_t seed, const Rotary& rotary = {}) {
    Random random(seed);
    keys = random.bells(std::size_t{kTokens} * kDim);
    values = random.bells(keys.size());
    query = random.bells(kDim);
    for (std::size_t i = 0; i < keys.size(); ++i) {
      const std::size_t c = i % kDim;
      keys[i] = keys[i] * (c == 7 || c == 40 ? 30.0f : 1.0f) + (c % 8 == 3 ? 40.0f : 0.0f);
    }
    // Rotary pairs (i, i + 32).
    for (std::size_t token = 0; rotary.known() && token < kTokens; ++token) {
      for (std::size_t pair = 0; pair < kDim / 2; ++pair) {
        const double angle = static_cast<double>(token) * std::pow(1e4, -2.0 * static_cast<double>(pair) / kDim);
        float& a = keys[token * kDim + pair];
        float& b = keys[token * kDim + pair + kDim / 2];
        const double x = a, y = b;
        a = static_cast<float>(x * std::cos(angle) - y * std::sin(angle));
        b = static_cast<float>(x * std::sin(angle) + y * std::cos(angle));
      }
    }
  }

  // The distance of what a cache gives from exact attention, whose logits have a spread of some units.
  double error(Cache& cache) const {
    for (std::uint32_t at = 0; at < kTokens; at += 40) {
      EXPECT_EQ(append(cache, 0, std::span(keys).subspan(at * kDim, 40 * kDim),
                       std::span(values).subspan(at * kDim, 40 * kDim)),
                Status::kOk);
    }
    std::vector<float> out(kDim);
    EXPECT_EQ(attend(cache, 0, query, out), Status::kOk);
    reference::Rows all_keys, all_values;
    for (std::size_t i = 0; i < kTokens; ++i) {
      all_keys.push_back(reference::widen(std::span(keys).subspan(i * kDim, kDim)));
      all_values.push_back(reference::widen(std::span(values).subspan(i * kDim, kDim)));
    }
    const auto exact = reference::attention(reference::widen(query), all_keys, all_values, kTokens);
    return reference::distance(reference::widen(out), exact) / reference::norm(exact);
  }
};

TEST(Measured, KeysOfAnyMeanAreCodedAsThoseOfNone) {
  for (const std::string& port : test::running_ports()) {
    double plain = 0, measured = 0;
    for (std::uint64_t seed = 1; seed < 6; ++seed) {
      const Text text(seed);
      Rig one(shape_of(KeyBasis::kProfile, 0), full(500), port), two(shape_of(KeyBasis::kMeasured, 4), full(500), port);
      plain += text.error(one.cache()) / 5;
      measured += text.error(two.cache()) / 5;
      EXPECT_EQ(two.cache().measured(0), 40u);
      EXPECT_EQ(check(two.cache()), Status::kOk);
    }
    EXPECT_LT(measured, 0.2) << port;
    EXPECT_GT(plain, 3 * measured) << port << ": " << measured;
  }
}

// Where the embedding is known, pairs that turn have ranges for all positions, and no mean.
TEST(Measured, ChannelsThatTurnKeepTheirRange) {
  Shape shape = shape_of(KeyBasis::kMeasured, 16);
  double unknown = 0, known = 0;
  for (std::uint64_t seed = 1; seed < 6; ++seed) {
    const Rotary rotary = {.base = 1e4f, .dims = kDim, .adjacent = false};
    const Text text(seed, rotary);
    shape.rotary = {};
    Rig one(shape, full(500));
    shape.rotary = rotary;
    Rig two(shape, full(500));
    unknown += text.error(one.cache()) / 5;
    known += text.error(two.cache()) / 5;
  }
  EXPECT_LT(known, 0.8 * unknown);
}

void append_chunk(Cache& cache, Random& random, std::uint32_t count) {
  const auto rows = random.bells(std::size_t{count} * kDim);
  ASSERT_EQ(append(cache, 0, rows, rows), Status::kOk);
}

TEST(Measured, FewTokensMeasureNothingAndClearForgets) {
  Rig rig(shape_of(KeyBasis::kMeasured, 8), full(500));
  Random random(2);
  append_chunk(rig.cache(), random, kLeastMeasured - 1);
  EXPECT_EQ(rig.cache().measured(0), 0u);
  append_chunk(rig.cache(), random, 40);
  EXPECT_EQ(rig.cache().measured(0), 0u) << "it holds some already";
  EXPECT_EQ(check(rig.cache()), Status::kOk);
  ASSERT_EQ(truncate(rig.cache(), 0), Status::kOk);
  append_chunk(rig.cache(), random, kLeastMeasured);
  EXPECT_EQ(rig.cache().measured(0), kLeastMeasured);
  EXPECT_EQ(oldest_exact(rig.cache()), kLeastMeasured) << "what is measured stays";
  ASSERT_EQ(truncate(rig.cache(), 3), Status::kOk);
  append_chunk(rig.cache(), random, 20);
  EXPECT_EQ(rig.cache().measured(0), kLeastMeasured);
  ASSERT_EQ(rig.cache().clear(), Status::kOk);
  EXPECT_EQ(rig.cache().measured(0), 0u);
  EXPECT_EQ(rig.cache().measured(1), 0u) << "no such layer";
  EXPECT_EQ(reserve(rig.cache(), 0, 20), Status::kBadArgument) << "rows must come with append";
  append_chunk(rig.cache(), random, 20);
  EXPECT_EQ(reserve(rig.cache(), 0, 20), Status::kOk);
}

// What a head holds is in the basis that was measured, so it stays while any head holds something.
TEST(Measured, AHeadThatIsEmptyIsNotMeasuredAgain) {
  Shape shape = shape_of(KeyBasis::kMeasured, 8);
  shape.query_heads = shape.kv_heads = 2;
  Rig rig(shape, full(500));
  Random random(2);
  const auto rows = random.bells(20 * 2 * kDim);
  ASSERT_EQ(append(rig.cache(), 0, rows, rows), Status::kOk);
  ASSERT_EQ(compact(rig.cache(), 0, 0, std::vector<std::uint32_t>(20, kDrop)), Status::kOk);
  const auto token = random.bells(2 * kDim), many = random.bells(40 * 2 * kDim);
  ASSERT_EQ(append(rig.cache(), 0, token, token), Status::kOk);
  EXPECT_EQ(rig.cache().measured(0), 20u);
  ASSERT_EQ(compact(rig.cache(), 0, 0, std::vector<std::uint32_t>(1, kDrop)), Status::kOk);
  EXPECT_EQ(reserve(rig.cache(), 0, 2), Status::kOk);
  ASSERT_EQ(append(rig.cache(), 0, many, many), Status::kOk);
  EXPECT_EQ(rig.cache().measured(0), 20u);
}

TEST(Measured, HugeRowsAndZerosAreMeasured) {
  for (const float size : {0.0f, 1e-30f, 1e30f, 3e38f}) {
    Rig rig(shape_of(KeyBasis::kMeasured, 4), full(500));
    Random random(2);
    auto keys = random.bells(40 * kDim);
    for (float& channel : keys) channel = std::max(-1.0f, std::min(channel, 1.0f)) * size;
    ASSERT_EQ(append(rig.cache(), 0, keys, random.bells(40 * kDim)), Status::kOk);
    EXPECT_EQ(check(rig.cache()), Status::kOk) << size;
    std::vector<float> out(kDim);
    ASSERT_EQ(attend(rig.cache(), 0, random.bells(kDim), out), Status::kOk);
    for (const float channel : out) EXPECT_TRUE(std::isfinite(channel)) << size;
  }
}

TEST(Measured, APlaceForItIsInTheFootprintAndAProfileIsRefused) {
  const Shape none = shape_of(KeyBasis::kProfile, 0), measured = shape_of(KeyBasis::kMeasured, 0);
  EXPECT_EQ(footprint(measured, full(500)), footprint(none, full(500)) + 192);
  EXPECT_EQ(measured_bytes(measured), 52u + 2 * kDim);
  Shape wrong = measured;
  wrong.storage = Storage::kF32;
  EXPECT_FALSE(valid(wrong));
  wrong = measured;
  wrong.basis = static_cast<KeyBasis>(2);
  EXPECT_FALSE(valid(wrong));
  wrong = measured;
  wrong.layers = 2;
  EXPECT_FALSE(valid(minicache(500, pairs_from(0, 2)), wrong));
  const auto profile = test::make_profile(none, 3, {});
  test::Arena arena(footprint(measured, full(500)));
  Cache cache;
  EXPECT_EQ(cache.init(arena.bytes(), measured, full(500), {{}, profile}), Status::kBadProfile);
  EXPECT_EQ(cache.init(arena.bytes(), measured, full(500)), Status::kOk);
}

// What is measured is in snapshots, and moves along.
TEST(Measured, SnapshotsAndMovesTakeItAlong) {
  const Shape shape = shape_of(KeyBasis::kMeasured, 8);
  const Text text(4);
  Rig rig(shape, ems(300)), restored(shape, ems(300)), moved(shape, ems(250)), imported(shape, ems(250));
  (void)text.error(rig.cache());
  const auto bytes = test::saved(rig.cache());
  ASSERT_EQ(restore(restored.cache(), bytes), Status::kOk);
  EXPECT_EQ(test::saved(restored.cache()), bytes);
  ASSERT_EQ(move_to(rig.cache(), moved.cache()), Status::kOk);
  ASSERT_EQ(import_snapshot(imported.cache(), shape, ems(300), bytes), Status::kOk);
  EXPECT_EQ(test::saved(imported.cache()), test::saved(moved.cache()));
  std::vector<float> out(kDim), again(kDim);
  for (Rig* each : {&rig, &restored, &moved, &imported}) {
    EXPECT_EQ(each->cache().measured(0), 40u);
    EXPECT_EQ(check(each->cache()), Status::kOk);
  }
  ASSERT_EQ(attend(rig.cache(), 0, text.query, out), Status::kOk);
  ASSERT_EQ(attend(restored.cache(), 0, text.query, again), Status::kOk);
  EXPECT_TRUE(test::same_bytes(out, again));
  Rig other(shape_of(KeyBasis::kProfile, 0), ems(300));
  EXPECT_EQ(restore(other.cache(), bytes), Status::kOtherShape);
  EXPECT_EQ(move_to(rig.cache(), other.cache()), Status::kOtherShape);
}

// Damage to it that checksums do not show.
TEST(Measured, ASnapshotWithOtherThanMeasuredNumbersIsCorrupt) {
  const Shape shape = shape_of(KeyBasis::kMeasured, 8);
  Rig rig(shape, full(500)), to(shape, full(500));
  (void)Text(4).error(rig.cache());
  const auto whole = test::saved(rig.cache());
  const auto damaged = [&](std::size_t at, std::byte value) {
    test::TakenApart parts(whole);
    auto& chains = parts.sections.at(1).bytes;
    chains.at(32 + at) = value;
    const Status status = restore(to.cache(), parts.sealed());
    EXPECT_EQ(import_snapshot(to.cache(), shape, full(500), parts.sealed()), status);
    return status;
  };
  EXPECT_EQ(damaged(0, std::byte{40}), Status::kOk);
  EXPECT_EQ(damaged(0, std::byte{3}), Status::kCorrupt) << "too few tokens";
  EXPECT_EQ(damaged(1, std::byte{255}), Status::kCorrupt) << "more than a chunk";
  EXPECT_EQ(damaged(4, std::byte{kDim}), Status::kCorrupt) << "no such channel";
  EXPECT_EQ(damaged(21, std::byte{255}), Status::kCorrupt) << "not a scale";
  EXPECT_EQ(damaged(53, std::byte{0x7f}), Status::kCorrupt) << "not finite";
}

}  // namespace
}  // namespace nibkv::measure_test
