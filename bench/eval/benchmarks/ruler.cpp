#include "bench/eval/benchmarks/ruler.hpp"

#include <algorithm>

#include "bench/runner/programs/arguments.hpp"

namespace nibkv::llm {
namespace {

struct RulerTask {
  std::string_view name;
  std::size_t answer_tokens;
  bool any;  // one output is enough
};
constexpr RulerTask kTasks[] = {
    {"niah", 128, false}, {"qa", 32, true}, {"vt", 30, false}, {"cwe", 120, false}, {"fwe", 50, false}};

std::size_t found(const Sample& sample, std::string_view said) {
  const std::string lower = lower_case(said);
  return static_cast<std::size_t>(
      std::count_if(sample.answers.begin(), sample.answers.end(),
                    [&](const std::string& answer) { return lower.find(lower_case(answer)) != std::string::npos; }));
}

double share_found(const Sample& sample, std::string_view said) {
  return static_cast<double>(found(sample, said)) / static_cast<double>(sample.answers.size());
}

double any_found(const Sample& sample, std::string_view said) {
  return found(sample, said) != 0 ? 1 : 0;
}

Sample sample_of(const JsonValue& line) {
  Sample sample;
  sample.prompt = line.at("input").text();
  if (line.has("answer_prefix")) sample.lead = line.at("answer_prefix").text();
  for (const JsonValue& output : line.at("outputs").elements()) sample.answers.push_back(output.text());
  if (sample.prompt.empty()) throw Error("the input is empty");
  if (sample.answers.empty()) throw Error("there are no outputs");
  for (const std::string& answer : sample.answers) {
    if (answer.empty()) throw Error("an output is empty, so that any answer has it");
  }
  return sample;
}

}  // namespace

BenchmarkTask ruler_task(const std::string& name) {
  for (const RulerTask& task : kTasks) {
    if (task.name != name) continue;
    BenchmarkTask made{name, task.answer_tokens, task.any ? any_found : share_found, {}};
    made.is_over = [score = made.score](const Sample& sample, std::string_view said) {
      return score(sample, said) == 1;
    };
    return made;
  }
  throw UsageError("--task takes niah, qa, vt, cwe or fwe for --ruler, not '" + name + "'");
}

std::string ruler_task_of(std::string_view path) {
  while (!path.empty()) {
    const std::size_t slash = path.rfind('/');
    const std::string_view part = slash == std::string_view::npos ? path : path.substr(slash + 1);
    for (const RulerTask& task : kTasks) {
      const std::string_view rest = part.substr(std::min(part.size(), task.name.size()));
      if (part.starts_with(task.name) && (rest.empty() || rest[0] == '_' || rest[0] == '.'))
        return std::string(task.name);
    }
    path = path.substr(0, slash == std::string_view::npos ? 0 : slash);
  }
  return "";
}

std::vector<Sample> read_ruler(const std::string& path, std::string_view text) {
  std::vector<Sample> samples;
  for_each_value(path, text, [&](const JsonValue& line) { samples.push_back(sample_of(line)); });
  return samples;
}

}  // namespace nibkv::llm
