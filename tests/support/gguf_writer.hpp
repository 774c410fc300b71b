#pragma once

#include <stdlib.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "bench/runner/gguf/gguf.hpp"

namespace nibkv::llm::test {

static_assert(std::endian::native == std::endian::little, "the writer copies numbers as they are");

/// A file that exists as long as the object, in the system's folder for temporary files.
class TemporaryFile {
 public:
  explicit TemporaryFile(std::span<const std::byte> bytes = {}) {
    path_ = (std::filesystem::temp_directory_path() / "nibkv-test-XXXXXX").string();
    descriptor_ = ::mkstemp(path_.data());
    if (descriptor_ < 0) throw std::runtime_error("cannot create " + path_);
    rewrite(bytes);
  }
  TemporaryFile(const TemporaryFile&) = delete;
  TemporaryFile& operator=(const TemporaryFile&) = delete;
  ~TemporaryFile() {
    ::close(descriptor_);
    ::unlink(path_.c_str());
  }

  const std::string& path() const { return path_; }

  /// Replaces the contents. Nothing may have the file mapped.
  void rewrite(std::span<const std::byte> bytes) const {
    const bool written = ::pwrite(descriptor_, bytes.data(), bytes.size(), 0) == static_cast<ssize_t>(bytes.size());
    if (!written || ::ftruncate(descriptor_, static_cast<off_t>(bytes.size())) != 0) {
      throw std::runtime_error("cannot write " + path_);
    }
  }

 private:
  std::string path_;
  int descriptor_ = -1;
};

/// Bytes written one after the other, in little endian; also makes bytes for GgufWriter::set_raw.
class ByteWriter {
 public:
  template <typename T>
  requires std::is_arithmetic_v<T> ByteWriter& number(T value) { return raw(std::as_bytes(std::span(&value, 1))); }
  ByteWriter& text(std::string_view text) {
    number<std::uint64_t>(text.size());
    return raw(std::as_bytes(std::span(text)));
  }
  ByteWriter& raw(std::span<const std::byte> bytes) {
    bytes_.resize(bytes_.size() + bytes.size());
    std::copy(bytes.begin(), bytes.end(), bytes_.end() - static_cast<std::ptrdiff_t>(bytes.size()));
    return *this;
  }
  ByteWriter& pad_to(std::size_t multiple) {
    bytes_.resize((bytes_.size() + multiple - 1) / multiple * multiple);
    return *this;
  }

  std::size_t size() const { return bytes_.size(); }
  const std::vector<std::byte>& bytes() const { return bytes_; }

 private:
  std::vector<std::byte> bytes_;
};

/// Builds GGUF files, valid ones and, on request, invalid ones. Metadata and tensors appear in
/// the order of the calls.
///
///   GgufWriter writer;
///   writer.set("general.architecture", "llama").set("llama.block_count", std::uint32_t{2});
///   writer.set_array("tokenizer.ggml.scores", std::vector<float>{0, 1});
///   writer.add_tensor("output_norm.weight", TensorType::kF32, {64}, bytes);
///   const TemporaryFile file(writer.bytes());
class GgufWriter {
 public:
  /// The number of a C++ type's value type in the format.
  template <typename T>
  static constexpr std::uint32_t value_type() {
    if constexpr (std::same_as<T, std::uint8_t>) return 0;
    if constexpr (std::same_as<T, std::int8_t>) return 1;
    if constexpr (std::same_as<T, std::uint16_t>) return 2;
    if constexpr (std::same_as<T, std::int16_t>) return 3;
    if constexpr (std::same_as<T, std::uint32_t>) return 4;
    if constexpr (std::same_as<T, std::int32_t>) return 5;
    if constexpr (std::same_as<T, float>) return 6;
    if constexpr (std::same_as<T, bool>) return 7;
    if constexpr (std::convertible_to<T, std::string_view>) return kText;
    if constexpr (std::same_as<T, std::uint64_t>) return 10;
    if constexpr (std::same_as<T, std::int64_t>) return 11;
    if constexpr (std::same_as<T, double>) return 12;
    return kNone;
  }
  static constexpr std::uint32_t kText = 8;
  static constexpr std::uint32_t kArray = 9;

  /// Sets a single value: a number of exact width, a bool or a text.
  template <typename T>
  GgufWriter& set(std::string_view key, const T& value) {
    ByteWriter bytes;
    append(bytes, value);
    return set_raw(key, checked_type<std::decay_t<T>>(), bytes.bytes());
  }

  /// Sets an array of such values.
  template <typename T>
  GgufWriter& set_array(std::string_view key, const std::vector<T>& values) {
    ByteWriter bytes;
    bytes.number(checked_type<T>()).template number<std::uint64_t>(values.size());
    for (const T& value : values) append(bytes, value);
    return set_raw(key, kArray, bytes.bytes());
  }

  /// Sets any type number and bytes, valid or not.
  GgufWriter& set_raw(std::string_view key, std::uint32_t type, std::span<const std::byte> bytes) {
    metadata_.text(key).number(type).raw(bytes);
    ++metadata_count_;
    return *this;
  }

  /// Adds a tensor with its data, which is placed at the next multiple of the alignment. `shape[0]` is the row length.
  GgufWriter& add_tensor(std::string_view name, TensorType type, const std::vector<std::uint64_t>& shape,
                         std::span<const std::byte> data) {
    data_.pad_to(alignment_);
    describe_tensor(name, static_cast<std::uint32_t>(type), shape, data_.size());
    data_.raw(data);
    return *this;
  }

  /// Adds a tensor's description only, valid or not.
  GgufWriter& describe_tensor(std::string_view name, std::uint32_t type, const std::vector<std::uint64_t>& shape,
                              std::uint64_t offset) {
    descriptions_.text(name).number(static_cast<std::uint32_t>(shape.size()));
    for (const std::uint64_t dimension : shape) descriptions_.number(dimension);
    descriptions_.number(type).number(offset);
    ++tensor_count_;
    return *this;
  }

  /// Sets the alignment and its metadata entry. Before the first tensor only.
  GgufWriter& align(std::uint32_t alignment) {
    alignment_ = alignment;
    return set("general.alignment", alignment);
  }

  GgufWriter& version(std::uint32_t version) {
    version_ = version;
    return *this;
  }
  GgufWriter& claim_tensors(std::uint64_t count) {
    tensor_count_ = count;
    return *this;
  }
  GgufWriter& claim_metadata(std::uint64_t count) {
    metadata_count_ = count;
    return *this;
  }

  /// The file. It ends with the last tensor's last byte.
  std::vector<std::byte> bytes() const {
    ByteWriter file = header();
    return file.pad_to(data_.size() == 0 ? 1 : alignment_).raw(data_.bytes()).bytes();
  }

  /// The number of bytes before the padding and the data.
  std::size_t header_bytes() const { return header().size(); }

 private:
  static constexpr std::uint32_t kNone = ~std::uint32_t{0};

  template <typename T>
  static constexpr std::uint32_t checked_type() {
    static_assert(value_type<T>() != kNone, "no value type of the format");
    return value_type<T>();
  }

  template <typename T>
  static void append(ByteWriter& bytes, const T& value) {
    if constexpr (std::convertible_to<T, std::string_view>) {
      bytes.text(value);
    } else {
      bytes.number(value);
    }
  }

  ByteWriter header() const {
    ByteWriter file;
    file.raw(std::as_bytes(std::span(std::string_view("GGUF")))).number(version_);
    file.number(tensor_count_).number(metadata_count_);
    file.raw(metadata_.bytes()).raw(descriptions_.bytes());
    return file;
  }

  std::uint32_t version_ = 3;
  std::uint64_t tensor_count_ = 0;
  std::uint64_t metadata_count_ = 0;
  std::size_t alignment_ = 32;
  ByteWriter metadata_;
  ByteWriter descriptions_;
  ByteWriter data_;
};

/// A file's bytes with the metadata of `more` added.
inline std::string with_metadata(std::string file, GgufWriter more) {
  constexpr std::size_t kCount = 16, kMetadata = 24;  // the offsets of the number of entries, and of the first one
  constexpr std::string_view kKey = "test.padding";
  // As many bytes as keep the tensors aligned.
  const std::size_t size = more.header_bytes() - kMetadata + 8 + kKey.size() + 4 + 8;
  more.set(kKey, std::string((32 - size % 32) % 32, ' '));
  const std::vector<std::byte> added = more.bytes();
  std::uint64_t count = 0, more_count = 0;
  std::memcpy(&count, file.data() + kCount, 8);
  std::memcpy(&more_count, added.data() + kCount, 8);
  count += more_count;
  std::memcpy(file.data() + kCount, &count, 8);
  return file.insert(kMetadata, reinterpret_cast<const char*>(added.data()) + kMetadata, added.size() - kMetadata);
}

}  // namespace nibkv::llm::test
