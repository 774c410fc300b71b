#include "bench/llm/arguments.hpp"

#include <charconv>
#include <fstream>

namespace nibkv::llm {

std::optional<std::uint64_t> parse_whole(std::string_view text) {
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

std::optional<std::uint64_t> parse_size(std::string_view text) {
  unsigned shift = 0;
  if (!text.empty()) {
    const char unit = text.back();
    shift = unit == 'K' || unit == 'k' ? 10 : unit == 'M' || unit == 'm' ? 20 : unit == 'G' || unit == 'g' ? 30 : 0;
    if (shift != 0) text.remove_suffix(1);
  }
  const auto value = parse_whole(text);
  if (!value || *value == 0 || *value > (std::uint64_t{1} << 40 >> shift)) return std::nullopt;
  return *value << shift;
}

std::vector<std::string> split_list(const std::string& text) {
  std::vector<std::string> parts;
  std::size_t start = 0;
  for (std::size_t end = 0; end != std::string::npos; start = end + 1) {
    end = text.find(',', start);
    parts.push_back(text.substr(start, end == std::string::npos ? end : end - start));
  }
  return parts;
}

Arguments::Arguments(int count, const char* const* words, const std::set<std::string>& names,
                     const std::set<std::string>& flags) {
  for (int i = 0; i < count; ++i) {
    std::string word = words[i];
    if (word == "-o") word = "--out";
    if (word.size() < 3 || word.compare(0, 2, "--") != 0) {
      words_.push_back(word);
      continue;
    }
    const std::string name = word.substr(2);
    if (flags.contains(name)) {
      flags_.insert(name);
      continue;
    }
    if (!names.contains(name)) throw Error("unknown option " + word);
    if (i + 1 == count) throw Error("option " + word + " needs a value");
    if (!values_.emplace(name, words[++i]).second) throw Error("option " + word + " is given twice");
  }
}

std::optional<std::string> Arguments::text(const std::string& name) const {
  const auto found = values_.find(name);
  if (found == values_.end()) return std::nullopt;
  return found->second;
}

std::string Arguments::text(const std::string& name, const std::string& otherwise) const {
  return text(name).value_or(otherwise);
}

std::uint64_t Arguments::integer(const std::string& name, std::uint64_t otherwise, std::uint64_t least,
                                 std::uint64_t most) const {
  const auto given = text(name);
  if (!given) return otherwise;
  const auto value = parse_whole(*given);
  if (!value || *value < least || *value > most) {
    throw Error("--" + name + " takes a whole number from " + std::to_string(least) + " to " + std::to_string(most) +
                ", not '" + *given + "'");
  }
  return *value;
}

double Arguments::number(const std::string& name, double otherwise, double least, double most) const {
  const auto given = text(name);
  if (!given) return otherwise;
  double value = 0;
  const auto [end, error] = std::from_chars(given->data(), given->data() + given->size(), value);
  if (error != std::errc() || end != given->data() + given->size() || !(value >= least && value <= most)) {
    throw Error("--" + name + " takes a number from " + std::to_string(least) + " to " + std::to_string(most) +
                ", not '" + *given + "'");
  }
  return value;
}

std::uint64_t Arguments::bytes(const std::string& name, std::uint64_t otherwise) const {
  const auto given = text(name);
  if (!given) return otherwise;
  const auto value = parse_size(*given);
  if (!value) throw Error("--" + name + " takes a size such as 65536, 512K or 2M, not '" + *given + "'");
  return *value;
}

std::string read_text(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw Error("cannot read " + path);
  // A directory opens like a file and fails at the first read.
  std::string bytes;
  char block[65536];
  do {
    file.read(block, sizeof block);
    bytes.append(block, static_cast<std::size_t>(file.gcount()));
  } while (file);
  if (!file.eof()) throw Error("cannot read " + path);
  return bytes;
}

}  // namespace nibkv::llm
