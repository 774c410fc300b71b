#include "bench/runner/programs/json.hpp"

#include <charconv>
#include <cmath>
#include <stdexcept>

#include "bench/runner/gguf/gguf.hpp"
#include "bench/runner/text/unicode.hpp"

namespace nibkv::llm {

void JsonWriter::key(std::string_view name) {
  if (open_.empty() || open_.back().end != '}' || has_key_) throw std::logic_error("JSON: no place for a name");
  separate();
  put_string(name);
  text_ += ": ";
  has_key_ = true;
}

void JsonWriter::value(std::string_view text) {
  begin_value();
  put_string(text);
}

void JsonWriter::value(double number) {
  if (!std::isfinite(number)) throw Error("JSON has no number for " + std::to_string(number));
  put_number(number);
}

void JsonWriter::value(std::uint64_t number) {
  put_number(number);
}

void JsonWriter::value(std::int64_t number) {
  put_number(number);
}

void JsonWriter::value(bool truth) {
  begin_value();
  text_ += truth ? "true" : "false";
}

void JsonWriter::null() {
  begin_value();
  text_ += "null";
}

std::string JsonWriter::text() const {
  if (!open_.empty() || text_.empty()) throw std::logic_error("JSON: the text is not complete");
  return text_ + "\n";
}

void JsonWriter::begin(char start, char end) {
  begin_value();
  text_ += start;
  open_.push_back({end});
}

void JsonWriter::end(char end) {
  if (open_.empty() || open_.back().end != end || has_key_) throw std::logic_error("JSON: nothing to end here");
  const bool empty = open_.back().empty;
  open_.pop_back();
  if (!empty) text_.append(1, '\n').append(2 * open_.size(), ' ');
  text_ += end;
}

// Writes the separator between the new value and what came before it.
void JsonWriter::begin_value() {
  const bool in_object = !open_.empty() && open_.back().end == '}';
  if (in_object != has_key_) throw std::logic_error("JSON: a value of an object needs a name");
  if (open_.empty() && !text_.empty()) throw std::logic_error("JSON: the text is complete");
  if (!open_.empty() && !in_object) separate();
  has_key_ = false;
}

void JsonWriter::separate() {
  text_ += open_.back().empty ? "\n" : ",\n";
  text_.append(2 * open_.size(), ' ');
  open_.back().empty = false;
}

void JsonWriter::put_string(std::string_view text) {
  constexpr std::string_view kDigits = "0123456789abcdef";
  text_ += '"';
  for (std::size_t at = 0; at < text.size();) {
    const CodePoint point = decode_utf8(text, at);
    at += point.length;
    if (point.value == U'"' || point.value == U'\\') {
      text_.append(1, '\\').append(1, static_cast<char>(point.value));
    } else if (point.value == U'\n') {
      text_ += "\\n";
    } else if (point.value == U'\t') {
      text_ += "\\t";
    } else if (point.value < 0x20 || point.value == 0x7F) {
      text_.append("\\u00").append(1, kDigits[point.value / 16]).append(1, kDigits[point.value % 16]);
    } else {
      append_utf8(text_, point.value);
    }
  }
  text_ += '"';
}

template <typename T>
void JsonWriter::put_number(T number) {
  begin_value();
  char digits[32];
  const auto [end, error] = std::to_chars(digits, digits + sizeof digits, number);
  text_.append(digits, end);
}

}  // namespace nibkv::llm
