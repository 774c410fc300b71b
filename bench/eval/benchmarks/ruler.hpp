#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "bench/eval/benchmarks/samples.hpp"

// RULER (arXiv 2404.06654): synthetic tasks of any length, as files of its own generator.

namespace nibkv::llm {

/// niah, qa, vt, cwe or fwe, with the length of answers and the score that RULER has for it: the share of the expected
/// outputs that are in the answer, in any case; for qa, whether one of them is.
/// @throws UsageError for another name
BenchmarkTask ruler_task(const std::string& name);
/// The task of a file of that path, by the last part of it that begins with a task's name, such as niah_single_1 or
/// qa_2.jsonl; empty if there is none.
std::string ruler_task_of(std::string_view path);

/// An object on each line: "input" is the prompt, with the beginning of the answer at its end, or that is in
/// "answer_prefix"; "outputs" is an array of texts.
/// @throws Error naming the path and the line
std::vector<Sample> read_ruler(const std::string& path, std::string_view text);

}  // namespace nibkv::llm
