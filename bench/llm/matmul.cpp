#include "bench/llm/matmul.hpp"

#include <algorithm>
#include <cstring>
#include <limits>
#include <string>

#include "bench/llm/blocks.hpp"
#include "bench/llm/matmul_pack.hpp"

#if defined(__aarch64__) && defined(__linux__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

namespace nibkv::llm {
namespace {

constexpr std::size_t kAlignment = 64;
constexpr std::size_t kTasksPerWorker = 6;  // so that a worker that was held up costs little

[[noreturn]] void fail(const Tensor& tensor, const std::string& why) {
  throw Error("tensor " + std::string(tensor.name) + ": " + why);
}

void pack_code_panel(const Tensor& tensor, const CodeFormat& format, std::size_t first_row, std::size_t rows,
                     unsigned char* target) {
  const std::size_t stride = row_bytes(tensor.type, tensor.columns());
  const std::size_t groups = tensor.columns() / format.group_length;
  const std::size_t heading = (format.has_minimum ? 2 : 1) * kPanelRows * sizeof(float);
  const std::size_t group_bytes = heading + kPanelRows * format.group_length / (format.narrow ? 2 : 1);
  for (std::size_t g = 0; g < groups; ++g, target += group_bytes) {
    for (std::size_t r = 0; r < rows; ++r) {
      const CodeGroup group = read_code_group(tensor.type, tensor.data.data() + (first_row + r) * stride, g);
      std::memcpy(target + r * sizeof(float), &group.scale, sizeof(float));
      if (format.has_minimum) std::memcpy(target + (kPanelRows + r) * sizeof(float), &group.minimum, sizeof(float));
      unsigned char* codes = target + heading + 4 * r;
      const std::size_t separate = format.narrow ? 16 : format.group_length;
      for (std::size_t c = 0; c < separate; ++c) codes[c / 4 * 64 + c % 4] = group.codes[c];
      for (std::size_t c = separate; c < format.group_length; ++c) {
        const std::size_t half = c - separate;
        codes[half / 4 * 64 + half % 4] |= static_cast<unsigned char>(group.codes[c] << 4);
      }
    }
  }
}

void pack_real_panel(const Tensor& tensor, std::size_t first_row, std::size_t rows, unsigned char* target) {
  const std::size_t columns = tensor.columns();
  const std::size_t stride = row_bytes(tensor.type, columns);
  std::vector<float> row(columns);
  for (std::size_t r = 0; r < rows; ++r) {
    dequantise(tensor.type, tensor.data.data() + (first_row + r) * stride, row.data(), columns);
    for (std::size_t c = 0; c < columns; ++c) {
      std::memcpy(target + (c * kPanelRows + r) * sizeof(float), &row[c], sizeof(float));
    }
  }
}

#if defined(__x86_64__)
bool cpu_has_avx2() {
  return __builtin_cpu_supports("avx2");
}
bool cpu_has_avx512_vnni() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vnni");
}
#elif defined(__aarch64__) && defined(__linux__)
bool cpu_has_dotprod() {
  return (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) != 0;
}
#endif

}  // namespace

std::vector<const MatmulKernels*> available_matmul_kernels() {
  std::vector<const MatmulKernels*> kernels;
#if defined(__x86_64__)
  if (cpu_has_avx512_vnni()) kernels.push_back(&kAvx512VnniMatmul);
  if (cpu_has_avx2()) kernels.push_back(&kAvx2Matmul);
#elif defined(__aarch64__) && defined(__linux__)
  if (cpu_has_dotprod()) kernels.push_back(&kDotprodMatmul);
#endif
  kernels.push_back(&kScalarMatmul);
  return kernels;
}

const MatmulKernels& find_matmul_kernels(std::string_view name) {
  std::string names;
  for (const MatmulKernels* kernels : available_matmul_kernels()) {
    if (name.empty() || name == kernels->name) return *kernels;
    names += std::string(" ") + kernels->name;
  }
  throw Error("no matrix kernels called " + std::string(name) + " here; there are:" + names);
}

Matrix::Matrix(const Tensor& tensor, ThreadPool& pool) : real_(!is_code_format(tensor.type)) {
  if (tensor.shape[2] != 1 || tensor.shape[3] != 1) fail(tensor, "a matrix has two dimensions");
  if (tensor.columns() == 0 || tensor.rows() == 0) fail(tensor, "empty");
  // Room for any product below, in 32 bits also: 4 bytes a weight, and codes with scales take less.
  constexpr std::uint64_t kMost = std::numeric_limits<std::size_t>::max() / 32;
  if (tensor.columns() > kMost || tensor.rows() > kMost / tensor.columns()) fail(tensor, "too large");
  shape_.columns = static_cast<std::size_t>(tensor.columns());
  rows_ = static_cast<std::size_t>(tensor.rows());
  if (tensor.data.size() != rows_ * row_bytes(tensor.type, shape_.columns)) fail(tensor, "wrong size");

  CodeFormat format = {};
  if (real_) {
    panel_bytes_ = shape_.columns * kPanelRows * sizeof(float);
  } else {
    format = code_format(tensor.type);
    shape_.offset = format.offset;
    shape_.narrow = format.narrow;
    shape_.small_groups = format.group_length == 16;
    shape_.has_minimum = format.has_minimum;
    const std::size_t heading = (format.has_minimum ? 2 : 1) * kPanelRows * sizeof(float);
    const std::size_t group_bytes = heading + kPanelRows * format.group_length / (format.narrow ? 2 : 1);
    panel_bytes_ = shape_.columns / format.group_length * group_bytes;
  }
  // Every part is a multiple of 64 bytes, as aligned_alloc wants.
  data_.reset(static_cast<unsigned char*>(std::aligned_alloc(kAlignment, bytes())));
  if (!data_) fail(tensor, "no memory");
  pool.run(panels(), [&](std::size_t index, std::size_t) {
    unsigned char* target = data_.get() + index * panel_bytes_;
    std::memset(target, 0, panel_bytes_);
    const std::size_t first_row = index * kPanelRows;
    const std::size_t rows = std::min(kPanelRows, rows_ - first_row);
    if (real_) {
      pack_real_panel(tensor, first_row, rows, target);
    } else {
      pack_code_panel(tensor, format, first_row, rows, target);
    }
  });
}

Panel Matrix::panel(std::size_t index) const {
  Panel panel = shape_;
  panel.data = data_.get() + index * panel_bytes_;
  panel.rows = std::min(kPanelRows, rows_ - index * kPanelRows);
  return panel;
}

Activations::Activations(std::size_t max_count, std::size_t max_columns, bool codes, bool reals,
                         const MatmulKernels& kernels)
    : kernels_(&kernels), has_codes_(codes), has_reals_(reals) {
  if (codes) {
    codes_.resize(max_count * max_columns);
    scales_.resize(max_count * (max_columns / kActivationGroup));
    moments_.resize(max_count * (max_columns / kActivationGroup));
    sums_.resize(max_count * (max_columns / kActivationSumGroup));
  }
  if (reals) reals_.resize(max_count * max_columns);
}

void Activations::reset(std::size_t count, std::size_t columns) {
  count_ = count;
  columns_ = columns;
}

void Activations::set_row(std::size_t index, const float* row) {
  if (has_reals_) std::copy_n(row, columns_, reals_.begin() + static_cast<std::ptrdiff_t>(index * columns_));
  if (has_codes_ && columns_ % kActivationGroup == 0) {
    const std::size_t at = index * columns_;
    kernels_->quantise(row, columns_, codes_.data() + at, scales_.data() + at / kActivationGroup,
                       moments_.data() + at / kActivationGroup, sums_.data() + at / kActivationSumGroup);
  }
}

Inputs Activations::inputs() const {
  Inputs inputs;
  if (has_codes_) {
    inputs.codes = codes_.data();
    inputs.scales = scales_.data();
    inputs.moments = moments_.data();
    inputs.sums = sums_.data();
  }
  if (has_reals_) inputs.reals = reals_.data();
  return inputs;
}

void multiply(std::span<const Product> products, const Activations& inputs, ThreadPool& pool) {
  std::size_t panels = 0;
  for (const Product& product : products) panels += product.matrix->panels();
  if (panels == 0 || inputs.count() == 0) return;
  const std::size_t tasks = pool.workers() == 1 ? 1 : std::min(panels, pool.workers() * kTasksPerWorker);
  const Inputs rows = inputs.inputs();
  const MatmulKernels& kernels = inputs.kernels();
  pool.run(tasks, [&](std::size_t task, std::size_t) {
    const std::size_t end = panels * (task + 1) / tasks;
    std::size_t index = panels * task / tasks;
    std::size_t base = 0;  // panels of the products before `product`
    for (const Product& product : products) {
      const Matrix& matrix = *product.matrix;
      const PanelKernel kernel = matrix.is_real() ? kernels.reals : kernels.codes;
      for (; index < end && index < base + matrix.panels(); ++index) {
        const std::size_t own = index - base;
        kernel(matrix.panel(own), rows, inputs.count(), product.outputs + own * kPanelRows, matrix.rows());
      }
      base += matrix.panels();
    }
  });
}

}  // namespace nibkv::llm
