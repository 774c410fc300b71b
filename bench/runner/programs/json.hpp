#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace nibkv::llm {

/// Writes one JSON value, indented by two spaces, into a string, which `text` returns. The complete
/// result is always valid JSON; calls out of order throw std::logic_error and change nothing.
class JsonWriter {
 public:
  void begin_object() { begin('{', '}'); }
  void end_object() { end('}'); }
  void begin_array() { begin('[', ']'); }
  void end_array() { end(']'); }

  /// The name of the next value of an object. Names of one object should differ; that is not checked.
  void key(std::string_view name);

  /// Each byte that is not valid UTF-8 is written as U+FFFD.
  void value(std::string_view text);
  void value(const char* text) { value(std::string_view(text)); }
  /// With enough digits to read back the same number.
  /// @throws Error for a number that is not finite
  void value(double number);
  void value(std::uint64_t number);
  void value(std::int64_t number);
  void value(int number) { value(std::int64_t{number}); }
  void value(bool truth);
  void null();

  template <typename T>
  void member(std::string_view name, const T& what) {
    key(name);
    value(what);
  }

  /// The whole text, with a newline at its end.
  /// @throws std::logic_error while something is open or missing
  std::string text() const;

 private:
  struct Open {
    char end;
    bool empty = true;
  };

  void begin(char start, char end);
  void end(char end);
  void begin_value();
  void separate();
  void put_string(std::string_view text);
  template <typename T>
  void put_number(T number);

  std::string text_;
  std::vector<Open> open_;
  bool has_key_ = false;
};

}  // namespace nibkv::llm
