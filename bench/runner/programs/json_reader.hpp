#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace nibkv::llm {

/// One JSON value, read from a text.
class JsonValue {
 public:
  using Members = std::vector<std::pair<std::string, JsonValue>>;

  /// @throws Error with the position of the first wrong byte; also for arrays and objects
  ///         nested deeper than 64
  static JsonValue parse(std::string_view text);

  /// The member of that name.
  /// @throws Error if this is not an object or has no such member
  const JsonValue& at(const std::string& name) const;
  /// Whether this is an object with a member of that name.
  bool has(const std::string& name) const;
  /// The elements of an array. @throws Error for anything else
  const std::vector<JsonValue>& elements() const;
  /// @throws Error for anything else
  double number() const;
  const std::string& text() const;

 private:
  friend class JsonParser;
  std::variant<std::nullptr_t, bool, double, std::string, std::vector<JsonValue>, Members> value_ = nullptr;
};

}  // namespace nibkv::llm
