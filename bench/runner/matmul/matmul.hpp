#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "bench/runner/gguf/gguf.hpp"
#include "bench/runner/matmul/kernels.hpp"
#include "bench/runner/model/threads.hpp"

namespace nibkv::llm {

/// The kernels that this build has and this CPU can run, fastest first; the last is "scalar".
std::vector<const MatmulKernels*> available_matmul_kernels();

/// The kernels called `name`, or the fastest for an empty name.
/// @throws Error if there are none of that name here.
const MatmulKernels& find_matmul_kernels(std::string_view name = {});

/// A weight matrix, repacked for the kernels in about as many bytes as the tensor has: all formats
/// keep their codes and scales, or their real numbers.
class Matrix {
 public:
  Matrix() = default;

  /// @param tensor  two dimensions; its data is not needed afterwards.
  /// @param file    the file of the tensor: its memory is released as it is read; may be null.
  /// @throws Error naming the tensor if a dimension is zero, or the data does not have the length
  ///         that the shape says.
  /// Cost: one pass over the data, shared by the workers.
  Matrix(const Tensor& tensor, ThreadPool& pool, const Gguf* file = nullptr);

  std::size_t rows() const { return rows_; }
  std::size_t columns() const { return shape_.columns; }
  std::size_t panels() const { return (rows_ + kPanelRows - 1) / kPanelRows; }
  bool is_real() const { return real_; }  ///< whether it multiplies f32 inputs instead of codes
  std::size_t bytes() const { return panels() * shape_.bytes; }

  /// @param index  [0, panels()).
  Panel panel(std::size_t index) const;

 private:
  struct Free {
    void operator()(unsigned char* data) const { std::free(data); }
  };

  void pack(const Tensor& tensor, std::size_t index);

  Panel shape_;  // what all panels have in common
  std::size_t rows_ = 0;
  bool real_ = false;
  std::unique_ptr<unsigned char, Free> data_;
};

/// The inputs of `multiply`: up to `max_count` rows, quantised to int8 with one scale per 32 columns.
class Activations {
 public:
  Activations() = default;

  /// @param max_columns  maximum number of columns of a row.
  /// @param codes        whether a Matrix of codes will use these rows.
  /// @param reals        whether a Matrix with `is_real()` will.
  /// @param kernels      must outlive this; what `find_matmul_kernels` returns does.
  Activations(std::size_t max_count, std::size_t max_columns, bool codes, bool reals, const MatmulKernels& kernels);

  /// Begins a new set of rows. All of them must then be set.
  /// @param count    [0, max_count].
  /// @param columns  [1, max_columns]. Codes are only made for multiples of 32; every Matrix
  ///                 of codes has such a number of columns.
  void reset(std::size_t count, std::size_t columns);

  /// Safe to call for different rows at the same time.
  /// @param index  [0, count).
  /// @param row    [columns], finite.
  void set_row(std::size_t index, const float* row);

  std::size_t count() const { return count_; }
  std::size_t columns() const { return columns_; }

  const MatmulKernels& kernels() const { return *kernels_; }
  Inputs inputs() const;

 private:
  const MatmulKernels* kernels_ = nullptr;
  std::size_t count_ = 0;
  std::size_t columns_ = 0;
  bool has_codes_ = false;
  bool has_reals_ = false;
  std::vector<std::int8_t> codes_;
  std::vector<float> scales_;
  std::vector<float> moments_;
  std::vector<std::int32_t> sums_;
  std::vector<float> reals_;
};

/// One matrix, and the destination of its products.
struct Product {
  const Matrix* matrix = nullptr;
  float* outputs = nullptr;  ///< [count][matrix->rows()]
};

/// Multiplies every row of `inputs` by every matrix: outputs[t][r] = sum over c of matrix[r][c] * inputs[t][c].
///
/// Each output is a sum in a fixed order. It does not depend on the number of workers, on which
/// rows are multiplied together, or on the kernels, which are those of `inputs`.
///
/// @param products  each with the same number of columns as `inputs`.
void multiply(std::span<const Product> products, const Activations& inputs, ThreadPool& pool);

}  // namespace nibkv::llm
