// 64-bit file sizes and inode numbers on 32-bit systems.
#ifndef _FILE_OFFSET_BITS
#define _FILE_OFFSET_BITS 64
#endif

#include "bench/runner/gguf/gguf.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <utility>

#include "bench/runner/gguf/blocks.hpp"
#include "bench/runner/gguf/gguf_cursor.hpp"

// A file is: magic, version, tensor count, metadata count, the metadata, the tensor descriptions, padding up to a
// multiple of the alignment, and the tensor data. Numbers are little endian; a text is its u64 length and its bytes.

namespace nibkv::llm {
namespace {

using detail::Cursor;
using detail::load;
using detail::quoted;
using detail::Value;
using detail::ValueType;
using detail::WideInteger;

constexpr std::uint32_t kMagic = 0x46554747;  // "GGUF"
constexpr std::uint32_t kOldestVersion = 2;   // does not differ from version 3 in anything that matters here
constexpr std::uint32_t kNewestVersion = 3;
constexpr std::uint64_t kDefaultAlignment = 32;
constexpr std::uint64_t kLargestAlignment = std::uint64_t{1} << 30;
constexpr std::size_t kSmallestEntry = 8 + 4 + 1;            // an empty key, a type, a one-byte value
constexpr std::size_t kSmallestDescription = 8 + 4 + 4 + 8;  // an empty name, no dimensions, a type, an offset

// A read-only mapping of a whole file.
class Mapping {
 public:
  explicit Mapping(const std::string& path) {
    // Non-blocking: opening a pipe that nobody writes to would wait forever.
    const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (descriptor < 0) throw Error(path + ": cannot open: " + std::strerror(errno));
    const std::string problem = map(descriptor);
    ::close(descriptor);
    if (!problem.empty()) throw Error(path + ": " + problem);
  }
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;
  ~Mapping() {
    if (!bytes_.empty()) ::munmap(const_cast<std::byte*>(bytes_.data()), bytes_.size());
  }

  std::span<const std::byte> bytes() const { return bytes_; }

  void give_back(std::span<const std::byte> part) const {
    const std::less_equal<const std::byte*> before;
    const std::byte* end = part.data() + part.size();
    if (part.empty() || !before(bytes_.data(), part.data()) || !before(end, bytes_.data() + bytes_.size())) return;
    // The mapping begins at a page, and its last page belongs to it alone.
    const auto page = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
    const auto offset = static_cast<std::size_t>(part.data() - bytes_.data());
    const std::size_t first = offset / page * page;
    ::madvise(const_cast<std::byte*>(bytes_.data()) + first, offset + part.size() - first, MADV_DONTNEED);
  }

 private:
  // Returns what went wrong, or nothing. An empty file is an empty span.
  std::string map(int descriptor) {
    struct stat status = {};
    if (::fstat(descriptor, &status) != 0) return std::string("cannot examine: ") + std::strerror(errno);
    if (!S_ISREG(status.st_mode)) return "is not a regular file";
    const auto size = static_cast<std::uint64_t>(status.st_size);
    if (size > static_cast<std::uint64_t>(std::numeric_limits<std::ptrdiff_t>::max())) {
      return "is larger than the address space";
    }
    if (size == 0) return {};
    void* address = ::mmap(nullptr, static_cast<std::size_t>(size), PROT_READ, MAP_PRIVATE, descriptor, 0);
    if (address == MAP_FAILED) return std::string("cannot map: ") + std::strerror(errno);
    bytes_ = {static_cast<const std::byte*>(address), static_cast<std::size_t>(size)};
    return {};
  }

  std::span<const std::byte> bytes_;
};

// A tensor's description and the place of its data, relative to the data section.
struct Description {
  Tensor tensor;
  std::uint64_t offset = 0;
  std::uint64_t bytes = 0;
};

// The bytes of a tensor whose dimensions are not zero. Fails if its size does not fit 64 bits, or
// a row ends in the middle of a block.
std::uint64_t tensor_bytes(const Tensor& tensor, const Cursor& cursor, const std::string& what) {
  const std::size_t length = block_length(tensor.type);
  if (tensor.shape[0] % length != 0) {
    cursor.fail(what + " has rows of " + std::to_string(tensor.shape[0]) + " weights, not a whole number of " +
                std::string(type_name(tensor.type)) + " blocks of " + std::to_string(length));
  }
  // Starting from the larger of the two, so that neither the number of weights nor that of bytes overflows.
  std::uint64_t product = std::max(length, block_bytes(tensor.type));
  const std::uint64_t factors[] = {tensor.shape[0], tensor.shape[1], tensor.shape[2], tensor.shape[3]};
  for (const std::uint64_t factor : factors) {
    if (factor > std::numeric_limits<std::uint64_t>::max() / product) cursor.fail(what + " has an impossible size");
    product *= factor;
  }
  return tensor.shape[0] / length * tensor.rows() * block_bytes(tensor.type);
}

Description read_description(Cursor& cursor) {
  Description description;
  Tensor& tensor = description.tensor;
  tensor.name = cursor.name("a tensor name");
  const std::string what = "tensor " + quoted(tensor.name);
  const auto dimensions = cursor.number<std::uint32_t>(what);
  if (dimensions > tensor.shape.size()) {
    cursor.fail(what + " has " + std::to_string(dimensions) + " dimensions, more than 4");
  }
  for (std::uint32_t i = 0; i < dimensions; ++i) {
    tensor.shape[i] = cursor.number<std::uint64_t>(what);
    if (tensor.shape[i] == 0) cursor.fail(what + " has a dimension of zero");
  }
  const auto type = cursor.number<std::uint32_t>(what);
  if (!is_known_type(type))
    cursor.fail(what + " has type " + std::to_string(type) + ", which this reader does not know");
  tensor.type = TensorType{type};
  description.offset = cursor.number<std::uint64_t>(what);
  description.bytes = tensor_bytes(tensor, cursor, what);
  return description;
}

}  // namespace

struct Gguf::Impl {
  explicit Impl(const std::string& file) : path(file), mapping(file) { parse(); }

  void parse();
  void read_metadata(Cursor& cursor, std::size_t count);
  void read_tensors(Cursor& cursor, std::size_t count);
  void place_tensors(const Cursor& cursor, std::vector<Description>& descriptions);
  std::uint64_t alignment() const;

  // nullptr when absent.
  const Value* value(std::string_view key) const;
  const Value* scalar(std::string_view key) const;
  const Value* array(std::string_view key) const;
  std::optional<std::uint64_t> integer(std::string_view key) const;

  [[noreturn]] void refuse(std::string_view key, const std::string& what) const {
    throw Error(path + ": metadata " + quoted(key) + " " + what);
  }

  std::string path;
  Mapping mapping;
  std::map<std::string_view, Value> values;
  std::vector<Tensor> tensors;
  std::map<std::string_view, std::size_t> places;  // by name, in `tensors`
};

void Gguf::Impl::parse() {
  Cursor cursor(path, mapping.bytes());
  if (cursor.remaining() < sizeof(kMagic) || cursor.number<std::uint32_t>("the magic") != kMagic) {
    cursor.fail("is not a GGUF file");
  }
  const auto version = cursor.number<std::uint32_t>("the version");
  if (version != 0 && (version & 0xffff) == 0)
    cursor.fail("is a big-endian GGUF file; only little-endian ones are read");
  if (version < kOldestVersion || version > kNewestVersion) {
    cursor.fail("has GGUF version " + std::to_string(version) + "; versions 2 and 3 are read");
  }
  const auto tensor_count = cursor.count(kSmallestDescription, "the number of tensors");
  const auto metadata_count = cursor.count(kSmallestEntry, "the number of metadata entries");
  read_metadata(cursor, metadata_count);
  if (const std::uint64_t parts = integer("split.count").value_or(1); parts > 1)
    throw Error(path + ": is " + detail::part_of(integer("split.no").value_or(0) + 1, parts));
  read_tensors(cursor, tensor_count);
}

void Gguf::Impl::read_metadata(Cursor& cursor, std::size_t count) {
  for (std::size_t i = 0; i < count; ++i) {
    const std::string_view key = cursor.name("a metadata key");
    const std::string what = "metadata " + quoted(key);
    if (!values.emplace(key, cursor.value(what)).second) cursor.fail(what + " is there twice");
  }
}

void Gguf::Impl::read_tensors(Cursor& cursor, std::size_t count) {
  std::vector<Description> descriptions;
  descriptions.reserve(count);
  for (std::size_t i = 0; i < count; ++i) {
    descriptions.push_back(read_description(cursor));
    const std::string_view name = descriptions.back().tensor.name;
    if (!places.emplace(name, i).second) cursor.fail("tensor " + quoted(name) + " is there twice");
  }
  place_tensors(cursor, descriptions);
  tensors.reserve(count);
  for (const Description& description : descriptions) tensors.push_back(description.tensor);
}

// Sets the data of every tensor. `cursor` is after the last description.
void Gguf::Impl::place_tensors(const Cursor& cursor, std::vector<Description>& descriptions) {
  const std::uint64_t step = alignment();
  if (descriptions.empty()) return;  // there is no data section then
  const std::span<const std::byte> bytes = mapping.bytes();
  // No overflow: a position fits 63 bits, and an alignment is far smaller.
  const std::uint64_t start = (cursor.position() + (step - 1)) / step * step;
  const std::uint64_t room = start <= bytes.size() ? bytes.size() - start : 0;

  std::vector<const Description*> in_order;
  in_order.reserve(descriptions.size());
  for (Description& description : descriptions) {
    const std::string what = "tensor " + quoted(description.tensor.name);
    if (description.offset % step != 0) cursor.fail(what + " is not aligned to " + std::to_string(step) + " bytes");
    if (description.offset > room || description.bytes > room - description.offset) {
      cursor.fail(what + " runs past the end of the file");
    }
    description.tensor.data = bytes.subspan(static_cast<std::size_t>(start + description.offset),
                                            static_cast<std::size_t>(description.bytes));
    in_order.push_back(&description);
  }
  const auto by_offset = [](const Description* left, const Description* right) { return left->offset < right->offset; };
  std::sort(in_order.begin(), in_order.end(), by_offset);
  for (std::size_t i = 1; i < in_order.size(); ++i) {
    const Description& left = *in_order[i - 1];
    const Description& right = *in_order[i];
    if (left.bytes > right.offset - left.offset) {
      cursor.fail("tensors " + quoted(left.tensor.name) + " and " + quoted(right.tensor.name) + " overlap");
    }
  }
}

std::uint64_t Gguf::Impl::alignment() const {
  constexpr std::string_view kKey = "general.alignment";
  const std::uint64_t alignment = integer(kKey).value_or(kDefaultAlignment);
  if (!std::has_single_bit(alignment) || alignment > kLargestAlignment) {
    refuse(kKey, "is " + std::to_string(alignment) + ", no power of two up to 2^30");
  }
  return alignment;
}

const Value* Gguf::Impl::value(std::string_view key) const {
  const auto found = values.find(key);
  return found == values.end() ? nullptr : &found->second;
}

const Value* Gguf::Impl::scalar(std::string_view key) const {
  const Value* found = value(key);
  if (found != nullptr && found->type == ValueType::kArray) refuse(key, "is an array, not a single value");
  return found;
}

const Value* Gguf::Impl::array(std::string_view key) const {
  const Value* found = value(key);
  if (found != nullptr && found->type != ValueType::kArray) refuse(key, "is not an array");
  return found;
}

std::optional<std::uint64_t> Gguf::Impl::integer(std::string_view key) const {
  const Value* found = scalar(key);
  if (found == nullptr) return std::nullopt;
  const std::optional<WideInteger> whole = detail::load_integer(found->type, found->data);
  if (!whole) refuse(key, "is not an integer");
  if (whole->negative) refuse(key, "is negative");
  return whole->bits;
}

Gguf Gguf::open(const std::string& path) {
  return Gguf(std::make_unique<Impl>(path).release());
}

Gguf::Gguf(Impl* impl) : impl_(impl) {}

Gguf::Gguf(Gguf&& other) noexcept : impl_(std::exchange(other.impl_, nullptr)) {}

Gguf& Gguf::operator=(Gguf&& other) noexcept {
  std::swap(impl_, other.impl_);
  return *this;
}

Gguf::~Gguf() {
  delete impl_;
}

const std::string& Gguf::path() const {
  return impl_->path;
}

std::vector<std::string_view> Gguf::keys() const {
  std::vector<std::string_view> keys;
  for (const auto& [key, value] : impl_->values) keys.push_back(key);
  return keys;
}

std::optional<std::uint64_t> Gguf::integer(std::string_view key) const {
  return impl_->integer(key);
}

std::optional<double> Gguf::number(std::string_view key) const {
  const Value* found = impl_->scalar(key);
  if (found == nullptr) return std::nullopt;
  if (found->type == ValueType::kF32) return load<float>(found->data);
  if (found->type == ValueType::kF64) return load<double>(found->data);
  const std::optional<WideInteger> whole = detail::load_integer(found->type, found->data);
  if (!whole) impl_->refuse(key, "is not a number");
  return whole->negative ? static_cast<double>(static_cast<std::int64_t>(whole->bits))
                         : static_cast<double>(whole->bits);
}

std::optional<bool> Gguf::boolean(std::string_view key) const {
  const Value* found = impl_->scalar(key);
  if (found == nullptr) return std::nullopt;
  if (found->type != ValueType::kBool) impl_->refuse(key, "is not a boolean");
  return *found->data != std::byte{0};
}

std::optional<std::string_view> Gguf::text(std::string_view key) const {
  const Value* found = impl_->scalar(key);
  if (found == nullptr) return std::nullopt;
  if (found->type != ValueType::kText) impl_->refuse(key, "is not a text");
  return detail::load_text(found->data);
}

std::vector<std::string_view> Gguf::texts(std::string_view key) const {
  const Value* found = impl_->array(key);
  if (found == nullptr) return {};
  if (found->element != ValueType::kText) impl_->refuse(key, "is not an array of texts");
  std::vector<std::string_view> texts;
  texts.reserve(found->count);
  const std::byte* next = found->data;
  for (std::size_t i = 0; i < found->count; ++i) {
    texts.push_back(detail::load_text(next));
    next += sizeof(std::uint64_t) + texts.back().size();
  }
  return texts;
}

std::vector<float> Gguf::numbers(std::string_view key) const {
  const Value* found = impl_->array(key);
  if (found == nullptr) return {};
  if (found->element != ValueType::kF32) impl_->refuse(key, "is not an array of F32 numbers");
  std::vector<float> numbers(found->count);
  if (!numbers.empty()) std::memcpy(numbers.data(), found->data, numbers.size() * sizeof(float));
  return numbers;
}

std::vector<std::int32_t> Gguf::integers(std::string_view key) const {
  const Value* found = impl_->array(key);
  if (found == nullptr) return {};
  if (!detail::is_integer(found->element)) impl_->refuse(key, "is not an array of integers");
  const std::size_t bytes = detail::fixed_bytes(found->element);
  std::vector<std::int32_t> integers;
  integers.reserve(found->count);
  for (std::size_t i = 0; i < found->count; ++i) {
    const std::optional<WideInteger> whole = detail::load_integer(found->element, found->data + i * bytes);
    const auto value = static_cast<std::int64_t>(whole->bits);
    if (value < std::numeric_limits<std::int32_t>::min() || value > std::numeric_limits<std::int32_t>::max() ||
        whole->negative != (value < 0)) {
      impl_->refuse(key, "has an element that is not a 32-bit integer");
    }
    integers.push_back(static_cast<std::int32_t>(value));
  }
  return integers;
}

void Gguf::give_back(std::span<const std::byte> bytes) const {
  impl_->mapping.give_back(bytes);
}

void Gguf::give_back() const {
  give_back(impl_->mapping.bytes());
}

const std::vector<Tensor>& Gguf::tensors() const {
  return impl_->tensors;
}

const Tensor* Gguf::find(std::string_view name) const {
  const auto found = impl_->places.find(name);
  return found == impl_->places.end() ? nullptr : &impl_->tensors[found->second];
}

const Tensor& Gguf::tensor(std::string_view name) const {
  const Tensor* found = find(name);
  if (found != nullptr) return *found;
  throw Error(impl_->path + ": has no tensor " + quoted(name) + detail::part_by_name(impl_->path));
}

}  // namespace nibkv::llm
