// Faults reported in other caches, which this one must not have: how accurately rows are stored.
#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "nibkv/nibkv.hpp"
#include "tests/reference/attention.hpp"
#include "tests/support/effort.hpp"
#include "tests/support/rig.hpp"

namespace nibkv::reports_stored_test {
namespace {

using test::Arena;
using test::Random;

constexpr std::size_t kDim = 64;

// Keys of a model with large key biases in two channels of a head.
std::vector<float> biased_keys(Random& random, std::size_t count, bool biased) {
  std::vector<float> keys = random.bells(count * kDim);
  for (std::size_t i = 0; biased && i < count; ++i) {
    keys[i * kDim + 3] += 150;
    keys[i * kDim + 40] -= 90;
  }
  return keys;
}

// A profile of 2,048 tokens of such rows, fewer under emulators.
template <typename Biased>
std::vector<std::byte> profile_of(const Shape& shape, std::uint64_t seed, const Biased& biased) {
  std::vector<std::uint64_t> memory(calibration_bytes(shape) / 8 + 1);
  Calibrator calibrator;
  EXPECT_EQ(calibrator.init(std::as_writable_bytes(std::span(memory)), shape), Status::kOk);
  Random random(seed);
  for (unsigned chunk = 0; chunk < test::turns(32, 8); ++chunk) {
    for (std::uint32_t layer = 0; layer < shape.layers; ++layer) {
      const auto queries = random.bells(64 * kDim), values = random.bells(64 * kDim);
      EXPECT_EQ(calibrator.observe(layer, queries, biased_keys(random, 64, biased(layer)), values), Status::kOk);
    }
  }
  std::vector<std::byte> profile(profile_bytes(shape));
  EXPECT_EQ(calibrator.write(profile), Status::kOk);
  return profile;
}

// The error of attention over 512 such tokens in 4 bits, layer by layer, relative to the
// result with exact rows.
template <typename Biased>
std::vector<double> errors_of(std::uint16_t layers, std::uint64_t seed, const Biased& biased) {
  Shape shape = {.layers = layers, .query_heads = 1, .kv_heads = 1, .head_dim = kDim, .outlier_channels = 4};
  shape.max_chunk = 32;
  const std::vector<std::byte> profile = profile_of(shape, seed, biased);
  Shape exact_shape = shape;
  exact_shape.outlier_channels = 0;
  exact_shape.storage = Storage::kF32;
  Arena coded_arena(footprint(shape, full(512))), exact_arena(footprint(exact_shape, full(512)));
  Cache coded, exact;
  EXPECT_EQ(coded.init(coded_arena.bytes(), shape, full(512), {.profile = profile}), Status::kOk);
  EXPECT_EQ(exact.init(exact_arena.bytes(), exact_shape, full(512)), Status::kOk);
  Random random(seed + 1);
  std::vector<double> errors;
  for (std::uint32_t layer = 0; layer < layers; ++layer) {
    double error = 0, signal = 0;
    for (int chunk = 0; chunk < 16; ++chunk) {
      const auto keys = biased_keys(random, 32, biased(layer)), values = random.bells(32 * kDim);
      const auto queries = random.bells(32 * kDim);
      EXPECT_EQ(append(coded, layer, keys, values), Status::kOk);
      EXPECT_EQ(append(exact, layer, keys, values), Status::kOk);
      const auto right = reference::widen(test::attend_all(exact, layer, queries));
      const auto got = reference::widen(test::attend_all(coded, layer, queries));
      error += std::pow(reference::distance(got, right), 2);
      signal += std::pow(reference::norm(right), 2);
    }
    errors.push_back(std::sqrt(error / signal));
  }
  return errors;
}

// huggingface/transformers#35185: 4-bit keys of a model with large key biases give only garbage.
// A profile accounts for the biases.
TEST(ReportsStored, LargeKeyBiasesAreHarmlessWithAProfile) {
  const double error = errors_of(1, 1, [](std::uint32_t) { return true; })[0];
  EXPECT_LE(error, 0.2);
  EXPECT_GT(error, 0.01) << "4 bits are not exact";
}

// ggml-org/llama.cpp#21385: the same biases, only in the first and the last layer, ruin the whole
// model at low bit widths.
TEST(ReportsStored, KeyBiasesInAFewLayersDoNotMakeThemWorseThanOthers) {
  const auto errors = errors_of(4, 2, [](std::uint32_t layer) { return layer == 0 || layer == 3; });
  for (const int biased : {0, 3}) {
    for (const int other : {1, 2}) {
      EXPECT_LE(errors[biased], 2 * errors[other]) << "layers " << biased << ", " << other;
    }
  }
}

// vllm-project/vllm#53334: one value beyond the half-precision range overflows the row's scale without an error.
TEST(ReportsStored, AValueBeyondHalfPrecisionIsFiniteAndExact) {
  constexpr Shape kShape = {.layers = 1, .query_heads = 1, .kv_heads = 1, .head_dim = kDim};
  for (const std::string& port : test::running_ports()) {
    test::Rig rig(kShape, full(32), port);
    Random random(3);
    std::vector<float> value = random.bells(kDim);
    value[5] = 1.25e5f;
    ASSERT_EQ(append(rig.cache(), 0, random.bells(kDim), value), Status::kOk);
    const std::vector<float> out = test::attend_all(rig.cache(), 0, random.bells(kDim));
    for (std::size_t c = 0; c < kDim; ++c) EXPECT_TRUE(std::isfinite(out[c])) << port << ", channel " << c;
    EXPECT_NEAR(out[5], 1.25e5, 1.25e3) << port;
  }
}

}  // namespace
}  // namespace nibkv::reports_stored_test
