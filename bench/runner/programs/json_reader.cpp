#include "bench/runner/programs/json_reader.hpp"

#include <algorithm>
#include <charconv>
#include <cstddef>
#include <cstdint>

#include "bench/runner/gguf/gguf.hpp"
#include "bench/runner/text/unicode.hpp"

namespace nibkv::llm {

class JsonParser {
 public:
  explicit JsonParser(std::string_view text) : text_(text) {}

  JsonValue document() {
    JsonValue value = this->value(0);
    skip_space();
    if (at_ != text_.size()) fail("nothing more");
    return value;
  }

 private:
  static constexpr int kDeepest = 64;

  [[noreturn]] void fail(const std::string& expected) const {
    throw Error("JSON: expected " + expected + " at byte " + std::to_string(at_));
  }

  void skip_space() {
    while (at_ < text_.size() && std::string_view(" \t\r\n").find(text_[at_]) != std::string_view::npos) ++at_;
  }

  bool take(std::string_view word) {
    if (text_.substr(at_, word.size()) != word) return false;
    at_ += word.size();
    return true;
  }

  void expect(char letter) {
    if (!take(std::string_view(&letter, 1))) fail(std::string("'") + letter + "'");
  }

  JsonValue value(int depth) {
    if (depth > kDeepest) fail("fewer nested values");
    skip_space();
    JsonValue out;
    if (take("null")) return out;
    if (take("true")) {
      out.value_ = true;
    } else if (take("false")) {
      out.value_ = false;
    } else if (take("{")) {
      out.value_ = members(depth);
    } else if (take("[")) {
      out.value_ = elements(depth);
    } else if (text_.substr(at_, 1) == "\"") {
      out.value_ = string();
    } else {
      out.value_ = number();
    }
    return out;
  }

  JsonValue::Members members(int depth) {
    JsonValue::Members out;
    skip_space();
    if (take("}")) return out;
    do {
      skip_space();
      std::string name = string();
      skip_space();
      expect(':');
      out.emplace_back(std::move(name), value(depth + 1));
      skip_space();
    } while (take(","));
    expect('}');
    return out;
  }

  std::vector<JsonValue> elements(int depth) {
    std::vector<JsonValue> out;
    skip_space();
    if (take("]")) return out;
    do {
      out.push_back(value(depth + 1));
      skip_space();
    } while (take(","));
    expect(']');
    return out;
  }

  double number() {
    double out = 0;
    const auto [end, error] = std::from_chars(text_.data() + at_, text_.data() + text_.size(), out);
    const bool digit = text_.substr(at_, 1).find_first_of("-0123456789") == 0;
    if (error != std::errc() || !digit) fail("a value");
    at_ = static_cast<std::size_t>(end - text_.data());
    return out;
  }

  std::string string() {
    expect('"');
    std::string out;
    while (at_ < text_.size() && text_[at_] != '"') {
      if (static_cast<unsigned char>(text_[at_]) < 0x20) fail("no control character");
      if (text_[at_] != '\\') {
        out += text_[at_++];
      } else {
        ++at_;
        escape(out);
      }
    }
    expect('"');
    return out;
  }

  void escape(std::string& out) {
    constexpr std::string_view kNames = "\"\\/bfnrt", kLetters = "\"\\/\b\f\n\r\t";
    if (take("u")) {
      const std::uint32_t unit = hex();
      // The second half of a surrogate pair follows immediately.
      const bool first_half = unit >= 0xD800 && unit < 0xDC00;
      const std::uint32_t second = first_half && take("\\u") ? hex() : 0;
      const bool pair = second >= 0xDC00 && second < 0xE000;
      append_utf8(out, pair ? 0x10000 + ((unit - 0xD800) << 10) + (second - 0xDC00) : unit);
      if (second != 0 && !pair) append_utf8(out, second);
      return;
    }
    const std::size_t which = at_ < text_.size() ? kNames.find(text_[at_]) : std::string_view::npos;
    if (which == std::string_view::npos) fail("an escape");
    out += kLetters[which];
    ++at_;
  }

  std::uint32_t hex() {
    std::uint32_t unit = 0;
    const std::string_view digits = text_.substr(at_, 4);
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), unit, 16);
    if (digits.size() != 4 || error != std::errc() || end != digits.data() + 4) fail("four hexadecimal digits");
    at_ += 4;
    return unit;
  }

  std::string_view text_;
  std::size_t at_ = 0;
};

JsonValue JsonValue::parse(std::string_view text) {
  return JsonParser(text).document();
}

const JsonValue& JsonValue::at(const std::string& name) const {
  if (const auto* members = std::get_if<Members>(&value_)) {
    for (const auto& [key, value] : *members) {
      if (key == name) return value;
    }
  }
  throw Error("JSON: there is no '" + name + "'");
}

bool JsonValue::has(const std::string& name) const {
  const auto* members = std::get_if<Members>(&value_);
  return members != nullptr &&
         std::any_of(members->begin(), members->end(), [&](const auto& member) { return member.first == name; });
}

const std::vector<JsonValue>& JsonValue::elements() const {
  const auto* elements = std::get_if<std::vector<JsonValue>>(&value_);
  if (elements == nullptr) throw Error("JSON: expected an array");
  return *elements;
}

double JsonValue::number() const {
  const auto* number = std::get_if<double>(&value_);
  if (number == nullptr) throw Error("JSON: expected a number");
  return *number;
}

const std::string& JsonValue::text() const {
  const auto* text = std::get_if<std::string>(&value_);
  if (text == nullptr) throw Error("JSON: expected a text");
  return *text;
}

}  // namespace nibkv::llm
