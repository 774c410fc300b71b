#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "bench/llm/gguf.hpp"

namespace nibkv::llm {

/// The command line is wrong: programs exit with 2.
class UsageError : public Error {
 public:
  using Error::Error;
};

/// The `--name value` and `--name` arguments of a program, with `-o value` as `--out value`, and
/// the words between them.
class Arguments {
 public:
  /// @param names  options that take a value, without the dashes; @param flags  options that take none
  /// @throws Error for an unknown option, one given twice, or one without its value
  Arguments(int count, const char* const* words, const std::set<std::string>& names,
            const std::set<std::string>& flags);

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

}  // namespace nibkv::llm
