#pragma once

#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/wait.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <sstream>
#include <stdexcept>
#include <string>
#include <string_view>

#include "bench/runner/text/builtin_text.hpp"

// Runs a program as a user does. NIBKV_PROGRAMS is the folder of the programs. NIBKV_EMULATOR, if
// defined, is put before their path.
#ifndef NIBKV_EMULATOR
#define NIBKV_EMULATOR ""
#endif

namespace nibkv::test {

/// The result of a program; `status` is -1 if a signal ended it.
struct Result {
  int status = -1;
  std::string out, err;
};

inline std::string contents(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

inline std::string in_quotes(const std::string& word) {
  return "'" + word + "'";
}

/// How often `part` is in `text`.
inline std::size_t count_of(const std::string& text, const std::string& part) {
  std::size_t count = 0;
  for (std::size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++count;
  return count;
}

/// The length of the longest line.
inline std::size_t columns_of(const std::string& text) {
  std::size_t columns = 0;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) columns = std::max(columns, line.size());
  return columns;
}

/// Tests of one program in a folder with a copy of the tiny model, since the profile is
/// kept next to a model, and a text. All tests of a suite share the folder, as making the
/// profile takes a while on slow machines.
class ProgramTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    folder_ = (std::filesystem::temp_directory_path() / "nibkv-program-XXXXXX").string();
    if (::mkdtemp(folder_.data()) == nullptr) throw std::runtime_error("cannot create " + folder_);
    model_ = folder_ + "/tiny.gguf";
    std::filesystem::copy_file(NIBKV_TINY_MODEL, model_);
    std::ofstream text(at("text"), std::ios::binary);
    for (const std::string_view part : llm::builtin_text()) text << part << '\n';
  }
  static void TearDownTestSuite() {
    std::error_code ignored;
    std::filesystem::remove_all(folder_, ignored);
  }

  explicit ProgramTest(const std::string& program) : program_(program) {}

  /// @param options  as a shell reads them
  /// @param before   what the shell does first
  Result run(const std::string& options, const std::string& input = "", const std::string& before = "") const {
    std::ofstream(at("in"), std::ios::binary) << input;
    return outcome(before + command_line(options) + " <" + quoted("in"));
  }

  /// Any command, which may send its input and outputs elsewhere: then nothing is returned of these.
  static Result shell(const std::string& command) { return outcome("{ " + command + "; } </dev/null"); }

  /// A file of the folder, as it is and for a shell.
  static std::string at(const std::string& name) { return folder_ + "/" + name; }
  static std::string quoted(const std::string& name) { return in_quotes(at(name)); }

  /// A command of nibkv-eval on the tiny model and the text.
  static std::string on_text(const std::string& command) {
    return command + " --model " + in_quotes(model_) + " --text " + quoted("text");
  }

  /// The program's, for a shell.
  std::string command_line(const std::string& options) const {
    return "NIBKV_MODEL= NIBKV_CACHE=" + in_quotes(folder_ + "/cache") + " " NIBKV_EMULATOR " " +
           in_quotes(NIBKV_PROGRAMS "/" + program_) + " " + options;
  }

  /// The text after `name` on the first line of `text` that contains it.
  static std::string figure(const std::string& text, const std::string& name) {
    std::istringstream lines(text);
    for (std::string line; std::getline(lines, line);) {
      const std::size_t at = line.find(name);
      if (at == std::string::npos) continue;
      const std::size_t value = line.find_first_not_of(' ', at + name.size());
      return value == std::string::npos ? "" : line.substr(value);
    }
    return "no line '" + name + "' in:\n" + text;
  }

  /// Expects nothing on standard output, and an error as the last line on standard error.
  void expect_error(const Result& result, int status, const std::string& part) const {
    EXPECT_EQ(result.status, status) << result.err;
    EXPECT_EQ(result.out, "");
    EXPECT_NE(result.err.find(part), std::string::npos) << "'" << part << "' in: " << result.err;
    const std::size_t last = result.err.rfind(program_ + ": ");
    ASSERT_NE(last, std::string::npos) << result.err;
    EXPECT_EQ(result.err.find('\n', last), result.err.size() - 1) << "the error is the last line: " << result.err;
  }

  /// Files that were only partly written.
  static std::size_t parts() {
    std::size_t count = 0;
    for (const auto& entry : std::filesystem::recursive_directory_iterator(folder_)) {
      count += entry.path().extension() == ".part" ? 1 : 0;
    }
    return count;
  }

  inline static std::string folder_;
  inline static std::string model_;

 private:
  static Result outcome(const std::string& command) {
    const int status = std::system((command + " >" + quoted("out") + " 2>" + quoted("err")).c_str());
    return {WIFEXITED(status) ? WEXITSTATUS(status) : -1, contents(at("out")), contents(at("err"))};
  }

  std::string program_;
};

}  // namespace nibkv::test
