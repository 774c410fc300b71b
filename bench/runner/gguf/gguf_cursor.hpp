#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "bench/runner/gguf/gguf.hpp"

// How gguf.cpp parses a file: the kinds of values, and a cursor that steps over them and never past
// the end. Only gguf.cpp needs this header.

namespace nibkv::llm::detail {

static_assert(std::endian::native == std::endian::little, "model files are read in place, as little-endian numbers");

enum class ValueType : std::uint32_t {
  kU8 = 0,
  kI8 = 1,
  kU16 = 2,
  kI16 = 3,
  kU32 = 4,
  kI32 = 5,
  kF32 = 6,
  kBool = 7,
  kText = 8,
  kArray = 9,
  kU64 = 10,
  kI64 = 11,
  kF64 = 12,
};

// A metadata value, in place in the file. Its bytes have been checked: they hold `count` elements.
struct Value {
  ValueType type = ValueType::kU8;
  ValueType element = ValueType::kU8;  // of an array; else `type`
  std::size_t count = 1;               // of an array; else 1
  const std::byte* data = nullptr;     // the first element
};

// A sign and 64 bits, since no portable type can hold both U64 and I64.
struct WideInteger {
  bool negative = false;
  std::uint64_t bits = 0;  // two's complement
};

template <typename T>
T load(const std::byte* source) {
  T value;
  std::memcpy(&value, source, sizeof(value));
  return value;
}

// The text whose length prefix is at `source`.
inline std::string_view load_text(const std::byte* source) {
  const auto length = static_cast<std::size_t>(load<std::uint64_t>(source));
  return {reinterpret_cast<const char*>(source + sizeof(std::uint64_t)), length};
}

// Bytes of a value of fixed size; 0 for texts, arrays and unknown types.
inline std::size_t fixed_bytes(ValueType type) {
  switch (type) {
    case ValueType::kU8:
    case ValueType::kI8:
    case ValueType::kBool:
      return 1;
    case ValueType::kU16:
    case ValueType::kI16:
      return 2;
    case ValueType::kU32:
    case ValueType::kI32:
    case ValueType::kF32:
      return 4;
    case ValueType::kU64:
    case ValueType::kI64:
    case ValueType::kF64:
      return 8;
    case ValueType::kText:
    case ValueType::kArray:
      break;
  }
  return 0;
}

inline bool is_integer(ValueType type) {
  return fixed_bytes(type) != 0 && type != ValueType::kBool && type != ValueType::kF32 && type != ValueType::kF64;
}

template <typename T>
WideInteger load_wide(const std::byte* source) {
  const T value = load<T>(source);
  return {value < 0, static_cast<std::uint64_t>(value)};
}

// nullopt if `type` is not an integer type.
inline std::optional<WideInteger> load_integer(ValueType type, const std::byte* source) {
  switch (type) {
    case ValueType::kU8:
      return WideInteger{false, load<std::uint8_t>(source)};
    case ValueType::kU16:
      return WideInteger{false, load<std::uint16_t>(source)};
    case ValueType::kU32:
      return WideInteger{false, load<std::uint32_t>(source)};
    case ValueType::kU64:
      return WideInteger{false, load<std::uint64_t>(source)};
    case ValueType::kI8:
      return load_wide<std::int8_t>(source);
    case ValueType::kI16:
      return load_wide<std::int16_t>(source);
    case ValueType::kI32:
      return load_wide<std::int32_t>(source);
    case ValueType::kI64:
      return load_wide<std::int64_t>(source);
    default:
      return std::nullopt;
  }
}

// A name from a file, made suitable for a message on one line: in quotes, with unusual bytes as
// \xNN, and truncated if long.
inline std::string quoted(std::string_view name) {
  constexpr std::string_view kDigits = "0123456789abcdef";
  constexpr std::size_t kShown = 80;
  std::string shown = "'";
  for (const char character : name.substr(0, kShown)) {
    const auto code = static_cast<unsigned char>(character);
    if (code >= 0x20 && code < 0x7f) {
      shown += character;
    } else {
      shown += {'\\', 'x', kDigits[code >> 4], kDigits[code & 15]};
    }
  }
  return shown + (name.size() > kShown ? "...'" : "'");
}

inline std::string part_of(std::uint64_t part, std::uint64_t parts) {
  return "part " + std::to_string(part) + " of a model in " + std::to_string(parts) +
         " parts; only a model in one file can be taken (llama-gguf-split --merge makes one)";
}

// What errors add for a file whose name ends in -00001-of-00003.gguf, as those of split models do; nothing for others.
inline std::string part_by_name(std::string_view path) {
  constexpr std::string_view kPattern = "-00000-of-00000.gguf";
  if (path.size() < kPattern.size()) return "";
  const std::string_view end = path.substr(path.size() - kPattern.size());
  for (std::size_t i = 0; i < end.size(); ++i) {
    const bool is_digit = end[i] >= '0' && end[i] <= '9';
    if (kPattern[i] == '0' ? !is_digit : end[i] != kPattern[i]) return "";
  }
  const std::uint64_t part = std::stoul(std::string(end.substr(1, 5)));
  const std::uint64_t parts = std::stoul(std::string(end.substr(10, 5)));
  return parts < 2 ? "" : "; by its name it is " + part_of(part, parts);
}

constexpr std::uint64_t kLongestName = 65535;  // bytes of a key or a tensor name
constexpr std::size_t kDeepestArray = 4;

// Reads a file front to back and never past its end.
class Cursor {
 public:
  Cursor(const std::string& path, std::span<const std::byte> bytes) : path_(path), bytes_(bytes) {}

  std::size_t position() const { return position_; }
  std::size_t remaining() const { return bytes_.size() - position_; }
  const std::byte* here() const { return bytes_.data() + position_; }

  [[noreturn]] void fail(const std::string& what) const { throw Error(path_ + ": " + what + part_by_name(path_)); }

  // Steps over `count` items of `bytes` bytes each; `what` names them in the error if
  // the file ends before.
  const std::byte* take(std::uint64_t count, std::size_t bytes, const std::string& what) {
    if (count > remaining() / bytes) {
      fail(what + " at byte " + std::to_string(position_) + " runs past the end of the file");
    }
    const std::byte* taken = here();
    position_ += static_cast<std::size_t>(count) * bytes;
    return taken;
  }

  template <typename T>
  T number(const std::string& what) {
    return load<T>(take(1, sizeof(T), what));
  }

  std::string_view text(const std::string& what) {
    const auto length = number<std::uint64_t>(what);
    return {reinterpret_cast<const char*>(take(length, 1, what)), static_cast<std::size_t>(length)};
  }

  std::string_view name(const std::string& what) {
    const std::string_view taken = text(what);
    if (taken.size() > kLongestName) fail(what + " is " + std::to_string(taken.size()) + " bytes long");
    return taken;
  }

  // Reads a count of items of at least `smallest` bytes each. A count that the rest of the file
  // cannot hold is refused here, before memory is reserved for it.
  std::size_t count(std::size_t smallest, const std::string& what) {
    const auto count = number<std::uint64_t>(what);
    if (count > remaining() / smallest) {
      fail(what + " is " + std::to_string(count) + ", more than the file can hold");
    }
    return static_cast<std::size_t>(count);
  }

  Value value(const std::string& what) { return value_of(ValueType{number<std::uint32_t>(what)}, what, 0); }

 private:
  // `depth`: number of arrays around this value.
  Value value_of(ValueType type, const std::string& what, std::size_t depth) {
    Value value = {type, type, 1, here()};
    if (type != ValueType::kArray) {
      elements(type, 1, what, depth);
      return value;
    }
    if (depth == kDeepestArray) fail(what + " nests arrays too deeply");
    value.element = ValueType{number<std::uint32_t>(what)};
    // An element takes at least a byte; elements() checks more closely.
    value.count = count(1, "the length of " + what);
    value.data = here();
    elements(value.element, value.count, what, depth + 1);
    return value;
  }

  // Steps over `count` elements of `type` and checks them.
  void elements(ValueType type, std::size_t count, const std::string& what, std::size_t depth) {
    if (type == ValueType::kText) {
      for (std::size_t i = 0; i < count; ++i) text(what);
      return;
    }
    if (type == ValueType::kArray) {
      for (std::size_t i = 0; i < count; ++i) value_of(type, what, depth);
      return;
    }
    const std::size_t bytes = fixed_bytes(type);
    if (bytes == 0) fail(what + " has the unknown type " + std::to_string(static_cast<std::uint32_t>(type)));
    const std::byte* first = take(count, bytes, what);
    const auto is_boolean = [](std::byte byte) { return byte <= std::byte{1}; };
    if (type == ValueType::kBool && !std::all_of(first, first + count, is_boolean)) {
      fail(what + " is a boolean other than 0 and 1");
    }
  }

  const std::string& path_;
  std::span<const std::byte> bytes_;
  std::size_t position_ = 0;
};

}  // namespace nibkv::llm::detail
