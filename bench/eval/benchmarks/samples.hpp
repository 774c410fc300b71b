#pragma once

#include <cstddef>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "bench/runner/programs/json_reader.hpp"

// Questions about long texts, from the files of published benchmarks.

namespace nibkv::llm {

/// A question with what is right.
struct Sample {
  std::string prompt;                ///< the text and the question after it
  std::string lead;                  ///< how the answer begins: put into the model's mouth
  std::string question;              ///< alone, if the file has it apart
  std::vector<std::string> answers;  ///< at least one
};

/// How a benchmark asks one of its tasks.
struct BenchmarkTask {
  std::string name;
  std::size_t answer_tokens = 0;
  /// [0, 1] for what the model said.
  std::function<double(const Sample& sample, std::string_view said)> score;
  /// Whether what the model says after this changes no score.
  std::function<bool(const Sample& sample, std::string_view said)> is_over;
};

/// Calls `each` for the values of a file: one on each line, where empty lines are left out, or the elements of an array.
/// @param path  names the file in errors
/// @throws Error naming the line, or the element, for what is no JSON and for what `each` throws; and for a file without
///         any value
void for_each_value(const std::string& path, std::string_view text, const std::function<void(const JsonValue&)>& each);

/// With A to Z as a to z.
std::string lower_case(std::string_view text);

}  // namespace nibkv::llm
