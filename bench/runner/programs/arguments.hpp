#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "bench/runner/gguf/gguf.hpp"

namespace nibkv::llm {

/// The command line is wrong: programs exit with 2.
class UsageError : public Error {
 public:
  using Error::Error;
};

/// The arguments of a program: `--name value`, `--name=value` and flags `--name`; `-o` counts as
/// `--out`, `-h` as `--help`; and the words between. After `--` all are words. Every program has the
/// flags help and version.
class Arguments {
 public:
  /// @param names     options that take a value, without the dashes
  /// @param flags     options that take none, beside help and version
  /// @param optional  those of `names` whose value may be empty
  /// @throws UsageError for an unknown option, which names the nearest; one given twice; one without its value, with an
  ///         empty one, or followed by an option where its value should be; and a flag with a value
  Arguments(int count, const char* const* words, const std::set<std::string>& names, std::set<std::string> flags,
            const std::set<std::string>& optional = {});

  const std::vector<std::string>& words() const { return words_; }
  bool flag(const std::string& name) const { return flags_.contains(name); }
  std::optional<std::string> text(const std::string& name) const;
  std::string text(const std::string& name, const std::string& otherwise) const;
  /// @throws Error naming the option if the value is not a whole number in [least, most]
  std::uint64_t integer(const std::string& name, std::uint64_t otherwise, std::uint64_t least,
                        std::uint64_t most) const;
  double number(const std::string& name, double otherwise, double least, double most) const;
  /// Bytes, optionally with K, M or G (powers of 1024) after the number.
  std::uint64_t bytes(const std::string& name, std::uint64_t otherwise) const;

 private:
  std::map<std::string, std::string> values_;
  std::set<std::string> flags_;
  std::vector<std::string> words_;
};

/// A whole number without a sign or anything after it.
std::optional<std::uint64_t> parse_whole(std::string_view text);
/// A size in bytes above 0, optionally with K, M or G (powers of 1024) after the
/// number; at most 1024 G.
std::optional<std::uint64_t> parse_size(std::string_view text);
/// The parts of a text between commas; an empty text has one, which is empty.
std::vector<std::string> split_list(const std::string& text);

/// @throws Error naming the path
std::string read_text(const std::string& path);
/// All of standard input. @throws Error
std::string read_standard_input();

}  // namespace nibkv::llm
