#include "bench/eval/benchmarks/samples.hpp"

#include <algorithm>

#include "bench/runner/gguf/gguf.hpp"

namespace nibkv::llm {
namespace {

template <typename Call>
void at_place(const std::string& path, const char* what, std::size_t number, Call call) {
  try {
    call();
  } catch (const Error& error) {
    throw Error(path + ", " + what + ' ' + std::to_string(number) + ": " + error.what());
  }
}

constexpr std::string_view kSpace = " \t\r";

}  // namespace

void for_each_value(const std::string& path, std::string_view text, const std::function<void(const JsonValue&)>& each) {
  std::size_t count = 0;
  const std::size_t first = text.find_first_not_of(" \t\r\n");
  if (first != std::string_view::npos && text[first] == '[') {
    JsonValue all;
    try {
      all = JsonValue::parse(text);
    } catch (const Error& error) {
      throw Error(path + ": " + error.what());
    }
    for (const JsonValue& value : all.elements()) at_place(path, "element", ++count, [&] { each(value); });
  } else {
    std::size_t number = 0;
    for (std::size_t at = 0; at < text.size();) {
      const std::size_t end = std::min(text.find('\n', at), text.size());
      const std::string_view line = text.substr(at, end - at);
      at = end + 1;
      ++number;
      if (line.find_first_not_of(kSpace) == std::string_view::npos) continue;
      ++count;
      at_place(path, "line", number, [&] { each(JsonValue::parse(line)); });
    }
  }
  if (count == 0) throw Error(path + ": there are no questions in it");
}

std::string lower_case(std::string_view text) {
  std::string lower(text);
  for (char& letter : lower) {
    if (letter >= 'A' && letter <= 'Z') letter = static_cast<char>(letter - 'A' + 'a');
  }
  return lower;
}

}  // namespace nibkv::llm
