#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace nibkv::llm {

/// Every part of the runner throws this on bad input; a program prints what() on one line and exits
/// with a nonzero status.
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// The tensor encodings that this reader knows, with the numbers of the GGUF format.
enum class TensorType : std::uint32_t {
  kF32 = 0,
  kF16 = 1,
  kQ4_0 = 2,
  kQ4_1 = 3,
  kQ5_0 = 6,
  kQ5_1 = 7,
  kQ8_0 = 8,
  kQ4_K = 12,
  kQ5_K = 13,
  kQ6_K = 14,
  kBF16 = 30,
};

/// One tensor of a file. `shape[0]` is the contiguous dimension (the row length); unused dimensions are 1.
struct Tensor {
  std::string_view name;
  TensorType type = TensorType::kF32;
  std::array<std::uint64_t, 4> shape = {1, 1, 1, 1};
  std::span<const std::byte> data;  ///< exactly the bytes of the tensor, within the mapping

  std::uint64_t columns() const { return shape[0]; }
  std::uint64_t rows() const { return shape[1] * shape[2] * shape[3]; }
};

/// A GGUF file (version 2 or 3, little endian), memory-mapped read-only. Everything the file says
/// is checked before it is used: counts, lengths, offsets, alignment, products of sizes. Views
/// stay valid as long as the mapping: until the object, or the one it was moved to, is destroyed.
/// The file must not shrink meanwhile. A moved-from object may only be destroyed or assigned.
class Gguf {
 public:
  /// @throws Error for a file that cannot be opened, is not such a GGUF file, is truncated, or is
  ///         inconsistent. The message is one line that names the file and what is wrong.
  static Gguf open(const std::string& path);

  Gguf(Gguf&&) noexcept;
  Gguf& operator=(Gguf&&) noexcept;
  Gguf(const Gguf&) = delete;
  Gguf& operator=(const Gguf&) = delete;
  ~Gguf();

  const std::string& path() const;
  std::vector<std::string_view> keys() const;  ///< of the metadata, in alphabetical order

  /// Scalars: nullopt if the key is absent, Error if it is present with a type that does
  /// not fit. `integer` accepts any integer type whose value is in range; `number` accepts
  /// F32, F64 and integers.
  std::optional<std::uint64_t> integer(std::string_view key) const;
  std::optional<double> number(std::string_view key) const;
  std::optional<bool> boolean(std::string_view key) const;
  std::optional<std::string_view> text(std::string_view key) const;

  /// Arrays: empty if the key is absent, Error if it is present with another element type.
  /// `numbers` accepts only F32 elements; `integers` accepts any integer type whose
  /// values are in range.
  std::vector<std::string_view> texts(std::string_view key) const;
  std::vector<float> numbers(std::string_view key) const;
  std::vector<std::int32_t> integers(std::string_view key) const;

  /// Releases the memory that holds `bytes` of the file for now: reading them loads them
  /// again. The pages at both ends are released as a whole. Nothing happens for bytes that
  /// are not in this file.
  void give_back(std::span<const std::byte> bytes) const;
  /// The whole file.
  void give_back() const;

  const std::vector<Tensor>& tensors() const;
  const Tensor* find(std::string_view name) const;    ///< nullptr when absent
  const Tensor& tensor(std::string_view name) const;  ///< Error naming the tensor when absent

 private:
  struct Impl;
  explicit Gguf(Impl* impl);
  Impl* impl_ = nullptr;
};

}  // namespace nibkv::llm
