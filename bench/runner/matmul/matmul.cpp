#include "bench/runner/matmul/matmul.hpp"

#include <algorithm>
#include <cstring>
#include <limits>
#include <string>

#include "bench/runner/gguf/blocks.hpp"
#include "bench/runner/matmul/pack.hpp"

#if defined(__x86_64__)
#include <cpuid.h>
#elif defined(__aarch64__) && defined(__linux__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

namespace nibkv::llm {
namespace {

constexpr std::size_t kAlignment = 64;
constexpr std::size_t kPieceBytes = std::size_t{1} << 19;  // bytes of a tensor that one worker packs at a time
constexpr std::size_t kTasksPerWorker = 6;                 // so that a delayed worker costs little

[[noreturn]] void fail(const Tensor& tensor, const std::string& why) {
  throw Error("tensor " + std::string(tensor.name) + ": " + why);
}

std::size_t round_up(std::size_t bytes) {
  return (bytes + kAlignment - 1) / kAlignment * kAlignment;
}

/// The bytes of a panel's codes, which come first, and of the whole panel.
std::size_t code_bytes(const Panel& panel) {
  return panel.columns / group_length(panel.bits) * group_code_bytes(panel.bits);
}

std::size_t panel_bytes(const Panel& panel) {
  const std::size_t groups = panel.columns / group_length(panel.bits);
  const std::size_t of_scale = kPanelRows * (panel.has_minimum ? 2 : 1);  // rows and kinds
  const std::size_t scales =
      panel.in_blocks ? panel.columns / kScaleBlock * of_scale * 2 + groups * of_scale : groups * of_scale * 2;
  return round_up(code_bytes(panel) + scales);
}

/// Writes the codes of row `r` into its panel, in which all its codes are still zero.
void pack_codes(const CodeGroup& group, std::size_t bits, std::size_t r, unsigned char* target) {
  const std::size_t length = group_length(bits), half = length / 2;
  for (std::size_t c = 0; c < length; ++c) {
    const std::size_t at = 4 * r + c % 4, quad = c / 4;
    if (bits == 8) {
      target[quad * 64 + at] = group.codes[c];
      continue;
    }
    unsigned char& pair = target[c % half / 4 * 64 + at];
    pair = static_cast<unsigned char>(pair | (group.codes[c] & 15) << (c < half ? 0 : 4));
    if (bits == 4) continue;
    unsigned char& upper = target[half / 4 * 64 + at];
    upper = static_cast<unsigned char>(upper | group.codes[c] >> 4 << (quad * (bits - 4)));
  }
}

void pack_code_panel(const Tensor& tensor, const Panel& panel, std::size_t first_row, std::size_t rows,
                     unsigned char* target) {
  const std::size_t stride = row_bytes(tensor.type, panel.columns);
  const std::size_t length = group_length(panel.bits);
  unsigned char* scales = target + code_bytes(panel);
  for (std::size_t column = 0; column < panel.columns; column += length, target += group_code_bytes(panel.bits)) {
    const bool has_halves = !panel.in_blocks || column % kScaleBlock == 0;
    unsigned char* factors = scales + (!has_halves ? 0 : panel.has_minimum ? 64 : 32);
    for (std::size_t r = 0; r < rows; ++r) {
      const std::byte* row = tensor.data.data() + (first_row + r) * stride;
      const CodeGroup group = read_code_group(tensor.type, row, column / length);
      pack_codes(group, panel.bits, r, target);
      if (has_halves) std::memcpy(scales + 2 * r, &group.scale, 2);
      if (has_halves && panel.has_minimum) std::memcpy(scales + 32 + 2 * r, &group.minimum, 2);
      if (panel.in_blocks) factors[r] = static_cast<unsigned char>(group.scale_factor);
      if (panel.in_blocks && panel.has_minimum) factors[16 + r] = static_cast<unsigned char>(group.minimum_factor);
    }
    scales = factors + (!panel.in_blocks ? 0 : panel.has_minimum ? 32 : 16);
  }
}

void pack_real_panel(const Tensor& tensor, std::size_t first_row, std::size_t rows, unsigned char* target) {
  const std::size_t columns = tensor.columns(), size = block_bytes(tensor.type);
  for (std::size_t r = 0; r < rows; ++r) {
    const std::byte* row = tensor.data.data() + (first_row + r) * columns * size;
    for (std::size_t c = 0; c < columns; ++c) std::memcpy(target + (c * kPanelRows + r) * size, row + c * size, size);
  }
}

Panel panel_of(const Tensor& tensor) {
  Panel panel;
  panel.columns = static_cast<std::size_t>(tensor.columns());
  if (!is_code_format(tensor.type)) {
    panel.real = tensor.type == TensorType::kF32   ? RealFormat::kF32
                 : tensor.type == TensorType::kF16 ? RealFormat::kF16
                                                   : RealFormat::kBF16;
    return panel;
  }
  const CodeFormat format = code_format(tensor.type);
  panel.bits = format.bits;
  panel.offset = format.offset;
  panel.in_blocks = format.in_blocks;
  panel.has_minimum = format.has_minimum;
  return panel;
}

#if defined(__x86_64__)
// Not every compiler can query F16C as a feature. No CPU has AVX2 without it, only emulators do.
bool cpu_has_f16c() {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  return __get_cpuid(1, &eax, &ebx, &ecx, &edx) != 0 && (ecx & bit_F16C) != 0;
}
bool cpu_has_avx2() {
  return __builtin_cpu_supports("avx2") && cpu_has_f16c();
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

Matrix::Matrix(const Tensor& tensor, ThreadPool& pool, const Gguf* file) : real_(!is_code_format(tensor.type)) {
  if (tensor.shape[2] != 1 || tensor.shape[3] != 1) fail(tensor, "a matrix has two dimensions");
  if (tensor.columns() == 0 || tensor.rows() == 0) fail(tensor, "empty");
  // This leaves space for any product below, also in 32 bits: 4 bytes per weight, and codes
  // with scales take less.
  constexpr std::uint64_t kMost = std::numeric_limits<std::size_t>::max() / 32;
  if (tensor.columns() > kMost || tensor.rows() > kMost / tensor.columns()) fail(tensor, "too large");
  rows_ = static_cast<std::size_t>(tensor.rows());
  shape_ = panel_of(tensor);
  const std::size_t stride = row_bytes(tensor.type, shape_.columns);
  if (tensor.data.size() != rows_ * stride) fail(tensor, "wrong size");

  shape_.bytes = real_ ? round_up(shape_.columns * kPanelRows * block_bytes(tensor.type)) : panel_bytes(shape_);
  data_.reset(static_cast<unsigned char*>(std::aligned_alloc(kAlignment, bytes())));
  if (!data_) fail(tensor, "no memory");
  // What has been read is released piece by piece, because a tensor may be a third of a file.
  const std::size_t together = std::max<std::size_t>(1, kPieceBytes / (kPanelRows * stride));
  pool.run((panels() + together - 1) / together, [&](std::size_t piece, std::size_t) {
    const std::size_t first = piece * together, end = std::min(panels(), first + together);
    for (std::size_t index = first; index < end; ++index) pack(tensor, index);
    const std::size_t first_row = first * kPanelRows, end_row = std::min(rows_, end * kPanelRows);
    if (file != nullptr) file->give_back(tensor.data.subspan(first_row * stride, (end_row - first_row) * stride));
  });
  // The system also loads pages next to those read, including released ones and
  // those of other tensors.
  if (file != nullptr) file->give_back();
}

void Matrix::pack(const Tensor& tensor, std::size_t index) {
  unsigned char* target = data_.get() + index * shape_.bytes;
  std::memset(target, 0, shape_.bytes);
  const std::size_t first_row = index * kPanelRows;
  const std::size_t rows = std::min(kPanelRows, rows_ - first_row);
  if (real_) {
    pack_real_panel(tensor, first_row, rows, target);
  } else {
    pack_code_panel(tensor, shape_, first_row, rows, target);
  }
}

Panel Matrix::panel(std::size_t index) const {
  Panel panel = shape_;
  panel.data = data_.get() + index * shape_.bytes;
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
    std::size_t base = 0;  // number of panels of the products before `product`
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
