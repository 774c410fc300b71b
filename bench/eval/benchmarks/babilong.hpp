#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "bench/eval/benchmarks/samples.hpp"

// BABILong (arXiv 2406.10149): the facts and questions of bAbI's tasks, hidden in long texts.

namespace nibkv::llm {

/// What surrounds text and question.
struct BabilongPrompt {
  std::string instruction, examples, post_prompt;
  std::string form;  ///< with {instruction}, {examples}, {post_prompt}, {context} and {question}

  /// One of this program, for all tasks.
  static BabilongPrompt plain();
  /// As the authors keep it beside their results: an object with "instruction", "examples", "post_prompt" and "template",
  /// or one that has it as its "prompt". What is not there is empty; the template is then theirs for the most part.
  /// @throws Error
  static BabilongPrompt parse(std::string_view json);

  /// Without white space at its ends.
  std::string write(const std::string& context, const std::string& question) const;
};

/// qa1 to qa20, with BABILong's score: the answer's first sentence names the target and nothing else that an answer of
/// this task may be, apart from what the question names. For tasks after qa10 these are the targets of `samples`.
/// @throws UsageError for another name; Error for a sample whose target is no answer of this task
BenchmarkTask babilong_task(const std::string& name, const std::vector<Sample>& samples);
/// The task of a file of that path, such as qa1_4k.json or qa1/4k.jsonl; empty if there is none.
std::string babilong_task_of(std::string_view path);

/// Objects with "input", "question" and "target", one on each line or in an array.
/// @throws Error naming the path and the line or element
std::vector<Sample> read_babilong(const std::string& path, std::string_view text, const BabilongPrompt& prompt);

}  // namespace nibkv::llm
