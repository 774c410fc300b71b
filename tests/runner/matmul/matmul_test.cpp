#include "bench/runner/matmul/matmul.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "bench/runner/gguf/blocks.hpp"

namespace nibkv::llm {
namespace {

constexpr TensorType kTypes[] = {TensorType::kF32,  TensorType::kF16,  TensorType::kBF16, TensorType::kQ4_0,
                                 TensorType::kQ4_1, TensorType::kQ5_0, TensorType::kQ5_1, TensorType::kQ8_0,
                                 TensorType::kQ4_K, TensorType::kQ5_K, TensorType::kQ6_K};

bool is_real(TensorType type) {
  return block_length(type) == 1;
}

/// The offsets of half-precision numbers in a block of `type`.
std::vector<std::size_t> half_offsets(TensorType type) {
  switch (type) {
    case TensorType::kQ4_1:
    case TensorType::kQ5_1:
    case TensorType::kQ4_K:
    case TensorType::kQ5_K:
      return {0, 2};
    case TensorType::kQ6_K:
      return {208};
    default:
      return {0};
  }
}

/// A tensor of random bits, with finite numbers only.
struct Sample {
  Sample(TensorType type, std::size_t rows, std::size_t columns, unsigned seed)
      : bytes(rows * row_bytes(type, columns)) {
    std::mt19937 random(seed);
    for (std::byte& byte : bytes) byte = static_cast<std::byte>(random() & 255);
    for (std::size_t block = 0; block < bytes.size(); block += block_bytes(type)) {
      if (type == TensorType::kF32 || type == TensorType::kBF16) {
        const float value = std::normal_distribution<float>()(random);
        const std::size_t size = block_bytes(type);
        std::memcpy(&bytes[block], reinterpret_cast<const char*>(&value) + 4 - size, size);
        continue;
      }
      for (const std::size_t offset : half_offsets(type)) {
        const auto half =
            static_cast<std::uint16_t>((random() & 1) << 15 | (8 + random() % 6) << 10 | (random() & 1023));
        std::memcpy(&bytes[block + offset], &half, sizeof(half));
      }
    }
    tensor.name = "sample";
    tensor.type = type;
    tensor.shape = {columns, rows, 1, 1};
    tensor.data = bytes;
    weights.resize(rows * columns);
    for (std::size_t r = 0; r < rows; ++r) {
      dequantise(type, bytes.data() + r * row_bytes(type, columns), weights.data() + r * columns, columns);
    }
  }

  std::vector<std::byte> bytes;
  Tensor tensor;
  std::vector<float> weights;
};

std::vector<float> random_inputs(std::size_t count, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> values(count);
  for (float& value : values) value = normal(random) * (random() % 50 == 0 ? 20.0f : 1.0f);
  return values;
}

std::vector<float> product(const Matrix& matrix, const std::vector<float>& inputs, std::size_t count,
                           const MatmulKernels& kernels, ThreadPool& pool) {
  Activations activations(count, matrix.columns(), !matrix.is_real(), matrix.is_real(), kernels);
  activations.reset(count, matrix.columns());
  for (std::size_t t = 0; t < count; ++t) activations.set_row(t, inputs.data() + t * matrix.columns());
  std::vector<float> outputs(count * matrix.rows() + 1, 12345.0f);
  const Product products[] = {{&matrix, outputs.data()}};
  multiply(products, activations, pool);
  EXPECT_EQ(outputs.back(), 12345.0f) << "wrote after the outputs";
  outputs.pop_back();
  return outputs;
}

struct MatrixSize {
  std::size_t rows, columns;
};

std::vector<MatrixSize> shapes(TensorType type) {
  if (is_real(type)) return {{1, 1}, {16, 3}, {37, 65}};
  const std::size_t block = block_length(type);
  return {{1, block}, {16, block}, {24, 2 * block}, {37, 3 * block}};
}

std::string describe(TensorType type, const MatrixSize& shape, std::size_t count, const MatmulKernels& kernels) {
  return std::string(type_name(type)) + " " + std::to_string(shape.rows) + "x" + std::to_string(shape.columns) + ", " +
         std::to_string(count) + " rows, " + kernels.name;
}

/// Calls check(sample, matrix, shape, kernels, description without count) for every type, shape and set of kernels.
template <typename Check>
void for_each_case(ThreadPool& pool, Check&& check) {
  for (const TensorType type : kTypes) {
    for (const MatrixSize& shape : shapes(type)) {
      const Sample sample(type, shape.rows, shape.columns, static_cast<unsigned>(shape.rows * 31 + shape.columns));
      const Matrix matrix(sample.tensor, pool);
      ASSERT_EQ(matrix.rows(), shape.rows);
      ASSERT_EQ(matrix.columns(), shape.columns);
      for (const MatmulKernels* kernels : available_matmul_kernels()) check(sample, matrix, shape, *kernels);
    }
  }
}

// Rounding of f32 sums: every term and every partial sum is at most `terms` in magnitude; codes and minimum may cancel
// in a weight, by a factor of 255 at most.
double rounding_bound(double terms, std::size_t columns) {
  return terms * 0x1p-23 * static_cast<double>(columns / 8 + 8);
}

TEST(Matmul, EqualsTheProductOfTheDecodedWeightsWithinTheErrorOfInt8Inputs) {
  ThreadPool pool(2);
  for_each_case(
      pool, [&](const Sample& sample, const Matrix& matrix, const MatrixSize& shape, const MatmulKernels& kernels) {
        for (std::size_t count = 1; count <= 9; ++count) {
          const std::vector<float> inputs = random_inputs(count * shape.columns, static_cast<unsigned>(count));
          const std::vector<float> outputs = product(matrix, inputs, count, kernels, pool);
          for (std::size_t t = 0; t < count; ++t) {
            for (std::size_t r = 0; r < shape.rows; ++r) {
              const float* row = sample.weights.data() + r * shape.columns;
              const float* input = inputs.data() + t * shape.columns;
              double expected = 0, bound = 0, terms = 0;
              for (std::size_t group = 0; group < shape.columns; group += 32) {
                const std::size_t end = std::min(group + 32, shape.columns);
                double largest = 0, largest_weight = 0, weights = 0;
                for (std::size_t c = group; c < end; ++c) {
                  const double weight = std::fabs(static_cast<double>(row[c]));
                  largest = std::max(largest, std::fabs(static_cast<double>(input[c])));
                  largest_weight = std::max(largest_weight, weight);
                  weights += weight;
                  expected += static_cast<double>(row[c]) * input[c];
                }
                // The error of an input is at most half a step.
                if (!matrix.is_real()) bound += weights * largest / 127 * 0.50001;
                terms += static_cast<double>(end - group) * largest_weight * largest * 4;
              }
              ASSERT_NEAR(outputs[t * shape.rows + r], expected, bound + rounding_bound(terms, shape.columns))
                  << describe(sample.tensor.type, shape, count, kernels) << ", output " << t << "," << r;
            }
          }
        }
      });
}

TEST(Matmul, IsExactToF32RoundingForInputsThatInt8Holds) {
  ThreadPool pool(1);
  for_each_case(pool, [&](const Sample& sample, const Matrix& matrix, const MatrixSize& shape,
                          const MatmulKernels& kernels) {
    std::mt19937 random(5);
    std::vector<float> inputs(shape.columns);
    for (std::size_t c = 0; c < shape.columns; ++c) {
      // This includes the largest sums: whole groups at +-127.
      const int extreme = random() % 2 == 0 ? 127 : -127;
      inputs[c] = static_cast<float>(c % 32 == 0 || c / 32 % 3 == 1 ? extreme : static_cast<int>(random() % 255) - 127);
      if (c / 32 % 3 == 2) inputs[c] = 127;
    }
    const std::vector<float> outputs = product(matrix, inputs, 1, kernels, pool);
    for (std::size_t r = 0; r < shape.rows; ++r) {
      double expected = 0, terms = 0;
      for (std::size_t c = 0; c < shape.columns; ++c) {
        expected += static_cast<double>(sample.weights[r * shape.columns + c]) * inputs[c];
        terms += 127 * 4 * std::fabs(static_cast<double>(sample.weights[r * shape.columns + c]));
      }
      ASSERT_NEAR(outputs[r], expected, rounding_bound(terms, shape.columns))
          << describe(sample.tensor.type, shape, 1, kernels) << ", output " << r;
    }
  });
}

TEST(Matmul, GivesTheSameBitsForEveryBatchingWorkerCountAndKernel) {
  constexpr std::size_t kCount = 29;
  ThreadPool one(1), three(3);
  for_each_case(one,
                [&](const Sample& sample, const Matrix& matrix, const MatrixSize& shape, const MatmulKernels& kernels) {
                  const std::vector<float> inputs = random_inputs(kCount * shape.columns, 3);
                  const std::vector<float> together = product(matrix, inputs, kCount, kernels, one);
                  EXPECT_EQ(together, product(matrix, inputs, kCount, kernels, three));
                  EXPECT_EQ(together, product(matrix, inputs, kCount, kScalarMatmul, one));
                  std::vector<float> alone;
                  for (std::size_t t = 0; t < kCount; ++t) {
                    const auto begin = inputs.begin() + static_cast<std::ptrdiff_t>(t * shape.columns);
                    const std::vector<float> input(begin, begin + static_cast<std::ptrdiff_t>(shape.columns));
                    const std::vector<float> output = product(matrix, input, 1, kernels, one);
                    alone.insert(alone.end(), output.begin(), output.end());
                  }
                  EXPECT_EQ(together, alone) << describe(sample.tensor.type, shape, kCount, kernels);
                });
}

// Packed scales have a byte where files have 6 bits.
TEST(Matmul, TakesAsManyBytesAsTheTensor) {
  ThreadPool pool(2);
  for (const TensorType type : kTypes) {
    const Sample sample(type, 48, 4 * 256, 1);
    const Matrix matrix(sample.tensor, pool);
    const double more = type == TensorType::kQ4_K ? 1.028 : type == TensorType::kQ5_K ? 1.023 : 1;
    EXPECT_LE(static_cast<double>(matrix.bytes()), static_cast<double>(sample.bytes.size()) * more) << type_name(type);
  }
}

TEST(Matmul, MultipliesSeveralMatricesByTheSameInputs) {
  ThreadPool pool(2);
  const Sample samples[] = {
      {TensorType::kQ4_1, 37, 64, 1}, {TensorType::kQ8_0, 5, 64, 2}, {TensorType::kF16, 20, 64, 3}};
  const std::vector<float> inputs = random_inputs(3 * 64, 4);
  const MatmulKernels& kernels = find_matmul_kernels();
  Activations activations(3, 64, true, true, kernels);
  activations.reset(3, 64);
  for (std::size_t t = 0; t < 3; ++t) activations.set_row(t, inputs.data() + t * 64);
  std::vector<Matrix> matrices;
  std::vector<std::vector<float>> outputs;
  std::vector<Product> products;
  for (const Sample& sample : samples) {
    matrices.emplace_back(sample.tensor, pool);
    outputs.emplace_back(3 * matrices.back().rows());
  }
  for (std::size_t i = 0; i < matrices.size(); ++i) products.push_back({&matrices[i], outputs[i].data()});
  multiply(products, activations, pool);
  for (std::size_t i = 0; i < matrices.size(); ++i) {
    EXPECT_EQ(outputs[i], product(matrices[i], inputs, 3, kernels, pool)) << "matrix " << i;
  }
}

TEST(Matmul, TakesZeroAndVerySmallInputs) {
  ThreadPool pool(1);
  const Sample sample(TensorType::kQ4_1, 16, 32, 1);
  const Matrix matrix(sample.tensor, pool);
  for (const float value : {0.0f, -0.0f, 1e-40f, 1e-31f}) {
    const std::vector<float> outputs = product(matrix, std::vector<float>(32, value), 1, find_matmul_kernels(), pool);
    for (const float output : outputs) EXPECT_EQ(output, 0.0f) << value;
  }
}

TEST(Matmul, QuantisesToTheNearestOf255LevelsAndSumsThem) {
  std::vector<float> row = random_inputs(96, 8);
  std::fill_n(row.begin() + 32, 32, 0.0f);
  row[64] = 200.0f;  // the group's largest, so its scale is 200 / 127
  row[65] = -200.0f;
  for (const MatmulKernels* kernels : available_matmul_kernels()) {
    std::vector<std::int8_t> codes(96);
    std::vector<float> scales(3), moments(3);
    std::vector<std::int32_t> sums(6);
    kernels->quantise(row.data(), row.size(), codes.data(), scales.data(), moments.data(), sums.data());
    EXPECT_EQ(codes[64], 127) << kernels->name;
    EXPECT_EQ(codes[65], -127) << kernels->name;
    EXPECT_EQ(scales[1], 0.0f) << kernels->name;
    for (std::size_t i = 0; i < row.size(); ++i) {
      EXPECT_NEAR(codes[i] * scales[i / 32], row[i], scales[i / 32] * 0.50001f) << kernels->name << " " << i;
    }
    for (std::size_t half = 0; half < sums.size(); ++half) {
      std::int32_t sum = 0;
      for (std::size_t i = 0; i < 16; ++i) sum += codes[half * 16 + i];
      EXPECT_EQ(sums[half], sum) << kernels->name;
    }
    for (std::size_t group = 0; group < 3; ++group) {
      EXPECT_EQ(moments[group], scales[group] * static_cast<float>(sums[2 * group] + sums[2 * group + 1]));
    }
  }
}

TEST(Matmul, SwigluIsExactToSixDigitsAndTheSameInEveryKernel) {
  std::vector<float> gate, up;
  for (double x = -86; x < 100; x += 0.00731) {
    gate.push_back(static_cast<float>(x));
    up.push_back(static_cast<float>(1 + x / 1000));
  }
  std::vector<float> expected = gate;
  kScalarMatmul.swiglu(expected.data(), up.data(), up.size());
  for (std::size_t i = 0; i < gate.size(); ++i) {
    const double x = gate[i];
    const double exact = x / (1 + std::exp(-x)) * up[i];
    ASSERT_NEAR(expected[i], exact, std::fabs(exact) * 1e-6) << x;
  }
  for (const MatmulKernels* kernels : available_matmul_kernels()) {
    for (const std::size_t count : {std::size_t{0}, std::size_t{1}, std::size_t{31}, gate.size()}) {
      std::vector<float> values = gate;
      kernels->swiglu(values.data(), up.data(), count);
      EXPECT_TRUE(std::equal(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(count), expected.begin()));
      EXPECT_TRUE(std::equal(values.begin() + static_cast<std::ptrdiff_t>(count), values.end(),
                             gate.begin() + static_cast<std::ptrdiff_t>(count)));
    }
  }
  float extreme[] = {-1e30f, 1e30f, -1000.0f, 1000.0f, 0.0f};
  const float ones[] = {1, 1, 1, 1, 1};
  find_matmul_kernels().swiglu(extreme, ones, 5);
  EXPECT_EQ(extreme[1], 1e30f);
  EXPECT_EQ(extreme[3], 1000.0f);
  EXPECT_NEAR(extreme[2], 0.0f, 1e-30f);
  EXPECT_EQ(extreme[4], 0.0f);
}

TEST(Matmul, RefusesTensorsThatAreNoMatrix) {
  ThreadPool pool(1);
  const Sample sample(TensorType::kQ4_0, 4, 64, 1);
  const auto altered = [&](auto&& change) {
    Tensor tensor = sample.tensor;
    change(tensor);
    return tensor;
  };
  EXPECT_THROW(Matrix(altered([](Tensor& t) { t.shape = {64, 2, 2, 1}; }), pool), Error);
  EXPECT_THROW(Matrix(altered([](Tensor& t) { t.shape[0] = 0; }), pool), Error);
  EXPECT_THROW(Matrix(altered([](Tensor& t) { t.shape[0] = 63; }), pool), Error);
  EXPECT_THROW(Matrix(altered([](Tensor& t) { t.shape[1] = 5; }), pool), Error);
  EXPECT_THROW(Matrix(altered([](Tensor& t) { t.shape = {1ull << 62, 1ull << 62, 1, 1}; }), pool), Error);
}

TEST(Matmul, FindsKernelsByNameAndSaysWhichThereAre) {
  for (const MatmulKernels* kernels : available_matmul_kernels()) {
    EXPECT_EQ(&find_matmul_kernels(kernels->name), kernels);
  }
  EXPECT_EQ(&find_matmul_kernels(), available_matmul_kernels().front());
  EXPECT_EQ(available_matmul_kernels().back(), &kScalarMatmul);
  try {
    find_matmul_kernels("abacus");
    FAIL();
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("scalar"), std::string::npos);
  }
}

}  // namespace
}  // namespace nibkv::llm
