#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "nibkv/profile.hpp"
#include "profile/procrustes.hpp"
#include "tests/support/rig.hpp"

namespace nibkv::layer_similarity_test {
namespace {

using test::Random;

constexpr Shape kShape = {.layers = 3, .query_heads = 2, .kv_heads = 2, .head_dim = 32};
constexpr std::size_t kDim = 32, kTokens = 600, kRow = 2 * kDim;  // of a token
constexpr CalibrationOptions kAligned = {.align = true, .rotary = {}};

using Matrix = std::vector<double>;

double at(const Matrix& m, std::size_t i, std::size_t j, std::size_t dim) {
  return m[i * dim + j];
}

// Random rows, made orthogonal one by one.
Matrix random_orthogonal(std::size_t dim, Random& random) {
  Matrix m(dim * dim);
  for (std::size_t i = 0; i < dim; ++i) {
    double* row = m.data() + i * dim;
    for (std::size_t c = 0; c < dim; ++c) row[c] = static_cast<double>(random.bell());
    for (int twice = 0; twice < 2; ++twice) {
      for (std::size_t k = 0; k < i; ++k) {
        double along = 0;
        for (std::size_t c = 0; c < dim; ++c) along += row[c] * m[k * dim + c];
        for (std::size_t c = 0; c < dim; ++c) row[c] -= along * m[k * dim + c];
      }
    }
    double energy = 0;
    for (std::size_t c = 0; c < dim; ++c) energy += row[c] * row[c];
    for (std::size_t c = 0; c < dim; ++c) row[c] /= std::sqrt(energy);
  }
  return m;
}

// a times b, or a times b transposed.
Matrix times(const Matrix& a, const Matrix& b, std::size_t dim, bool transposed = false) {
  Matrix out(dim * dim);
  for (std::size_t i = 0; i < dim; ++i) {
    for (std::size_t j = 0; j < dim; ++j) {
      for (std::size_t k = 0; k < dim; ++k) {
        out[i * dim + j] += at(a, i, k, dim) * (transposed ? at(b, j, k, dim) : at(b, k, j, dim));
      }
    }
  }
  return out;
}

void expect_orthogonal(const Matrix& m, std::size_t dim) {
  const Matrix square = times(m, m, dim, true);
  for (std::size_t i = 0; i < dim * dim; ++i) EXPECT_NEAR(square[i], i % (dim + 1) == 0 ? 1 : 0, 1e-12) << i;
}

double polar(Matrix& m, std::size_t dim) {
  Matrix room(polar_workspace(dim));
  return polar_factor(m.data(), room.data(), static_cast<std::uint32_t>(dim));
}

TEST(Polar, FactorOfAnOrthogonalTimesASymmetricPositiveMatrixIsTheFirst) {
  for (const std::size_t dim : {1, 2, 16, 80}) {
    Random random(dim);
    const Matrix q = random_orthogonal(dim, random), basis = random_orthogonal(dim, random);
    Matrix symmetric(dim * dim);
    double sum = 0;
    for (std::size_t k = 0; k < dim; ++k) {
      const double value = 1000 / std::pow(1.3, static_cast<double>(k % 40));  // over four orders of magnitude
      sum += value;
      for (std::size_t i = 0; i < dim; ++i) {
        for (std::size_t j = 0; j < dim; ++j) symmetric[i * dim + j] += value * basis[k * dim + i] * basis[k * dim + j];
      }
    }
    Matrix m = times(q, symmetric, dim);
    EXPECT_NEAR(polar(m, dim), sum, 1e-10 * sum) << dim;
    for (std::size_t i = 0; i < dim * dim; ++i) EXPECT_NEAR(m[i], q[i], 1e-9) << dim << " " << i;
  }
}

TEST(Polar, SingularMatricesGetAnOrthogonalFactorThatKeepsWhatTheySay) {
  constexpr std::size_t kSize = 24;
  Random random(5);
  for (const std::size_t rank : {0, 1, 7, 23}) {
    // A sum of `rank` products of one orthonormal vector with another: the factor must map each to each.
    const Matrix from = random_orthogonal(kSize, random), to = random_orthogonal(kSize, random);
    Matrix m(kSize * kSize);
    for (std::size_t k = 0; k < rank; ++k) {
      for (std::size_t i = 0; i < kSize * kSize; ++i) {
        m[i] += 3 * to[k * kSize + i / kSize] * from[k * kSize + i % kSize];
      }
    }
    EXPECT_NEAR(polar(m, kSize), 3.0 * static_cast<double>(rank), 1e-10) << rank;
    expect_orthogonal(m, kSize);
    for (std::size_t k = 0; k < rank; ++k) {
      for (std::size_t i = 0; i < kSize; ++i) {
        double mapped = 0;
        for (std::size_t j = 0; j < kSize; ++j) mapped += at(m, i, j, kSize) * from[k * kSize + j];
        EXPECT_NEAR(mapped, to[k * kSize + i], 1e-10) << rank << " " << k << " " << i;
      }
    }
    if (rank == 0) {
      for (std::size_t i = 0; i < m.size(); ++i) EXPECT_EQ(m[i], i % (kSize + 1) == 0 ? 1 : 0) << i;
    }
  }
}

struct Layer {
  std::vector<float> keys, values;  // [kTokens][2][kDim]
};

/// Passes the layers to a calibrator, chunk by chunk.
/// @param swap_last  of the last chunk, layer 1 comes before layer 0
std::vector<std::byte> calibrate(const std::vector<Layer>& layers, const CalibrationOptions& options, bool maps,
                                 bool swap_last = false) {
  test::Arena memory(calibration_bytes(kShape, options));
  Calibrator calibrator;
  EXPECT_EQ(calibrator.init(memory.bytes(), kShape, options), Status::kOk);
  for (std::size_t first = 0; first < kTokens; first += 50) {
    const bool swapped = swap_last && first + 50 == kTokens;
    for (std::uint32_t i = 0; i < layers.size(); ++i) {
      const std::uint32_t layer = swapped && i < 2 ? 1 - i : i;
      const auto chunk = [&](const std::vector<float>& rows) {
        return std::span(rows).subspan(first * kRow, 50 * kRow);
      };
      EXPECT_EQ(
          calibrator.observe(layer, chunk(layers[layer].keys), chunk(layers[layer].keys), chunk(layers[layer].values)),
          Status::kOk);
    }
  }
  test::Arena profile(profile_bytes(kShape, maps));
  EXPECT_EQ(calibrator.write(profile.bytes()), Status::kOk);
  EXPECT_TRUE(memory.guards_intact());
  EXPECT_TRUE(profile.guards_intact());
  return {profile.bytes().begin(), profile.bytes().end()};
}

std::vector<Layer> random_layers(std::uint64_t seed) {
  Random random(seed);
  std::vector<Layer> layers(3);
  for (Layer& layer : layers) layer = {random.bells(kTokens * kRow), random.bells(kTokens * kRow)};
  return layers;
}

double q15(std::int16_t cosine) {
  EXPECT_NE(cosine, kUnknownCosine);
  return cosine / 32768.0;
}

double element(const std::uint8_t* bytes, std::size_t index) {
  return static_cast<std::int16_t>(bytes[2 * index] | bytes[2 * index + 1] << 8) / 32768.0;
}

double cosine_of(const float* a, const float* b) {
  double aa = 0, bb = 0, ab = 0;
  for (std::size_t c = 0; c < kDim; ++c) {
    const auto x = static_cast<double>(a[c]), y = static_cast<double>(b[c]);
    aa += x * x, bb += y * y, ab += x * y;
  }
  return ab / std::sqrt(aa * bb);
}

TEST(LayerSimilarity, CosinesAreThoseOfTheRows) {
  std::vector<Layer> layers = random_layers(91);
  Random random(92);
  for (std::size_t i = 0; i < layers[0].keys.size(); ++i) {
    layers[0].keys[i] += static_cast<float>(i % kDim) - 12;  // different means, which hide what the keys have in common
    layers[1].keys[i] = 0.8f * (layers[0].keys[i] + 12 - static_cast<float>(i % kDim)) + 0.6f * layers[1].keys[i] + 9 -
                        static_cast<float>(i % kDim);
    layers[1].values[i] = 0.5f * layers[0].values[i] + layers[1].values[i];
  }
  const std::vector<std::byte> profile = calibrate(layers, {}, false);
  ProfileView view;
  ASSERT_EQ(view.open(profile, kShape), Status::kOk);
  for (std::uint32_t layer = 1; layer < 3; ++layer) {
    for (std::uint32_t head = 0; head < 2; ++head) {
      const std::vector<float>&below = layers[layer - 1].keys, &above = layers[layer].keys;
      double means[2][kDim] = {}, raw = 0, values = 0, aa = 0, bb = 0, ab = 0;
      for (std::size_t i = 0; i < kTokens; ++i) {
        const std::size_t row = i * kRow + head * kDim;
        raw += cosine_of(below.data() + row, above.data() + row) / kTokens;
        values += cosine_of(layers[layer - 1].values.data() + row, layers[layer].values.data() + row) / kTokens;
        for (std::size_t c = 0; c < kDim; ++c) {
          means[0][c] += static_cast<double>(below[row + c]) / kTokens;
          means[1][c] += static_cast<double>(above[row + c]) / kTokens;
        }
      }
      for (std::size_t i = 0; i < kTokens; ++i) {
        for (std::size_t c = 0; c < kDim; ++c) {
          const double x = static_cast<double>(below[i * kRow + head * kDim + c]) - means[0][c];
          const double y = static_cast<double>(above[i * kRow + head * kDim + c]) - means[1][c];
          aa += x * x, bb += y * y, ab += x * y;
        }
      }
      const LayerCosines found = view.cosines(layer, head);
      EXPECT_NEAR(q15(found.raw_keys), raw, 2e-5) << layer << head;
      EXPECT_NEAR(q15(found.values), values, 2e-5) << layer << head;
      EXPECT_NEAR(q15(found.keys), ab / std::sqrt(aa * bb), 2e-5) << layer << head;
      if (layer == 1) {
        EXPECT_NEAR(ab / std::sqrt(aa * bb), 0.8, 0.01) << "the rows are not what they were made for";
        EXPECT_LT(raw, -0.3);
      }
      EXPECT_EQ(found.aligned_keys, kUnknownCosine);
      EXPECT_EQ(found.aligned_values, kUnknownCosine);
    }
    const LayerCosines both = view.cosines(layer), one = view.cosines(layer, 0), two = view.cosines(layer, 1);
    EXPECT_NEAR(both.keys, (one.keys + two.keys) / 2.0, 0.5);
    EXPECT_NEAR(both.values, (one.values + two.values) / 2.0, 0.5);
    EXPECT_EQ(both.aligned_values, kUnknownCosine);
  }
  EXPECT_EQ(view.cosines(0).keys, kUnknownCosine);
  EXPECT_EQ(view.cosines(0, 1).values, kUnknownCosine);
  EXPECT_FALSE(view.has_maps());
  EXPECT_EQ(view.value_map(1, 0), nullptr);
  EXPECT_EQ(view.key_turns(1, 0), nullptr);
}

TEST(LayerSimilarity, MapsOfValuesAreRecovered) {
  std::vector<Layer> layers = random_layers(93);
  Random random(94);
  std::vector<Matrix> maps;  // of layer 1's heads: they map its values to layer 0's
  for (std::size_t head = 0; head < 2; ++head) {
    const Matrix map = random_orthogonal(kDim, random);
    maps.push_back(map);
    for (std::size_t i = 0; i < kTokens; ++i) {
      const float* below = layers[0].values.data() + i * kRow + head * kDim;
      float* above = layers[1].values.data() + i * kRow + head * kDim;
      const float length = 0.25f + static_cast<float>(i % 7);  // magnitudes differ between the layers
      for (std::size_t j = 0; j < kDim; ++j) {
        double sum = 0;
        for (std::size_t c = 0; c < kDim; ++c) sum += at(map, c, j, kDim) * static_cast<double>(below[c]);
        above[j] = length * static_cast<float>(sum);
      }
    }
  }
  const std::vector<std::byte> profile = calibrate(layers, kAligned, true);
  ProfileView view;
  ASSERT_EQ(view.open(profile, kShape), Status::kOk);
  ASSERT_TRUE(view.has_maps());
  EXPECT_EQ(view.value_map(0, 0), nullptr);
  for (std::uint32_t head = 0; head < 2; ++head) {
    const LayerCosines found = view.cosines(1, head);
    EXPECT_GT(q15(found.aligned_values), 0.9999);
    EXPECT_LT(std::abs(q15(found.values)), 0.3);
    for (std::size_t i = 0; i < kDim * kDim; ++i) {
      EXPECT_NEAR(element(view.value_map(1, head), i), maps[head][i], 1e-3) << head << " " << i;
    }
    // For rows without anything in common, a map finds no more than chance.
    EXPECT_LT(q15(view.cosines(2, head).aligned_values), 0.4);
  }
}

// Procrustes maximises the mean cosine itself, so no second pass is needed to know it.
TEST(LayerSimilarity, AlignedCosineOfValuesIsTheMeanCosineOfMappedRows) {
  std::vector<Layer> layers = random_layers(95);
  for (std::size_t i = 0; i < layers[0].values.size(); ++i) {
    layers[1].values[i] = 0.7f * layers[0].values[i / kDim * kDim + (i + 5) % kDim] - 0.5f * layers[1].values[i];
  }
  const std::vector<std::byte> profile = calibrate(layers, kAligned, true);
  ProfileView view;
  ASSERT_EQ(view.open(profile, kShape), Status::kOk);
  for (std::uint32_t layer = 1; layer < 3; ++layer) {
    for (std::uint32_t head = 0; head < 2; ++head) {
      double mean = 0;
      for (std::size_t i = 0; i < kTokens; ++i) {
        const std::size_t row = i * kRow + head * kDim;
        std::vector<float> mapped(kDim);
        for (std::size_t a = 0; a < kDim; ++a) {
          for (std::size_t b = 0; b < kDim; ++b) {
            mapped[a] +=
                static_cast<float>(element(view.value_map(layer, head), a * kDim + b)) * layers[layer].values[row + b];
          }
        }
        mean += cosine_of(mapped.data(), layers[layer - 1].values.data() + row) / kTokens;
      }
      EXPECT_NEAR(q15(view.cosines(layer, head).aligned_values), mean, 1e-4) << layer << head;
    }
  }
}

TEST(LayerSimilarity, TurnsOfKeysAreRecoveredWhateverTheirMeans) {
  for (const RotaryPairs& rotary : {RotaryPairs{false, 0}, RotaryPairs{true, 0}, RotaryPairs{false, 10}}) {
    const RotaryPairs counted = {rotary.adjacent, rotary.count == 0 ? std::uint16_t{kDim / 2} : rotary.count};
    const auto angle = [](std::size_t pair, std::size_t head) {
      return 0.37 * static_cast<double>(pair * (head + 1)) - 2;
    };
    std::vector<Layer> layers = random_layers(96);
    for (std::size_t row = 0; row < kTokens * 2; ++row) {
      const float* below = layers[0].keys.data() + row * kDim;
      float* above = layers[1].keys.data() + row * kDim;
      for (std::uint32_t pair = 0; pair < kDim / 2; ++pair) {
        const ChannelPair at = channels_of(pair, counted);
        // Layer 1 is layer 0 rotated back.
        const float c = static_cast<float>(std::cos(angle(pair, row % 2)));
        const float s = static_cast<float>(std::sin(angle(pair, row % 2)));
        above[at.first] = c * below[at.first] + s * below[at.second] + static_cast<float>(pair);
        above[at.second] = c * below[at.second] - s * below[at.first] - 7;
      }
    }
    const std::vector<std::byte> profile = calibrate(layers, {.align = true, .rotary = rotary}, true);
    ProfileView view;
    ASSERT_EQ(view.open(profile, kShape), Status::kOk);
    EXPECT_EQ(view.rotary().adjacent, rotary.adjacent);
    EXPECT_EQ(view.rotary().count, counted.count);
    for (std::uint32_t head = 0; head < 2; ++head) {
      EXPECT_GT(q15(view.cosines(1, head).aligned_keys), 0.9999);
      EXPECT_LT(q15(view.cosines(1, head).keys), 0.5);
      EXPECT_LT(q15(view.cosines(2, head).aligned_keys), 0.2);
      for (std::size_t pair = 0; pair < kDim / 2; ++pair) {
        EXPECT_NEAR(element(view.key_turns(1, head), 2 * pair), std::cos(angle(pair, head)), 1e-3) << head << pair;
        EXPECT_NEAR(element(view.key_turns(1, head), 2 * pair + 1), std::sin(angle(pair, head)), 1e-3) << head << pair;
      }
    }
  }
}

TEST(LayerSimilarity, EveryChannelHasOnePair) {
  for (const bool adjacent : {false, true}) {
    for (std::uint16_t count = 1; count <= kDim / 2; ++count) {
      std::vector<int> met(kDim);
      for (std::uint32_t pair = 0; pair < kDim / 2; ++pair) {
        const ChannelPair at = channels_of(pair, {adjacent, count});
        ++met.at(at.first);
        ++met.at(at.second);
      }
      EXPECT_EQ(met, std::vector<int>(kDim, 1)) << adjacent << " " << count;
    }
  }
}

TEST(LayerSimilarity, LayersOutOfStepAreUnknownAndTheirMapsTheUnit) {
  const std::vector<Layer> layers = random_layers(97);
  // The last chunk comes in the order 1, 0, 2: neither (0, 1) nor (1, 2) saw all tokens together.
  const std::vector<std::byte> profile = calibrate(layers, kAligned, true, true);
  ProfileView view;
  ASSERT_EQ(view.open(profile, kShape), Status::kOk);
  for (std::uint32_t layer = 1; layer < 3; ++layer) {
    const LayerCosines found = view.cosines(layer, 1);
    for (const std::int16_t cosine :
         {found.keys, found.values, found.aligned_keys, found.aligned_values, found.raw_keys}) {
      EXPECT_EQ(cosine, kUnknownCosine);
    }
    for (std::size_t i = 0; i < kDim * kDim; ++i) {
      EXPECT_NEAR(element(view.value_map(layer, 1), i), i % (kDim + 1) == 0 ? 1 : 0, 1e-4) << i;
    }
    for (std::size_t i = 0; i < kDim; ++i) EXPECT_NEAR(element(view.key_turns(layer, 1), i), 1 - i % 2, 1e-4) << i;
  }
}

TEST(LayerSimilarity, ACountThatDiffersOrALayerTwiceMakesOnlyItsPairsUnknown) {
  Random random(98);
  const auto rows = random.bells(8 * kRow);
  const auto known = [&](std::initializer_list<std::pair<std::uint32_t, std::size_t>> calls) {
    std::vector<double> memory(calibration_bytes(kShape) / sizeof(double));
    Calibrator calibrator;
    EXPECT_EQ(calibrator.init(std::as_writable_bytes(std::span(memory)), kShape), Status::kOk);
    for (const auto& [layer, count] : calls) {
      const auto chunk = std::span(rows).first(count * kRow);
      EXPECT_EQ(calibrator.observe(layer, chunk, chunk, chunk), Status::kOk);
      // A refused call has no effect.
      EXPECT_EQ(calibrator.observe(layer, chunk, chunk, {}), Status::kBadArgument);
    }
    std::vector<std::byte> profile(profile_bytes(kShape));
    EXPECT_EQ(calibrator.write(profile), Status::kOk);
    ProfileView view;
    EXPECT_EQ(view.open(profile, kShape), Status::kOk);
    return std::pair{view.cosines(1).values != kUnknownCosine, view.cosines(2).values != kUnknownCosine};
  };
  EXPECT_EQ(known({{0, 8}, {1, 8}, {2, 8}, {0, 3}, {1, 3}, {2, 3}}), (std::pair{true, true}));
  EXPECT_EQ(known({{0, 8}, {1, 7}, {2, 7}}), (std::pair{false, true}));
  EXPECT_EQ(known({{0, 8}, {1, 8}, {2, 8}, {2, 8}}), (std::pair{true, false}));
  EXPECT_EQ(known({{0, 8}, {1, 8}, {1, 8}, {2, 8}}), (std::pair{false, false}));
  EXPECT_EQ(known({{2, 8}, {1, 8}, {0, 8}}), (std::pair{false, false}));
  EXPECT_EQ(known({{0, 8}, {1, 8}, {0, 8}, {2, 8}}), (std::pair{false, false}));
}

TEST(LayerSimilarity, RowsWithoutADirectionAreLeftOutAndConstantKeysAreUnknown) {
  std::vector<Layer> layers = random_layers(99);
  for (std::size_t i = 0; i < kTokens * kRow; ++i) {
    layers[1].values[i] = i / kRow % 3 == 0 ? 0.0f : -2 * layers[0].values[i];
    layers[1].keys[i] = 3;
    layers[2].values[i] = 0;
  }
  const std::vector<std::byte> profile = calibrate(layers, kAligned, true);
  ProfileView view;
  ASSERT_EQ(view.open(profile, kShape), Status::kOk);
  EXPECT_NEAR(q15(view.cosines(1).values), -1, 1e-4);
  EXPECT_NEAR(q15(view.cosines(1).aligned_values), 1, 1e-4);
  EXPECT_EQ(view.cosines(1).keys, kUnknownCosine);
  EXPECT_EQ(view.cosines(1).aligned_keys, kUnknownCosine);
  EXPECT_NE(view.cosines(1).raw_keys, kUnknownCosine);
  EXPECT_EQ(view.cosines(2).values, kUnknownCosine);
}

TEST(LayerSimilarity, AlignedCosinesAreThereWithoutMapsToo) {
  const std::vector<Layer> layers = random_layers(100);
  const std::vector<std::byte> with = calibrate(layers, kAligned, true), without = calibrate(layers, kAligned, false);
  ProfileView one, other;
  ASSERT_EQ(one.open(with, kShape), Status::kOk);
  ASSERT_EQ(other.open(without, kShape), Status::kOk);
  EXPECT_FALSE(other.has_maps());
  EXPECT_EQ(one.cosines(2).aligned_values, other.cosines(2).aligned_values);
  EXPECT_NE(one.cosines(2).aligned_values, kUnknownCosine);
  EXPECT_EQ(std::memcmp(with.data() + 32, without.data() + 32, without.size() - 32), 0);
  EXPECT_EQ(with.size() - without.size(), 2u * 2 * (kDim * kDim + kDim) * 2);

  // Maps must be requested at init.
  std::vector<double> memory(calibration_bytes(kShape) / sizeof(double));
  Calibrator calibrator;
  ASSERT_EQ(calibrator.init(std::as_writable_bytes(std::span(memory)), kShape), Status::kOk);
  const auto rows = std::span(layers[0].keys).first(kRow);
  for (std::uint32_t layer = 0; layer < 3; ++layer) {
    ASSERT_EQ(calibrator.observe(layer, rows, rows, rows), Status::kOk);
  }
  std::vector<std::byte> profile(profile_bytes(kShape, true));
  EXPECT_EQ(calibrator.write(profile), Status::kBadArgument);
  EXPECT_EQ(calibrator.init(std::as_writable_bytes(std::span(memory)), kShape, kAligned), Status::kArenaTooSmall);
  EXPECT_EQ(calibrator.init(std::as_writable_bytes(std::span(memory)), kShape,
                            {.align = true, .rotary = {.adjacent = true, .count = 17}}),
            Status::kBadArgument);
}

TEST(LayerSimilarity, HeadScoresGoIntoProfilesWithMaps) {
  std::vector<std::byte> profile = calibrate(random_layers(101), kAligned, true);
  ASSERT_EQ(set_head_scores(profile, kShape, std::vector<float>{1, 2, 3, 4, 5, 6}), Status::kOk);
  ProfileView view;
  ASSERT_EQ(view.open(profile, kShape), Status::kOk);
  EXPECT_TRUE(view.has_maps());
  EXPECT_EQ(view.head(2, 1).head_score, 65535);
}

TEST(LayerSimilarity, DamagedMapsAreRefusedUnderARightChecksum) {
  const std::vector<std::byte> good = calibrate(random_layers(102), kAligned, true);
  ProfileView view;
  ASSERT_EQ(view.open(good, kShape), Status::kOk);
  const auto offset = [&](const std::uint8_t* field) {
    return static_cast<std::size_t>(reinterpret_cast<const std::byte*>(field) - good.data());
  };
  const auto with = [&](std::size_t place, std::int16_t number) {
    std::vector<std::byte> bad = good;
    std::memcpy(bad.data() + place, &number, 2);
    test::seal(bad);
    ProfileView opened;
    return opened.open(bad, kShape);
  };
  const std::size_t map = offset(view.value_map(2, 1)), turns = offset(view.key_turns(1, 0));
  std::int16_t there;
  std::memcpy(&there, good.data() + map + 2 * 40, 2);
  EXPECT_EQ(with(map + 2 * 40, there), Status::kOk) << "the checksum of this test is wrong";
  EXPECT_EQ(with(map + 2 * 40, 32767), Status::kBadProfile);
  EXPECT_EQ(with(map + 2 * 40, -32768), Status::kBadProfile);
  EXPECT_EQ(with(map + 2 * 40, static_cast<std::int16_t>(there + 12000)), Status::kBadProfile);
  EXPECT_EQ(with(turns + 2 * 7, 0), Status::kBadProfile);
  EXPECT_EQ(with(good.size() - 2, 32767), Status::kBadProfile);
  EXPECT_EQ(with(24, 0), Status::kBadProfile) << "maps that the header does not know of";
  EXPECT_EQ(with(24, 5), Status::kBadProfile) << "an unknown flag";
  EXPECT_EQ(with(26, 0), Status::kBadProfile) << "no rotary pairs";
  EXPECT_EQ(with(26, 17), Status::kBadProfile) << "too many rotary pairs";
  EXPECT_EQ(with(24, 3), Status::kOk) << "pairs may be neighbours";
  ProfileView none;
  for (const std::size_t size : {good.size() - 1, profile_bytes(kShape), std::size_t{31}}) {
    EXPECT_EQ(none.open(std::span(good).first(size), kShape), Status::kBadProfile) << size;
  }
  EXPECT_TRUE(none.empty());
}

TEST(LayerSimilarity, ProfilesOfFourGibibytesAreNone) {
  constexpr Shape kHuge = {.layers = 1024, .query_heads = 1024, .kv_heads = 1024, .head_dim = 256};
  EXPECT_EQ(profile_bytes(kHuge, true), 0u);
  EXPECT_NE(profile_bytes(kHuge), 0u);
}

}  // namespace
}  // namespace nibkv::layer_similarity_test
