#include "bench/runner/programs/arguments.hpp"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <fstream>
#include <numeric>
#include <sstream>

namespace nibkv::llm {
namespace {

// Of an option as it is spelled, with or without `=value`; empty for short ones that no program has.
std::string name_of(const std::string& word) {
  const std::string spelled = word.substr(0, word.find('='));
  if (spelled == "-o") return "out";
  if (spelled == "-h") return "help";
  return spelled.starts_with("--") ? spelled.substr(2) : "";
}

// Letters to insert, delete or replace.
std::size_t distance(std::string_view from, std::string_view to) {
  std::vector<std::size_t> row(to.size() + 1);
  std::iota(row.begin(), row.end(), std::size_t{0});
  for (std::size_t i = 0; i < from.size(); ++i) {
    std::size_t diagonal = row[0];
    row[0] = i + 1;
    for (std::size_t j = 0; j < to.size(); ++j) {
      const std::size_t replaced = diagonal + (from[i] == to[j] ? 0 : 1);
      diagonal = row[j + 1];
      row[j + 1] = std::min({replaced, row[j] + 1, row[j + 1] + 1});
    }
  }
  return row.back();
}

// The option that an unknown one may stand for.
std::string suggestion(const std::string& name, std::set<std::string> names, const std::set<std::string>& flags) {
  names.insert(flags.begin(), flags.end());
  std::string nearest;
  std::size_t least = std::max<std::size_t>((name.size() + 1) / 3, 1);
  for (const std::string& known : names) {
    const bool begins = name.size() >= 3 && known.starts_with(name);
    const std::size_t steps = begins ? 0 : distance(name, known);
    if (steps > least || (steps == least && !nearest.empty())) continue;
    least = steps;
    nearest = known;
  }
  return nearest.empty() ? "" : "; did you mean --" + nearest + "?";
}

}  // namespace

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
                     std::set<std::string> flags, const std::set<std::string>& optional) {
  flags.insert({"help", "version"});
  const auto is_option = [&](const std::string& word) {
    return word.starts_with("--") && (names.contains(name_of(word)) || flags.contains(name_of(word)));
  };
  bool only_words = false;
  for (int i = 0; i < count; ++i) {
    const std::string word = words[i];
    if (only_words || word.size() < 2 || word[0] != '-') {
      words_.push_back(word);
      continue;
    }
    if (word == "--") {
      only_words = true;
      continue;
    }
    const std::size_t equals = word.find('=');
    const std::string spelled = word.substr(0, equals), name = name_of(word);
    if (flags.contains(name)) {
      if (equals != std::string::npos) throw UsageError("option " + spelled + " takes no value");
      flags_.insert(name);
      continue;
    }
    if (!names.contains(name)) throw UsageError("unknown option " + spelled + suggestion(name, names, flags));
    if (equals == std::string::npos && i + 1 == count) throw UsageError("option " + spelled + " needs a value");
    const std::string value = equals == std::string::npos ? words[++i] : word.substr(equals + 1);
    if (equals == std::string::npos && is_option(value)) {
      throw UsageError("option " + spelled + " needs a value before " + value + " (" + spelled + "=" + value +
                       " if that is its value)");
    }
    if (value.empty() && !optional.contains(name)) throw UsageError("option " + spelled + " needs a value, not ''");
    if (!values_.emplace(name, value).second) throw UsageError("option " + spelled + " is given twice");
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
    std::ostringstream text;
    text << "--" << name << " takes a number from " << least << " to " << most << ", not '" << *given << "'";
    throw Error(text.str());
  }
  return value;
}

std::uint64_t Arguments::bytes(const std::string& name, std::uint64_t otherwise) const {
  const auto given = text(name);
  if (!given) return otherwise;
  const auto value = parse_size(*given);
  if (!value) throw Error("--" + name + " takes a size such as 65536, 512K, 2M or 1G, not '" + *given + "'");
  return *value;
}

std::string read_text(const std::string& path) {
  const auto fail = [&path] { throw Error("cannot read " + path + ": " + std::strerror(errno)); };
  std::ifstream file(path, std::ios::binary);
  if (!file) fail();
  // A directory opens like a file and fails at the first read.
  std::string bytes;
  char block[65536];
  do {
    file.read(block, sizeof block);
    bytes.append(block, static_cast<std::size_t>(file.gcount()));
  } while (file);
  if (!file.eof()) fail();
  return bytes;
}

// std::cin takes an error for the end.
std::string read_standard_input() {
  std::string bytes;
  char block[65536];
  for (ssize_t got = 0; (got = ::read(STDIN_FILENO, block, sizeof block)) != 0;) {
    if (got < 0) throw Error(std::string("cannot read standard input: ") + std::strerror(errno));
    bytes.append(block, static_cast<std::size_t>(got));
  }
  return bytes;
}

}  // namespace nibkv::llm
